"""A proxy between two programs whose connections can be cut, hung, delayed, sliced or reset, or lose a reply.

Of the bytes that pass it knows one thing: which request to Redis is a publish, and which reply accepts the publish.
"""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import anyio
from anyio.abc import TaskStatus

from tests.processes import free_ports

READ_BYTES = 65536
DELAY_SECONDS = 0.3  # that `delay` adds to each read, in each direction
SLICES = 40  # into which `slice` divides each read, on average
SLICE_SECONDS = 0.001  # between two slices, so that the kernel does not join them
PUBLISH = b"{hello}:ids"  # a key that only the script that publishes names

# open        passes everything on
# cut         refuses new connections, and has reset all others
# hang        accepts connections, and passes nothing on, not even that a peer has closed
# delay       passes each read on later, in order
# slice       passes everything on in writes of a few bytes
# lose reply  lets one publish be executed, drops its reply and resets the connection; then changes to the next mode
# hold        keeps publishes back, which are never executed; everything else passes
Mode = Literal["open", "cut", "hang", "delay", "slice", "lose reply", "hold"]


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    scope: anyio.CancelScope
    server: asyncio.StreamWriter | None = None
    loses_reply: bool = False  # True: the next reply is that to a publish, and is to be dropped


class Proxy:
    """Listens at `port`, and connects each client to one of `targets`: any of these ports that answers.

    A change of `targets` is valid for new connections.
    """

    def __init__(self, name: str, *targets: int) -> None:
        (self.port,) = free_ports(1)
        self.name = name
        self.mode: Mode = "open"
        self.lost_replies = 0
        self.targets: Collection[int] = targets
        self._next_mode: Mode = "open"
        self._ended = anyio.Event()
        self._changed = anyio.Event()
        self._connections: set[_Connection] = set()

    @property
    def url(self) -> str:
        """The URL of the Redis behind the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `end`; started once it listens."""
        try:
            while not self._ended.is_set():
                listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
                try:
                    task_status.started()
                    task_status = anyio.TASK_STATUS_IGNORED
                    await self._until(lambda: self.mode == "cut" or self._ended.is_set())
                finally:
                    listener.close()
                self.reset()  # connections that were accepted at the last moment
                await self._until(lambda: self.mode != "cut" or self._ended.is_set())
        finally:
            self.reset()

    def end(self) -> None:
        """Stop listening for good, and end every connection with a reset."""
        self._ended.set()
        self._notify()

    def set(self, mode: Mode, then: Mode = "open") -> None:
        """Change the mode; `then` follows `lose reply`. To begin a cut or end a hold resets all connections."""
        before, self.mode, self._next_mode = self.mode, mode, then
        self._notify()
        if mode == "cut" or before == "hold":
            self.reset()

    def reset(self) -> None:
        """End every connection with a reset, in both directions; new connections are accepted."""
        for connection in list(self._connections):
            self._reset(connection)

    @staticmethod
    def _reset(connection: _Connection) -> None:
        for writer in filter(None, (connection.client, connection.server)):
            with suppress(OSError):  # its peer has closed already
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        connection.scope.cancel()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with anyio.CancelScope() as scope:
            connection = _Connection(client, scope)
            self._connections.add(connection)
            try:
                await self._until(lambda: self.mode != "hang")
                for port in random.sample(list(self.targets), len(self.targets)):
                    with suppress(OSError):
                        server_reader, connection.server = await asyncio.open_connection("127.0.0.1", port)
                        break
                if connection.server is not None:
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._pass_on, connection, reader, connection.server, group.cancel_scope)
                        group.start_soon(self._pass_on, connection, server_reader, client, group.cancel_scope)
            finally:
                self._connections.discard(connection)
                for writer in filter(None, (client, connection.server)):
                    writer.close()

    async def _pass_on(
        self,
        connection: _Connection,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: anyio.CancelScope,
    ) -> None:
        with suppress(OSError):
            while data := await self._receive(source):
                if sink is connection.server and PUBLISH in data:
                    if self.mode == "hold":
                        await anyio.sleep_forever()  # until it is reset: to publish it late would be another fault
                    connection.loses_reply = self.mode == "lose reply"
                if sink is connection.client and connection.loses_reply and self._loses_reply(connection, data):
                    break
                await self._send(data, sink)
        both.cancel()

    async def _receive(self, source: asyncio.StreamReader) -> bytes:
        try:
            return await source.read(READ_BYTES)
        finally:
            await self._until(lambda: self.mode != "hang")

    def _loses_reply(self, connection: _Connection, reply: bytes) -> bool:
        connection.loses_reply = False
        if self.mode != "lose reply" or not reply.startswith(b"$") or reply.startswith(b"$-1"):
            return False  # an error, or a refusal: the publish was not executed
        self.lost_replies += 1
        self.set(self._next_mode)
        self._reset(connection)
        return True

    async def _send(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        if self.mode == "delay":
            await anyio.sleep(DELAY_SECONDS)
        largest = max(1, 2 * len(data) // SLICES)
        while data:
            size = random.randint(1, largest) if self.mode == "slice" else len(data)
            sink.write(data[:size])
            await sink.drain()
            if data := data[size:]:
                await anyio.sleep(SLICE_SECONDS)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy to this port for the duration of the block."""
    proxy = Proxy("test", port)
    async with anyio.create_task_group() as group:
        await group.start(proxy.run)
        yield proxy
        group.cancel_scope.cancel()
