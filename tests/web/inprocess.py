"""Our server and WebSocket clients in the event loop of a test. It must not know what a test checks."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import anyio
from starlette.types import ASGIApp

from hello.web import server
from hello.web.listener import listen
from tests.web import raw


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


class WebSocketClient(asyncio.Protocol):
    """A client that checks the answer to its handshake and passes on frames; it can stop reading, and leave."""

    transport: asyncio.Transport
    status = 101  # expected

    def __init__(self, sock: socket.socket) -> None:
        self.open = self.ended = False
        self._socket = sock
        self._buffer = bytearray()

    @classmethod
    async def connect(cls, sock: socket.socket, *args: Any) -> Any:
        """Return a client on a connected socket; the arguments are those of its class."""
        sock.setblocking(False)
        _, client = await asyncio.get_running_loop().create_connection(lambda: cls(sock, *args), sock=sock)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.open and b"\r\n\r\n" in self._buffer:
            answer = raw.parse_answer(bytes(self._buffer))
            assert answer.status == self.status, answer
            self.open, self._buffer = True, bytearray(answer.rest)
            self.answered(answer)
            data = answer.rest
        if self.open:
            self.parse(self._buffer, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True

    def answered(self, answer: raw.Answer) -> None:
        """The handshake was answered."""

    def parse(self, buffer: bytearray, data: bytes) -> None:
        """Remove complete frames from the buffer, to which the data was added."""
        for received in raw.decode(buffer):
            self.received(received)

    def received(self, frame: raw.Frame) -> None:
        """A frame was received."""

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    def reset(self) -> None:
        """End the connection with a reset (RST)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
