"""The client's rules (hello/client.py), without I/O: frame histories in; items, position and state out."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import CloseCode

from hello import client
from hello.client import ClientProtocol, Lost, Opened, Repeated, Resumed, Shown, StatusChanged
from hello.message import Malformed, Position
from tests.client_histories import BAD_BEGINNINGS, BAD_FRAMES, HISTORIES, History, gap, message, play, welcome

PAGE = Path(client.__file__).parent / "web" / "page"


def words(items: Iterable[object]) -> list[str]:
    """Items in the words of a History."""
    found = []
    for item in items:
        match item:
            case Opened():
                found.append("opened")
            case Resumed(missed):
                found.append(f"resumed {missed}")
            case Shown(shown, _, came):
                found.append(f"{shown.id} {came}")
            case Lost(after, before, certain):
                found.append(f"{'lost' if certain else 'perhaps lost'} {after} {before}")
            case Repeated(_, message_id):
                found.append(f"repeated {message_id}")
            case StatusChanged(channel):
                found.append(f"channel {channel}")
    return found


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
def test_history(history: History) -> None:
    protocol = ClientProtocol(last=3)
    assert words(play(protocol, history.steps)) == list(history.items)
    assert protocol.resume_query == history.query
    assert protocol.complete is history.complete
    assert [words(protocol.finish()), protocol.finish()] == [list(history.finish), []]


def test_items_have_the_fields_of_their_frames() -> None:
    """A frame is passed on as the relay sent it, with the fields of newer relays."""
    protocol = ClientProtocol()
    frames: list[dict[str, Any]] = [welcome("7-0"), message("8-0", "a", new=1), message("8-0", "a")]
    opened, shown, repeated = play(protocol, frames)
    assert opened == Opened("r", Position(7, 0), "up")
    assert isinstance(shown, Shown)
    assert (shown.message.text, shown.position, shown.frame) == ("Hello world", Position(8, 0), frames[1])
    assert repeated == Repeated(Position(8, 0), "a")
    status = {"type": "status", "channel": "down", "since": 1, "new": 1}
    assert protocol.receive(status) == [StatusChanged("down", status)]


@pytest.mark.parametrize(
    ("before", "frame"),
    [*(([], frame) for frame in BAD_BEGINNINGS), *(([welcome()], frame) for frame in BAD_FRAMES)],
)
def test_a_frame_that_no_relay_sends_is_malformed(before: list[dict[str, object]], frame: object) -> None:
    protocol = ClientProtocol()
    play(protocol, before)
    with pytest.raises(Malformed):
        protocol.receive(frame)


def test_memory_is_bounded() -> None:
    """The last 500 ids are remembered, and no more."""
    protocol = ClientProtocol()
    play(protocol, [welcome()])

    def size() -> int:
        return sum(len(value) for value in vars(protocol).values() if hasattr(value, "__len__"))

    sizes = []
    for lap in range(1, 4):
        for number in range(1000):
            play(protocol, [gap("0-0", "9-0"), message(f"{lap}-{number}", f"{lap} {number}")])
        sizes.append(size())
    assert sizes[0] == sizes[1] == sizes[2]
    last = play(protocol, [message("9-0", "3 500"), message("9-1", "3 499")])
    assert words(last) == ["repeated 3 500", "3 499 live"]


def test_only_a_400_that_names_the_position_rejects_it() -> None:
    """Any other 400 may come from a proxy: to begin anew for it could lose messages."""
    protocol = ClientProtocol()
    assert not protocol.rejects_position(400, "position None")
    play(protocol, [welcome("9-0")])
    assert protocol.rejects_position(400, "position 9-0 is ahead of this relay's clock")
    assert not protocol.rejects_position(400, "bad request")
    assert not protocol.rejects_position(503, "position 9-0")


def test_constants_are_those_of_the_page() -> None:
    """The page's JavaScript and this client have the same time-outs, delays and reasons."""
    connection, protocol = ((PAGE / name).read_text() for name in ("connection.js", "client-protocol.js"))
    numbers = {
        name: float(value.replace("_", ""))
        for name, value in re.findall(r"const (\w+) = ([\d_]+);", connection + protocol)
    }
    for name in ("IDLE_TIMEOUT", "OPEN_TIMEOUT", "STABLE"):
        assert getattr(client, name) * 1000 == numbers[f"{name}_MS"]
    delays = re.search(r"const MAX_DELAYS_MS = \[(.+)\];", connection)
    assert delays is not None
    assert [seconds * 1000 for seconds in client.MAX_DELAYS] == [float(each) for each in delays[1].split(",")]
    assert (numbers["RECENT"], numbers["KEPT_IDS"]) == (client.RECENT, client.KEPT_IDS)
    reasons = re.findall(r'code === (\d+)\) return "(\w+)"', connection)
    assert {int(code): word for code, word in reasons} == client.REASONS


def test_backoff_grows_to_5_seconds_and_a_slow_client_waits_longest() -> None:
    delays = [client.backoff_delay("lost", attempt, 1.0) for attempt in (1, 2, 3, 4, 5, 6, 100_000)]
    assert delays == [1.0, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert client.backoff_delay("slow", 1, 1.0) == 5.0
    assert client.backoff_delay("lost", 4, 0.25) == 0.5


def test_attempts_count_from_1_after_a_steady_connection() -> None:
    """And only then: a relay that closes each connection at once is not flooded."""
    assert [client.next_attempt(0, None), client.next_attempt(3, None), client.next_attempt(3, 9.9)] == [1, 4, 4]
    assert client.next_attempt(3, 10.0) == 1


def test_close_codes_have_reasons() -> None:
    codes = (CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER, CloseCode.POLICY_VIOLATION, None)
    assert [client.close_reason(code, opened=True) for code in codes] == ["moved", "slow", "lost", "lost"]
    assert [client.close_reason(code, opened=False) for code in codes[::3]] == ["moved", "unreachable"]
