"""A listening socket, and accepting from it without running out of file descriptors. It must not know HTTP."""

import asyncio
import logging
import math
import resource
import socket
from collections.abc import Callable

BACKLOG = 2048  # connections that wait in the kernel while the event loop is busy: thousands may come at once
MAX_ACCEPTS = 100  # connections accepted in one step of the event loop: connected clients are served in between
RESERVED_FDS = 64  # file descriptors that clients do not get: for Redis, the ops server and the process itself
EXHAUSTED_SECONDS = 1.0  # without accepting, if even the reserved file descriptors are used
LOG_SECONDS = 60.0  # between two log lines about closed connections, however many there are
MAX_UNSENT = 16 * 1024  # bytes in the kernel that the client's kernel has not taken
# The kernel ends a connection whose sent bytes, a beat at least, are not acknowledged for so long. It is longer than
# STALL_SECONDS, so that a client that only stops reading is closed by that rule, with a reason.
USER_TIMEOUT_SECONDS = 60

log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at this address; every connection inherits its options.

    Raises OSError if there is no such address, or another program listens there.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux (RFC 5482)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_SECONDS * 1000)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # without it the kernel buffers megabytes for a client that is slow
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class Listener:
    """Accepts connections from a socket, as many as there are file descriptors beyond the reserved ones.

    An event loop's own server accepts until no file descriptor is left for anything. Connections beyond the limit are
    accepted and closed at once. `count` returns how many connections are open.
    """

    def __init__(
        self,
        listening: socket.socket,
        reserved_fds: int,
        protocol: Callable[[], asyncio.Protocol],
        count: Callable[[], int],
    ) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_connections = math.inf if limit == resource.RLIM_INFINITY else max(1, limit - reserved_fds)
        self._socket = listening
        self._protocol = protocol
        self._count = count
        self._connecting: set[asyncio.Task[None]] = set()
        self._logged_at = -math.inf  # loop time of the last log line about closed connections
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Accept connections, unless the socket was closed meanwhile."""
        if self._socket.fileno() != -1:
            self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Stop listening."""
        if self._socket.fileno() != -1:
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def abort(self) -> None:
        """Stop listening, and drop the connections that are not set up yet."""
        self.close()
        for task in self._connecting:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS):
            full = self._count() + len(self._connecting) >= self._max_connections
            if full and self._connecting:
                return  # a connection that is being set up is counted twice for a moment: the next one waits for that
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                log.warning("cannot accept connections: %s", error)
                self._loop.remove_reader(self._socket)
                self._loop.call_later(EXHAUSTED_SECONDS, self.start)
                return
            if full:
                connection.close()
                self._log_closed()
                continue
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _log_closed(self) -> None:
        if self._loop.time() - self._logged_at > LOG_SECONDS:
            self._logged_at = self._loop.time()
            log.warning("closing new connections: all file descriptors for clients are used (see ulimit -n)")

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # the client has disconnected already
            connection.close()
