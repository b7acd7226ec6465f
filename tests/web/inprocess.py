"""A hub that is served over each transport, without channel and relay, and its clients, in the event loop of a test.

It must not know what a test checks.
"""

import asyncio
import json
import socket
import struct
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from hello.hub import Hub
from hello.message import Entry, Message, Position
from hello.metrics import Metrics
from hello.web import server
from hello.web.listener import listen
from hello.web.public import public_app
from tests.web import raw
from tests.web.measurements import eventually

LITTLE = 4096  # bytes that the kernel holds, at either end of a connection
FRIEND = "https://friend.example"  # whose pages may open the streams


@asynccontextmanager
async def serving(
    app: ASGIApp, listening: socket.socket | None = None, serve: Callable[..., Any] = server.serve
) -> AsyncIterator[int]:
    """Serve the app, and return the port."""
    listening = listening or listen("127.0.0.1", 0)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(partial(serve, app, stop, listener=listening))
        yield listening.getsockname()[1]
        stop.set()


def number_of(position: str) -> int:
    return Position.parse(position).milliseconds


class Client(asyncio.Protocol):
    """A WebSocket client that keeps what it received, and answers a close frame; it can stop reading, and leave."""

    transport: asyncio.Transport
    path, status = "/ws", 101  # of its request, and of the answer to it
    opening: Callable[..., bytes] = staticmethod(raw.handshake)

    def __init__(self, sock: socket.socket, query: str, reading: bool) -> None:
        self.open = self.ended = self.left = False
        self.reading = reading
        self.error: Exception | None = None  # with which the connection ended
        self.after = number_of(query.removeprefix("?after=")) if "after" in query else None
        self.frames: list[dict[str, Any]] = []
        self.numbers: list[int] = []  # of the messages that came before it left
        self.pings: list[bytes] = []  # that were sent
        self.pongs: list[bytes] = []
        self.closed_with: int | None = None  # the close code
        self.buffer = bytearray()
        self._socket = sock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.open and b"\r\n\r\n" in self.buffer:
            answer = raw.parse_answer(bytes(self.buffer))
            assert answer.status == self.status, answer
            self.open, self.buffer = True, bytearray(answer.rest)
            self.answered(answer)
        if self.open:
            self.parse()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended, self.error = True, error

    def answered(self, answer: raw.Answer) -> None:
        """The request was answered: a client that does not read stops here."""
        if not self.reading:
            self.pause()

    def parse(self) -> None:
        """Remove complete frames from the buffer."""
        for frame in raw.decode(self.buffer):
            assert self.closed_with is None, f"after the close frame: {frame}"
            assert frame.fin
            if frame.opcode == raw.CLOSE:
                self.closed_with = frame.code
                if not self.left:
                    self.transport.write(raw.frame(raw.CLOSE, frame.payload))
            elif frame.opcode == raw.PONG:
                self.pongs.append(frame.payload)
            else:
                assert frame.opcode == raw.TEXT
                self.add_frame(frame.payload)

    def add_frame(self, text: bytes) -> None:
        self.frames.append(json.loads(text))
        if self.frames[-1]["type"] == "message" and not self.left:
            self.numbers.append(number_of(self.frames[-1]["position"]))

    def types(self) -> list[str]:
        return [each["type"] for each in self.frames]

    def pause(self) -> None:
        self.reading = False
        self.transport.pause_reading()

    def resume(self) -> None:
        self.reading = True
        self.transport.resume_reading()

    def ping(self, count: int) -> bytes:
        """Return so many more pings, each with a number."""
        self.pings += [b"%0100d" % (len(self.pings) + number) for number in range(count)]
        return b"".join(raw.frame(raw.PING, payload) for payload in self.pings[len(self.pings) - count :])

    def leave(self, how: str) -> None:
        """Leave by a close frame (`close`), a half-closed connection (`end`) or a reset (`reset`)."""
        self.left = True
        if how == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        self.resume()
        if how == "close":
            self.send_close()
        else:
            self.transport.write_eof()

    def send_close(self) -> None:
        self.transport.write(raw.frame(raw.CLOSE, raw.close_payload(1000)))


class EventsClient(Client):
    """The same over server-sent events, in the chunks of HTTP/1.1 (RFC 9112, section 7.1)."""

    path, status = "/events", 200
    opening = staticmethod(raw.request)
    _events = b""  # of which the last one is not complete

    def answered(self, answer: raw.Answer) -> None:
        assert (answer.one("content-type") or "").startswith("text/event-stream")
        assert answer.one("cache-control") == "no-store, no-transform"
        super().answered(answer)

    def parse(self) -> None:
        while b"\r\n" in self.buffer:
            length, _, rest = self.buffer.partition(b"\r\n")
            size = int(length, 16)
            if len(rest) < size + 2:
                return
            self._events += rest[:size]
            del self.buffer[: len(length) + size + 4]
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
                position = self.frames[-1].get("position", self.frames[-1].get("start"))
                assert fields.get(b"id", b"").decode() == (position or ""), "the id is where a client resumes"

    def send_close(self) -> None:
        self.transport.close()


class Relay:
    """A hub that is served, its clients, and what each client is to receive. Message n has the position n-0."""

    def __init__(self, client: type[Client], history: int, max_clients: int) -> None:
        self.metrics = Metrics()
        self.hub = Hub(history=history, instance="here", max_clients=max_clients, metrics=self.metrics)
        self.listener = listen("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]
        self.client = client
        self.clients: list[Client] = []
        self.number = 0  # of the newest message
        self._numbers: list[int] = []  # of the messages that a client receives, or is sent a gap for
        self._texts: dict[int, str] = {}

    def append(self, *texts: str) -> None:
        """Append messages without a notification."""
        for text in texts:
            prev, self.number = self.number, self.number + 1
            message = Message(f"id-{self.number}", text, "there", 7)
            self.hub.feed.append(Entry(Position(self.number, 0), Position(prev, 0), message))
            self._numbers.append(self.number)
            self._texts[self.number] = text

    def publish(self, *texts: str) -> None:
        self.append(*texts)
        self.hub.notify_all()

    def lose(self) -> None:
        """Let the channel lose a message before the relay reads it."""
        self.number += 1
        self._numbers.append(self.number)

    def beat(self) -> None:
        self.hub.feed.beat()
        self.hub.notify_all()

    def metric(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def gaps(self) -> float | None:
        return self.metric("hello_gaps_total", {"reader": "client"})

    def set_send_buffer(self, size: int) -> None:
        """Let the kernel take so many bytes for each later connection."""
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    async def connect(
        self, query: str = "", *fields: str, reading: bool = True, early: bytes = b"", cut: int = 0
    ) -> Client:
        """Return a client that sends its request and then `early`; the first `cut` bytes go alone."""
        sock = raw.connect(self.port, receive_buffer=LITTLE)
        sock.setblocking(False)
        client = self.client(sock, query, reading)
        await asyncio.get_running_loop().create_connection(lambda: client, sock=sock)
        self.clients.append(client)
        sent = client.opening(client.path + query, *fields) + early
        client.transport.write(sent[:cut])
        await anyio.lowlevel.checkpoint()
        client.transport.write(sent[cut:])
        return client

    async def open(self, query: str = "", *fields: str, reading: bool = True) -> Client:
        """Return a client once it has an answer; one that does not read receives at most a little more."""
        client = await self.connect(query, *fields, reading=reading)
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

    async def until_slow(self, count: int = 1) -> None:
        """Return once so many clients are slow."""
        await eventually(lambda: self.metric("hello_slow_clients") == count, f"{count} slow clients")

    async def until_clients(self, count: int) -> None:
        """Return once there are so many clients."""
        await eventually(lambda: len(self.hub) == count, f"{count} clients")


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


# A WebSocketConnection on our server, a WebSocket with a task that sends on a stock uvicorn, and server-sent events.
TRANSPORTS: Mapping[str, Mapping[str, Any]] = {
    "websocket": {"client": Client, "serve": server.serve},
    "asgi": {"client": Client, "serve": serve_stock},
    "events": {"client": EventsClient, "serve": server.serve},
}
each_transport = pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    [("websocket", "asyncio"), ("websocket", "uvloop"), ("asgi", "uvloop"), ("events", "uvloop")],
    indirect=["anyio_backend"],
)


def end_of(transport: str, code: int) -> int:
    """Return what `Client.closed_with` is to be: events have no close codes, but a time (ms) to reconnect after."""
    return 500 if transport == "events" else code


@asynccontextmanager
async def served(
    transport: str = "websocket", *, history: int = 10_000, max_clients: int = 100
) -> AsyncIterator[Relay]:
    """Serve a relay over this transport; in the end its clients disconnect, and it forgets all of them."""
    relay = Relay(TRANSPORTS[transport]["client"], history, max_clients)
    relay.hub.set_loaded()
    app = public_app(relay.hub, allowed_origins=[FRIEND])
    async with serving(app, relay.listener, TRANSPORTS[transport]["serve"]):
        try:
            yield relay
        finally:
            for each in relay.clients:
                each.transport.abort()
        await relay.until_clients(0)
        assert relay.metric("hello_clients") == relay.metric("hello_slow_clients") == 0
