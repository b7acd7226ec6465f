"""WebSocketConnections and their caught-up group over real sockets, in one event loop with the clients."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from hello.hub import Hub
from hello.message import Entry, Message, Position
from hello.metrics import Metrics
from hello.web import http_protocol, websocket
from hello.web.listener import listen
from hello.web.public import public_app
from tests.web import raw
from tests.web.conftest import Clock
from tests.web.inprocess import WebSocketClient, serving
from tests.web.raw import CLOSE, PING, PONG, TEXT, Frame, close_payload, connect, frame, handshake, request

LITTLE = 4096  # bytes that the kernel holds, at either end of a connection
LONG = 1500  # characters of a message, so that a burst takes several writes
CLIENTS, STEPS = 40, 400
PINGS = 80  # on one connection, at most: a hundred frames a minute are allowed
SECONDS = 180.0  # for what takes four at most on an idle machine, and for those that a test lets pass
SETTLED_SECONDS = 0.5  # blocked, until no byte is in flight to a client that does not read
STALLED_SECONDS = 65.0  # more than the 30 without progress after which a client is closed
LOST_WRITES = "socket.send() raised exception."  # asyncio logs it for writes between a loss and `connection_lost`

on_both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


class Relay:
    """A hub that is served at a port, and the errors of its event loop. Message n has the position 1-n and the id n."""

    def __init__(self, send_buffer: int | None, history: int) -> None:
        self.metrics = Metrics()
        self.hub = Hub(history=history, instance="here", max_clients=1000, metrics=self.metrics)
        self.hub.feed.set_high_watermark(Position(1, 0))
        self.hub.set_loaded()
        self.listener = listen("127.0.0.1", 0)
        if send_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.address = self.listener.getsockname()
        self.head = 0  # the number of the newest message
        self.errors: list[dict[str, Any]] = []

    def append(self, count: int = 1, size: int = 1, letter: str = "x") -> None:
        """Append messages without a notification."""
        for _ in range(count):
            message = Message(str(self.head + 1), letter * size, "here", 0)
            self.hub.append(Entry(Position(1, self.head + 1), Position(1, self.head), message))
            self.head += 1

    def publish(self, count: int, size: int) -> None:
        """Append messages, and notify once."""
        self.append(count, size)
        self.hub.notify_all()

    def metric(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let everything else run until the condition holds."""
        while not condition():
            assert self.errors == []
            await anyio.lowlevel.checkpoint()

    async def until_slow(self) -> None:
        """Return once there is one slow client."""
        await self.until(lambda: self.metric("hello_slow_clients") == 1)


@asynccontextmanager
async def served(
    caplog: pytest.LogCaptureFixture, send_buffer: int | None = LITTLE, history: int = 100_000
) -> AsyncIterator[Relay]:
    """Serve a relay that all clients leave in the end; fail if it logged a warning, or the loop had an error."""
    relay = Relay(send_buffer, history)
    app = public_app(relay.hub, allowed_origins=[])
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: relay.errors.append(context))
    try:
        async with serving(app, relay.listener):
            with anyio.fail_after(SECONDS):
                yield relay
                await relay.until(lambda: len(relay.hub) == 0)
            assert relay.metric("hello_clients") == relay.metric("hello_slow_clients") == 0
    finally:
        loop.set_exception_handler(before)
    assert relay.errors == []
    logged = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert [text for text in logged if text != LOST_WRITES] == []


class Client:
    """A client with all its connections, one after the other: it resumes after the last message."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.connection: Connection | None = None
        self.received = 0  # the number of the newest message; all before it were received too

    @property
    def up_to_date(self) -> bool:
        return self.received == self.relay.head

    async def connect(self, early: bytes = b"", *, cut: int = 0, paused: bool = False) -> "Connection":
        """Open a connection, with frames right after the handshake, whose first `cut` bytes go ahead alone."""
        sock = connect(self.relay.address[1], receive_buffer=LITTLE)
        connection: Connection = await Connection.connect(sock, self)
        self.connection = connection
        if paused:
            self.connection.pause()
        sent = handshake(f"/ws?after=1-{self.received}") + early
        self.connection.transport.write(sent[:cut])
        await anyio.lowlevel.checkpoint()
        self.connection.transport.write(sent[cut:])
        return self.connection


def pings(first: int, count: int) -> bytes:
    """Return pings with the numbers from `first` on."""
    return b"".join(frame(PING, b"%0100d" % number) for number in range(first, first + count))


class Connection(WebSocketClient):
    """One connection of a client. It checks that frames are complete and in order, and that closing is mutual."""

    def __init__(self, sock: socket.socket, client: Client) -> None:
        super().__init__(sock)
        self.client: Client | None = client  # None once it has left
        self.code: int | None = None  # of the close frame that was received
        self.paused = False
        self.gone = False  # without a close frame, so that it may receive half a frame
        self.pings = self.pongs = self.texts = 0

    def received(self, frame: Frame) -> None:
        assert self.code is None, "a frame after the close frame"
        assert frame.fin
        if frame.opcode == TEXT:
            self._text(json.loads(frame.payload))
        elif frame.opcode == PONG:
            self.pongs += 1
            assert frame.payload == b"%0100d" % self.pongs
        else:
            assert frame.opcode == CLOSE
            self.code = frame.code
            if not self.gone and self.code != 1000:  # which replies to the client's own
                self.transport.write(raw.frame(CLOSE, frame.payload))

    def _text(self, fields: dict[str, Any]) -> None:
        self.texts += 1
        assert (fields["type"] == "welcome") == (self.texts == 1)
        assert fields["type"] != "gap"
        if fields["type"] == "message" and self.client is not None:
            assert int(fields["id"]) == self.client.received + 1
            self.client.received += 1

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self.gone:
            assert error is None
            assert not self._buffer, "the last frame is not complete"
            assert self.client is None or self.code is not None

    def pause(self) -> None:
        self.paused = True
        super().pause()

    def resume(self) -> None:
        self.paused = False
        super().resume()

    def ping(self, count: int) -> bytes:
        """Return the next pings; their pongs are to come in the same order."""
        self.pings += count
        return pings(self.pings - count + 1, count)

    def leave(self, how: str) -> None:
        """Leave by a close frame (`close`), a half-closed connection (`end`) or a reset (`reset`)."""
        assert self.client is not None
        self.client.connection = None
        self.client = None
        self.gone = how != "close"
        if how == "reset":
            self.reset()
            return
        self.resume()
        if how == "close":
            self.transport.write(frame(CLOSE, close_payload(1000)))
        else:
            self.transport.write_eof()


async def step(relay: Relay, clients: list[Client], draw: random.Random) -> None:
    """Do one random step of the relay or of a client."""
    client = draw.choice(clients)
    connection = client.connection
    kinds = ("publish", "append", "status", "beat", "pause", "resume", "ping", "leave", "join", "join", "settle")
    match draw.choice(kinds):
        case "publish":
            relay.publish(draw.randint(1, 30), draw.choice((1, 100, LONG)))
        case "append":
            relay.append(size=draw.randint(1, LONG))
        case "status":
            relay.hub.feed.set_channel_up(draw.random() < 0.5)
            relay.publish(draw.choice((0, 1, 20)), LONG)  # several polls for one notification
        case "beat":
            relay.hub.feed.beat()
            relay.hub.notify_all()
        case "settle" if draw.random() < 0.5:
            relay.hub.notify_all()
            reading = [each for each in clients if (at := each.connection) is not None and not at.paused]
            await relay.until(lambda: all(each.up_to_date for each in reading))
        case "join" if connection is None:
            early = frame(TEXT, b"hello?") + frame(PONG) if draw.random() < 0.5 else b""
            await client.connect(early, cut=draw.choice((0, 1, 40)), paused=draw.random() < 0.2)
        case "pause" if connection is not None:
            connection.pause()
        case "resume" if connection is not None:
            connection.resume()
        case "ping" if connection is not None and connection.pings < PINGS:
            connection.transport.write(connection.ping(draw.randint(1, 5)))
        case "leave" if connection is not None:
            connection.leave(draw.choice(("close", "end", "reset")))
    for _ in range(draw.choice((0, 0, 1, 2, 5))):
        await anyio.lowlevel.checkpoint()


@on_both_loops
@pytest.mark.parametrize("seed", range(4))
async def test_random_walk_delivers_each_message_once(caplog: pytest.LogCaptureFixture, seed: int) -> None:
    """Clients that pause, leave and resume receive every message once and in order, every pong, and 1012 at the end."""
    draw = random.Random(seed)
    async with served(caplog, LITTLE if seed % 2 else None) as relay:
        clients = [Client(relay) for _ in range(CLIENTS)]
        connections = []
        for _ in range(STEPS):
            await step(relay, clients, draw)
        for client in clients:
            connection = client.connection or await client.connect()
            connections.append(connection)
            if draw.random() < 0.5:
                connection.resume()
            else:
                connection.pause()
        for _ in range(20):
            relay.publish(draw.randint(0, 10), LONG)
            await anyio.lowlevel.checkpoint()
        await relay.until(lambda: len(relay.hub) == CLIENTS)
        head = relay.head
        async with anyio.create_task_group() as group:
            group.start_soon(relay.hub.drain, draw.choice((0, 0.3)))
            for connection in connections:
                relay.publish(1, 100)
                await anyio.lowlevel.checkpoint()
                connection.resume()
            await relay.until(lambda: all(connection.ended for connection in connections))
        assert {connection.code for connection in connections} == {1012}
        assert min(client.received for client in clients) >= head
        assert all(connection.pongs == connection.pings for connection in connections)
        await relay.hub.empty.wait()


@on_both_loops
async def test_burst_skips_a_stalled_member(caplog: pytest.LogCaptureFixture) -> None:
    """Of fifty caught-up clients one stops reading: the bursts for the others do not wait in memory for it."""
    async with served(caplog, history=50) as relay:
        clients = [Client(relay) for _ in range(50)]
        connections = [await client.connect() for client in clients]
        relay.publish(1, LONG)
        await relay.until(lambda: all(client.up_to_date for client in clients))
        connections[20].pause()
        for _ in range(20):
            relay.publish(25, LONG)
            await relay.until(lambda: sum(client.up_to_date for client in clients) == 49)
        assert clients[20].received == 1
        assert unsent(relay) < 2 * 25 * (LONG + 500)
        connections[20].leave("reset")
        await relay.until(lambda: len(relay.hub) == 49)
        connections[10].pause()
        relay.publish(25, LONG)
        await relay.until(lambda: sum(client.up_to_date for client in clients) == 48)
        await relay.hub.drain(0)
        await relay.until(lambda: sum(connection.ended for connection in connections) == 49)
        connections[10].resume()
        await relay.until(lambda: connections[10].ended)
        assert clients[10].up_to_date


def connections_of(relay: Relay) -> set[websocket.WebSocketConnection]:
    return cast(set[websocket.WebSocketConnection], relay.hub._clients)


def unsent(relay: Relay) -> int:
    """Return how many bytes wait in the transport of the client for which there are most."""
    return max(connection.transport.get_write_buffer_size() for connection in connections_of(relay))


@on_both_loops
async def test_stalled_client_is_not_written_to(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that never read gets one write and its pongs; all other messages stay in the log."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0)
    async with served(caplog) as relay:
        relay.append(300, 4000)
        for number in range(40):
            client, before = Client(relay), relay.head
            # For one of these sizes the kernel takes a whole write, and not the pongs after it.
            relay.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE + 1024 * number)
            connection = await client.connect(pings(1, 30), paused=True)
            connection.pings = 30
            await relay.until_slow()
            for _ in range(60):
                relay.publish(1, 1)
                await anyio.lowlevel.checkpoint()
            assert (relay.metric("hello_client_lag_messages") or 0) > before - 30
            if number % 10 == 0:
                connection.resume()
                await relay.until(lambda each=client: each.up_to_date)  # type: ignore[misc]  # bound to this client
                assert connection.pongs == connection.pings
            connection.leave("reset")
            await relay.until(lambda: len(relay.hub) == 0)


class Before(asyncio.Protocol):
    """The server's protocol of a connection before it is handed over."""

    full = lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.full = True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


@on_both_loops
async def test_connection_handed_over_full_is_not_written_to() -> None:
    """A transport that is full reported so to its former protocol, and does not report it again."""
    hub = Hub(history=1000, instance="here", max_clients=100, metrics=Metrics())
    hub.set_loaded()
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        _, before = await asyncio.get_running_loop().create_connection(Before, sock=ours)
        while not before.full:
            before.transport.write(b"x" * 16 * 1024)
        waiting = before.transport.get_write_buffer_size()
        connection = websocket.WebSocketConnection(websocket.CaughtUp(hub))
        hub.join(connection, 0)
        connection.begin(before.transport, set(), b"")
        for number in range(200):
            message = Message(id=str(number), text="x" * 4000, broadcaster="here", sent_at=0)
            hub.append(Entry(Position(1, number + 1), Position(1, number), message))
            hub.notify_all()
        assert connection.blocked_since is not None
        assert before.transport.get_write_buffer_size() < waiting + 16 * 1024
        before.transport.abort()
        while len(hub):
            await anyio.lowlevel.checkpoint()


@on_both_loops
async def test_connection_handed_over_closed_is_forgotten() -> None:
    """A client that disconnected during its handshake leaves the hub, although its end is reported to no one."""
    hub = Hub(history=1, instance="here", max_clients=100, metrics=Metrics())
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        _, before = await asyncio.get_running_loop().create_connection(Before, sock=ours)
        before.transport.abort()
        while not before.lost:
            await anyio.lowlevel.checkpoint()
        connection = websocket.WebSocketConnection(websocket.CaughtUp(hub))
        hub.join(connection, 0)
        connection.begin(before.transport, set(), b"")
        assert len(hub) == 0


@on_asyncio
async def test_partial_progress_keeps_a_client(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A client that takes part of one write every 20 s is kept; one that takes nothing is closed, and then aborted."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", SETTLED_SECONDS)
    async with served(caplog) as relay:
        relay.append(20, 3800, "😀")
        with connect(relay.address[1], receive_buffer=LITTLE) as sock:
            sock.sendall(handshake("/ws?after=0-0"))
            sock.setblocking(False)
            await relay.until_slow()
            (connection,) = connections_of(relay)
            blocked_since = connection.blocked_since
            for _ in range(2):
                await clock.advance(20)
                left = unsent(relay)
                while unsent(relay) == left:
                    with suppress(BlockingIOError):
                        sock.recv(1024)
                    await anyio.lowlevel.checkpoint()
            assert connection.blocked_since == blocked_since, "it was all one write"
            assert len(relay.hub) == 1
            await clock.advance(STALLED_SECONDS + websocket.ABORT_SECONDS)
            await relay.until(lambda: len(relay.hub) == 0)


@on_asyncio
async def test_client_that_does_not_answer_a_close_is_aborted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A stalled client that reads everything after all, but sends no close frame, is aborted."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", SETTLED_SECONDS)
    monkeypatch.setattr(websocket, "ABORT_SECONDS", 40)
    async with served(caplog) as relay:
        relay.append(400, LONG)
        async with await anyio.connect_tcp(*relay.address) as stream:
            await stream.send(handshake("/ws?after=0-0"))
            await relay.until_slow()
            await clock.advance(STALLED_SECONDS)
            received = b""
            while not received.endswith(frame(CLOSE, close_payload(1013), masked=False)):
                received += await stream.receive()
            assert len(relay.hub) == 1
            await clock.advance(40)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        await relay.until(lambda: len(relay.hub) == 0)


@on_both_loops
@pytest.mark.parametrize("how", ["close", "end", "reset"])
async def test_client_that_leaves_early_is_forgotten(caplog: pytest.LogCaptureFixture, how: str) -> None:
    """Clients that leave while they catch up, any number of steps after they joined, leave nothing behind."""
    async with served(caplog, send_buffer=None) as relay:
        relay.publish(100, LONG)
        staying = Client(relay)
        await staying.connect()
        for steps in range(30):
            connection = await Client(relay).connect(paused=steps % 2 == 0)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            connection.leave(how)
            relay.publish(10, LONG)
        await relay.until(lambda: staying.up_to_date and len(relay.hub) == 1)
        early = await Client(relay).connect(frame(CLOSE, close_payload(1000)))
        await relay.until(lambda: early.code == 1000 and len(relay.hub) == 1)
        await relay.hub.drain(0)


@on_both_loops
@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_abort_timer_ends_with_the_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A connection that is closed while bytes are unsent, and then read, has no abort after its end."""
    limit = 0.2
    for module in (websocket, http_protocol):
        monkeypatch.setattr(module, "ABORT_SECONDS", limit)
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0)
    opening = handshake("/ws?after=0-0") if path == "/ws" else request("/events?after=0-0")
    async with served(caplog) as relay:
        relay.append(400, LONG)
        async with await anyio.connect_tcp(*relay.address) as stream:
            await stream.send(opening)
            await relay.until_slow()
            closed_at = anyio.current_time()
            await stream.send(frame(CLOSE, close_payload(1000)) if path == "/ws" else request("/"))
            received = b"".join([data async for data in stream])
        last = frame(CLOSE, close_payload(1000), masked=False) if path == "/ws" else b"HTTP/1.1 429 "
        assert last in received or anyio.current_time() > closed_at + limit, "aborted too early"
        over = anyio.current_time() + 2 * limit
        await relay.until(lambda: len(relay.hub) == 0 and anyio.current_time() > over)
