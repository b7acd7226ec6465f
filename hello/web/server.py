"""uvicorn as a child of our own task group: it serves an app until it is told to stop. Signals are not its business."""

import asyncio
import logging
import math
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn import Config, Server

from hello.web.door import Door
from hello.web.line import Line
from hello.web.protocols import MAX_UNSENT, Http

BACKLOG = 2048  # connections that the kernel holds for us while we are busy: thousands may come back at once
ACCEPTS = 100  # connections taken in one turn of the event loop: those who are there already are served in between
KEPT_FILES = 64  # file descriptors that browsers do not get: for Redis, the operators and this process itself
EXHAUSTED_SECONDS = 1.0  # without accepting, when even those are gone
TELL_SECONDS = 60.0  # between two lines of the log about it, however many are turned away
GRACE_SECONDS = 2  # for answers that are on their way when the server stops
# Without an acknowledgement of what was sent, or room for more, a browser counts as gone; a beat is always sent. Longer
# than STALL_SECONDS, so that one that stops reading is told so first.
VANISHED_SECONDS = 60

log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at this address; every connection inherits its options.

    Raises OSError if there is no such address, or somebody else listens there.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux (RFC 5482)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_SECONDS * 1000)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # else the kernel would take megabytes for one that does not read
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        listener.setblocking(False)
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
    kept_files: int = 0,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` at the socket until `stop` is set, and close it; started once it accepts.

    Connections that would leave fewer than `kept_files` file descriptors to this process are closed at once.
    """
    config = Config(
        app,
        lifespan="off",  # an error in there would be logged, and the server would go on without what it started
        log_config=None,
        access_log=False,
        http=Http,
        ws="none",  # that is the business of Http too
        proxy_headers=False,  # nothing here asks who the client is
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config, listener, kept_files, task_status)
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await stop.wait()
            server.stop()

        group.start_soon(watch)
        try:
            await server.serve(sockets=[])
        finally:
            server.abort()
        group.cancel_scope.cancel()


class _Server(Server):
    """uvicorn's server with a door of its own: an event loop's accepts until no descriptor is left for anybody."""

    def __init__(self, config: Config, listener: socket.socket, kept_files: int, task_status: TaskStatus[None]) -> None:
        super().__init__(config)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._room = max(1, limit - kept_files) if limit != resource.RLIM_INFINITY else math.inf
        self._listener = listener
        self._door = Door()
        self._entering: set[asyncio.Task[None]] = set()
        self._told_at = -math.inf  # when it last said that it turns connections away
        self._task_status = task_status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._open()
        self._task_status.started()

    def stop(self) -> None:
        """Take no more connections, and finish the answers that are on their way."""
        self.should_exit = True
        self._close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, (Http, Line)) and connection.stuck:  # the others get what is on its way
                connection.transport.abort()

    def abort(self) -> None:
        """Let go of whatever is still open: nothing after a shutdown, everything after an error elsewhere."""
        self._close()
        for task in self._entering:
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _open(self) -> None:
        if self._listener.fileno() != -1:  # not closed meanwhile
            self._loop.add_reader(self._listener, self._accept)

    def _close(self) -> None:
        if self.started and self._listener.fileno() != -1:
            self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            full = len(self.server_state.connections) + len(self._entering) >= self._room
            if full and self._entering:
                return  # who enters is counted twice for a moment; the next one waits for that in the backlog
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                log.warning("cannot accept connections: %s", error)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(EXHAUSTED_SECONDS, self._open)
                return
            if full:
                connection.close()
                self._turned_away()
                continue
            task = self._loop.create_task(self._enter(connection))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    def _turned_away(self) -> None:
        if self._loop.time() - self._told_at > TELL_SECONDS:
            self._told_at = self._loop.time()
            log.warning("turning connections away: the other file descriptors are not for browsers (see ulimit -n)")

    async def _enter(self, connection: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            return Http(self.config, self.server_state, self.lifespan.state, self._door)

        try:
            await self._loop.connect_accepted_socket(protocol, connection)
        except OSError:  # it has gone already
            connection.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Its own handlers would close every WebSocket at once, and end the process before anything of ours has run.
        yield
