"""The client's rules (hello/client.py), without I/O: frame histories in; items, position and state out."""

import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from websockets.frames import CloseCode

from hello import client
from hello.client import ClientProtocol, Lost, Opened, Repeated, Shown, StatusChanged
from hello.message import Malformed, Position
from tests.client_histories import (
    BAD_BEGINNINGS,
    BAD_FRAMES,
    BEAT,
    DISCONNECTED,
    HISTORIES,
    NOON,
    REJECTED,
    Frame,
    History,
    gap,
    message,
    play,
    welcome,
    words,
)
from tests.conftest import missing

PAGE = Path(client.__file__).parent / "web" / "page"
PLAY_HISTORIES = Path(__file__).parent / "page" / "play_histories.mjs"
DRAWN = 3000  # histories, which the page plays within a second


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
def test_history(history: History) -> None:
    protocol = ClientProtocol(last=3)
    assert words(play(protocol, history.steps)) == history.items
    assert protocol.resume_query == history.query
    assert protocol.complete is history.complete
    assert [words(protocol.finish()), protocol.finish()] == [history.finish, []]


def of_the_page(histories: Iterable[Sequence[Frame | str]]) -> list[Any]:
    """Play histories to the page's modules, and return what came of each."""
    if shutil.which("node") is None:
        missing("install Node, such as Debian's package nodejs")
    steps = json.dumps(list(histories))
    played = subprocess.run(["node", PLAY_HISTORIES], input=steps, capture_output=True, text=True, check=True)
    return cast("list[Any]", json.loads(played.stdout))


def expected_of_the_page(steps: Sequence[Frame | str]) -> dict[str, Any]:
    """What the page must make of a history, by hello/client.py: the page has no items for connections and repeats."""
    protocol = ClientProtocol()
    items = play(protocol, steps)
    shown = [item for item in items if isinstance(item, Shown)]
    recovered = sum(item.came == "recovered" for item in shown)
    gaps, repeated = (sum(isinstance(item, kind) for item in items) for kind in (Lost, Repeated))
    return {
        "items": words(item for item in items if isinstance(item, Shown | Lost)),
        "position": None if protocol.position is None else str(protocol.position),
        "counts": [len(shown), recovered, gaps, repeated],
        # The page also waits for recent messages, on its first connection.
        **({"caught_up": protocol.complete} if protocol.connections > 1 and isinstance(steps[-1], dict) else {}),
    }


def test_page_has_the_same_rules() -> None:
    """The page's modules make of every history, and of drawn ones, what hello/client.py does."""
    drawn = [drawn_history(random.Random(seed)) for seed in range(DRAWN)]
    histories = [*(history.steps for history in HISTORIES), *drawn]
    for steps, found in zip(histories, of_the_page(histories), strict=True):
        assert found | expected_of_the_page(steps) == found, f"of the history {json.dumps(steps)}"


def drawn_history(dice: random.Random) -> list[Frame | str]:
    """Return what relays may send, and more: any positions and ids, a late start, gaps, and rejected positions."""
    steps: list[Frame | str] = []

    def position() -> str:
        return f"{dice.randrange(9)}-{dice.randrange(2)}"

    for _ in range(dice.randrange(1, 5)):
        starts: Frame = {"start": position(), "head": dice.choice([None, position()])}
        steps.append({"type": "welcome", "relay": "r", "channel": "up", **(starts if dice.random() < 0.7 else {})})
        for _ in range(dice.randrange(8)):
            status = {"type": "status", "channel": "up", "since": NOON, **dice.choice([starts, {}])}
            frames = [message(position(), dice.choice("abcdef")), gap(position(), position()), status, BEAT]
            steps += dice.choices(frames, weights=[8, 2, 1, 1])
        steps += [DISCONNECTED, REJECTED] if dice.random() < 0.3 else [DISCONNECTED]
    return steps[: dice.randrange(len(steps) + 1)]


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
    modules = ("connection.js", "transport.js", "websocket.js", "client-protocol.js")
    page = "".join((PAGE / name).read_text() for name in modules)
    numbers = {name: float(value.replace("_", "")) for name, value in re.findall(r"const (\w+) = ([\d_]+);", page)}
    for name in ("IDLE_TIMEOUT", "OPEN_TIMEOUT", "STABLE"):
        assert getattr(client, name) * 1000 == numbers[f"{name}_MS"]
    delays = re.search(r"const MAX_DELAYS_MS = \[(.+)\];", page)
    assert delays is not None
    assert [seconds * 1000 for seconds in client.MAX_DELAYS] == [float(each) for each in delays[1].split(",")]
    assert (numbers["RECENT"], numbers["KEPT_IDS"]) == (client.RECENT, client.KEPT_IDS)
    reasons = re.findall(r'code === (\d+)\) return "(\w+)"', page)
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
