"""A line between two programs that can be cut, hung, delayed, sliced, reset, or robbed of a reply.

Of what passes it knows one thing: which request to Redis is a publish, and which reply says that it was accepted.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import anyio
from anyio.abc import TaskStatus

from tests.processes import free_ports

CHUNK = 65536
DELAY_SECONDS = 0.3  # what a slow line adds to each chunk, in each direction
SLICES = 40  # into which a line that slices cuts each chunk, on average
SLICE_SECONDS = 0.001  # between two of them, so that the kernel does not put them together again
PUBLISH = b"{hello}:ids"  # a key that only the script that publishes names

# open     passes everything on
# cut      refuses newcomers, and has closed all connections
# hang     accepts newcomers, and passes nothing on, not even that somebody hung up
# delay    passes each chunk on later, in order
# slice    passes everything on in writes of a few bytes
# swallow  lets one publish be executed, takes its reply away and resets the connection; then it is `then`
# hold     keeps publishes back, which are never executed; all else passes
Mode = Literal["open", "cut", "hang", "delay", "slice", "swallow", "hold"]


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    scope: anyio.CancelScope
    server: asyncio.StreamWriter | None = None
    robbed: bool = False  # the next reply answers a publish, and is to be taken away


class Link:
    """One line, which listens at `port` and leads to one of `targets`, ports of which it takes any that answers.

    Other targets than before hold for newcomers.
    """

    def __init__(self, name: str, *targets: int) -> None:
        (self.port,) = free_ports(1)
        self.name = name
        self.mode: Mode = "open"
        self.swallowed = 0  # replies
        self.targets: Collection[int] = targets
        self._then: Mode = "open"
        self._ended = anyio.Event()
        self._changed = anyio.Event()
        self._connections: set[_Connection] = set()

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
                self.reset()  # whoever was accepted at the last moment
                await self._until(lambda: self.mode != "cut" or self._ended.is_set())
        finally:
            self.reset()

    def end(self) -> None:
        """Listen no more, for good, and end every connection with a reset."""
        self._ended.set()
        self._wake()

    def set(self, mode: Mode, then: Mode = "open") -> None:
        """Let the line be so from now on; a line that is cut or gives up a hold ends connections with a reset."""
        before, self.mode, self._then = self.mode, mode, then
        self._wake()
        if mode == "cut" or before == "hold":
            self.reset()

    def reset(self) -> None:
        """End every connection with a reset, in both directions; newcomers are welcome."""
        for connection in list(self._connections):
            self._reset(connection)

    @staticmethod
    def _reset(connection: _Connection) -> None:
        for writer in filter(None, (connection.client, connection.server)):
            with suppress(OSError):  # its peer was faster
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
                        group.start_soon(self._pump, connection, reader, connection.server, group.cancel_scope)
                        group.start_soon(self._pump, connection, server_reader, client, group.cancel_scope)
            finally:
                self._connections.discard(connection)
                for writer in filter(None, (client, connection.server)):
                    writer.close()

    async def _pump(
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
                    connection.robbed = self.mode == "swallow"
                if sink is connection.client and connection.robbed and self._is_robbed(connection, data):
                    break
                await self._send(data, sink)
        both.cancel()

    async def _receive(self, source: asyncio.StreamReader) -> bytes:
        try:
            return await source.read(CHUNK)
        finally:
            await self._until(lambda: self.mode != "hang")

    def _is_robbed(self, connection: _Connection, reply: bytes) -> bool:
        connection.robbed = False
        if self.mode != "swallow" or not reply.startswith(b"$") or reply.startswith(b"$-1"):
            return False  # an error, or a refusal: the publish was not executed
        self.swallowed += 1
        self.set(self._then)
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

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()
