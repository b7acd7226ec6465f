"""uvicorn as a child of our own task group: it serves an app until it is told to stop. Signals are not its business."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn import Config, Server

from hello.web.stream import MAX_FRAME

BACKLOG = 2048  # connections that the kernel holds for us while we are busy: thousands may come back at once
GRACE_SECONDS = 2  # for answers that are on their way when the server stops


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
        http="httptools",
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
            server.should_exit = True

        group.start_soon(watch)
        try:
            await server.serve(sockets=[listener])
        finally:
            server.abort()
        group.cancel_scope.cancel()


class _Server(Server):
    def __init__(self, config: Config, task_status: TaskStatus[None]) -> None:
        super().__init__(config)
        self._task_status = task_status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._task_status.started()

    def abort(self) -> None:
        """Let go of whatever is still open: nothing after a shutdown, everything after an error elsewhere."""
        for listening in getattr(self, "servers", []):
            listening.close()
        for connection in self.server_state.connections:
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Its own handlers would close every WebSocket at once, and end the process before anything of ours has run.
        yield
