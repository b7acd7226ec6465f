"""What a raw socket may do to either server: slow, silent, half and huge requests, and what comes after them."""

import socket
from collections.abc import Callable, Iterator

import anyio
import pytest
from starlette.applications import Starlette

from hello.web import http_protocol, server
from hello.web.http_protocol import MAX_HEAD
from hello.web.listener import listen
from tests.processes import HelloProcess
from tests.web.raw import ask_head, handshake

SECONDS = 20.0  # longer than the server's own limit, so that it is the server who hangs up
FIELD = b"x: " + b"y" * 1000 + b"\r\n"


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    with HelloProcess() as running:
        yield running


def answer(port: int, *parts: bytes) -> bytes:
    """What comes back, to its end, for what is sent; the server may hang up before it has read everything."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            while data := connection.recv(65536):
                received += data
        except ConnectionError:
            pass
        return received


def both(process: HelloProcess) -> list[tuple[int, bytes]]:
    return [(process.port, b"/"), (process.ops_port, b"/livez")]


def test_a_head_of_over_16_kib_is_refused(process: HelloProcess) -> None:
    """In one piece or in many, finished or not, on both servers."""
    for port, path in both(process):
        start = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        assert answer(port, start + FIELD * 5 + b"\r\n").startswith(b"HTTP/1.1 200 ")
        assert answer(port, start + FIELD * 20 + b"\r\n").startswith(b"HTTP/1.1 431 ")
        assert answer(port, start + b"x: ", *[b"y" * 1024] * 16).startswith(b"HTTP/1.1 431 ")
        assert answer(port, b"GET /" + b"y" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 431 ")
        assert answer(port, b"x" * 10).startswith(b"HTTP/1.1 400 ")
        assert process.status("/livez") == 200


def test_who_does_not_wait_for_an_answer_is_hung_up_on(process: HelloProcess) -> None:
    """Behind a stream a further request would hide that its browser has gone."""
    for second in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"):
        assert b"HTTP/1.1 429 " in answer(process.port, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n" + second)


def test_a_handshake_may_have_as_long_a_head_as_any_other_request(process: HelloProcess) -> None:
    """With one long line, such as many cookies make."""
    for size, status in ((8190, 101), (15_000, 101), (MAX_HEAD, 431)):
        assert ask_head(process.port, handshake("/ws", "Cookie: " + "y" * size)).status == status


WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def answer_to_second(port: int, sent: bytes) -> bytes:
    """What comes back, to its end, for what is sent behind a request that was answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(WHOLE)
        received = b""
        while not received.endswith(b"Not Found"):
            received += connection.recv(65536)
        connection.sendall(sent)
        while data := connection.recv(65536):
            received += data
        return received


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
@pytest.mark.parametrize(
    ("ask", "sent"),
    [
        pytest.param(answer, b"", id="silent"),
        pytest.param(answer, b"G", id="one byte"),
        pytest.param(answer, WHOLE[:-2], id="half"),
        pytest.param(answer, b"\r\n", id="empty line"),
        pytest.param(answer_to_second, b"GET /", id="half of a second"),
        pytest.param(answer_to_second, b"\r\n", id="empty line as a second"),
    ],
)
async def test_a_head_that_does_not_come_is_not_waited_for(
    ask: Callable[[int, bytes], bytes], sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408 and the end, for a time-out shortened here."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
    listener = listen("127.0.0.1", 0)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(
            lambda *, task_status: server.serve(Starlette(), stop, listener=listener, task_status=task_status)
        )
        received = await anyio.to_thread.run_sync(ask, listener.getsockname()[1], sent)
        assert b"HTTP/1.1 408 " in received
        assert (b"HTTP/1.1 404 " in received) is (ask is answer_to_second)
        stop.set()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux alone tells vanished peers so")
def test_a_browser_that_vanished_is_noticed_by_the_kernel() -> None:
    """Each accepted connection gives up what is not acknowledged for a minute."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
