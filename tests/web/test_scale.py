"""Thousands at once: a drain of five thousand clients, and no file descriptors left."""

import asyncio
import itertools
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import pytest

from hello.channel.urls import open_channel
from hello.message import Message
from hello.system import CLOSE_SECONDS
from hello.web.listener import MAX_ACCEPTS, RESERVED_FDS
from hello.web.server import GRACE_SECONDS
from tests.redis_server import RedisServer
from tests.web import raw
from tests.web.measurements import MeasuredProcess, Observer, eventually, until
from tests.web.raw import connect, handshake

READING, STALLED = 4800, 200  # clients
DRAIN_SECONDS = 5.0
MARGIN_SECONDS = 20.0  # for a slow machine that runs the five thousand clients as well
CONNECTING = 200  # at once; more would wait in the kernel
LITTLE = 4096  # bytes that the kernel takes for a client that does not read

_NUMBER = re.compile(rb'"text":"(\d+)"')
_SERVICE_RESTART = raw.frame(raw.CLOSE, raw.close_payload(1012), masked=False)
_END = b"retry: 500\n\n\r\n0\r\n\r\n"  # the last event, in the last chunk of an answer (RFC 9112, section 7.1)


class CheapClient(asyncio.Protocol):
    """A client that keeps what it receives, answers a close frame, and parses nothing. `end` is the end of a stream."""

    __slots__ = ("_end", "_sent", "_transport", "ended", "open", "received")

    def __init__(self, sent: bytes, end: bytes) -> None:
        self.received = bytearray()
        self.open = asyncio.Event()  # answered, or ended
        self.ended = False
        self._sent = sent
        self._end = end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.open.is_set() and b"\r\n\r\n" in self.received:
            self.open.set()
        if self._end is _SERVICE_RESTART and self.received.endswith(self._end):
            self._transport.write(raw.frame(raw.CLOSE, raw.close_payload(1012)))

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.open.set()

    def has(self, number: int) -> bool:
        assert not self.ended, self.received[-100:]
        return b'"text":"%d"' % number in self.received

    def check(self, number: int) -> None:
        """Check that it received all messages up to this number at least, in order, and the end."""
        assert self.received.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")), self.received[:100]
        numbers = [int(found) for found in _NUMBER.findall(self.received)]
        assert numbers == [*range(1, max(number, len(numbers)) + 1)]
        assert self.received.endswith(self._end), self.received[-100:]


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
async def test_drain_of_five_thousand_clients(redis_server: RedisServer) -> None:
    """Each client that reads receives every message in order and 1012 or the end; two hundred stalled delay nothing.

    Half of the stalled clients have full buffers. New clients are refused, and the exit code is 0 in time.
    """
    process = MeasuredProcess(
        actors="relay", channel=redis_server.url, history="400", drain_seconds=f"{DRAIN_SECONDS:g}", instance="crowded"
    )
    in_thread, numbers = anyio.to_thread.run_sync, itertools.count(1)
    async with open_channel(redis_server.url, history=400) as channel:

        async def publish_number() -> int:
            number = next(numbers)
            await channel.publish(Message.new(str(number), broadcaster="test"))
            return number

        for _ in range(300):
            await channel.publish(Message.new("x" * 4000, broadcaster="test"))
        for _ in range(5):
            await publish_number()
        with ExitStack() as stack:
            await in_thread(process.start)
            stack.callback(process.kill)
            clients = await connect_all(process.port)
            for each in range(STALLED):
                path = ("/ws", "/events")[each % 2] + ("?last=400" if each < STALLED // 2 else "")
                opening = handshake(path) if each % 2 == 0 else raw.request(path)
                stack.enter_context(connect(process.port, receive_buffer=LITTLE)).sendall(opening)

            for _ in range(3):
                published = await publish_number()
                await eventually(lambda: all(client.has(published) for client in clients), "all have it", 60)  # noqa: B023  # awaited here

            async with anyio.create_task_group() as group:

                async def go_on() -> None:
                    while True:
                        await anyio.sleep(1)
                        await publish_number()

                group.start_soon(go_on)
                process.signal(signal.SIGTERM)
                start = time.monotonic()
                await in_thread(until, lambda: process.status("/readyz") == 503, "it is not ready")
                refused = await in_thread(raw.ask, process.port, handshake())
                assert (refused.status, refused.one("retry-after")) == (503, "1")
                code = await in_thread(process.wait, 90)
                seconds = time.monotonic() - start
                group.cancel_scope.cancel()

            await eventually(lambda: all(client.ended for client in clients), "all connections have ended", 30)
    assert code == 0
    for client in clients:
        client.check(published)
    assert seconds < DRAIN_SECONDS + CLOSE_SECONDS + GRACE_SECONDS + MARGIN_SECONDS
    assert '"error"' not in process.output


async def connect_all(port: int) -> list[CheapClient]:
    """Return the clients, half over each stream, once each of them is open."""
    room = anyio.Semaphore(CONNECTING)
    clients = []

    async def connect_one(client: CheapClient) -> None:
        async with room:
            await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
            await client.open.wait()

    async with anyio.create_task_group() as group:
        for each in range(READING):
            websocket, events = handshake("/ws?last=5"), raw.request("/events?last=5")
            clients.append(CheapClient(events, _END) if each % 2 else CheapClient(websocket, _SERVICE_RESTART))
            group.start_soon(connect_one, clients[-1])
    return clients


def is_healthy(process: MeasuredProcess) -> bool:
    """Return True if the process answers on its ops server that it is alive and ready, within the time for that."""
    return process.status("/livez") == process.status("/readyz") == 200


FILES = 200  # file descriptors that the process may have


@contextmanager
def limited_files(directory: Path, monkeypatch: pytest.MonkeyPatch, files: int = FILES) -> Iterator[None]:
    """Give the processes that are started in the block so many file descriptors at most."""
    launcher = directory / "python"
    launcher.write_text(f'#!/bin/sh\nulimit -n {files}\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(launcher))
        yield


@pytest.mark.slow
def test_reserved_descriptors_stay_for_redis_and_ops(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand connections, eight hundred without a descriptor are closed at once, three times over.

    A connected client is sent every message without a gap, Redis stays connected, the ops server answers, the log stays
    short, and later clients are admitted.
    """
    log = tmp_path / "log"
    process = MeasuredProcess(log, interval_min="0.01", interval_max="0.02", channel=redis_server.url)
    with ExitStack() as stack:
        with limited_files(tmp_path, monkeypatch):
            stack.enter_context(process)
        observer = stack.enter_context(Observer(process))
        observer.wait_for(1)
        for _ in range(3):
            with ExitStack() as flood:
                connections = [flood.enter_context(connect(process.port)) for _ in range(1000)]
                until(partial(are_closed, connections, 1000 - FILES), "the others are closed", 20)
                observer.wait_for(50)
                assert is_healthy(process)
                assert process.descriptors() <= FILES - RESERVED_FDS + 40
                assert process.metric('hello_channel_up{actor="relay"}') == 1
            until(partial(is_admitted, process.port), "a new client is admitted", 20)
        observer.wait_for(20)
    lines = log.read_text()
    assert lines.count("\n") < 100
    assert "channel lost" not in lines
    assert '"error"' not in lines


def test_burst_within_the_limit_is_admitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is still being set up is not counted twice: no client of a burst is refused."""
    room = 3 * MAX_ACCEPTS
    with limited_files(tmp_path, monkeypatch, room + RESERVED_FDS), MeasuredProcess() as process:
        for count in (room - 50, room - 20, room - 5):
            with ExitStack() as burst:
                process.signal(signal.SIGSTOP)  # so that all of them wait in the kernel
                connections = [burst.enter_context(connect(process.port)) for _ in range(count)]
                for connection in connections:
                    connection.sendall(handshake())
                process.signal(signal.SIGCONT)
                for connection in connections:
                    assert raw.receive_head(connection).status == 101
            until(lambda: process.metric("hello_clients") == 0, "they have left", 20)


def are_closed(connections: list[socket.socket], count: int) -> bool:
    """Return True if so many of the connections are closed."""
    closed = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            closed += not connection.recv(1)
        except BlockingIOError:
            pass
        except ConnectionError:
            closed += 1
    return closed >= count


def is_admitted(port: int) -> bool:
    with suppress(OSError, AssertionError):
        return raw.ask_head(port, handshake()).status == 101
    return False
