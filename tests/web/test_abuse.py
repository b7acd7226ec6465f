"""Browsers that flood, stall, lie about sizes or vanish: each costs little, delays nobody else, and is got rid of."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import anyio
import pytest

from hello.hub import Hub
from hello.message import Entry, Message, Position
from hello.metrics import Metrics
from hello.web import http_protocol, server, stream, websocket
from hello.web.listener import listen
from hello.web.public import public_app
from hello.web.websocket import FRAMES_PER_MINUTE
from tests.web.measurements import Onlooker, Watched, eventually, record, until
from tests.web.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    Frame,
    connected,
    frame,
    handshake,
    request,
    reset,
)

RULES_BROKEN, TOO_SLOW = 1008, 1013
ENDED_SECONDS = 30.0  # in which a connection is gone that the server gives up after 5 to 10 s
STALL_SECONDS = 1.0  # instead of 30
LITTLE = 4096  # bytes that the kernel is to take in for one that does not read


@pytest.fixture(scope="module")
def process() -> Iterator[Watched]:
    with Watched(interval_min="0.005", interval_max="0.01", text="x" * 4000, history="200") as running:
        yield running


FLOODS: dict[str, Callable[[int], bytes]] = {
    "texts": lambda count: frame(TEXT, b"hello?") * count,
    "bytes": lambda count: frame(BINARY) * count,
    "pings": lambda count: frame(PING, b"hello?") * count,
    "pongs": lambda count: frame(PONG) * count,
    "fragments": lambda count: frame(TEXT, fin=False) + frame(CONTINUATION, b"x", fin=False) * (count - 1),
    "a mixture": lambda count: (frame(PING) + frame(TEXT, b"x")) * (count // 2) + frame(PONG) * (count % 2),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_more_than_a_hundred_frames_a_minute_close_with_1008(process: Watched, flood: Callable[[int], bytes]) -> None:
    """Of whatever kind: each ping would be answered, and each fragment kept."""
    with Client(process.port) as client:
        client.send(flood(FRAMES_PER_MINUTE + 1))
        assert client.closed().code == RULES_BROKEN


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_hundred_frames_a_minute_are_borne(process: Watched, flood: Callable[[int], bytes]) -> None:
    """And a close is still answered as one."""
    with Client(process.port) as client:
        client.send(flood(FRAMES_PER_MINUTE - 1), frame(PING, b"the hundredth"))
        assert client.next(TEXT).opcode == TEXT
        for came in client.frames():
            assert came.opcode != CLOSE
            if came == Frame(PONG, b"the hundredth"):
                break


def test_a_thousand_pings_in_one_piece_close_it_too(process: Watched) -> None:
    """What was read at once may be answered at once; nothing is behind the closing frame."""
    with Client(process.port) as client:
        client.send(frame(PING) * 1000)
        assert client.closed().code == RULES_BROKEN


def pour(connection: socket.socket, chunk: bytes, total: int) -> int:
    """Send it again and again, up to so many bytes, for as long as the server takes them; how many it took."""
    sent = 0
    connection.settimeout(1.0)
    with suppress(OSError):
        while sent < total:
            sent += connection.send(chunk)
    return sent


@pytest.mark.parametrize("full", [False, True], ids=["with room", "with all buffers full"])
@pytest.mark.slow
def test_clients_that_flood_pings_and_never_read_are_got_rid_of(process: Watched, full: bool) -> None:
    """Twenty of them, up to 10 MB each: were each ping answered into a buffer, memory would grow by 200 MB."""
    kind = "ping floods, stuck" if full else "ping floods"
    with Onlooker(process) as onlooker, ExitStack() as stack:
        onlooker.see(1)
        descriptors, before = process.descriptors(), process.resident()
        process.forget_peak()
        path = "/ws?last=200" if full else "/ws"
        clients = [stack.enter_context(Client(process.port, path, receive_buffer=LITTLE)) for _ in range(20)]
        if full:
            until(lambda: process.metric("hello_slow_clients") >= len(clients), "all of them stuck", 30)
        pourers = [
            threading.Thread(target=pour, args=(client.socket, frame(PING, b"x" * 125) * 100, 10_000_000))
            for client in clients
        ]
        for thread in pourers:
            thread.start()
        seconds = until(lambda: process.descriptors() <= descriptors, "the connections end", ENDED_SECONDS)
        for thread in pourers:
            thread.join()
        onlooker.see(20)
        assert onlooker.missed_nothing()
        grown = process.peak() - before
        assert grown < 20
    record(f"{kind} (20 of 10 MB): memory, MB", f"{grown:.1f}")
    record(f"{kind}: seconds to the end", f"{seconds:.1f}")
    record(f"{kind}: the other browser's worst delay, s", f"{onlooker.worst_delay:.3f}")


@pytest.mark.parametrize("announced", [10_000_000, 2**63 - 1], ids=["as long as told", "with no end"])
def test_frames_of_10_mb_are_not_read(process: Watched, announced: int) -> None:
    """Twenty at once: the length alone closes, and nothing of what follows is kept."""
    with Onlooker(process) as onlooker, ExitStack() as stack:
        onlooker.see(1)
        descriptors, before = process.descriptors(), process.resident()
        process.forget_peak()
        clients = [stack.enter_context(Client(process.port)) for _ in range(20)]
        for client in clients:
            client.send(frame(BINARY, length=announced))
            pour(client.socket, b"x" * 100_000, 10_000_000)
        seconds = until(lambda: process.descriptors() <= descriptors, "the connections end", ENDED_SECONDS)
        onlooker.see(20)
        assert onlooker.missed_nothing()
        grown = process.peak() - before
        assert grown < 20
    record("frames of 10 MB (20): memory, MB", f"{grown:.1f}")
    record("frames of 10 MB: seconds to the end", f"{seconds:.1f}")
    record("frames of 10 MB: the other browser's worst delay, s", f"{onlooker.worst_delay:.3f}")


def test_messages_that_never_become_whole_cost_no_more_than_a_message(process: Watched) -> None:
    """Three hundred browsers that have sent 4,000 of 4,096 bytes, in one frame or in fragments, and wait."""
    with Onlooker(process) as onlooker, ExitStack() as stack:
        onlooker.see(1)
        clients = [stack.enter_context(Client(process.port, receive_buffer=LITTLE)) for _ in range(300)]
        until(lambda: process.metric("hello_slow_clients") >= len(clients), "they do not read", 60)
        before = process.resident()
        for number, client in enumerate(clients):
            if number % 2:
                client.send(frame(BINARY, b"x" * 4000, length=4096))
            else:
                client.send(frame(TEXT, b"x" * 100, fin=False), frame(CONTINUATION, b"x" * 100, fin=False) * 39)
        onlooker.see(100)
        grown = process.resident() - before
        assert grown < 20
    record("unfinished messages (300): memory, MB", f"{grown:.1f}")
    record("unfinished messages: the other browser's worst delay, s", f"{onlooker.worst_delay:.3f}")


@pytest.mark.slow
def test_readers_that_stop_cost_a_bounded_number_of_bytes_and_delay_nobody() -> None:
    """A hundred over both streams, each owed some 4 MB more: kept for each of them that would be 400 MB."""
    with (
        Watched(interval_min="0.001", interval_max="0.004", text="x" * 4000, history="300") as process,
        Onlooker(process) as onlooker,
        ExitStack() as stack,
    ):
        onlooker.see(300)
        stopped = []
        for number in range(100):
            opening = handshake("/ws?last=300") if number % 2 else request("/events?last=300")
            stopped.append(stack.enter_context(connected(process.port, receive_buffer=LITTLE)))
            stopped[-1].sendall(opening)
        until(lambda: process.metric("hello_slow_clients") >= len(stopped), "all of them stuck", 30)
        before = process.resident()
        process.forget_peak()
        onlooker.see(1000)
        grown = process.peak() - before
        assert onlooker.missed_nothing()
        assert process.metric("hello_slow_clients") >= len(stopped)
        assert grown < 40
        delay = onlooker.worst_delay
    record("readers that stop (100, 400 MB owed): memory, MB", f"{grown:.1f}")
    record("readers that stop: the other browser's worst delay, s", f"{delay:.3f}")


@pytest.mark.slow
def test_browsers_that_vanish_while_they_are_written_to_leave_nothing_behind() -> None:
    """Five hundred that ask for all that is kept, and reset: no descriptor, no browser, no line in the log."""
    with Watched(interval_min="0.005", interval_max="0.01", text="x" * 4000, history="200") as process:
        with Onlooker(process) as onlooker:
            onlooker.see(200)
            descriptors, before = process.descriptors(), process.resident()
            for number in range(500):
                opening = handshake("/ws?last=200") if number % 2 else request("/events?last=200")
                connection = connected(process.port, receive_buffer=LITTLE)
                connection.sendall(opening)
                if number % 3:
                    connection.recv(100)
                reset(connection)
            until(lambda: process.descriptors() <= descriptors, "the connections end", ENDED_SECONDS)
            until(lambda: process.metric("hello_clients") == 1, "the browsers are forgotten", ENDED_SECONDS)
            onlooker.see(20)
            assert onlooker.missed_nothing()
            grown = process.resident() - before
            assert grown < 40  # that each asked for 0.8 MB
        assert process.terminate() == 0
        assert '"error"' not in process.output
        assert process.output.count("\n") < 50
    record("resets amid 0.8 MB (500): memory, MB", f"{grown:.1f}")
    record("resets amid 0.8 MB: the other browser's worst delay, s", f"{onlooker.worst_delay:.3f}")


@pytest.mark.parametrize("target", ["/", "/events"])
def test_requests_and_bodies_without_end_on_one_connection_are_borne(process: Watched, target: str) -> None:
    """Requests without number whose answers nobody reads, or a stream with a body that never ends; ten at once."""
    if target == "/":
        kind, opening, chunk = "requests in a row", b"", request("/", host="x") * 1000
    else:
        kind, opening, chunk = "a body to a stream", request("/events", "Content-Length: 1000000000"), b"x" * 50_000
    with Onlooker(process) as onlooker, ExitStack() as stack:
        onlooker.see(1)
        descriptors, before = process.descriptors(), process.resident()
        process.forget_peak()
        connections = [stack.enter_context(connected(process.port, receive_buffer=LITTLE)) for _ in range(10)]
        for connection in connections:
            connection.sendall(opening)
        pourers = [threading.Thread(target=pour, args=(each, chunk, 20_000_000)) for each in connections]
        for thread in pourers:
            thread.start()
        for thread in pourers:
            thread.join()
        onlooker.see(20)
        assert onlooker.missed_nothing()
        grown = process.peak() - before
        stack.close()
        until(lambda: process.descriptors() <= descriptors, "the connections end", ENDED_SECONDS)
    record(f"{kind} (10 of 20 MB): memory, MB", f"{grown:.1f}")
    record(f"{kind}: the other browser's worst delay, s", f"{onlooker.worst_delay:.3f}")
    assert grown < 20


@asynccontextmanager
async def served(history: int) -> AsyncIterator[tuple[int, Metrics]]:
    """An hub with so many long messages, served in this process: its port, and what it measures."""
    metrics = Metrics()
    hub = Hub(history=history, instance="here", max_clients=100, metrics=metrics)
    for number in range(history):
        message = Message(id=str(number), text="x" * 4000, broadcaster="here", sent_at=0)
        hub.append(Entry(Position(1, number + 1), Position(1, number), message))
    listener = listen("127.0.0.1", 0)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        app = public_app(hub, allowed_origins=[])
        await group.start(lambda *, task_status: server.serve(app, stop, listener=listener, task_status=task_status))
        yield listener.getsockname()[1], metrics
        stop.set()


async def stuck(metrics: Metrics) -> None:
    """Return once there is a browser that keeps the relay waiting."""
    await eventually(lambda: metrics.registry.get_sample_value("hello_slow_clients") == 1, "a slow browser")


def own_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def quick_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits on slow browsers, at a fraction of what they are."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0.1)
    monkeypatch.setattr(websocket, "STALL_SECONDS", STALL_SECONDS)
    monkeypatch.setattr(stream, "STALL_SECONDS", STALL_SECONDS)
    monkeypatch.setattr(stream, "CLOSE_SECONDS", 0.5)
    for module in (websocket, http_protocol):
        monkeypatch.setattr(module, "ABORT_SECONDS", 0.5)


@pytest.mark.usefixtures("quick_limits")
@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_a_browser_that_takes_nothing_is_given_up_and_its_connection_with_it(path: str) -> None:
    """It reads not a byte, so that it can be told nothing either."""
    opening = handshake("/ws?last=1000") if path == "/ws" else request("/events?last=1000")
    async with served(history=1000) as (port, metrics):
        with await anyio.to_thread.run_sync(lambda: connected(port, receive_buffer=LITTLE)) as connection:
            descriptors = own_descriptors()
            connection.sendall(opening)
            await stuck(metrics)
            left = await eventually(lambda: metrics.registry.get_sample_value("hello_clients") == 0, "it is let go")
            ended = await eventually(lambda: own_descriptors() < descriptors, "the connection ends")
    record(f"{path} that stops: seconds to the end, of {STALL_SECONDS:g} + 0.5 + 0.5", f"{left + ended:.1f}")


@pytest.mark.usefixtures("quick_limits")
@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
async def test_a_browser_that_reads_again_too_late_hears_that_it_was_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """1013 behind what it was sent before; then the connection ends."""
    monkeypatch.setattr(websocket, "ABORT_SECONDS", ENDED_SECONDS)
    async with served(history=1000) as (port, metrics):
        with await anyio.to_thread.run_sync(lambda: Client(port, "/ws?last=1000", receive_buffer=LITTLE)) as client:
            await stuck(metrics)
            await anyio.sleep(2 * STALL_SECONDS)  # on the loop on which the limit runs out in half the time
            close = await anyio.to_thread.run_sync(client.closed)
    assert close.code == TOO_SLOW


@pytest.mark.usefixtures("quick_limits")
@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
@pytest.mark.parametrize("path", ["/ws", "/events"])
@pytest.mark.slow
async def test_a_browser_that_goes_on_reading_slowly_is_kept(path: str) -> None:
    """Over several times as long as one may take nothing at all, and it gets everything."""
    opening = handshake("/ws?last=100") if path == "/ws" else request("/events?last=100")

    def crawl(connection: socket.socket) -> bytes:
        received, until_then = b"", time.monotonic() + 3.5 * STALL_SECONDS
        while received.count(b'"type":"message"') < 100:
            if time.monotonic() < until_then:
                time.sleep(STALL_SECONDS / 20)  # this is how slow it is
            data = connection.recv(4096)
            assert data, "given up"
            received += data
        assert time.monotonic() > until_then
        return received

    async with served(history=100) as (port, metrics):
        with await anyio.to_thread.run_sync(lambda: connected(port, receive_buffer=LITTLE)) as connection:
            connection.sendall(opening)
            await stuck(metrics)
            received = await anyio.to_thread.run_sync(crawl, connection)
            assert metrics.registry.get_sample_value("hello_clients") == 1
    places = [received.index(b'"position":"1-%d"' % (number + 1)) for number in range(100)]
    assert places == sorted(places)


class Talker(asyncio.Protocol):
    """The server's end of a connection before it is handed over."""

    def __init__(self) -> None:
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.full = True


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_a_connection_that_is_handed_over_full_costs_no_more_than_any_other() -> None:
    """Its transport has told whom it had then that the kernel takes no more, and does not tell again."""
    hub = Hub(history=1000, instance="here", max_clients=100, metrics=Metrics())
    crowd, loop = websocket.CaughtUp(hub), asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        _, before = await loop.create_connection(Talker, sock=ours)
        while not before.full:
            before.transport.write(b"x" * 16 * 1024)
        unsent = before.transport.get_write_buffer_size()
        browser = websocket.WebSocketConnection(crowd)
        hub.join(browser, 0)
        browser.begin(before.transport, set(), b"")
        for number in range(200):
            message = Message(id=str(number), text="x" * 4000, broadcaster="here", sent_at=0)
            hub.append(Entry(Position(1, number + 1), Position(1, number), message))
            hub.notify_all()
        assert browser.blocked_since is not None
        assert before.transport.get_write_buffer_size() < unsent + 16 * 1024
        before.transport.abort()
        await eventually(lambda: len(hub) == 0, "it has gone")
