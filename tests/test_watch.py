"""The terminal client: what it makes of frames, and what it does and says before real relays, faults and strangers."""

import asyncio
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request
from websockets.http11 import Response as Refusal

from hello import watch
from hello.__main__ import main as hello
from hello.message import Malformed, now_ms
from hello.watch import Item, Tally, as_json, as_text, longest_pause, stay_connected, stream_address
from tests.conftest import missing
from tests.faults.proxy import Link
from tests.page.redis_stream import Entry, RedisStream
from tests.processes import HelloProcess, free_ports
from tests.redis_server import RedisServer

PAGE = Path(watch.__file__).parent / "web" / "page"
README = (Path(__file__).parent.parent / "README.md").read_text()
QUICK = {"interval_min": "0.02", "interval_max": "0.1"}  # seconds
LIMIT_SECONDS = 30.0  # for what takes a moment, on a busy machine too
NOON = 1_700_049_600_000  # 15 November 2023, 12:00:00 UTC


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The library that connects is asyncio's, and so is the command."""
    return "asyncio", {}


# Frames, as a relay sends them.


def welcome(head: object = None, **fields: object) -> dict[str, object]:
    return {"type": "welcome", "relay": "r", "head": head, "channel": "up", **fields}


def message(position: str, message_id: str, **fields: object) -> dict[str, object]:
    named = {"text": "Hello world", "broadcaster": "b", "relay": "r", "sent_at": NOON, "relayed_at": NOON}
    return {"type": "message", "position": position, "id": message_id, **named, **fields}


def gap(after: object, before: object) -> dict[str, object]:
    return {"type": "gap", "after": after, "before": before}


BEAT: dict[str, object] = {"type": "beat"}
GONE, REFUSED = "the connection ends", "our position is refused"  # no frames, but what the connection says


def story(items: Sequence[Item]) -> list[str]:
    """What was shown, a few words for each thing."""
    words = []
    for fields, came in items:
        match fields:
            case {"type": "message", "id": message_id}:
                words.append(f"{message_id} {came}" if came in ("history", "recovered") else str(message_id))
            case {"type": "gap", "after": after, "before": before, "certain": certain}:
                words.append(f"{'gap' if certain else 'perhaps'} {after} {before}")
            case {"state": "resumed", "missed": missed}:
                words.append(f"resumed {missed}")
            case {"state": state}:
                words.append(str(state))
            case {"type": kind}:
                words.append(str(kind))
    return words


def told(tally: Tally, *said: dict[str, object] | str) -> list[Item]:
    """What a tally gives to show for frames and ends, all said in the same moment."""
    items = []
    for frame in said:
        if frame == GONE:
            tally.gone()
        elif frame == REFUSED:
            tally.forget_position()
        else:
            items += tally.take(frame, now=0.0, moment=NOON)
    return items


# What frames mean.


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        pytest.param([welcome(), message("9-0", "a"), message("10-0", "b")], ["open", "a", "b"], id="in order"),
        pytest.param(
            [welcome("2-0"), message("1-0", "a"), message("2-0", "b"), message("3-0", "c")],
            ["open", "a history", "b history", "c"],
            id="what there was at first is history",
        ),
        pytest.param(
            [
                welcome("1-0"),
                message("2-0", "a"),
                GONE,
                welcome("4-0"),
                *(message(f"{n}-0", f"{n}") for n in (3, 4, 5)),
            ],
            ["open", "a", "open", "3 recovered", "4 recovered", "resumed 2", "5"],
            id="what was missed is recovered, up to the head",
        ),
        pytest.param(
            [welcome("1-0"), message("2-0", "a"), GONE, welcome("2-0"), message("3-0", "b")],
            ["open", "a", "open", "resumed 0", "b"],
            id="nothing was missed",
        ),
        pytest.param(
            [welcome("1-0"), GONE, welcome("2-0"), message("2-0", "a")],
            ["open", "open", "a recovered", "resumed 1"],
            id="what is missed before the first message too",
        ),
        pytest.param(
            [welcome(), message("1-0", "a"), gap("1-0", "5-0"), BEAT, message("5-0", "b")],
            ["open", "a", "gap 1-0 5-0", "b"],
            id="a gap is told once",
        ),
        pytest.param(
            [
                *(welcome(), message("1-0", "a"), gap("1-0", "5-0"), GONE),
                *(welcome("5-0"), gap("1-0", "5-0"), message("5-0", "b")),
            ],
            ["open", "a", "open", "gap 1-0 5-0", "b recovered", "resumed 1"],
            id="a gap of a connection that ended at once is the next relay's to tell",
        ),
        pytest.param(
            [welcome(), message("1-0", "a"), gap("1-0", "5-0"), GONE, welcome("4-0"), message("4-0", "b")],
            ["open", "a", "open", "b recovered", "resumed 1"],
            id="which may have what the first one had lost",
        ),
        pytest.param(
            [welcome(), message("2-0", "a"), message("3-0", "a"), message("3-0", "b"), message("1-0", "c")],
            ["open", "a", "repeated", "repeated", "repeated"],
            id="what comes again is not shown",
        ),
        pytest.param(
            [
                *(welcome("8-0"), message("9-0", "a"), GONE, REFUSED),
                *(welcome("2-0"), message("1-0", "a"), message("2-0", "b"), message("3-0", "c")),
            ],
            ["open", "a", "open", "b recovered", "resumed 1", "c"],
            id="a refused position costs nothing where the first message is known",
        ),
        pytest.param(
            [
                welcome("8-0"),
                message("9-0", "a"),
                GONE,
                REFUSED,
                welcome("2-0"),
                message("2-0", "b"),
                message("3-0", "c"),
            ],
            ["open", "a", "open", "perhaps 9-0 2-0", "b recovered", "resumed 1", "c"],
            id="and something may be lost where it is not",
        ),
        pytest.param(
            [welcome("9-0"), GONE, REFUSED, GONE, welcome(), GONE, REFUSED, welcome("2-0"), message("2-0", "b")],
            ["open", "open", "resumed 0", "open", "perhaps 9-0 2-0", "b recovered", "resumed 1"],
            id="after the first of two positions that are refused",
        ),
        pytest.param(
            [welcome("8-0"), message("9-0", "a"), GONE, REFUSED, welcome("2-0"), message("3-0", "a")],
            ["open", "a", "open", "repeated", "resumed 0"],
            id="live, nothing may come again that was not asked for",
        ),
        pytest.param(
            [welcome(channel="down"), {"type": "status", "channel": "up", "since": NOON}, {"type": "tomorrow's"}],
            ["open", "status"],
            id="other frames show nothing",
        ),
    ],
)
def test_each_frame_shows_what_it_means(said: list[dict[str, object] | str], shown: list[str]) -> None:
    assert story(told(Tally(), *said)) == shown


def test_the_tally_counts_what_was_shown_recovered_lost_and_repeated() -> None:
    tally = Tally()
    told(tally, welcome("1-0"), message("1-0", "a"), message("2-0", "b"), GONE)
    told(tally, welcome("4-0"), gap("2-0", "4-0"), message("4-0", "c"), message("4-0", "c"))
    assert tally.complete
    assert not tally.good
    summary = tally.summary(now=0.0).fields
    assert [summary[name] for name in ("shown", "recovered", "lost", "repeated", "reconnects")] == [3, 1, 1, 1, 1]
    assert summary["gaps"] == [{"type": "gap", "after": "2-0", "before": "4-0", "certain": True}]


@pytest.mark.parametrize(
    ("said", "good"),
    [
        ([], False),
        ([welcome("1-0")], True),
        ([welcome("1-0"), GONE], False),
        ([welcome("1-0"), GONE, welcome("3-0"), message("2-0", "a")], False),
        ([welcome("1-0"), GONE, welcome("3-0"), message("2-0", "a"), message("3-0", "b")], True),
        ([welcome("1-0"), message("2-0", "a"), gap("2-0", "4-0")], False),
        ([welcome("1-0"), message("2-0", "a"), GONE, REFUSED, welcome()], False),
        ([welcome("1-0"), message("2-0", "a"), message("2-0", "a")], False),
    ],
)
def test_it_is_good_only_where_it_is_known_that_nothing_was_lost_or_repeated(
    said: list[dict[str, object] | str], good: bool
) -> None:
    """Not while it is away, nor before it has what it had missed, nor after a gap that nothing has followed yet."""
    tally = Tally()
    told(tally, *said)
    assert tally.good is good


def test_a_loss_that_nothing_has_followed_is_told_at_the_end() -> None:
    for said, end in (
        ((gap("2-0", "4-0"),), "gap 2-0 4-0"),
        ((GONE, REFUSED, welcome()), "perhaps 2-0 None"),
    ):
        tally = Tally()
        told(tally, welcome("1-0"), message("2-0", "a"), *said)
        assert story(tally.finish()) == [end]
        assert tally.finish() == []
        assert tally.lost == 1


def test_the_position_to_resume_from_is_the_last_message_and_before_it_the_head() -> None:
    """Where the stream has never had an entry it is the origin: nothing can be missing before its first."""
    for head, start in (("7-3", "7-3"), (None, "0-0")):
        tally = Tally()
        assert tally.position is None
        told(tally, welcome(head))
        assert str(tally.position) == start
        told(tally, message("8-0", "a"), GONE, welcome("9-0"))
        assert str(tally.position) == "8-0"


def test_delays_are_those_of_live_messages() -> None:
    """In milliseconds, and negative where our clock is behind; the median is that of the newest thousand."""
    tally = Tally()
    told(tally, welcome("1-0"), message("1-0", "history", sent_at=NOON - 60_000))
    assert [tally.summary(0.0).fields[f"delay_{name}"] for name in ("median", "worst")] == [None, None]
    delays = [900, *range(-500, 500)]
    told(tally, *(message(f"2-{n}", f"{n}", sent_at=NOON - delay) for n, delay in enumerate(delays)))
    told(tally, GONE, welcome("3-0"), message("3-0", "missed", sent_at=NOON - 60_000))
    assert [tally.summary(0.0).fields[f"delay_{name}"] for name in ("median", "worst")] == [0, 900]


def test_the_longest_silence_counts_the_first_and_the_last_one_too() -> None:
    def silence(*moments: float, now: float) -> object:
        tally = Tally()
        tally.take(welcome(), now=100.0, moment=NOON)
        for number, moment in enumerate(moments):
            tally.take(message(f"{number}-1", f"{number}"), now=moment, moment=NOON)
            tally.take(BEAT, now=moment + 0.5, moment=NOON)
        return tally.summary(now).fields["longest_silence"]

    assert silence(103.0, 104.0, now=105.0) == 3.0
    assert silence(101.0, 105.5, now=106.0) == 4.5
    assert silence(101.0, 102.0, now=109.0) == 7.0
    assert Tally().summary(now=1000.0).fields["longest_silence"] == 0.0


def test_a_watch_of_a_week_does_not_grow() -> None:
    """Nor forget an id within the last 500."""
    tally = Tally()
    told(tally, welcome())

    def size() -> int:
        held: list[Any] = [value for value in vars(tally).values() if hasattr(value, "__len__")]
        return sum(map(len, held))

    sizes = []
    for lap in range(3):
        for number in range(1000):
            told(tally, gap("0-0", "9-0"), message(f"{lap + 1}-{number}", f"{lap} {number}"))
        sizes.append(size())
    assert sizes[0] == sizes[1] == sizes[2]
    assert tally.lost == 3000
    assert story(told(tally, message("9-0", "2 500"))) == ["repeated"]
    assert story(told(tally, message("9-1", "2 499"))) == ["2 499"]


@pytest.mark.parametrize(
    "frame",
    [
        *(
            None,
            [],
            "welcome",
            {},
            {"type": ["welcome"]},
            {"type": "welcome"},
            welcome(7),
            welcome("7"),
            welcome(relay=1),
        ),
        *(BEAT, message("1-0", "a"), welcome(channel=None)),
    ],
)
def test_a_connection_that_does_not_begin_with_a_welcome_is_garbled(frame: object) -> None:
    with pytest.raises(Malformed):
        Tally().take(frame, now=0.0, moment=NOON)


@pytest.mark.parametrize(
    "frame",
    [
        *(welcome(), gap("1-0", "x"), gap("1-0", None), {"type": "gap"}, {"type": "status", "channel": "up"}),
        *({"type": "message"}, message("1", "a"), message("1-0", ""), message("1-0", "a", relay=None)),
        *(message("1-0", "a", sent_at=True), message("1-0", "a", text="x" * 4097), message("1-0", "a", id=7)),
    ],
)
def test_a_frame_that_no_relay_sends_is_garbled(frame: object) -> None:
    tally = Tally()
    told(tally, welcome())
    with pytest.raises(Malformed):
        tally.take(frame, now=0.0, moment=NOON)


# Addresses and pauses.


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:1/", "ws://h:1/ws"),
        ("http://h:1", "ws://h:1/ws"),
        ("HTTPS://H/", "wss://H/ws"),
        ("https://h/a/", "wss://h/a/ws"),
        ("http://h:1/a/b", "ws://h:1/a/b/ws"),
        ("http://h:1/a//", "ws://h:1/a/ws"),
        ("http://h/events", "ws://h/ws"),
        ("https://h/a/events/", "wss://h/a/ws"),
        ("http://h/my-events", "ws://h/my-events/ws"),
        ("ws://h/ws", "ws://h/ws"),
        ("wss://h/a/ws", "wss://h/a/ws"),
        ("wss://h", "wss://h/ws"),
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("localhost:8000/a", "ws://localhost:8000/a/ws"),
        ("[::1]:8000", "ws://[::1]:8000/ws"),
        ("http://h/#top", "ws://h/ws"),
        ("http://me:secret@h/", "ws://me:secret@h/ws"),
        ("http://bücher.example/", "ws://bücher.example/ws"),
    ],
)
def test_the_stream_is_beside_the_page(url: str, address: str) -> None:
    assert stream_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://", "ftp://h/", "http:///x", "http://h:port/", "http://h:99999/", "http://h:0/", "http://[::1/"),
        *("http://h /", "http://h/\n", "http://h/?last=5", f"http://{'a' * 64}/", "http://a..b/", "http://me@h/"),
        *("redis://h", "://h", "http://h\x1b/"),
    ],
)
def test_a_wrong_address_is_one_clear_line_and_exit_code_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert hello(["watch", url, "--seconds", "0.1"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"hello watch: .+ is not the address of a page: give http://HOST:PORT/ .+\n", said.err)
    assert said.err[:-1].isprintable()


def test_a_password_in_an_address_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert hello(["watch", "http://me:secret@h/?x"]) == 2
    assert hello(["watch", f"http://me:secret@127.0.0.1:{free_ports(1)[0]}/", "--seconds", "0.1"]) == 1
    said = "".join(capsys.readouterr())
    assert "connecting to ws://127.0.0.1:" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    "flags", [["--last", "-1"], ["--last", "x"], ["--seconds", "nan"], ["--seconds", "0"], ["--messages", "0"]]
)
def test_a_wrong_flag_says_what_to_give(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        hello(["watch", "127.0.0.1:1", *flags])
    assert ended.value.code == 2
    assert f"argument {flags[0]}: give a number from " in capsys.readouterr().err


def test_the_help_tells_exit_codes_and_whose_clocks_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["watch", "--help"], ("Exit code 0", "clocks of two machines")),
        (["--help"], ("watch",)),
    ):
        with pytest.raises(SystemExit) as ended:
            hello(arguments)
        assert ended.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert all(word in said for word in words)


def test_the_numbers_are_those_of_the_page() -> None:
    connection, stream = ((PAGE / name).read_text() for name in ("connection.js", "client-protocol.js"))
    numbers = {
        name: float(value.replace("_", ""))
        for name, value in re.findall(r"const (\w+) = ([\d_]+);", connection + stream)
    }
    for name, number in {"SILENCE": "IDLE_TIMEOUT", "OPENING": "OPEN_TIMEOUT", "STEADY": "STABLE"}.items():
        assert getattr(watch, name) * 1000 == numbers[f"{number}_MS"]
    pauses = re.search(r"const MAX_DELAYS_MS = \[(.+)\];", connection)
    assert pauses is not None
    assert [seconds * 1000 for seconds in watch.PAUSES] == [float(each) for each in pauses[1].split(",")]
    assert (numbers["RECENT"], numbers["KEPT_IDS"]) == (watch.RECENT, watch.KEPT)
    reasons = re.findall(r'code === (\d+)\) return "(\w+)"', connection)
    assert dict(reasons) == {str(code): word for code, word in watch.REASONS.items()}
    for state in ("moved", "slow", "lost", "dead", "unreachable", "garbled"):
        assert f'"{state}"' in connection


def test_pauses_grow_to_5_seconds_and_the_slow_wait_longest() -> None:
    assert [longest_pause("lost", attempt) for attempt in (1, 2, 3, 4, 5, 6, 100_000)] == [
        1.0,
        0.5,
        1.0,
        2.0,
        4.0,
        5.0,
        5.0,
    ]
    assert longest_pause("slow", 1) == 5.0


# How it looks.

EVIL = "\x1b]0;x\x07\x9b31m\n\r\x7f\u202etxt\u2066\u2028 👩\u200d💻"
ESCAPED = r"\x1b]0;x\x07\x9b31m\n\r\x7f\u202etxt\u2066\u2028 👩" + "\u200d💻"


@pytest.mark.parametrize(
    "fields",
    [
        message("1-0", "a", text=EVIL),
        message("1-0", "a", broadcaster=EVIL),
        message("1-0", "a", relay=EVIL),
        {"type": "connection", "state": "open", "relay": EVIL, "channel": "up"},
        {"type": "connection", "state": "lost", "detail": EVIL, "retry_in": 1.0},
        {"type": "repeated", "id": EVIL, "position": "1-0"},
        {"type": "status", "channel": EVIL, "since": 0},
    ],
)
def test_what_strangers_say_cannot_drive_a_terminal(fields: dict[str, Any]) -> None:
    """Escapes, controls, line ends and marks that turn a line around are written as such; joined emoji stay joined."""
    line = as_text(Item(fields), NOON)
    assert ESCAPED in line
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e\u2066]", line)
    plain = as_json(Item(fields))
    assert plain.isascii()
    assert plain.isprintable()
    assert json.loads(plain) == fields


def test_a_moment_has_milliseconds_and_its_date_where_it_is_not_today() -> None:
    hour = 3_600_000
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.007", watch.local_time(NOON + 7, NOON))
    assert re.fullmatch(r"2023-11-1\d \d\d:\d\d:\d\d\.000", watch.local_time(NOON - 25 * hour, NOON))
    assert watch.local_time(2**53 - 1, NOON) == f"{2**53 - 1} ms"


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([Item(message("1-0", "a"), "12 ms")], "  Hello world  b -> r  12 ms"),
        ([Item(gap("5-0", "9-0") | {"certain": True})], "  gap: messages between 1970-.+ and 1970-.+ are lost"),
        ([Item(gap("5-0", "9-0") | {"certain": False})], "  gap: messages after 1970-.+ may be missing: .+"),
        (told(Tally(), welcome()), "  connected to r"),
        (told(Tally(), welcome(channel="down")), "  connected to r, but its channel is down"),
        (told(Tally(), welcome(), GONE, welcome())[2:], "  resumed after 0 missed messages"),
        ([Item({"type": "status", "channel": "down", "since": NOON})], "  the channel is down since .+"),
        (
            [Tally().summary(0.0)],
            "  tally: 0 messages shown, .+; 0 gaps, 0 repeated, 0 reconnects; longest silence 0.0 s",
        ),
    ],
)
def test_each_thing_is_a_line_of_its_own_kind(items: list[Item], words: str) -> None:
    for item in items:
        begin = r"\d\d:\d\d:\d\d\.000" if item.fields["type"] == "message" else r"-- \d\d:\d\d:\d\d\.000"
        assert re.fullmatch(begin + words, as_text(item, NOON))


# How frames come: before a stranger that says whatever a test wants.


class Stranger:
    """A server whose first connection does what the first script tells, the next one the next, and then waits.

    A script is a refusal (status, reason), or what is said: frames as objects, anything else as it is. It ends with a
    code to close with, with None to break off, or with MUTE to stay and say no more.
    """

    MUTE = "say no more"

    def __init__(self, *scripts: Any) -> None:
        self.starts: list[str] = []  # the queries that it was asked
        self.exhausted = anyio.Event()  # somebody came after the last script
        self.port = 0
        self._scripts = list(scripts)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Stranger"]:
        async with serve(self._talk, "127.0.0.1", 0, process_request=self._greet, close_timeout=0.1) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    def _greet(self, connection: ServerConnection, request: Request) -> Refusal | None:
        self.starts.append(request.path.removeprefix("/ws?"))
        if len(self.starts) > len(self._scripts):
            self.exhausted.set()
            return connection.respond(503, "exhausted")
        script = self._scripts[len(self.starts) - 1]
        return connection.respond(*script) if isinstance(script, tuple) else None

    async def _talk(self, connection: ServerConnection) -> None:
        *frames, end = self._scripts[len(self.starts) - 1]
        for frame in frames:
            await connection.send(json.dumps(frame) if isinstance(frame, dict) else frame)
        if end == self.MUTE:
            await connection.wait_closed()
        elif end is None:
            connection.transport.abort()
        else:
            await connection.close(end, "as told")


async def followed(*scripts: Any, last: int = 0) -> tuple[list[Item], Tally, list[str]]:
    """Follow a stranger until its scripts are played: what was shown, the tally, and what it was asked."""
    items: list[Item] = []
    tally = Tally()
    async with Stranger(*scripts).listening() as stranger, anyio.create_task_group() as group:
        address = f"ws://127.0.0.1:{stranger.port}/ws"

        async def follow() -> None:
            await stay_connected(address, tally, items.append, last=last)

        group.start_soon(follow)
        with anyio.fail_after(LIMIT_SECONDS):
            await stranger.exhausted.wait()
        group.cancel_scope.cancel()
    return items, tally, stranger.starts[: len(scripts)]


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PAUSES", (0.0,))


def ends(items: Sequence[Item]) -> list[tuple[str, str]]:
    """Why each connection ended."""
    return [(fields["state"], fields["detail"]) for fields, _ in items if "retry_in" in fields]


@pytest.mark.usefixtures("_no_pauses")
async def test_it_resumes_after_the_last_message_and_before_the_first_after_the_head() -> None:
    """So that what is said while it is away is not lost, even before it has shown anything."""
    _, _, starts = await followed(
        (503, "this relay is full"),
        [welcome("7-0"), 1012],
        [welcome("9-0"), message("8-0", "a"), 1012],
        [welcome("9-0"), message("9-0", "b"), 1012],
        [welcome("9-0"), 1012],
        last=3,
    )
    assert starts == ["last=3", "last=3", "after=7-0", "after=8-0", "after=9-0"]
    _, _, starts = await followed([welcome(), None], [welcome("1-0"), message("1-0", "a"), None], [None])
    assert starts == ["last=0", "after=0-0", "after=1-0"]


@pytest.mark.usefixtures("_no_pauses")
async def test_each_end_has_the_pages_name_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENCE", 1.0)
    monkeypatch.setattr(watch, "OPENING", 5.0)
    scripts: list[tuple[Any, str, str]] = [
        ([welcome(), 1012], "moved", "closed with 1012 (service restart) as told"),
        ([welcome(), 1013], "slow", "closed with 1013 (try again later) as told"),
        ([welcome(), 1008], "lost", "closed with 1008 (policy violation) as told"),
        ([welcome(), 1000], "lost", "closed with 1000 (OK) as told"),
        ([welcome(), None], "lost", "the connection broke"),
        ([welcome(), Stranger.MUTE], "dead", "no word for 1 s"),
        ([1000], "unreachable", "closed with 1000 (OK) as told"),
        ([1012], "moved", "closed with 1012 (service restart) as told"),
        ((503, "this relay is stopping\nand more\n"), "unreachable", "503 Service Unavailable: this relay is stopping"),
        ((404, ""), "unreachable", "404 Not Found"),
        ((403, "x" * 1000), "unreachable", "403 Forbidden: " + "x" * 185),
        ([welcome(), "{", Stranger.MUTE], "garbled", "a frame is a JSON object: Expecting property name"),
        ([welcome(), "[" * 60_000, Stranger.MUTE], "garbled", "a frame is a JSON object: maximum recursion depth"),
        ([welcome(), b"{}", Stranger.MUTE], "garbled", "a frame is text, not binary"),
        (
            [welcome(), "x" * (watch.MAX_FRAME + 1), Stranger.MUTE],
            "garbled",
            "closed by us with 1009 (message too big)",
        ),
        ([message("1-0", "a"), Stranger.MUTE], "garbled", "a connection begins with a welcome"),
    ]
    items, tally, _ = await followed(*(script for script, _, _ in scripts))
    found = ends(items)[: len(scripts)]
    assert [reason for reason, _ in found] == [reason for _, reason, _ in scripts]
    for (_, detail), (_, _, wanted) in zip(found, scripts, strict=True):
        assert detail.startswith(wanted), detail
    assert tally.shown == 0
    assert tally.connections == 10


@pytest.mark.usefixtures("_no_pauses")
async def test_a_frame_that_was_not_understood_is_asked_for_again() -> None:
    """To go on behind it would be to lose it in silence."""
    broken = message("2-0", "b", text=None)
    items, tally, starts = await followed(
        [welcome(), message("1-0", "a"), broken, message("3-0", "c"), Stranger.MUTE],
        [welcome("3-0"), message("2-0", "b"), message("3-0", "c"), None],
    )
    assert starts == ["last=0", "after=1-0"]
    assert [word for word in story(items) if word[0] in "abc" and word[1:2] in ("", " ")] == [
        "a",
        "b recovered",
        "c recovered",
    ]
    assert (tally.lost, tally.repeated, tally.recovered) == (0, 0, 2)


@pytest.mark.usefixtures("_no_pauses")
async def test_who_does_not_answer_within_10_seconds_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether no handshake is answered, or no frame follows it."""
    monkeypatch.setattr(watch, "OPENING", 0.2)
    items, _, _ = await followed([Stranger.MUTE])
    assert ends(items)[0] == ("unreachable", "no word within 0.2 s")
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it accepts nobody, but the kernel does
        address = f"ws://127.0.0.1:{deaf.getsockname()[1]}/ws"
        end = await watch._listen(address, Tally(), lambda _: None, math.inf)
    assert (end.reason, end.detail, end.up) == ("unreachable", "no word within 0.2 s", None)


@pytest.mark.usefixtures("_no_pauses")
async def test_a_relay_that_refuses_our_position_is_asked_for_recent_messages() -> None:
    """But any other 400 may be of whatever is in the way: to begin anew for it could be to lose something."""
    refusal = "position 9-0 is more than a minute ahead of this relay's clock, and of its messages\n"
    items, tally, starts = await followed(
        (400, "Bad Request"),
        [welcome("8-0"), message("9-0", "a"), None],
        (400, "Bad Request"),
        (400, refusal),
        [welcome("2-0"), message("1-0", "a"), message("2-0", "b"), None],
    )
    assert starts == ["last=0", "last=0", "after=9-0", "after=9-0", "last=50"]
    assert "beginning anew" in ends(items)[3][1]
    assert (tally.shown, tally.lost, tally.repeated, str(tally.position)) == (2, 0, 0, "2-0")


@pytest.mark.parametrize(("steady", "attempts"), [(1000.0, [1, 2, 3, 4]), (0.0, [1, 1, 2, 1])])
@pytest.mark.usefixtures("_no_pauses")
async def test_attempts_count_anew_after_a_steady_connection(
    steady: float, attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only then: a relay that lets everybody in and drops them at once is not asked ever faster."""
    monkeypatch.setattr(watch, "STEADY", steady)
    items, _, _ = await followed([welcome(), None], [welcome(), None], (503, "full"), [welcome(), None])
    assert [fields["attempt"] for fields, _ in items if "attempt" in fields][:4] == attempts


@pytest.mark.usefixtures("_no_pauses")
async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        end = await watch._listen("wss://relay.test/ws", Tally(), lambda _: None, math.inf)
    assert asked == [b"CONNECT relay.test:443 HTTP/1.1\r\n"]
    assert (end.reason, "403" in end.detail) == ("unreachable", True)


# The command, before real relays.


class Watching:
    """`hello watch --json` as a process of its own, killed at the latest after LIMIT_SECONDS."""

    def __init__(self, url: str, *flags: str, stdout: IO[str] | int = subprocess.PIPE, **variables: str) -> None:
        self.items: list[dict[str, Any]] = []
        self.errors = ""
        command = [sys.executable, "-W", "error", "-m", "hello", "watch", url, *flags]
        environment = {**os.environ, **variables}
        environment.pop("PYTHONUNBUFFERED", None)  # which would hide that a line is not written at once
        self.process = subprocess.Popen(command, text=True, stdout=stdout, stderr=subprocess.PIPE, env=environment)
        self._limit = threading.Timer(LIMIT_SECONDS, self.process.kill)
        self._limit.start()

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, *error: object) -> None:
        self._limit.cancel()
        self.process.kill()
        for pipe in filter(None, (self.process.stdout, self.process.stderr)):
            pipe.close()
        self.process.wait()

    def until(self, **fields: object) -> dict[str, Any]:
        """Read on to a line with these fields."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.items.append(json.loads(line))
            if self.items[-1].items() >= fields.items():
                return self.items[-1]
        raise AssertionError(f"no {fields} in {self.items[-20:]}, but {self.wait()}: {self.errors}")

    def messages(self, count: int) -> None:
        for _ in range(count):
            self.until(type="message")

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, dict[str, Any]]:
        """Send a signal; the exit code and the tally, which is the last line."""
        self.process.send_signal(number)
        tally = self.until(type="tally")
        return self.wait(), tally

    def wait(self) -> int:
        """The exit code, once it has ended and has said no more."""
        rest, self.errors = self.process.communicate()
        assert not rest
        return self.process.returncode

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item for item in self.items if item["type"] == kind]


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    """Both actors in one process, over memory."""
    with HelloProcess(instance="hello-1", **QUICK) as running_process:
        yield running_process


StartHello = Callable[..., HelloProcess]


@pytest.fixture
def start_hello(redis_server: RedisServer) -> Iterator[StartHello]:
    """Start a process with these actors over the test's Redis."""
    started: list[HelloProcess] = []

    def start(actors: str, **settings: str) -> HelloProcess:
        started.append(HelloProcess(actors=actors, channel=redis_server.url, **QUICK | settings))
        return started[-1].start()

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def stream(redis_server: RedisServer) -> Iterator[RedisStream]:
    """The test's Redis, looked into past the client and `hello`."""
    stream = RedisStream(redis_server.url)
    yield stream
    stream.close()


def test_a_watch_beside_a_killed_and_a_rolled_relay_shows_each_message_once(
    start_hello: StartHello, stream: RedisStream
) -> None:
    relay = start_hello("relay", instance="relay-1", drain_seconds="0.5")
    with Watching(relay.url, "--json") as watching:
        watching.until(state="open", head=None)
        relay.kill()
        watching.until(state="lost")
        broadcaster = start_hello("broadcaster")
        stream.wait_for(more=3)
        relay.start()
        watching.until(state="resumed")

        assert relay.terminate() == 0
        moved = watching.until(state="moved")
        stream.wait_for(more=3)
        relay.start()
        watching.until(state="resumed")
        watching.messages(3)

        broadcaster.terminate()
        said = stream.entries()
        if watching.of("message")[-1]["id"] != said[-1].id:
            watching.until(type="message", id=said[-1].id)
        code, tally = watching.end()
    assert [Entry(item["position"], item["id"]) for item in watching.of("message")] == said
    assert moved["detail"].startswith("closed with 1012")
    assert [tally[name] for name in ("shown", "lost", "repeated", "reconnects")] == [len(said), 0, 0, 2]
    assert 6 <= tally["recovered"] < len(said)
    assert tally["recovered"] == sum(item["missed"] for item in watching.items if item.get("state") == "resumed")
    assert (code, watching.errors) == (0, "")


def test_history_that_passed_while_it_was_away_is_told_as_a_gap_and_ends_with_code_1(
    start_hello: StartHello, stream: RedisStream
) -> None:
    history = 5
    relay = start_hello("relay", history=str(history))
    broadcaster = start_hello("broadcaster", history=str(history))
    with Watching(relay.url, "--json") as watching:
        watching.messages(2)
        relay.kill()
        watching.until(state="lost")
        stream.wait_for(more=2 * history)
        broadcaster.terminate()
        kept = stream.entries()
        last = watching.of("message")[-1]
        relay.start()
        watching.until(state="resumed", missed=history)
        code, tally = watching.end()
    lost = {"type": "gap", "after": last["position"], "before": kept[0].position, "certain": True}
    assert watching.of("gap") == tally["gaps"] == [lost]
    assert (tally["lost"], tally["recovered"], tally["repeated"]) == (1, history, 0)
    assert (code, watching.errors) == (1, "")


def test_a_channel_that_is_down_is_told(start_hello: StartHello, redis_server: RedisServer) -> None:
    relay = start_hello("relay")
    with Watching(relay.url) as watching:
        assert watching.process.stdout is not None
        lines = iter(watching.process.stdout)
        next(line for line in lines if re.match("-- .+  connected to ", line))
        redis_server.kill()
        next(line for line in lines if re.match("-- .+  the channel is down since ", line))
        redis_server.start()
        next(line for line in lines if re.match("-- .+  the channel is up since ", line))
        watching.process.send_signal(signal.SIGINT)
        assert watching.process.stdout.read().count("tally") == 1
        assert watching.wait() == 0


async def test_a_dead_line_is_left_and_costs_nothing(process: HelloProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its connection and passes nothing on; so does the next one, until the line is healed."""
    monkeypatch.setattr(watch, "SILENCE", 1.0)
    monkeypatch.setattr(watch, "OPENING", 1.0)
    link = Link("test", process.port)
    tally = Tally()
    items, more = [], anyio.Event()

    def show(item: Item) -> None:
        nonlocal more
        items.append(item)
        more.set()
        more = anyio.Event()

    async def until(word: str, since: int) -> int:
        while word not in (words := story(items[since:])):
            await more.wait()
        return since + words.index(word)

    async def resumed(since: int) -> int:
        while not (found := [n for n, word in enumerate(story(items[since:])) if re.match("resumed [1-9]", word)]):
            await more.wait()
        return since + found[0]

    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as group:
            await group.start(link.run)
            group.start_soon(stay_connected, f"ws://127.0.0.1:{link.port}/ws", tally, show)
            opened = await until("open", 0)
            link.set("hang")
            dead = await until("dead", opened)
            unreachable = await until("unreachable", dead)
            link.set("open")
            await resumed(unreachable)
            assert tally.good
            group.cancel_scope.cancel()
    assert ends(items)[-1] == ("unreachable", "no word within 1 s")


NAME, TIME = r"[a-z]+-\d", r"\d\d:\d\d:\d\d\.\d{3}"
KINDS = {
    "connecting": rf"-- {TIME}  connecting to ws://127\.0\.0\.1:\d+/ws",
    "connected": rf"-- {TIME}  connected to {NAME}",
    "moved": rf"-- {TIME}  moved: closed with 1012 \(service restart\); trying again in \d\.\d s",
    "resumed": rf"-- {TIME}  resumed after \d+ missed messages?",
    "history": rf"{TIME}  Hello world  {NAME} -> {NAME}  history",
    "recovered": rf"{TIME}  Hello world  {NAME} -> {NAME}  recovered",
    "live": rf"{TIME}  Hello world  {NAME} -> {NAME}  -?\d+ ms",
    "tally": rf"-- {TIME}  tally: \d+ messages shown, \d+ of them recovered; \d+ gaps?, \d+ repeated, \d+ reconnects?;"
    r" longest silence \d+\.\d s; delay -?\d+ ms \(median\), -?\d+ ms \(worst\)",
}


def kinds(lines: Sequence[str]) -> list[str]:
    return [next((kind for kind, words in KINDS.items() if re.fullmatch(words, line)), line) for line in lines]


def test_what_is_shown_comes_in_the_lines_of_the_readme(
    process: HelloProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends after so many messages, what was said before included; the exit code is 0."""
    with Watching(process.url, "--messages", "2") as watching:  # so that there is a history
        assert watching.process.wait() == 0
    assert hello(["watch", process.url, "--last", "2", "--messages", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert kinds(lines) == ["connecting", "connected", "history", "history", "live", "live", "tally"]
    assert "  tally: 4 messages shown, 0 of them recovered; 0 gaps, 0 repeated, 0 reconnects; " in lines[-1]
    sample = re.search(r"```console\n\$ \S+ watch .+\n((?:.+\n)+)```", README)
    assert sample is not None
    assert set(kinds(sample[1].splitlines())) == KINDS.keys() - {"history"}


def test_each_line_of_json_is_the_frame_or_tells_the_connection(process: HelloProcess) -> None:
    with Watching(process.url, "--json", "--messages", "2") as watching:
        tally = watching.until(type="tally")
        assert watching.wait() == 0
    connecting, opened, *messages, _ = watching.items
    assert connecting == {
        "type": "connection",
        "state": "connecting",
        "url": f"ws://127.0.0.1:{process.port}/ws",
        "at": connecting["at"],
    }
    assert opened["relay"] == "hello-1"
    assert abs(opened["at"] - now_ms()) < 60_000
    fields = {"type", "position", "id", "text", "broadcaster", "sent_at", "relayed_at", "relay"}
    assert [item.keys() for item in messages] == [fields, fields]
    assert [type(tally[name]) for name in ("longest_silence", "delay_median", "delay_worst")] == [float, int, int]


def test_text_from_redis_that_would_drive_a_terminal_is_shown_escaped(
    start_hello: StartHello, stream: RedisStream, capsys: pytest.CaptureFixture[str]
) -> None:
    stream.add_first(Entry(f"{now_ms()}-0", "first"), EVIL)
    relay = start_hello("relay")
    assert hello(["watch", relay.url, "--last", "1", "--messages", "1"]) == 0
    line = capsys.readouterr().out.split("\n")[2]
    assert f"  {ESCAPED}  test -> " in line
    with Watching(relay.url, "--last", "1", "--messages", "1", PYTHONIOENCODING="ascii") as watching:
        said, errors = watching.process.communicate()
    assert f"  {ESCAPED.encode('ascii', 'backslashreplace').decode()}  test -> " in said
    assert (watching.process.returncode, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_the_tally(process: HelloProcess, number: signal.Signals) -> None:
    """Without a traceback, and whatever hello's own variables say."""
    with Watching(process.url, "--json", HELLO_PORT="x", HELLO_FOO="y") as watching:
        watching.messages(1)
        code, tally = watching.end(number)
    assert (code, watching.errors) == (0, "")
    assert tally["shown"] == len(watching.of("message"))


def test_it_watches_for_so_many_seconds(process: HelloProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert hello(["watch", process.url, "--json", "--seconds", "0.5"]) == 0
    first, *_, tally = map(json.loads, capsys.readouterr().out.splitlines())
    assert tally["type"] == "tally"
    assert tally["shown"] > 0
    assert 500 <= now_ms() - first["at"] < 10_000


def test_who_never_connected_has_shown_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert hello(["watch", f"127.0.0.1:{free_ports(1)[0]}", "--seconds", "0.2"]) == 1
    said = capsys.readouterr()
    assert "unreachable: " in said.out
    assert said.err == "hello watch: never connected, so that this shows nothing\n"


def test_who_is_cut_off_at_the_end_does_not_know() -> None:
    """A rollout that took the service away, and never brought it back, is not taken for a good one."""
    with HelloProcess(**QUICK) as process, Watching(process.url, "--json") as watching:
        watching.messages(1)
        process.kill()
        watching.until(state="unreachable")
        code, tally = watching.end()
    assert (code, tally["complete"], tally["lost"]) == (1, False, 0)
    assert watching.errors == "hello watch: cut off at the end, so that nobody knows what was said since\n"


def test_a_reader_that_has_seen_enough_ends_it_quietly(process: HelloProcess) -> None:
    """As `| head` does."""
    with Watching(process.url) as watching:
        assert watching.process.stdout is not None
        while "Hello world" not in watching.process.stdout.readline():
            pass
        watching.process.stdout.close()
        assert watching.process.stderr is not None
        assert watching.process.stderr.read() == ""
        assert watching.process.wait() == 0


def test_without_a_stdout_it_does_not_start() -> None:
    command = ["sh", "-c", 'exec "$0" -m hello watch 127.0.0.1:1 >&-', sys.executable]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "hello watch: stdout is closed: give it a terminal, a file or a pipe\n",
    )


def test_a_full_disk_is_one_clear_line(process: HelloProcess) -> None:
    if not Path("/dev/full").exists():
        missing("no /dev/full: a device on which every write fails, on Linux")
    with Path("/dev/full").open("w") as full, Watching(process.url, stdout=full) as watching:
        _, errors = watching.process.communicate()
    assert re.fullmatch(r"hello watch: cannot write: .*No space left on device\n", errors)
    assert watching.process.returncode == 1
