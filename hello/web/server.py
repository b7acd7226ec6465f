"""uvicorn as a child of our own task group: it serves an app until it is told to stop. Signals are not its business."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hello.web.stream import MAX_FRAME

BACKLOG = 2048  # connections that the kernel holds for us while we are busy: thousands may come back at once
GRACE_SECONDS = 2  # for answers that are on their way when the server stops
HEAD_SECONDS = 10.0  # from the first byte of a request, or the connection, to the end of its head
MAX_HEAD = 16 * 1024  # bytes in the head of a request: a browser with many cookies sends 4 KiB
VANISHED_SECONDS = 30  # without an acknowledgement of what was sent a browser counts as gone; a beat is always sent
MAX_LINE = 8 * 1024  # bytes in one line of a head: the WebSocket handshake reads no longer ones


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at this address.

    Raises OSError if there is no such address, or somebody else listens there.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; every connection inherits it (RFC 5482)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_SECONDS * 1000)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(
    app: ASGIApp,
    stop: anyio.Event,
    *,
    listener: socket.socket,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` at the socket until `stop` is set, and close it; started once it accepts."""
    config = Config(
        app,
        lifespan="off",  # an error in there would be logged, and the server would go on without what it started
        log_config=None,
        access_log=False,
        http=_Http,
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,  # costs 33 KiB a connection and gains nothing at 150 bytes a frame
        ws_ping_interval=None,  # one beat for all browsers does this
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config, task_status)
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await stop.wait()
            server.stop()

        group.start_soon(watch)
        try:
            await server.serve(sockets=[listener])
        finally:
            server.abort()
        group.cancel_scope.cancel()


class _Http(HttpToolsProtocol):
    """uvicorn's protocol with the limits on a request's head that it lacks (Kludex/uvicorn#157).

    Who sends too much is answered 431, who is too slow 408 (RFC 6585, RFC 9110), and both are hung up on.
    """

    _timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _size = 0  # bytes that came while it was awaited
    _fields = 0  # bytes in the fields of this head so far, for one that came whole
    _too_big = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None and not self.transport.is_closing():
            self._size += len(data)
            if self._size > MAX_HEAD:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._fields = 0
        if self._timer is None:  # a further request on the same connection
            self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        line = len(name) + len(value)
        self._fields += line
        if max(line, len(self.url)) > MAX_LINE or self._fields + len(self.url) > MAX_HEAD:
            self._too_big = True
            raise ValueError  # ends the parser, which then asks for the answer below

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._too_big:
            self._refuse(b"431 Request Header Fields Too Large")
        else:
            super().send_400_response(msg)

    def _await_head(self) -> None:
        self._size = 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, b"408 Request Timeout")

    def _end_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: bytes) -> None:
        self._end_head()
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()


class _Server(Server):
    def __init__(self, config: Config, task_status: TaskStatus[None]) -> None:
        super().__init__(config)
        self._task_status = task_status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._task_status.started()

    def stop(self) -> None:
        """Take no more connections, and finish the answers that are on their way."""
        self.should_exit = True
        for connection in list(self.server_state.connections):
            if not isinstance(connection, _Http):  # a browser that did not go when it was moved: it does not read
                connection.transport.abort()

    def abort(self) -> None:
        """Let go of whatever is still open: nothing after a shutdown, everything after an error elsewhere."""
        for listening in getattr(self, "servers", []):
            listening.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Its own handlers would close every WebSocket at once, and end the process before anything of ours has run.
        yield
