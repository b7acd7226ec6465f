"""Both ways to write to a WebSocket keep the same promises: a Line of our own server, and a task under a stock uvicorn.

Each test is one promise, over real sockets. The hub is fed directly: there is neither channel nor relay here.
"""

import asyncio
import json
import logging
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from starlette.types import ASGIApp

from hello.hub import Hub
from hello.message import Entry, Message, Position, now_ms
from hello.metrics import Metrics
from hello.web import server, stream, websocket
from hello.web.listener import listen
from hello.web.public import public_app
from tests.web import raw
from tests.web.measurements import eventually, until

LITTLE = 16 * 1024  # bytes that the kernel is to take in for one that does not read
STALL_SECONDS = 0.3  # instead of 30
LONG = "x" * 4000
FRIEND = "https://friend.example"


@pytest.fixture(params=["line", "asgi"])
def way(request: pytest.FixtureRequest) -> str:
    return cast(str, request.param)


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """The servers are uvicorn's, which knows no other event loops."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(autouse=True)
def no_errors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever browsers do is no error of a server. Who keeps it waiting counts as slow a little sooner here."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0.1)
    monkeypatch.setattr("tests.web.measurements.LOOK_SECONDS", 0.001)
    yield
    said = {record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING}
    # One place of uvicorn does not know that an app may refuse with an answer of its own.
    assert said <= {"ASGI callable returned without completing handshake."}


def number_of(position: str) -> int:
    return Position.parse(position).milliseconds


class Page(asyncio.Protocol):
    """A browser that notes what it is sent, reads while it is to, and answers a close."""

    transport: asyncio.Transport

    def __init__(self, query: str, *, reading: bool) -> None:
        self.wire = bytearray()  # everything behind the answer to the handshake
        self.frames: list[dict[str, Any]] = []
        self.numbers: list[int] = []  # of the messages that it was shown
        self.code: int | None = None  # of the close
        self.open = self.ended = False
        self.after = number_of(query.removeprefix("?after=")) if "after" in query else None
        self._query, self._reading = query, reading
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(raw.handshake(f"/ws{self._query}"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.open and b"\r\n\r\n" in self._buffer:
            answer = raw.parse_answer(bytes(self._buffer))
            assert answer.status == 101, answer
            self.open, self._buffer, data = True, bytearray(answer.rest), answer.rest
            self.read(self._reading)
        if self.open:
            self.wire += data
            for came in raw.decode(self._buffer):
                self._take(came)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True

    def read(self, reading: bool = True) -> None:
        (self.transport.resume_reading if reading else self.transport.pause_reading)()

    def kinds(self) -> list[str]:
        return [each["type"] for each in self.frames]

    def _take(self, came: raw.Frame) -> None:
        assert self.code is None, f"behind the closing frame: {came}"
        if came.opcode == raw.CLOSE:
            self.code = came.code
            self.transport.write(raw.frame(raw.CLOSE, came.payload))
            return
        assert (came.opcode, came.fin) == (raw.TEXT, True)
        self.frames.append(json.loads(came.payload))
        if self.frames[-1]["type"] == "message":
            self.numbers.append(number_of(self.frames[-1]["position"]))


class Relay:
    """An hub that is served, its pages, what was said to it, and what a browser is to make of that.

    Message number n stands at the position n-0.
    """

    def __init__(self, *, history: int, max_clients: int, instance: str) -> None:
        self.metrics = Metrics()
        self.hub = Hub(history=history, instance=instance, max_clients=max_clients, metrics=self.metrics)
        self.ports: list[int] = []
        self.pages: list[Page] = []
        self.number = 0
        self._said: list[int] = []  # what a browser is to be shown, or to be told the loss of
        self._texts: dict[int, str] = {}

    def append(self, text: str, message_id: str | None = None) -> None:
        prev, self.number = self.number, self.number + 1
        message = Message(message_id or f"id-{self.number}", text, "there", 7)
        if self.hub.append(Entry(Position(self.number, 0), Position(prev, 0), message)) is not None:
            self._said.append(self.number)
            self._texts[self.number] = text

    def say(self, *texts: str) -> None:
        for text in texts:
            self.append(text)
        self.hub.notify_all()

    def lose(self) -> None:
        """One is lost before the channel could give it."""
        self.number += 1
        self._said.append(self.number)

    def beat(self) -> None:
        self.hub.feed.beat()
        self.hub.notify_all()

    async def open(self, query: str = "", *, reading: bool = True, place: int = 0) -> Page:
        """A page that has had the answer to its handshake; one that does not read gets a little more at most."""
        connection = raw.connected(self.ports[place], receive_buffer=None if reading else LITTLE)  # the kernel's doing
        connection.setblocking(False)
        page = Page(query, reading=reading)
        self.pages.append(page)
        await asyncio.get_running_loop().create_connection(lambda: page, sock=connection)
        await eventually(lambda: page.open, "an answer")
        return page

    async def all_have(self, *pages: Page) -> None:
        """Return once they (none: all) have been shown the newest message."""
        shown = [page.numbers for page in pages or self.pages]
        await eventually(lambda: all(numbers[-1:] == [self.number] for numbers in shown), "all have it", 20)

    async def gaps_of(self, *pages: Page) -> list[int]:
        """How many gaps each of them (none: all) was told, once they have the newest message; see `check`."""
        await self.all_have(*pages)
        return [self.check(page) for page in pages or self.pages]

    def check(self, page: Page) -> int:
        """How many gaps it was told; the rest is as promised.

        That is a welcome; in order, and once, the messages behind its start; and one gap before a message, just where
        something is missing.
        """
        assert page.kinds().index("welcome") == page.kinds().count("welcome") - 1 == 0
        gap, gaps, after = None, 0, page.after
        for each in page.frames:
            if each["type"] == "gap":
                assert gap is None, f"two gaps: {gap} and {each}"
                gap, gaps = each, gaps + 1
            elif each["type"] == "message":
                number = number_of(each["position"])
                after = number - 1 if after is None else after
                assert number > after, f"{number} comes behind {after}"
                assert (each["text"], each["position"]) == (self._texts[number], f"{number}-0")
                whole = self._said[bisect_right(self._said, after)] == number
                assert gap == (None if whole else {"type": "gap", "after": f"{after}-0", "before": f"{number}-0"})
                gap, after = None, number
        assert gap is None
        return gaps

    def gaps(self) -> float | None:
        return self.metrics.registry.get_sample_value("hello_gaps_total", {"reader": "client"})

    async def stuck(self, count: int = 1) -> None:
        """Return once so many browsers keep the relay waiting."""
        slow = partial(self.metrics.registry.get_sample_value, "hello_slow_clients")
        await eventually(lambda: slow() == count, f"{count} slow browsers")

    async def left(self, count: int) -> None:
        """Return once there are so many browsers."""
        await eventually(lambda: len(self.hub) == count, f"{count} browsers")

    async def refusal(self, path: str, *fields: str) -> tuple[int, str | None, str]:
        """Status, Retry-After and text of the answer to a handshake, which is no upgrade."""
        answer = await in_thread(raw.ask, self.ports[0], raw.handshake(path, *fields))
        assert answer.one("upgrade") is None
        return answer.status, answer.one("retry-after"), answer.rest.decode()


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(partial(function, *args))


async def stock(app: ASGIApp, stop: anyio.Event, *, listener: Any) -> None:
    """The app under uvicorn as it comes."""
    config = uvicorn.Config(app, http="httptools", ws="websockets-sansio", lifespan="off", log_config=None)
    stock_server = uvicorn.Server(config)
    serving = asyncio.create_task(stock_server.serve(sockets=[listener]))
    try:
        await stop.wait()
    finally:
        stock_server.should_exit = True
        with anyio.CancelScope(shield=True):
            await serving


@asynccontextmanager
async def served(
    *ways: str, history: int = 10_000, max_clients: int = 100, instance: str = "here"
) -> AsyncIterator[Relay]:
    """A relay that is served in each of these ways, at a port each."""
    relay = Relay(history=history, max_clients=max_clients, instance=instance)
    relay.hub.set_channel_up(True)
    app = public_app(relay.hub, allowed_origins=[FRIEND])
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        for each in ways:
            listener = listen("127.0.0.1", 0)
            relay.ports.append(listener.getsockname()[1])
            serve: Callable[..., Any] = {"line": server.serve, "asgi": stock}[each]
            group.start_soon(partial(serve, app, stop, listener=listener))
        try:
            yield relay
        finally:
            for page in relay.pages:
                page.transport.abort()
            stop.set()


async def test_the_frames_are_those_of_the_contract(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one whole text frame with just these fields; times are UNIX milliseconds, and a sign of life is timed."""
    monkeypatch.setattr("hello.hub.BEAT_SECONDS", 0.05)
    began = now_ms()
    async with served(way) as relay, anyio.create_task_group() as group:
        relay.say("before", 'ÿ"\n\u2028😀')
        page = await relay.open("?last=1")
        relay.lose()
        relay.say("behind a loss")
        await relay.all_have()
        relay.hub.set_channel_up(False)
        await end_with("status", page)
        group.start_soon(relay.hub.beat)
        await eventually(lambda: page.kinds()[5:] == ["beat", "beat"], "signs of life")
        group.cancel_scope.cancel()
    times = [each.pop(field) for each in page.frames for field in ("relayed_at", "since") if field in each]
    common = {"type": "message", "broadcaster": "there", "sent_at": 7, "relay": "here"}
    assert page.frames[:6] == [
        {"type": "welcome", "relay": "here", "head": "2-0", "channel": "up"},
        {**common, "position": "2-0", "id": "id-2", "text": 'ÿ"\n\u2028😀'},
        {"type": "gap", "after": "2-0", "before": "4-0"},
        {**common, "position": "4-0", "id": "id-4", "text": "behind a loss"},
        {"type": "status", "channel": "down"},
        {"type": "beat"},
    ]
    assert len(times) == 3
    assert all(type(each) is int and began <= each <= now_ms() for each in times)


async def end_with(kind: str, *pages: Page) -> None:
    """Return once the last frame of each is of this kind."""
    await eventually(lambda: all(page.kinds()[-1:] == [kind] for page in pages), kind)


@pytest.mark.parametrize(("query", "size"), [("", 125), ("?last=3", 126), ("?after=5-0", 127)])
async def test_both_ways_write_the_same_bytes(query: str, size: int) -> None:
    """One hub, served in both ways at once: the frames are alike to the last byte.

    The welcome has so many bytes: from 126 on a frame tells its length in another way.
    """
    name = "n" * (size - len('{"type":"welcome","relay":"","head":"30-0","channel":"up"}'))
    async with served("line", "asgi", history=20, instance=name) as relay:
        relay.say(*(LONG for _ in range(30)))
        pages = [await relay.open(query, place=place) for place in range(2)]
        for step in range(1, 200):
            relay.say("é" * step)
            if step % 5 == 0:  # else several go out in one piece
                await relay.all_have()
            match step % 25:
                case 5:
                    relay.hub.set_channel_up(step % 2 == 0)
                    await end_with("status", *pages)
                case 15:
                    relay.beat()
                    await end_with("beat", *pages)
                case 20:
                    relay.lose()
        relay.say("the last", *("y" * size for size in (1, *range(1, 4097, 400), 4096)))
        await relay.all_have()
        assert pages[0].wire == pages[1].wire
        assert len(next(raw.decode(pages[0].wire[:])).payload) == size
        assert {"welcome", "message", "gap", "status", "beat"} == set(pages[0].kinds())
        assert await relay.gaps_of() == [8 + ("after" in query)] * 2


async def test_whoever_joins_amid_bursts_misses_nothing_and_sees_nothing_twice(way: str) -> None:
    """Thirty browsers, at different moments; bursts of 1 to 300 messages of 1 to 4,096 characters."""
    draw = random.Random(7)
    async with served(way) as relay:
        async with anyio.create_task_group() as group:
            for burst in (1, 40, 300, 1, 7, 120, 2, 1, 60, 150):
                for query in ("", "?after=0-0", f"?last={draw.randrange(300)}"):
                    group.start_soon(relay.open, query)
                for _ in range(draw.randrange(12)):
                    await anyio.lowlevel.checkpoint()
                there = [page for page in relay.pages if page.frames]
                relay.say(*("z" * min(4096, int(draw.paretovariate(0.4))) for _ in range(burst)))
                if there and draw.random() < 0.4:
                    await relay.all_have(*there)
        relay.say("1", "x" * 4096)
        assert await relay.gaps_of() == [0] * 30
        assert relay.gaps() == 0


async def test_there_is_no_seam_between_what_is_kept_and_what_comes(way: str) -> None:
    """Resumed from every position, and with every number of the newest, while a message is said in every turn."""
    async with served(way) as relay, anyio.create_task_group() as group:
        relay.say(*(f"kept {number}" for number in range(20)))
        opened: list[tuple[Page, int, int]] = []

        async def join(query: str, number: int) -> None:
            head = relay.number
            opened.append((await relay.open(query), head, number))

        for number in range(21):
            group.start_soon(join, f"?after={number}-0", number)
            group.start_soon(join, f"?last={number}", number)
        with anyio.fail_after(raw.SECONDS):
            while len(opened) < 42:
                await anyio.lowlevel.checkpoint()
                relay.say("live")
        relay.say("the last")
        assert await relay.gaps_of() == [0] * 42
        for page, head, number in opened:
            if page.after is None:  # counted from what was the newest between its coming and its welcome
                assert head - number < page.numbers[0] <= number_of(page.frames[0]["head"]) - number + 1
        assert relay.gaps() == 0


async def test_a_browser_ahead_of_its_relay_is_shown_what_it_has_not_seen(way: str) -> None:
    """It may come from a relay that is a moment ahead: nothing until then, and no gap."""
    async with served(way) as relay:
        relay.say("one", "two")
        ahead, beside = await relay.open("?after=5-0"), await relay.open("?after=2-0")
        for text in ("three", "four", "five"):
            relay.say(text)
            await relay.all_have(beside)
        relay.say("six", "seven")
        assert await relay.gaps_of() == [0, 0]
        assert ahead.numbers == [6, 7]


async def test_a_gap_is_told_once_to_each_before_the_next_message(way: str) -> None:
    """Where a position fell off the log's tail, or the channel lost something; the metric counts each browser's."""
    async with served(way, history=10) as relay:
        relay.say(*(str(number) for number in range(30)))
        pages = [await relay.open(f"?after={number}-0") for number in (5, 19, 20, 30, 30, 30)]
        assert await relay.gaps_of(*pages[:3]) == [1, 1, 0]
        relay.lose()
        await relay.open("?after=30-0")
        assert relay.gaps() == 2  # for there is nothing yet before which the loss could be told
        relay.say("behind the loss")
        relay.say("and so on")
        assert await relay.gaps_of() == [2, 2, 1, 1, 1, 1, 1]
        assert relay.gaps() == 9


async def test_a_message_that_was_accepted_twice_is_shown_once(way: str) -> None:
    """And no gap is told for the one that was dropped, to those who are there or come later; a loss beside it is."""
    async with served(way) as relay:
        await relay.open("?after=0-0")
        relay.say("one")
        relay.append("one", "id-1")
        relay.say("three")
        relay.append("one", "id-1")
        relay.append("three", "id-3")
        relay.hub.notify_all()
        relay.say("six")
        for query in ("?last=3", "?after=2-0", "?after=4-0"):
            await relay.open(query)
        assert await relay.gaps_of() == [0, 0, 0, 0]
        assert [page.numbers for page in relay.pages] == [[1, 3, 6], [1, 3, 6], [3, 6], [6]]
        relay.lose()
        relay.append("one", "id-1")
        relay.say("nine")
        assert await relay.gaps_of() == [1, 1, 1, 1]


async def test_one_that_did_not_read_is_told_how_the_channel_is_and_not_how_it_was(way: str) -> None:
    """Nor is it sent every beat that it missed; one that reads is told each turn."""
    async with served(way) as relay:
        relay.say(*(LONG for _ in range(200)))
        reading, late = await relay.open("?after=0-0"), await relay.open("?after=0-0", reading=False)
        await relay.all_have(reading)
        await relay.stuck()
        for up in (False, True, False, True, False):
            relay.hub.set_channel_up(up)
            await end_with("status", reading)
            relay.beat()
            await end_with("beat", reading)
        late.read()
        relay.say("the last")
        assert await relay.gaps_of() == [0, 0]
        news = [[each.get("channel") for each in page.frames if each["type"] == "status"] for page in relay.pages]
        assert news == [["down", "up", "down", "up", "down"], ["down"]]
        assert late.kinds().count("beat") == 1


@pytest.mark.parametrize("history", [1000, 200], ids=["all kept", "moved on"])
async def test_a_slow_reader_gets_all_that_is_kept_and_delays_nobody(way: str, history: int) -> None:
    """It stops and reads again; if the log has moved on past it, it is told the gap. Others have it all meanwhile."""
    async with served(way, history=history) as relay:
        slow = await relay.open("?after=0-0", reading=False)
        others = [await relay.open("?after=0-0") for _ in range(3)]
        for _ in range(4):
            relay.say(*(LONG for _ in range(120)))
            await relay.all_have(*others)
        await relay.stuck()
        assert len(slow.frames) < 50
        slow.read()
        gap = int(history < 480)
        assert await relay.gaps_of() == [gap, 0, 0, 0]
        assert relay.gaps() == gap
        assert slow.kinds()[-history - 1 :] == ["gap" if gap else "welcome", *["message"] * min(history, 480)]
        assert gap == 0 or slow.kinds().index("gap") < 60  # of 4 KB: it has cost no more than that
        relay.say("it goes on")
        assert await relay.gaps_of() == [gap, 0, 0, 0]


async def test_readers_that_stop_and_go_on_are_told_each_gap_and_lose_nothing_else(way: str) -> None:
    """Eight that read now and then beside four that always do, before a log that is short; each gap is counted."""
    draw = random.Random(11)
    async with served(way, history=60) as relay:
        always = [await relay.open("?after=0-0") for _ in range(4)]
        moody = [await relay.open("?after=0-0", reading=False) for _ in range(8)]
        for _ in range(50):
            relay.say(*("w" * draw.choice((1, 100, 4000)) for _ in range(draw.randrange(1, 50))))
            for page in draw.sample(moody, 3):
                page.read(draw.random() < 0.5)
            await relay.all_have(*always)
        for page in moody:
            page.read()
        assert await relay.gaps_of(*always) == [0, 0, 0, 0]
        assert 8 <= sum(await relay.gaps_of(*moody)) == relay.gaps()


@pytest.mark.parametrize("reads", [False, True], ids=["never", "too late"])
async def test_a_reader_that_takes_nothing_is_given_up(way: str, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it reads again it hears 1013, behind what it had been sent before; else its place is free all the same.

    Who does read is kept, and has everything.
    """
    afterwards = raw.SECONDS if reads else 0.1  # seconds in which it may hear of it
    for module, limits in ((websocket, {"ABORT_SECONDS": afterwards}), (stream, {"CLOSE_SECONDS": afterwards})):
        for name, value in {**limits, "STALL_SECONDS": STALL_SECONDS}.items():
            monkeypatch.setattr(module, name, value)
    async with served(way) as relay:
        relay.say(*(LONG for _ in range(200)))
        reading = await relay.open()
        stopped = [await relay.open("?after=0-0", reading=False) for _ in range(3)]
        if reads:
            await relay.stuck(3)
            await anyio.sleep(2 * STALL_SECONDS)  # on the loop on which the limit runs out in half the time
            for page in stopped:
                page.read()
            await eventually(lambda: all(page.ended for page in stopped), "they are hung up on")
            assert {page.code for page in stopped} == {1013}
            assert all(page.numbers == list(range(1, len(page.numbers) + 1)) for page in stopped)
            assert all(0 < len(page.numbers) < 200 for page in stopped)
        await relay.left(1)
        relay.say("it goes on")
        assert await relay.gaps_of(reading) == [0]
        assert reading.code is None


async def test_a_drain_sends_what_is_owed_and_closes_with_1012(way: str) -> None:
    """To slow readers too, once they read; nobody else waits for them, and newcomers are told when to come again."""
    async with served(way) as relay:
        relay.say(*(LONG for _ in range(200)))
        quick = [await relay.open(f"?last={number}") for number in range(0, 200, 20)]
        slow = [await relay.open("?after=0-0", reading=False) for _ in range(3)]
        await relay.all_have(*quick[1:])
        await relay.stuck(3)
        for _ in range(20):
            relay.append(LONG)  # and nobody is woken
        owed = relay.number
        async with anyio.create_task_group() as group:
            group.start_soon(relay.hub.drain, 0.3)
            await eventually(lambda: any(page.code for page in quick), "the first is moved")
            assert await relay.refusal("/ws") == (503, "1", "this relay is stopping\n")
            relay.say("while they are moved")
        await eventually(lambda: all(page.ended for page in quick), "the quick ones are moved")
        assert len(relay.hub) == len(slow)
        assert not relay.hub.empty.is_set()
        for page in slow:
            page.read()
        await eventually(lambda: all(page.ended for page in slow), "the slow ones are moved")
        with anyio.fail_after(raw.SECONDS):
            await relay.hub.empty.wait()
        assert {page.code for page in relay.pages} == {1012}
        assert await relay.gaps_of(*slow) == [0, 0, 0]
        assert {(relay.check(page), page.numbers[-1] >= owed) for page in quick} == {(0, True)}


LEAVINGS: list[Callable[[raw.Client], None]] = [
    lambda client: client.send(raw.frame(raw.CLOSE, raw.closing(1000))),
    lambda client: client.socket.close(),
    lambda client: raw.reset(client.socket),
]


def vanish(port: int) -> None:
    """Come, and be gone before there is an answer."""
    connection = raw.connected(port)
    connection.sendall(raw.handshake())
    raw.reset(connection)


async def test_a_full_relay_refuses_until_one_has_left(way: str) -> None:
    """With 503 and Retry-After; a place is free again however its browser left: by a close, an end, or a reset."""
    async with served(way, max_clients=3) as relay:
        port = relay.ports[0]
        with ExitStack() as stack:
            clients = [stack.enter_context(await in_thread(raw.Client, port)) for _ in range(3)]
            for leave in LEAVINGS:
                assert await relay.refusal("/ws") == (503, "10", "this relay is full (3 clients)\n")
                await in_thread(leave, clients.pop(0))
                await relay.left(2)
                clients.append(stack.enter_context(await in_thread(raw.Client, port)))
                assert json.loads((await in_thread(clients[-1].next, raw.TEXT)).payload)["type"] == "welcome"
        for _ in range(30):
            await in_thread(vanish, port)
        await in_thread(until, lambda: raw.ask_head(port, raw.handshake()).status == 101, "there is a place again")
        await relay.left(0)


async def test_a_foreign_page_and_a_bad_start_are_refused_before_the_upgrade(way: str) -> None:
    """With 403, whatever else is wrong, and with 400, in words; they take no place. Friends are let in."""
    async with served(way, max_clients=1) as relay:
        for query in ("", "?after=x"):
            status, _, text = await relay.refusal(f"/ws{query}", "Origin: http://evil.example")
            assert (status, "HELLO_ALLOWED_ORIGINS" in text) == (403, True)
        for query, complaint in {
            "after=yesterday": "a position is MILLISECONDS-SEQUENCE",
            "after=99999999999999-0": "ahead of this relay's clock",
            "last=-1": "`last` is a number",
            "after=1-0&last=1": "not both",
        }.items():
            status, _, text = await relay.refusal(f"/ws?{query}")
            assert (status, complaint in text) == (400, True)
        assert len(relay.hub) == 0
        for origin in (FRIEND, "http://127.0.0.1"):
            answer = await in_thread(raw.ask_head, relay.ports[0], raw.handshake("/ws", f"Origin: {origin}"))
            assert answer.status == 101
            await relay.left(0)
