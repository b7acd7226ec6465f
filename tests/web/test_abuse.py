"""Clients that flood, stall, declare false sizes or vanish: each costs little, delays no one else, and is removed."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from hello.web.websocket import FRAMES_PER_MINUTE
from tests.web import raw
from tests.web.measurements import Abuse, MeasuredProcess, until
from tests.web.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Client, Frame, connect, frame, handshake

LITTLE = 4096  # bytes that the kernel takes for a client that does not read
OPENINGS = (raw.request("/events?last=200"), handshake("/ws?last=200"))  # of streams with 0.8 MB to send at once


@pytest.fixture(scope="module")
def process() -> Iterator[MeasuredProcess]:
    with MeasuredProcess(interval_min="0.005", interval_max="0.01", text="x" * 4000, history="200") as running:
        yield running


FLOODS: dict[str, Callable[[int], bytes]] = {
    "texts": lambda count: frame(TEXT, b"hello?") * count,
    "pings": lambda count: frame(PING, b"hello?") * count,
    "pongs": lambda count: frame(PONG) * count,
    "fragments": lambda count: frame(TEXT, fin=False) + frame(CONTINUATION, b"x", fin=False) * (count - 1),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_frames_per_minute_are_limited(process: MeasuredProcess, flood: Callable[[int], bytes]) -> None:
    """A hundred frames of any kind are accepted, and the next one closes with 1008."""
    with Client(process.port) as client:
        client.send(flood(FRAMES_PER_MINUTE - 1), frame(PING, b"the hundredth"))
        while client.receive(PONG, CLOSE) != Frame(PONG, b"the hundredth"):
            pass
        assert client.receive(TEXT, CLOSE).opcode == TEXT
        client.send(frame(PONG))
        assert client.until_closed().code == 1008


def test_frames_in_one_write_are_counted_before_they_are_answered(process: MeasuredProcess) -> None:
    """A thousand pings at once get little more than a hundred pongs, and then 1008."""
    with Client(process.port) as client:
        client.send(frame(PING) * 1000)
        received = list(client.frames())
        assert received[-1].code == 1008
        assert [each.opcode for each in received].count(PONG) < 2 * FRAMES_PER_MINUTE


def pour(connection: socket.socket, chunk: bytes) -> None:
    """Send 10 MB, or less if the server does not take them."""
    sent = 0
    connection.settimeout(1.0)
    with suppress(OSError):
        while sent < 10_000_000:
            sent += connection.send(chunk)


# What opens a connection, and what is poured in then.
STREAM, FRAME = handshake("/ws"), frame(BINARY, length=10_000_000)
POURED = [
    pytest.param([*OPENINGS[1:], STREAM], frame(PING, b"x" * 125) * 100, id="pings", marks=pytest.mark.slow),
    pytest.param([STREAM], FRAME + b"x" * 100_000, id="frames of 10 MB"),
    pytest.param([b""], raw.request("/", host="x") * 1000, id="requests"),
    pytest.param([raw.request("/events", "Content-Length: 1000000000")], b"x" * 50_000, id="bodies"),
]


@pytest.mark.parametrize(("openings", "chunk"), POURED)
def test_floods_cost_no_memory(process: MeasuredProcess, openings: list[bytes], chunk: bytes) -> None:
    """Twenty clients send 10 MB each and read nothing, and the server ends them: no pong waits, and no payload."""
    with Abuse(process) as abuse, ExitStack() as stack:
        connections = [stack.enter_context(connect(process.port, receive_buffer=LITTLE)) for _ in range(20)]
        for number, connection in enumerate(connections):
            if opening := openings[number % len(openings)]:
                connection.sendall(opening)
                raw.receive_head(connection)
        threads = [threading.Thread(target=pour, args=(each, chunk)) for each in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        abuse.wait_for_end()


def test_heads_are_not_kept() -> None:
    """Four hundred streams whose requests had a head of nearly 16 KiB: nothing of it is kept for a stream's life."""
    fields = [f"x{number:03}: {'y' * 140}" for number in range(98)]
    with (
        MeasuredProcess(interval_min="0.02", interval_max="0.03") as process,
        Abuse(process, megabytes=15) as abuse,
        ExitStack() as stack,
    ):
        for number in range(400):
            connection = stack.enter_context(connect(process.port))
            long_target = raw.request(f"/events?last=0&x={'y' * 15_000}")
            connection.sendall(raw.request("/events", *fields) if number % 2 else long_target)
            assert raw.receive_head(connection).status == 200
        abuse.observer.wait_for(1)
        assert process.metric("hello_clients") == 401


@pytest.mark.slow
def test_stalled_clients_cost_a_bounded_number_of_bytes() -> None:
    """A hundred clients over both streams, for each of which 2 MB more are pending, delay no one."""
    settings = {"interval_min": "0.001", "interval_max": "0.004", "text": "x" * 4000, "history": "300"}
    with MeasuredProcess(drain_seconds="0.5", **settings) as process, ExitStack() as stack:
        with Abuse(process, megabytes=40) as abuse, ExitStack() as stalled:
            abuse.observer.wait_for(300)
            for number in range(100):
                stalled.enter_context(connect(process.port, receive_buffer=LITTLE)).sendall(OPENINGS[number % 2])
            until(lambda: process.metric("hello_slow_clients") >= 100, "all of them stall", 30)
            abuse.measure_from_now()
            abuse.observer.wait_for(500)
            assert process.metric("hello_slow_clients") >= 100
        for opening in OPENINGS:
            stack.enter_context(connect(process.port, receive_buffer=LITTLE)).sendall(opening)
        until(lambda: process.metric("hello_slow_clients") >= 2, "both of them stall")
        assert process.terminate() == 0
        assert '"error"' not in process.output
