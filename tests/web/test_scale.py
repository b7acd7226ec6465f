"""Thousands at once: five thousand browsers are moved away, floods of connections, and no descriptors left."""

import asyncio
import re
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import pytest

from hello.channel import open_channel
from hello.message import Message, now_ms
from hello.system import CLOSE_SECONDS
from hello.web.listener import MAX_ACCEPTS, RESERVED_FDS
from hello.web.server import GRACE_SECONDS
from tests.redis_server import RedisServer
from tests.web.measurements import LOOK_SECONDS, Onlooker, Watched, eventually, record, until
from tests.web.raw import (
    CLOSE,
    TEXT,
    Client,
    ask,
    ask_head,
    closing,
    connected,
    frame,
    handshake,
    receive_head,
    request,
    reset,
)

pytestmark = pytest.mark.slow

READERS, STOPPED = 4800, 200
DRAIN_SECONDS = 5.0
MARGIN_SECONDS = 20.0  # for a slow machine that runs the five thousand browsers as well
CONNECTING = 200  # at once; more would wait in the kernel
LITTLE = 4096  # bytes that the kernel is to take in for one that does not read

_NUMBER = re.compile(rb'"text":"(\d+)"')
_MOVED = frame(CLOSE, closing(1012), masked=False)
_END = b"retry: 500\n\n\r\n0\r\n\r\n"  # the last event, in the last chunk of an answer (RFC 9112, section 7.1)


class Reader(asyncio.Protocol):
    """A browser that costs next to nothing: it looks for the numbers in what it is sent, and for the end."""

    __slots__ = ("_buffer", "_head", "_sent", "_transport", "_websocket", "ended", "failure", "first", "last", "open")

    def __init__(self, sent: bytes, *, websocket: bool) -> None:
        self.first: int | None = None
        self.last: int | None = None
        self.failure: str | None = None
        self.open = asyncio.Event()
        self.ended: float | None = None  # when, if it did
        self._sent = sent
        self._websocket = websocket
        self._buffer = b""
        self._head = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 " if self._websocket else b"HTTP/1.1 200 "):
                self._fail(head[:50].decode())
            self._head, self._buffer = False, rest
            self.open.set()
        place = 0
        for found in _NUMBER.finditer(self._buffer):
            number, place = int(found[1]), found.end()
            if self.last is not None and number != self.last + 1:
                self._fail(f"{number} after {self.last}")
            if self.first is None:
                self.first = number
            self.last = number
        self._buffer = self._buffer[max(place, len(self._buffer) - 500) :]
        if self._websocket and self._buffer.endswith(_MOVED):
            self._transport.write(frame(CLOSE, closing(1012)))

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = time.monotonic()
        if not self._buffer.endswith(_MOVED if self._websocket else _END):
            self._fail(f"ended with {self._buffer[-60:]!r} ({error})")
        self.open.set()

    def _fail(self, why: str) -> None:
        self.failure = self.failure or why


@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
async def test_five_thousand_browsers_are_moved_away_and_miss_nothing(redis_server: RedisServer) -> None:
    """Over both streams; two hundred never read, half of them with all buffers full.

    Each that reads gets every message up to some one behind the signal, in order, and then 1012 or the end. Newcomers
    are refused, and the process ends in time and in order.
    """
    process = Watched(
        actors="relay", channel=redis_server.url, history="400", drain_seconds=f"{DRAIN_SECONDS:g}", instance="crowded"
    )
    number = 0
    loop = asyncio.get_running_loop()
    async with open_channel(redis_server.url, history=400) as channel:

        async def say(text: str) -> None:
            message = Message(id=uuid.uuid4().hex, text=text, broadcaster="test", sent_at=now_ms())
            await channel.publish(message)

        async def count() -> int:
            nonlocal number
            number += 1
            await say(str(number))
            return number

        for _ in range(300):
            await say("x" * 4000)
        for _ in range(5):
            await count()
        with ExitStack() as stack:
            await anyio.to_thread.run_sync(process.start)
            stack.callback(process.kill)
            before = process.resident()

            began = time.monotonic()
            readers = await connect_all(loop, process.port)
            connected_after = time.monotonic() - began
            per_browser = (process.resident() - before) / READERS * 1024
            for each in range(STOPPED):
                path = ("/ws", "/events")[each % 2] + ("?last=400" if each < STOPPED // 2 else "")
                opening = handshake(path) if each % 2 == 0 else request(path)
                stopped = stack.enter_context(connected(process.port, receive_buffer=LITTLE))
                stopped.sendall(opening)

            slowest = 0.0
            for _ in range(3):
                began = time.monotonic()
                said = await count()
                await eventually(partial(all_have, readers, said), "everybody has it", 60)
                slowest = max(slowest, time.monotonic() - began)

            async with anyio.create_task_group() as group:

                async def go_on() -> None:
                    while True:
                        await anyio.sleep(1)
                        await count()

                group.start_soon(go_on)
                process.signal(signal.SIGTERM)
                began = time.monotonic()
                await anyio.to_thread.run_sync(until, lambda: process.status("/readyz") == 503, "it is not ready")
                refused = await anyio.to_thread.run_sync(ask, process.port, handshake())
                assert (refused.status, refused.one("retry-after")) == (503, "1")
                refused = await anyio.to_thread.run_sync(ask, process.port, request("/events", "Connection: close"))
                assert (refused.status, refused.one("retry-after")) == (200, "1")
                assert b"retry: 1000\n" in refused.rest
                code = await anyio.to_thread.run_sync(process.wait, 90)
                seconds = time.monotonic() - began
                group.cancel_scope.cancel()

            await eventually(lambda: all(reader.ended for reader in readers), "all streams have ended", 30)
    last = max(reader.ended or 0 for reader in readers) - began
    first = min(reader.ended or 0 for reader in readers) - began
    record("5,000 browsers: seconds to connect 4,800", f"{connected_after:.1f}")
    record("5,000 browsers: memory of each, KB", f"{per_browser:.0f}")
    record("5,000 browsers: seconds until a message is everywhere, at most", f"{slowest:.2f}")
    record("5,000 browsers: moved away from second", f"{first:.1f}")
    record("5,000 browsers: moved away to second", f"{last:.1f}")
    record("5,000 browsers, 200 never read: seconds to exit code 0", f"{seconds:.1f}")
    assert code == 0
    failures = [reader.failure for reader in readers if reader.failure]
    assert not failures, f"{len(failures)}, such as {failures[0]}"
    assert {reader.first for reader in readers} == {1}
    assert min(reader.last or 0 for reader in readers) >= said
    assert seconds < DRAIN_SECONDS + CLOSE_SECONDS + GRACE_SECONDS + MARGIN_SECONDS
    assert '"error"' not in process.output


async def connect_all(loop: asyncio.AbstractEventLoop, port: int) -> list[Reader]:
    """The readers, half over each stream, once each of them is open."""
    room = anyio.Semaphore(CONNECTING)
    readers = []

    async def connect(reader: Reader) -> None:
        async with room:
            await loop.create_connection(lambda: reader, "127.0.0.1", port)
            await reader.open.wait()

    async with anyio.create_task_group() as group:
        for each in range(READERS):
            websocket = each % 2 == 0
            sent = handshake("/ws?last=5") if websocket else request("/events?last=5")
            readers.append(Reader(sent, websocket=websocket))
            group.start_soon(connect, readers[-1])
    return readers


def all_have(readers: list[Reader], number: int) -> bool:
    failures = [reader.failure for reader in readers if reader.failure]
    assert not failures, failures[0]
    return all(reader.last is not None and reader.last >= number for reader in readers)


class Operator:
    """Asks for `/livez` and `/readyz`, one after the other, for as long as its `with` lasts."""

    def __init__(self, process: Watched) -> None:
        self.worst = 0.0  # seconds for an answer
        self.answers = 0
        self.wrong: list[str] = []
        self._process = process
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Operator":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._leaving.is_set():
            for path in ("/livez", "/readyz"):
                began = time.monotonic()
                try:
                    status = ask(self._process.ops_port, request(path, "Connection: close")).status
                    if status != 200:
                        self.wrong.append(f"{path}: {status}")
                except (OSError, AssertionError) as error:
                    self.wrong.append(f"{path}: {error!r}")
                self.worst = max(self.worst, time.monotonic() - began)
                self.answers += 1
            self._leaving.wait(LOOK_SECONDS)


def say_nothing(port: int, held: list[socket.socket]) -> None:
    held.append(connected(port))


def say_half(port: int, held: list[socket.socket]) -> None:
    held.append(connected(port))
    held[-1].sendall(handshake()[:60])


def reset_at_once(port: int, held: list[socket.socket]) -> None:
    reset(connected(port))


def reset_in_the_handshake(port: int, held: list[socket.socket]) -> None:
    connection = connected(port)
    connection.sendall(handshake())
    reset(connection)


def leave_in_order(port: int, held: list[socket.socket]) -> None:
    connected(port).close()


@pytest.mark.parametrize("behave", [say_nothing, say_half, reset_at_once, reset_in_the_handshake, leave_in_order])
def test_a_flood_of_three_thousand_connections_delays_nobody_for_long(
    behave: Callable[[int, list[socket.socket]], None],
) -> None:
    """Other browsers get every message, and the operators an answer, all the while; and afterwards all is as before."""
    with Watched(interval_min="0.01", interval_max="0.02") as process:
        held: list[socket.socket] = []
        with Onlooker(process) as onlooker, Operator(process) as operator:
            onlooker.see(1)
            descriptors, before = process.descriptors(), process.resident()
            process.forget_peak()
            try:
                for _ in range(3000):
                    behave(process.port, held)
                onlooker.see(20)
                grown = process.peak() - before
            finally:
                for connection in held:
                    connection.close()
            # The operator's own connection comes and goes.
            until(lambda: process.descriptors() <= descriptors + 2, "the connections end", 30)
            onlooker.see(20)
            assert onlooker.missed_nothing()
        assert operator.wrong == []
        assert process.terminate() == 0
        assert '"error"' not in process.output
        assert process.output.count("\n") < 50
    name = behave.__name__.replace("_", " ")
    record(f"3,000 that {name}: memory, MB", f"{grown:.1f}")
    record(f"3,000 that {name}: the other browser's worst delay, s", f"{onlooker.worst_delay:.3f}")
    record(f"3,000 that {name}: /livez, worst, s", f"{operator.worst:.3f}")


def test_a_full_relay_refuses_newcomers_until_one_leaves() -> None:
    """Over both streams; the operators are answered, and those inside go on."""
    with Watched(interval_min="0.01", interval_max="0.02", max_clients="50") as process, ExitStack() as stack:
        inside = [stack.enter_context(Client(process.port)) for _ in range(25)]
        streams = [stack.enter_context(connected(process.port)) for _ in range(25)]
        for connection in streams:
            connection.sendall(request("/events"))
        until(lambda: process.metric("hello_clients") == 50, "fifty are inside")

        def refused() -> tuple[int, bool]:
            newcomer = ask(process.port, request("/events", "Connection: close"))
            return ask(process.port, handshake()).status, b"retry: 10000\n" in newcomer.rest

        assert refused() == (503, True)
        assert process.status("/livez") == process.status("/readyz") == 200
        for leaves in (inside.pop(), streams.pop()):
            (leaves.socket if isinstance(leaves, Client) else leaves).close()
            until(lambda: process.metric("hello_clients") == 49, "one has left")
            newcomer = stack.enter_context(Client(process.port))
            newcomer.next(TEXT)
            assert refused() == (503, True)
        for client in inside:
            client.next(TEXT)


FILES = 200  # descriptors that the process may have


@contextmanager
def few_files(directory: Path, monkeypatch: pytest.MonkeyPatch, files: int = FILES) -> Iterator[None]:
    """Processes that are started meanwhile have so many descriptors, and cannot have more."""
    launcher = directory / "python"
    launcher.write_text(f'#!/bin/sh\nulimit -n {files}\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(launcher))
        yield


def test_where_no_descriptors_are_left_redis_and_the_operators_keep_theirs(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand connections where two hundred can be: the others are closed at once, three times over.

    A browser that was there before gets every message, the link to Redis stays up, the log stays short, and whoever
    comes afterwards gets in.
    """
    log = tmp_path / "log"
    with ExitStack() as stack:
        with few_files(tmp_path, monkeypatch):
            process = Watched(log, interval_min="0.01", interval_max="0.02", channel=redis_server.url)
            stack.enter_context(process)
        onlooker = stack.enter_context(Onlooker(process))
        operator = stack.enter_context(Operator(process))
        onlooker.see(1)
        for _ in range(3):
            with ExitStack() as flood:
                connections = [flood.enter_context(connected(process.port)) for _ in range(1000)]
                closed = until(partial(turned_away, connections, 1000 - FILES), "the others are closed", 20)
                onlooker.see(50)
                assert process.descriptors() <= FILES - RESERVED_FDS + 40
                assert process.metric('hello_channel_up{actor="relay"}') == 1
            until(partial(gets_in, process.port), "a newcomer gets in", 20)
        onlooker.see(20)
        assert onlooker.missed_nothing()
        stack.pop_all().close()
        assert operator.answers > 10
        assert operator.wrong == []
    said = log.read_text()
    assert said.count("\n") < 100
    assert "channel lost" not in said
    assert '"error"' not in said
    record("1,000 connections, 200 descriptors: seconds until 800 are closed", f"{closed:.2f}")
    record("1,000 connections: the other browser's worst delay, s", f"{onlooker.worst_delay:.3f}")
    record("1,000 connections: /livez, worst, s", f"{operator.worst:.3f}")
    record("1,000 connections, three times: lines in the log", said.count("\n"))


def test_a_burst_of_all_that_there_is_room_for_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when all browsers of another relay come at once: nobody is turned away for those who are just entering."""
    room = 3 * MAX_ACCEPTS
    with few_files(tmp_path, monkeypatch, room + RESERVED_FDS), Watched() as process:
        for count in (room - 50, room - 20, room - 5):
            with ExitStack() as burst:
                process.signal(signal.SIGSTOP)  # so that they all wait at the door
                connections = [burst.enter_context(connected(process.port)) for _ in range(count)]
                for connection in connections:
                    connection.sendall(handshake())
                process.signal(signal.SIGCONT)
                for connection in connections:
                    assert receive_head(connection).status == 101
            until(lambda: process.metric("hello_clients") == 0, "they are gone", 20)


def turned_away(connections: list[socket.socket], count: int) -> bool:
    """Whether so many of them are closed."""
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


def gets_in(port: int) -> bool:
    with suppress(OSError, AssertionError):
        return ask_head(port, handshake()).status == 101
    return False
