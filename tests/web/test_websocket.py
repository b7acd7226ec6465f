"""Lines and their crowd over real sockets, in one event loop with those who read: a random walk, and its corners."""

import asyncio
import json
import random
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from hello.hub import Hub
from hello.message import Entry, Message, Position
from hello.metrics import Metrics
from hello.web import http_protocol, server, websocket
from hello.web.listener import listen
from hello.web.public import public_app
from tests.web.raw import CLOSE, PING, PONG, TEXT, closing, decode, frame, handshake, request

LITTLE = 4096  # bytes that the kernel is to hold, at either end of a connection
LONG = 1500  # characters of a message: a burst of them is several pieces
CLIENTS, STEPS = 40, 400
PINGS = 80  # on one connection, at most: a hundred frames a minute are allowed
SECONDS = 120.0  # for what takes four at most where nothing else runs
LATE = "socket.send() raised exception."  # asyncio's remark on more than four writes before a loss could be told

on_both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)


class World:
    """An hub that is served at a port, and what it was told."""

    def __init__(self, send_buffer: int | None, history: int) -> None:
        self.metrics = Metrics()
        self.hub = Hub(history=history, instance="here", max_clients=1000, metrics=self.metrics)
        self.listener = listen("127.0.0.1", 0)
        if send_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.address = self.listener.getsockname()
        self.said = 0
        self.errors: list[dict[str, Any]] = []  # that the event loop was told of

    def say(self, count: int = 1, size: int = 1) -> None:
        """Append so many messages; nobody is woken yet."""
        for _ in range(count):
            message = Message(str(self.said + 1), "x" * size, "here", 0)
            self.hub.append(Entry(Position(1, self.said + 1), Position(1, self.said), message))
            self.said += 1

    def burst(self, count: int, size: int) -> None:
        """So many messages, and one wake."""
        self.say(count, size)
        self.hub.notify_all()

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let everybody else go on until this is so."""
        while not condition():
            assert self.errors == []
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def served(
    caplog: pytest.LogCaptureFixture, send_buffer: int | None = LITTLE, history: int = 100_000
) -> AsyncIterator[World]:
    """A world that everybody has left in the end, and in which nobody had an error to tell."""
    world, stop = World(send_buffer, history), anyio.Event()
    app = public_app(world.hub, allowed_origins=[])
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: world.errors.append(context))
    try:
        async with anyio.create_task_group() as group:
            await group.start(
                lambda *, task_status: server.serve(app, stop, listener=world.listener, task_status=task_status)
            )
            with anyio.fail_after(SECONDS):
                yield world
                await world.until(lambda: len(world.hub) == 0)
            assert world.metric("hello_clients") == world.metric("hello_slow_clients") == 0
            stop.set()
    finally:
        loop.set_exception_handler(before)
    assert world.errors == []
    complaints = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert [text for text in complaints if text != LATE] == []


class Client:
    """A browser with all its connections, one after the other: it resumes after what it has seen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.connection: Connection | None = None
        self.seen = 0  # the number of the newest message; all before it have been seen too

    @property
    def up_to_date(self) -> bool:
        return self.seen == self.world.said

    async def connect(self, early: bytes = b"", *, cut: int = 0, paused: bool = False) -> "Connection":
        """Begin a connection, with frames right behind the handshake, whose first bytes may go ahead alone."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, self.world.address)
        _, self.connection = await loop.create_connection(lambda: Connection(self, sock), sock=sock)
        if paused:
            self.connection.pause()
        sent = handshake(f"/ws?after=1-{self.seen}") + early
        self.connection.transport.write(sent[:cut])
        await anyio.lowlevel.checkpoint()
        self.connection.transport.write(sent[cut:])
        return self.connection


def pings(first: int, count: int) -> bytes:
    """So many pings with numbers in them, from this one on."""
    return b"".join(frame(PING, b"%0100d" % number) for number in range(first, first + count))


class Connection(asyncio.Protocol):
    """One connection of a client, which holds the server to whole frames, in order, and to its part in closing."""

    transport: asyncio.Transport

    def __init__(self, client: Client, sock: socket.socket) -> None:
        self.client: Client | None = client  # None once it has left
        self.code: int | None = None  # in the closing frame that came
        self.paused = self.ended = False
        self.gone = False  # without a closing frame, so that it may be sent half a frame
        self.pings = self.pongs = self.texts = 0
        self._socket = sock
        self._buffer = bytearray()
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open and b"\r\n\r\n" in self._buffer:
            head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._open, self._buffer = True, bytearray(rest)
        for came in decode(self._buffer) if self._open else ():
            assert self.code is None, "behind the closing frame"
            assert came.fin
            if came.opcode == TEXT:
                self._text(json.loads(came.payload))
            elif came.opcode == PONG:
                self.pongs += 1
                assert came.payload == b"%0100d" % self.pongs
            else:
                assert came.opcode == CLOSE
                self.code = came.code
                if not self.gone and self.code != 1000:  # which was its own
                    self.transport.write(frame(CLOSE, came.payload))

    def _text(self, fields: dict[str, Any]) -> None:
        self.texts += 1
        assert (fields["type"] == "welcome") == (self.texts == 1)
        assert fields["type"] != "gap"
        if fields["type"] == "message" and self.client is not None:
            assert int(fields["id"]) == self.client.seen + 1
            self.client.seen += 1

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        if not self.gone:
            assert error is None
            assert not self._buffer, "the last frame is not whole"
            assert self.client is None or self.code is not None

    def pause(self) -> None:
        self.paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        self.paused = False
        self.transport.resume_reading()

    def ping(self, count: int) -> bytes:
        """So many pings, to be sent; their pongs are to come in this order."""
        self.pings += count
        return pings(self.pings - count + 1, count)

    def leave(self, how: str) -> None:
        """By a closing frame, by the end of what is sent, or by a reset; no message counts from then on."""
        assert self.client is not None
        self.client.connection = None
        self.client = None
        self.gone = how != "close"
        if how == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        self.resume()
        if how == "close":
            self.transport.write(frame(CLOSE, closing(1000)))
        else:
            self.transport.write_eof()


async def walk(world: World, clients: list[Client], dice: random.Random) -> None:
    """One step of whoever is drawn: of the news, or of a client."""
    client = dice.choice(clients)
    connection = client.connection
    match dice.choice(("burst", "say", "turn", "beat", "pause", "resume", "ping", "leave", "join", "join", "settle")):
        case "burst":
            world.burst(dice.randint(1, 30), dice.choice((1, 100, LONG)))
        case "say":
            world.say(size=dice.randint(1, LONG))  # told with the next wake
        case "turn":
            world.hub.feed.set_channel_up(dice.random() < 0.5)
            world.burst(dice.choice((0, 1, 20)), LONG)  # several pieces for one ring
        case "beat":
            world.hub.feed.beat()
            world.hub.notify_all()
        case "settle" if dice.random() < 0.5:
            world.hub.notify_all()
            reading = [each for each in clients if (at := each.connection) is not None and not at.paused]
            await world.until(lambda: all(each.up_to_date for each in reading))
        case "join" if connection is None:
            early = frame(TEXT, b"hello?") + frame(PONG) if dice.random() < 0.5 else b""
            await client.connect(early, cut=dice.choice((0, 1, 40)), paused=dice.random() < 0.2)
        case "pause" if connection is not None:
            connection.pause()
        case "resume" if connection is not None:
            connection.resume()
        case "ping" if connection is not None and connection.pings < PINGS:
            connection.transport.write(connection.ping(dice.randint(1, 5)))
        case "leave" if connection is not None:
            connection.leave(dice.choice(("close", "end", "reset")))
    for _ in range(dice.choice((0, 0, 1, 2, 5))):
        await anyio.lowlevel.checkpoint()


@on_both_loops
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
async def test_whoever_pauses_leaves_and_comes_back_sees_every_message_once(
    caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """In order, in whole frames, with every ping answered, and 1012 after all that was said when the relay drained."""
    dice = random.Random(seed)
    async with served(caplog, LITTLE if seed % 2 else None) as world:
        clients = [Client(world) for _ in range(CLIENTS)]
        connections = []
        for _ in range(STEPS):
            await walk(world, clients, dice)
        for client in clients:
            connection = client.connection or await client.connect()
            connections.append(connection)
            if dice.random() < 0.5:
                connection.resume()
            else:
                connection.pause()
        for _ in range(20):
            world.burst(dice.randint(0, 10), LONG)
            await anyio.lowlevel.checkpoint()
        await world.until(lambda: len(world.hub) == CLIENTS)  # those who left have gone
        said = world.said
        async with anyio.create_task_group() as group:
            group.start_soon(world.hub.drain, dice.choice((0, 0.3)))
            for connection in connections:
                world.burst(1, 100)
                await anyio.lowlevel.checkpoint()
                connection.resume()
            await world.until(lambda: all(connection.ended for connection in connections))
        assert {connection.code for connection in connections} == {1012}
        assert min(client.seen for client in clients) >= said
        assert all(connection.pongs == connection.pings for connection in connections)
        await world.hub.empty.wait()


@on_both_loops
async def test_a_burst_reaches_all_but_one_that_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    """Fifty who have everything get thirty messages of one wake; the one gets them once it reads, and is moved then."""
    async with served(caplog) as world:
        clients = [Client(world) for _ in range(50)]
        connections = [await client.connect() for client in clients]
        world.burst(1, LONG)
        await world.until(lambda: all(client.up_to_date for client in clients))
        connections[20].pause()
        for _ in range(3):
            world.burst(30, LONG)
            await world.until(lambda: sum(client.up_to_date for client in clients) == 49)
        assert clients[20].seen == 1
        await world.hub.drain(0)
        await world.until(lambda: sum(connection.ended for connection in connections) == 49)
        connections[20].resume()
        await world.until(lambda: connections[20].ended)
        assert clients[20].up_to_date


@on_both_loops
async def test_one_that_does_not_read_is_not_written_to(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a piece that it has begun and its pongs, however much it says: the rest stays in the log."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0)
    async with served(caplog) as world:
        world.say(300, 4000)
        for number in range(40):
            client, before = Client(world), world.said
            # For one of these sizes the kernel takes all of a piece, and not the pongs behind it.
            world.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE + 1024 * number)
            connection = await client.connect(pings(1, 30), paused=True)
            connection.pings = 30
            await world.until(lambda: world.metric("hello_slow_clients") == 1)
            for _ in range(60):
                world.burst(1, 1)
                await anyio.lowlevel.checkpoint()
            assert (world.metric("hello_client_lag_messages") or 0) > before - 30
            if number % 10 == 0:
                connection.resume()
                await world.until(lambda each=client: each.up_to_date)  # type: ignore[misc]  # as it is in this turn
                assert connection.pongs == connection.pings
            connection.leave("reset")
            await world.until(lambda: len(world.hub) == 0)


@on_both_loops
@pytest.mark.slow
async def test_one_that_stops_reading_costs_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of what the others are sent meanwhile waits for it."""
    async with served(caplog, history=50) as world:
        clients = [Client(world) for _ in range(3)]
        connections = [await client.connect() for client in clients]
        world.burst(1, 1)
        await world.until(lambda: all(client.up_to_date for client in clients))
        connections[0].pause()
        tracemalloc.start()
        try:
            for number in range(400):
                world.burst((5, 5, 5, 25)[number % 4], LONG)
                await world.until(lambda: all(client.up_to_date for client in clients[1:]))
            world.hub.feed.beat()  # so that nothing is kept for those who come next
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 1024 * 1024
        for connection in connections:
            connection.leave("reset")


@on_both_loops
async def test_one_that_is_closed_is_sent_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """For what it said, although it had everything and has not answered yet: the closing frame is the last."""
    async with served(caplog, send_buffer=None) as world:
        client, other = Client(world), Client(world)
        connection, _ = await client.connect(), await other.connect()
        world.burst(1, 1)
        await world.until(lambda: client.up_to_date and other.up_to_date)
        connection.pause()
        connection.transport.write(frame(TEXT, b"\xff"))
        for _ in range(50):
            world.burst(1, 1)
            await world.until(lambda: other.up_to_date)
        connection.resume()
        await world.until(lambda: connection.ended and len(world.hub) == 1)
        assert connection.code == 1007
        assert client.seen < 50
        await world.hub.drain(0)


@on_both_loops
@pytest.mark.parametrize("how", ["close", "end", "reset"])
async def test_one_that_leaves_while_it_catches_up_is_forgotten(caplog: pytest.LogCaptureFixture, how: str) -> None:
    """However few turns after it came; what is said meanwhile is for the others."""
    async with served(caplog, send_buffer=None) as world:
        world.burst(100, LONG)
        staying = Client(world)
        await staying.connect()
        for turns in range(30):
            connection = await Client(world).connect(paused=turns % 2 == 0)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            connection.leave(how)
            world.burst(10, LONG)
        await world.until(lambda: staying.up_to_date and len(world.hub) == 1)
        early = await Client(world).connect(frame(CLOSE, closing(1000)))
        await world.until(lambda: early.code == 1000 and len(world.hub) == 1)
        await world.hub.drain(0)


@on_both_loops
@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_the_limit_on_closing_ends_with_the_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """One that is closed while something is unsent, and reads it then: the event loop has no error to tell."""
    limit = 0.2
    for module in (websocket, http_protocol):
        monkeypatch.setattr(module, "ABORT_SECONDS", limit)
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0)
    opening = handshake("/ws?after=0-0") if path == "/ws" else request("/events?after=0-0")
    async with served(caplog) as world:
        world.say(400, LONG)
        async with await anyio.connect_tcp(*world.address) as stream:
            await stream.send(opening)
            await world.until(lambda: world.metric("hello_slow_clients") == 1)
            closed_at = anyio.current_time()
            await stream.send(frame(CLOSE, closing(1000)) if path == "/ws" else request("/"))
            received = b"".join([data async for data in stream])
        last = frame(CLOSE, closing(1000), masked=False) if path == "/ws" else b"HTTP/1.1 429 "
        assert last in received or anyio.current_time() > closed_at + limit, "it was not waited for"
        over = anyio.current_time() + 2 * limit
        await world.until(lambda: len(world.hub) == 0 and anyio.current_time() > over)


@on_both_loops
async def test_one_that_was_too_slow_and_does_not_answer_is_hung_up_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it has read everything by then, the closing frame too."""
    stall = 0.3
    for name, limit in (("STALL_SECONDS", stall), ("ABORT_SECONDS", 4 * stall)):
        monkeypatch.setattr(websocket, name, limit)
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0)
    async with served(caplog) as world:
        world.say(400, LONG)
        async with await anyio.connect_tcp(*world.address) as stream:
            await stream.send(handshake("/ws?after=0-0"))
            await world.until(lambda: world.metric("hello_slow_clients") == 1)
            late = anyio.current_time() + 2 * stall
            await world.until(lambda: anyio.current_time() > late)
            with suppress(anyio.BrokenResourceError):  # as its end is no close of ours
                async for _ in stream:
                    pass
        await world.until(lambda: len(world.hub) == 0)
