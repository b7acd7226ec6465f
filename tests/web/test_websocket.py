"""WebSocketConnections and their caught-up group over real sockets, in one event loop with the clients."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import anyio
import anyio.lowlevel
import pytest

from hello.hub import Hub
from hello.message import Entry, Message, Position
from hello.metrics import Metrics
from hello.web import http_protocol, websocket
from tests.web.conftest import Clock
from tests.web.inprocess import LITTLE, Relay, served
from tests.web.measurements import eventually
from tests.web.raw import CLOSE, close_payload, connect, frame, handshake, request

pytestmark = pytest.mark.usefixtures("no_errors")

LONG = "x" * 1500  # a message, of which a burst takes several writes
SETTLED_SECONDS = 0.5  # blocked, until no byte is in flight to a client that does not read
STALLED_SECONDS = 65.0  # more than the 30 without progress after which a client is closed

on_both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@on_both_loops
async def test_burst_skips_a_stalled_member() -> None:
    """Of fifty caught-up clients one stops reading: the bursts for the others do not wait in memory for it."""
    async with served(history=50) as relay:
        relay.set_send_buffer(LITTLE)
        clients = [await relay.open("?after=0-0") for _ in range(50)]
        relay.publish(LONG)
        await relay.all_have()
        stalled = clients.pop(20)
        stalled.pause()
        for _ in range(20):
            relay.publish(*[LONG] * 25)
            await relay.all_have(*clients)
        assert unsent(relay) < 2 * 25 * (len(LONG) + 500)
        assert stalled.numbers == [1]


def unsent(relay: Relay) -> int:
    """Return how many bytes wait in the transport of the client for which there are most."""
    connections = cast(set[websocket.WebSocketConnection], relay.hub._clients)
    return max(connection.transport.get_write_buffer_size() for connection in connections)


class Before(asyncio.Protocol):
    """The server's protocol of a connection before it is handed over."""

    full = lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.full = True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def hand_over(self, hub: Hub) -> websocket.WebSocketConnection:
        connection = websocket.WebSocketConnection(websocket.CaughtUp(hub))
        hub.join(connection, 0)
        connection.begin(self.transport, set(), b"")
        return connection


@asynccontextmanager
async def accepted() -> AsyncIterator[tuple[Before, Hub]]:
    """Return the server's end of a connection whose client does not read, and an empty hub."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        _, before = await asyncio.get_running_loop().create_connection(Before, sock=ours)
        hub = Hub(history=1000, instance="here", max_clients=100, metrics=Metrics())
        hub.set_loaded()
        yield before, hub


@on_both_loops
async def test_connection_handed_over_full_is_not_written_to() -> None:
    """A transport that is full reported so to its former protocol, and does not report it again."""
    async with accepted() as (before, hub):
        while not before.full:
            before.transport.write(b"x" * 16 * 1024)
        waiting = before.transport.get_write_buffer_size()
        connection = before.hand_over(hub)
        for number in range(200):
            hub.feed.append(
                Entry(Position(1, number + 1), Position(1, number), Message(str(number), "x" * 4000, "here", 0))
            )
            hub.notify_all()
        assert connection.blocked_since is not None
        assert before.transport.get_write_buffer_size() < waiting + 16 * 1024
        before.transport.abort()
        await eventually(lambda: len(hub) == 0, "it is forgotten")


@on_both_loops
async def test_connection_handed_over_closed_is_forgotten() -> None:
    """A client that disconnected during its handshake leaves the hub, although its end is reported to no one."""
    async with accepted() as (before, hub):
        before.transport.abort()
        await eventually(lambda: before.lost, "it is lost")
        before.hand_over(hub)
        assert len(hub) == 0


@on_asyncio
async def test_partial_progress_keeps_a_client(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A client that takes part of one write every 20 s is kept; one that takes nothing is closed.

    Then it is aborted, although it reads everything after all, since it sends no close frame.
    """
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", SETTLED_SECONDS)
    monkeypatch.setattr(websocket, "ABORT_SECONDS", 40)
    async with served() as relay:
        relay.set_send_buffer(LITTLE)
        relay.append(*["😀" * 3800] * 20)
        with connect(relay.port, receive_buffer=LITTLE) as sock:
            sock.sendall(handshake("/ws?after=0-0"))
            sock.setblocking(False)
            await relay.until_slow()
            (client,) = relay.hub._clients
            blocked_since = client.blocked_since
            for _ in range(2):
                await clock.advance(20)
                left = unsent(relay)
                while unsent(relay) == left:
                    with suppress(BlockingIOError):
                        sock.recv(1024)
                    await anyio.lowlevel.checkpoint()
            assert client.blocked_since == blocked_since, "it was all one write"
            assert len(relay.hub) == 1
            await clock.advance(STALLED_SECONDS)
            received = b""
            while not received.endswith(frame(CLOSE, close_payload(1013), masked=False)):
                with suppress(BlockingIOError):
                    received += sock.recv(1 << 16)
                await anyio.lowlevel.checkpoint()
            assert len(relay.hub) == 1
            await clock.advance(40)
            await relay.until_clients(0)


@on_asyncio
async def test_any_minute_has_at_most_100_frames(clock: Clock) -> None:
    """A client may send 100 frames each minute, but not 99 at the end of one and 50 at the start of the next."""
    async with served() as relay:
        steady, hasty = [await relay.open() for _ in range(2)]
        for seconds, of_steady, of_hasty in ((0, 50, 1), (30, 50, 0), (29, 0, 99), (2, 50, 50), (30, 50, 0)):
            await clock.advance(seconds, step=1)
            steady.transport.write(steady.ping(of_steady))
            hasty.transport.write(hasty.ping(of_hasty))
            await eventually(lambda: len(hasty.pongs) == len(hasty.pings) or hasty.closed_with is not None, "an answer")
            await eventually(lambda: steady.pongs == steady.pings, "each pong")
        assert (steady.closed_with, hasty.closed_with) == (None, 1008)


@on_both_loops
@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_abort_timer_ends_with_the_connection(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A connection that is closed while bytes are unsent, and then read, has no abort after its end."""
    limit = 0.2
    for module in (websocket, http_protocol):
        monkeypatch.setattr(module, "ABORT_SECONDS", limit)
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0)
    close = close_payload(1000)
    opening, ending, last = {
        "/ws": (handshake("/ws?after=0-0"), frame(CLOSE, close), frame(CLOSE, close, masked=False)),
        "/events": (request("/events?after=0-0"), request("/"), b"HTTP/1.1 429 "),
    }[path]
    async with served() as relay:
        relay.set_send_buffer(LITTLE)
        relay.append(*[LONG] * 400)
        async with await anyio.connect_tcp("127.0.0.1", relay.port) as stream:
            await stream.send(opening)
            await relay.until_slow()
            closed_at = anyio.current_time()
            await stream.send(ending)
            received = b"".join([data async for data in stream])
        assert last in received or anyio.current_time() > closed_at + limit, "aborted too early"
        await anyio.sleep_until(anyio.current_time() + 2 * limit)  # by then an abort would be an error in the log
