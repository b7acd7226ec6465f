"""uvicorn as a child of our own task group: it serves one app until it is stopped. It must not know signals."""

import socket
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn import Config, Server

from hello.web.admission import AdmissionQueue
from hello.web.http_protocol import KEEP_ALIVE_SECONDS, HttpProtocol, Shared
from hello.web.listener import Listener
from hello.web.refusals import OnRefused, ignore
from hello.web.websocket import WebSocketConnection

GRACE_SECONDS = 2  # for answers in progress when the server stops


async def serve(
    app: ASGIApp,
    stop: anyio.Event,
    *,
    listener: socket.socket,
    reserved_fds: int = 0,
    on_refused: OnRefused = ignore,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` at the socket until `stop` is set, and close the socket; started once it accepts connections.

    Connections that would leave fewer than `reserved_fds` file descriptors to this process are closed at once.
    `on_refused` is called for each request that the server or the app refuses.
    """
    config = Config(
        app,
        lifespan="off",  # uvicorn logs an error in the lifespan, and continues without what it was to start
        log_config=None,
        access_log=False,
        http=HttpProtocol,
        ws="none",  # HttpProtocol opens WebSockets as well
        proxy_headers=False,  # nothing here reads the client's address
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    shared = Shared(AdmissionQueue(), OrderedDict(), on_refused)
    server = _Server(config, listener, reserved_fds, shared, task_status)
    async with anyio.create_task_group() as group:
        group.start_soon(server.stop_after, stop)
        try:
            await server.serve(sockets=[])
        finally:
            server.abort()
        group.cancel_scope.cancel()


class _Server(Server):
    """uvicorn's server, with our Listener in place of the event loop's own."""

    def __init__(
        self, config: Config, listening: socket.socket, reserved_fds: int, shared: Shared, task_status: TaskStatus[None]
    ) -> None:
        super().__init__(config)
        self._listener = Listener(
            listening,
            reserved_fds,
            protocol=lambda: HttpProtocol(config, self.server_state, self.lifespan.state, shared),
            count=lambda: len(self.server_state.connections),
        )
        self._task_status = task_status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listener.start()
        self._task_status.started()

    async def stop_after(self, stop: anyio.Event) -> None:
        """Once `stop` is set, accept no more connections, and finish the answers in progress."""
        await stop.wait()
        self.should_exit = True
        self._listener.close()
        for connection in list(self.server_state.connections):
            # A client that does not read would hold up the shutdown; every other one gets the rest of its answer.
            if isinstance(connection, (HttpProtocol, WebSocketConnection)) and connection.stuck:
                connection.transport.abort()

    def abort(self) -> None:
        """Drop every connection: none is left after a shutdown, all of them after an error elsewhere."""
        self._listener.abort()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own handlers would close every WebSocket at once, and end the process before the drain.
        yield
