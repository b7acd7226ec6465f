"""Each transport keeps the same promises: a WebSocketConnection, a WebSocket by a task, and server-sent events.

The tests use real sockets, and feed the hub directly, without channel and relay. Transports:

    websocket   a WebSocketConnection, on our server
    asgi        a WebSocket with a task that sends, on a stock uvicorn
    events      server-sent events, on our server
"""

import asyncio
import json
import logging
import os
import random
import socket
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from hello.hub import Hub
from hello.message import Entry, Message, Position, now_ms
from hello.metrics import Metrics
from hello.web import server, stream, websocket
from hello.web.public import public_app
from tests.web import raw
from tests.web.conftest import Clock
from tests.web.inprocess import WebSocketClient, serving
from tests.web.measurements import count_descriptors, eventually, until

LITTLE = 16 * 1024  # bytes that the kernel takes for a client that does not read
LONG = "x" * 4000
FRIEND = "https://friend.example"

each_transport = pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    [("websocket", "asyncio"), ("websocket", "uvloop"), ("asgi", "uvloop"), ("events", "uvloop")],
    indirect=["anyio_backend"],
)
each_transport_with_clock = pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    [("websocket", "asyncio"), ("asgi", "asyncio"), ("events", "asyncio")],
    indirect=["anyio_backend"],
)


@pytest.fixture(autouse=True)
def no_errors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test after which the server has logged a warning or an error; a client counts as slow after 0.1 s."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0.1)
    monkeypatch.setattr("tests.web.measurements.POLL_SECONDS", 0.001)
    yield
    logged = {record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING}
    # uvicorn logs these of an app that refuses a WebSocket with an answer, and of one that gives up a stalled client.
    assert logged <= {f"ASGI callable returned without completing {what}." for what in ("handshake", "response")}


def number_of(position: str) -> int:
    return Position.parse(position).milliseconds


def end_of(transport: str, code: int) -> int:
    """Return what `Client.closed_with` is to be: events have no close codes, but a time after which to reconnect."""
    return 500 if transport == "events" else code


class Client(WebSocketClient):
    """A client that keeps the frames that it received, and answers a close frame."""

    def __init__(self, sock: socket.socket, query: str, reading: bool) -> None:
        super().__init__(sock)
        self.wire = bytearray()  # everything after the head of the answer
        self.frames: list[dict[str, Any]] = []
        self.numbers: list[int] = []  # of the messages
        self.closed_with: int | None = None  # the close code, or the retry time of events in ms
        self.after = number_of(query.removeprefix("?after=")) if "after" in query else None
        self._query, self._reading = query, reading

    @staticmethod
    def opening(query: str, *fields: str) -> bytes:
        return raw.handshake(f"/ws{query}", *fields)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(self.opening(self._query))

    def answered(self, answer: raw.Answer) -> None:
        if not self._reading:
            self.pause()

    def types(self) -> list[str]:
        return [each["type"] for each in self.frames]

    def parse(self, buffer: bytearray, data: bytes) -> None:
        self.wire += data
        super().parse(buffer, data)

    def received(self, frame: raw.Frame) -> None:
        assert self.closed_with is None, f"after the close frame: {frame}"
        if frame.opcode == raw.CLOSE:
            self.closed_with = frame.code
            self.transport.write(raw.frame(raw.CLOSE, frame.payload))
        else:
            assert (frame.opcode, frame.fin) == (raw.TEXT, True)
            self.add_frame(frame.payload)

    def add_frame(self, text: bytes) -> None:
        self.frames.append(json.loads(text))
        if self.frames[-1]["type"] == "message":
            self.numbers.append(number_of(self.frames[-1]["position"]))

    def send_close(self) -> None:
        self.transport.write(raw.frame(raw.CLOSE, raw.close_payload(1000)))


class EventsClient(Client):
    """The same over server-sent events, in the chunks of HTTP/1.1 (RFC 9112, section 7.1)."""

    status = 200

    @staticmethod
    def opening(query: str, *fields: str) -> bytes:
        return raw.request(f"/events{query}", *fields)

    def answered(self, answer: raw.Answer) -> None:
        assert (answer.one("content-type") or "").startswith("text/event-stream")
        assert answer.one("cache-control") == "no-store, no-transform"
        self._events = b""
        super().answered(answer)

    def parse(self, buffer: bytearray, data: bytes) -> None:
        while b"\r\n" in buffer:
            length, _, rest = buffer.partition(b"\r\n")
            size = int(length, 16)
            if len(rest) < size + 2:
                return
            self._events += rest[:size]
            del buffer[: len(length) + size + 4]
            self._parse_events()
            if size == 0:
                assert self.closed_with is not None, "the events ended without `retry`"
                self.transport.close()

    def _parse_events(self) -> None:
        *events, self._events = self._events.split(b"\n\n")
        for event in events:
            assert self.closed_with is None, f"after `retry`: {event!r}"
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
            if b"retry" in fields:
                self.closed_with = int(fields[b"retry"])
            else:
                self.add_frame(fields[b"data"])
                frame, resume = self.frames[-1], fields.get(b"id", b"").decode() or None
                assert resume == frame.get("position", frame.get("start")), "an id is where to resume"

    def send_close(self) -> None:
        self.transport.close()


class Relay:
    """A hub that is served, its clients, and what each client is to receive. Message n has the position n-0."""

    def __init__(self, *, history: int, max_clients: int, instance: str) -> None:
        self.metrics = Metrics()
        self.hub = Hub(history=history, instance=instance, max_clients=max_clients, metrics=self.metrics)
        self.ports: list[int] = []
        self.clients: list[Client] = []
        self.client: type[Client] = Client
        self.number = 0
        self._numbers: list[int] = []  # of the messages that a client receives, or is sent a gap for
        self._texts: dict[int, str] = {}

    def append(self, text: str) -> None:
        """Append a message without a notification."""
        prev, self.number = self.number, self.number + 1
        message = Message(f"id-{self.number}", text, "there", 7)
        self.hub.append(Entry(Position(self.number, 0), Position(prev, 0), message))
        self._numbers.append(self.number)
        self._texts[self.number] = text

    def publish(self, *texts: str) -> None:
        for text in texts:
            self.append(text)
        self.hub.notify_all()

    def lose(self) -> None:
        """Let the channel lose a message before the relay reads it."""
        self.number += 1
        self._numbers.append(self.number)

    def beat(self) -> None:
        self.hub.feed.beat()
        self.hub.notify_all()

    async def open(self, query: str = "", *, reading: bool = True, server: int = 0) -> Client:
        """Return a client once it has an answer; one that does not read receives at most a little more."""
        sock = raw.connect(self.ports[server], receive_buffer=None if reading else LITTLE)
        client: Client = await self.client.connect(sock, query, reading)
        self.clients.append(client)
        await eventually(lambda: client.open, "an answer")
        return client

    async def all_have(self, *clients: Client) -> None:
        """Return once these clients (none: all) have received the newest message."""
        received = [client.numbers for client in clients or self.clients]
        await eventually(lambda: all(numbers[-1:] == [self.number] for numbers in received), "all have it", 20)

    async def gaps_of(self, *clients: Client) -> list[int]:
        """Return how many gaps each of these (none: all) was sent, once they have the newest message; see `check`."""
        await self.all_have(*clients)
        return [self.check(client) for client in clients or self.clients]

    def check(self, client: Client) -> int:
        """Check what a client received, and return how many gaps it was sent.

        That is one welcome, every message after its start once and in order, and one gap where messages are missing.
        """
        assert client.types().index("welcome") == client.types().count("welcome") - 1 == 0
        gap, gaps, after = None, 0, client.after
        for each in client.frames:
            if each["type"] == "gap":
                assert gap is None, f"two gaps: {gap} and {each}"
                gap, gaps = each, gaps + 1
            elif each["type"] == "message":
                number = number_of(each["position"])
                after = number - 1 if after is None else after
                assert number > after, f"{number} comes after {after}"
                assert (each["text"], each["position"]) == (self._texts[number], f"{number}-0")
                complete = self._numbers[bisect_right(self._numbers, after)] == number
                assert gap == (None if complete else {"type": "gap", "after": f"{after}-0", "before": f"{number}-0"})
                gap, after = None, number
        assert gap is None
        return gaps

    def gaps(self) -> float | None:
        return self.metrics.registry.get_sample_value("hello_gaps_total", {"reader": "client"})

    async def until_slow(self, count: int = 1) -> None:
        """Return once so many clients are slow."""
        slow = partial(self.metrics.registry.get_sample_value, "hello_slow_clients")
        await eventually(lambda: slow() == count, f"{count} slow clients")

    async def until_clients(self, count: int) -> None:
        """Return once there are so many clients."""
        await eventually(lambda: len(self.hub) == count, f"{count} clients")

    async def refusal(self, query: str = "", *fields: str) -> tuple[int, str | None, str]:
        """Return status, Retry-After and text of the answer to a client that is refused."""
        last = ("Connection: close",) if self.client is EventsClient else ()  # a refused WebSocket is closed anyway
        answer = await in_thread(raw.ask, self.ports[0], self.client.opening(query, *last, *fields))
        assert answer.one("upgrade") is None
        return answer.status, answer.one("retry-after"), answer.rest.decode()


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(partial(function, *args))


async def serve_stock(app: ASGIApp, stop: anyio.Event, *, listener: Any, task_status: TaskStatus[None]) -> None:
    """Serve the app by uvicorn as it is, without pings, whose time-out is shorter than ours."""
    config = uvicorn.Config(
        app, http="httptools", ws="websockets-sansio", ws_ping_interval=None, lifespan="off", log_config=None
    )
    stock_server = uvicorn.Server(config)
    running = asyncio.create_task(stock_server.serve(sockets=[listener]))
    task_status.started()
    try:
        await stop.wait()
    finally:
        stock_server.should_exit = True
        with anyio.CancelScope(shield=True):
            await running


@asynccontextmanager
async def served(
    *transports: str, history: int = 10_000, max_clients: int = 100, instance: str = "here"
) -> AsyncIterator[Relay]:
    """Serve a relay over each transport, at one port each."""
    relay = Relay(history=history, max_clients=max_clients, instance=instance)
    relay.hub.set_loaded()
    app = public_app(relay.hub, allowed_origins=[FRIEND])
    async with AsyncExitStack() as stack:
        for each in transports:
            serve: Callable[..., Any] = serve_stock if each == "asgi" else server.serve
            relay.ports.append(await stack.enter_async_context(serving(app, serve=serve)))
            relay.client = EventsClient if each == "events" else Client
        try:
            yield relay
        finally:
            for client in relay.clients:
                client.transport.abort()


@each_transport
async def test_frames_have_the_documented_fields(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame has just the fields of the contract, times are UNIX milliseconds, and beats come by a timer."""
    monkeypatch.setattr("hello.hub.BEAT_SECONDS", 0.05)
    start = now_ms()
    async with served(transport) as relay, anyio.create_task_group() as group:
        relay.publish("before", 'ÿ"\n\u2028😀')
        client = await relay.open("?last=1")
        relay.lose()
        relay.publish("after a loss")
        await relay.all_have()
        relay.hub.set_channel_up(False)
        await ends_with("status", client)
        group.start_soon(relay.hub.beat)
        await eventually(lambda: client.types()[5:] == ["beat", "beat"], "two beats")
        group.cancel_scope.cancel()
    times = [each.pop(field) for each in client.frames for field in ("relayed_at", "since") if field in each]
    common = {"type": "message", "broadcaster": "there", "sent_at": 7, "relay": "here"}
    assert client.frames[:6] == [
        {"type": "welcome", "relay": "here", "channel": "up", "start": "1-0", "head": "2-0"},
        {**common, "position": "2-0", "id": "id-2", "text": 'ÿ"\n\u2028😀'},
        {"type": "gap", "after": "2-0", "before": "4-0"},
        {**common, "position": "4-0", "id": "id-4", "text": "after a loss"},
        {"type": "status", "channel": "down"},
        {"type": "beat"},
    ]
    assert len(times) == 3
    assert all(type(each) is int and start <= each <= now_ms() for each in times)


async def ends_with(kind: str, *clients: Client) -> None:
    """Return once the last frame of each client is of this type."""
    await eventually(lambda: all(client.types()[-1:] == [kind] for client in clients), kind)


@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
@pytest.mark.parametrize(
    ("query", "start", "size"), [("", "30-0", 125), ("?last=3", "27-0", 126), ("?after=5-0", "5-0", 127)]
)
async def test_both_websockets_write_the_same_bytes(query: str, start: str, size: int) -> None:
    """One hub, served by a WebSocketConnection and by a task, sends the same bytes.

    The welcome has `size` bytes: from 126 on, a frame has its length in another form.
    """
    rest = '{"type":"welcome","relay":"","channel":"up","start":"","head":"30-0"}'
    name = "n" * (size - len(rest) - len(start))
    async with served("websocket", "asgi", history=20, instance=name) as relay:
        relay.publish(*(LONG for _ in range(30)))
        clients = [await relay.open(query, server=number) for number in range(2)]
        for step in range(1, 200):
            relay.publish("é" * step)
            if step % 5 == 0:  # else several go out in one write
                await relay.all_have()
            match step % 25:
                case 5:
                    relay.hub.set_channel_up(step % 2 == 0)
                    await ends_with("status", *clients)
                case 15:
                    relay.beat()
                    await ends_with("beat", *clients)
                case 20:
                    relay.lose()
        relay.publish("the last", *("y" * size for size in (1, *range(1, 4097, 400), 4096)))
        await relay.all_have()
        assert clients[0].wire == clients[1].wire
        assert len(next(raw.decode(clients[0].wire[:])).payload) == size
        assert {"welcome", "message", "gap", "status", "beat"} == set(clients[0].types())
        assert await relay.gaps_of() == [8 + ("after" in query)] * 2


@each_transport
async def test_clients_join_amid_bursts(transport: str) -> None:
    """Thirty clients that join between bursts of 1 to 300 messages receive each message once."""
    draw = random.Random(7)
    async with served(transport) as relay:
        async with anyio.create_task_group() as group:
            for burst in (1, 40, 300, 1, 7, 120, 2, 1, 60, 150):
                for query in ("", "?after=0-0", f"?last={draw.randrange(300)}"):
                    group.start_soon(relay.open, query)
                for _ in range(draw.randrange(12)):
                    await anyio.lowlevel.checkpoint()
                there = [client for client in relay.clients if client.frames]
                relay.publish(*("z" * min(4096, int(draw.paretovariate(0.4))) for _ in range(burst)))
                if there and draw.random() < 0.4:
                    await relay.all_have(*there)
        relay.publish("1", "x" * 4096)
        assert await relay.gaps_of() == [0] * 30
        assert relay.gaps() == 0


@each_transport
async def test_no_seam_between_history_and_live(transport: str) -> None:
    """Clients that resume from each position, or ask for each number of messages, while messages are published."""
    async with served(transport) as relay, anyio.create_task_group() as group:
        relay.publish(*(f"kept {number}" for number in range(20)))
        opened: list[tuple[Client, int, int]] = []

        async def join(query: str, number: int) -> None:
            head = relay.number
            opened.append((await relay.open(query), head, number))

        for number in range(21):
            group.start_soon(join, f"?after={number}-0", number)
            group.start_soon(join, f"?last={number}", number)
        with anyio.fail_after(raw.SECONDS):
            while len(opened) < 42:
                await anyio.lowlevel.checkpoint()
                relay.publish("live")
        relay.publish("the last")
        assert await relay.gaps_of() == [0] * 42
        for client, head, number in opened:
            if client.after is None:  # counted from the head at some moment between its request and its welcome
                assert head - number < client.numbers[0] <= number_of(client.frames[0]["head"]) - number + 1
        assert relay.gaps() == 0


@each_transport
async def test_gap_is_sent_once_before_the_next_message(transport: str) -> None:
    """A client is sent a gap where its position was trimmed, or the channel lost messages; the metric counts each."""
    async with served(transport, history=10) as relay:
        relay.publish(*(str(number) for number in range(30)))
        clients = [await relay.open(f"?after={number}-0") for number in (5, 19, 20, 30, 30, 30)]
        assert await relay.gaps_of(*clients[:3]) == [1, 1, 0]
        relay.lose()
        await relay.open("?after=30-0")
        assert relay.gaps() == 2  # the loss is reported before the next message, and there is none yet
        relay.publish("after the loss")
        relay.publish("and so on")
        assert await relay.gaps_of() == [2, 2, 1, 1, 1, 1, 1]
        assert relay.gaps() == 9


@each_transport
async def test_slow_client_is_sent_the_last_status(transport: str) -> None:
    """A client that did not read is sent the last status and one beat; one that reads is sent each."""
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(200)))
        reading, late = await relay.open("?after=0-0"), await relay.open("?after=0-0", reading=False)
        await relay.all_have(reading)
        await relay.until_slow()
        for up in (False, True, False, True, False):
            relay.hub.set_channel_up(up)
            await ends_with("status", reading)
            relay.beat()
            await ends_with("beat", reading)
        late.resume()
        relay.publish("the last")
        assert await relay.gaps_of() == [0, 0]
        status = [
            [each.get("channel") for each in client.frames if each["type"] == "status"] for client in relay.clients
        ]
        assert status == [["down", "up", "down", "up", "down"], ["down"]]
        assert late.types().count("beat") == 1


@each_transport
@pytest.mark.parametrize("history", [1000, 200], ids=["kept", "trimmed"])
async def test_slow_client_receives_what_is_kept(transport: str, history: int) -> None:
    """A client that stops and reads again receives all that is kept, and a gap for the rest; others are not delayed."""
    async with served(transport, history=history) as relay:
        slow = await relay.open("?after=0-0", reading=False)
        others = [await relay.open("?after=0-0") for _ in range(3)]
        for _ in range(4):
            relay.publish(*(LONG for _ in range(120)))
            await relay.all_have(*others)
        await relay.until_slow()
        assert len(slow.frames) < 50
        slow.resume()
        gap = int(history < 480)
        assert await relay.gaps_of() == [gap, 0, 0, 0]
        assert relay.gaps() == gap
        assert slow.types()[-history - 1 :] == ["gap" if gap else "welcome", *["message"] * min(history, 480)]
        assert gap == 0 or slow.types().index("gap") < 60  # messages of 4 KB that the kernel took before
        relay.publish("it goes on")
        assert await relay.gaps_of() == [gap, 0, 0, 0]


@each_transport_with_clock
async def test_stalled_client_is_closed(transport: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no byte for 30 s is closed with 1013, and aborted if it does not read that either."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0.5)  # then no byte is in flight any more
    monkeypatch.setattr(websocket, "ABORT_SECONDS", 100)
    monkeypatch.setattr(stream, "CLOSE_SECONDS", 100)
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(200)))
        reading = await relay.open()
        late = await relay.open("?after=0-0", reading=False)
        descriptors = count_descriptors(os.getpid())  # of both ends
        never = await relay.open("?after=0-0", reading=False)
        await relay.until_slow(2)
        await clock.advance(29)
        assert len(relay.hub) == 3
        await clock.advance(36)  # a check that found progress may have come late
        late.resume()
        await eventually(lambda: late.ended, "the connection ends")
        assert late.closed_with == end_of(transport, 1013)
        assert late.numbers == list(range(1, len(late.numbers) + 1))
        assert 0 < len(late.numbers) < 200
        await clock.advance(106)
        await relay.until_clients(1)
        if transport != "asgi":  # a stock uvicorn waits for unsent bytes
            await eventually(lambda: count_descriptors(os.getpid()) == descriptors - 2 + 1, "it is aborted")
        assert never.closed_with is None
        relay.publish("it goes on")
        assert await relay.gaps_of(reading) == [0]
        assert reading.closed_with is None


@each_transport_with_clock
async def test_slowly_reading_client_is_kept(transport: str, clock: Clock) -> None:
    """A client that reads a little every 20 s receives everything."""
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(300)))
        slow = await relay.open("?after=0-0", reading=False)
        await relay.until_slow()
        for _ in range(8):
            await clock.advance(20, step=1.0)
            goal = len(slow.frames) + 20  # more than the kernel holds
            slow.resume()
            await eventually(lambda: len(slow.frames) >= goal, "some frames")  # noqa: B023  # awaited here
            slow.pause()
        assert len(slow.frames) < 300
        slow.resume()
        assert await relay.gaps_of() == [0]
        assert slow.closed_with is None


@each_transport
async def test_drain_sends_what_is_pending_and_closes(transport: str) -> None:
    """A drain closes with 1012 after the last message, waits for slow clients alone, and refuses new clients."""
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(200)))
        quick = [await relay.open(f"?last={number}") for number in range(0, 200, 20)]
        slow = [await relay.open("?after=0-0", reading=False) for _ in range(3)]
        await relay.all_have(*quick[1:])
        await relay.until_slow(3)
        for _ in range(20):
            relay.append(LONG)
        pending = relay.number
        async with anyio.create_task_group() as group:
            group.start_soon(relay.hub.drain, 0.3)
            await eventually(lambda: any(client.closed_with for client in quick), "the first is closed")
            assert await relay.refusal() == unavailable(transport, 1, "this relay is stopping")
            relay.publish("during the drain")
        await eventually(lambda: all(client.ended for client in quick), "the quick clients are closed")
        assert len(relay.hub) == len(slow)
        assert not relay.hub.empty.is_set()
        for client in slow:
            client.resume()
        await eventually(lambda: all(client.ended for client in slow), "the slow clients are closed")
        with anyio.fail_after(raw.SECONDS):
            await relay.hub.empty.wait()
        assert {client.closed_with for client in relay.clients} == {end_of(transport, 1012)}
        assert await relay.gaps_of(*slow) == [0, 0, 0]
        assert {(relay.check(client), client.numbers[-1] >= pending) for client in quick} == {(0, True)}


@each_transport
async def test_drain_ends_under_a_flood(transport: str) -> None:
    """A client that is slower than the channel is closed once it has what was pending when the drain came to it."""
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(50)))
        slow = await relay.open("?after=0-0", reading=False)
        await relay.until_slow()
        await relay.hub.drain(0)
        pending, rounds = relay.number, 0
        while not slow.ended:
            assert (rounds := rounds + 1) < 500, f"{len(slow.frames)} frames are received, {relay.number} published"
            received = len(slow.frames)
            slow.resume()
            await eventually(lambda: len(slow.frames) > received or slow.ended, "some frames")  # noqa: B023  # awaited here
            slow.pause()
            relay.publish(*(LONG for _ in range(len(slow.frames) - received + 5)))
        assert slow.closed_with == end_of(transport, 1012)
        assert (relay.check(slow), slow.numbers[-1] >= pending) == (0, True)


def unavailable(transport: str, seconds: int, reason: str) -> tuple[int, str, str]:
    """Return status, Retry-After and text of a refusal: an EventSource gives up on anything but 200."""
    if transport == "events":
        return 200, str(seconds), f"retry: {seconds * 1000}\n: {reason}\n\n"
    return 503, str(seconds), f"{reason}\n"


def is_admitted(port: int, opening: bytes) -> bool:
    """Return True if a client with this request is sent a welcome; it leaves at once."""
    with raw.connect(port) as connection:
        connection.sendall(opening)
        received = b""
        for data in raw.chunks(connection):
            received += data
            if b'"welcome"' in received:
                return True
    return False


def send_and_reset(port: int, opening: bytes) -> None:
    connection = raw.connect(port)
    connection.sendall(opening)
    raw.reset(connection)


@each_transport
async def test_full_relay_refuses_until_a_client_leaves(transport: str) -> None:
    """A client's place is free again after a close, an end or a reset, during the handshake too."""
    async with served(transport, max_clients=3) as relay:
        clients = [await relay.open() for _ in range(3)]
        for how in ("close", "end", "reset"):
            leaving = clients.pop(0)
            assert await relay.refusal() == unavailable(transport, 10, "this relay is full (3 clients)")
            {"close": leaving.send_close, "end": leaving.transport.close, "reset": leaving.reset}[how]()
            await relay.until_clients(2)
            clients.append(await relay.open())
            await ends_with("welcome", clients[-1])
        for client in clients:
            client.transport.close()
        port, opening = relay.ports[0], relay.client.opening("")
        for _ in range(30):
            await in_thread(send_and_reset, port, opening)
        await in_thread(until, lambda: is_admitted(port, opening), "there is room again")
        await relay.until_clients(0)


BAD_STARTS = {
    "?after=yesterday": "a position is MILLISECONDS-SEQUENCE",
    "?after=": "a position is MILLISECONDS-SEQUENCE",
    "?after=99999999999999-0": "ahead of this relay's clock",
    "?last=many": "`last` is a number",
    "?last=-1": "`last` is a number",
    "?last=": "`last` is a number",
    "?last=99999999": "`last` is a number",
    "?after=1-0&last=1": "not both",
}


@each_transport
async def test_foreign_origin_and_bad_start_are_refused(transport: str) -> None:
    """The answer is 403 or 400 with a reason, before any upgrade, and takes no place; friends are admitted."""
    async with served(transport, max_clients=1) as relay:
        foreign = [["http://evil.example"], [FRIEND, "http://evil.example"], ["http://evil.example", FRIEND]]
        for query in ("", "?after=x"):
            for origins in foreign[: 1 if transport == "asgi" else 3]:  # a stock uvicorn refuses two Origins by itself
                status, _, text = await relay.refusal(query, *(f"Origin: {origin}" for origin in origins))
                assert (status, "HELLO_ALLOWED_ORIGINS" in text) == (403, True)
        for query, complaint in BAD_STARTS.items():
            status, _, text = await relay.refusal(query)
            assert (query, status, complaint in text) == (query, 400, True)
        assert len(relay.hub) == 0
        for origin in (FRIEND, "http://127.0.0.1"):
            assert await in_thread(is_admitted, relay.ports[0], relay.client.opening("", f"Origin: {origin}"))
            await relay.until_clients(0)
