"""The limits on requests, on both servers: large, slow and incomplete heads, and requests that do not wait."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import anyio
import pytest
from starlette.applications import Starlette

from hello.hub import Hub
from hello.metrics import Metrics
from hello.web import http_protocol
from hello.web.http_protocol import MAX_HEAD
from hello.web.listener import listen
from hello.web.public import public_app
from tests.conftest import missing
from tests.processes import HelloProcess
from tests.web.conftest import Clock
from tests.web.inprocess import serving
from tests.web.raw import Answer, ask, ask_head, chunks, connect, handshake, parse_answer, receive_head, request, send

FIELD = "x: " + "y" * 1000

on_uvloop = pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    with HelloProcess() as running:
        yield running


def test_head_over_16_kib_is_refused(process: HelloProcess) -> None:
    """A head is answered 431 if it is too large, in one write or in many, complete or not, on both servers."""
    for port, path in ((process.port, "/"), (process.ops_port, "/livez")):
        assert ask(port, request(path, "Connection: close", *[FIELD] * 5)).status == 200
        assert ask(port, request(path, "Connection: close", *[FIELD] * 20)).status == 431
        with connect(port) as connection:
            connection.sendall(request(path)[:-2] + b"x: ")
            for _ in range(16):
                assert process.status("/livez") == 200  # by then the server has read what was sent before
                connection.sendall(b"y" * 1024)
            assert receive_head(connection).status == 431
        assert ask(port, request("/" + "y" * MAX_HEAD)).status == 431
        assert ask(port, b"x" * 10).status == 400
        assert process.status("/livez") == 200


def test_head_of_a_handshake_has_the_same_limit(process: HelloProcess) -> None:
    """One long line, as of many cookies, is accepted below 16 KiB."""
    for size, status in ((8190, 101), (15_000, 101), (MAX_HEAD, 431)):
        assert ask_head(process.port, handshake("/ws", "Cookie: " + "y" * size)).status == status


def test_over_100_fields_are_refused(process: HelloProcess) -> None:
    """The field after the hundredth is answered 431, in a complete head or not, on both servers; Host is the first."""
    for port, path in ((process.port, "/"), (process.ops_port, "/livez")):
        assert ask_head(port, request(path, *["a:"] * 99)).status == 200
        assert ask(port, request(path, *["a:"] * 100)).status == 431
        assert ask(port, request(path, *["a:"] * 100, "b")[:-4]).status == 431
    for count, status in ((95, 101), (96, 431)):  # a handshake has five of its own
        assert ask_head(process.port, handshake("/ws", *["a:"] * count)).status == status


def test_request_before_the_answer_is_refused(process: HelloProcess) -> None:
    """A further request after that of a stream would hide that its client has disconnected."""
    for early in (request("/"), request("/ws", "Upgrade: websocket")):
        assert b"HTTP/1.1 429 " in first(process.port, request("/events") + early)


def test_frames_before_the_answer_are_limited(process: HelloProcess) -> None:
    """A client that sends over 4 KiB before the answer to its handshake is disconnected without one."""
    assert first(process.port, handshake() + b"x" * 4097) == b""


def test_request_after_another_upgrade_is_refused(process: HelloProcess) -> None:
    """What follows a CONNECT, or an Upgrade to anything but a WebSocket, is a request, and is not swallowed."""
    upgrade = request("/", "Connection: Upgrade", "Upgrade: h2c")
    old_websocket = handshake("/ws").replace(b"HTTP/1.1", b"HTTP/1.0")
    for port in (process.port, process.ops_port):
        for head in (upgrade, old_websocket, request("/", method="CONNECT")):
            assert b"HTTP/1.1 429 " in first(port, head + request("/nothing"))
    for head, statuses in ((upgrade, {200}), (request("/", method="CONNECT"), {400, 405})):
        with connect(process.port) as connection:
            send(connection, head)
            assert receive_head(connection).status in statuses


def test_one_host(process: HelloProcess) -> None:
    """HTTP/1.1 has one Host, and no version has two; the answer is 400 on both servers (RFC 9112, 3.2)."""
    for port, path in ((process.port, "/"), (process.ops_port, "/livez")):
        for fields, version, status in (
            ([], "1.1", 400),
            (["Host: localhost"], "1.1", 200),
            (["Host: a", "host: a"], "1.1", 400),
            ([], "1.0", 200),
            (["Host: a", "Host: b"], "1.0", 400),
        ):
            assert ask_head(port, request(path, *fields, host=None, version=version)).status == status
    assert ask_head(process.port, handshake("/ws", host=None)).status == 400


def test_absolute_target_replaces_the_host(process: HelloProcess) -> None:
    """The host of a target such as `http://a/events` is that of the request, and not the Host (RFC 9112, 3.2.2)."""
    for open_stream, status in ((request, 200), (handshake, 101)):
        path = "/events" if status == 200 else "/ws"
        for target, host, expected in (
            (f"http://own.test:81{path}", "other.test", status),
            (f"HTTP://[::1]{path}", "own.test:81", 403),
            (f"http://other.test{path}?://own.test:81", "own.test:81", 403),
            (f"{path}?http://other.test/", "own.test:81", status),
        ):
            answer = ask_head(process.port, open_stream(target, "Origin: http://own.test:81", host=host))
            assert (target, answer.status) == (target, expected)
    answer = ask_head(process.port, request("http://own.test:81/?x", host="other.test"))
    assert "connect-src 'self' ws://own.test:81 wss://own.test:81;" in (answer.one("content-security-policy") or "")


def test_http_1_0_has_no_chunks(process: HelloProcess) -> None:
    """A stream of HTTP/1.0 ends with its connection, and its frames have no chunks around them."""
    with connect(process.port) as connection:
        send(connection, request("/events", version="1.0"))
        received = b""
        for data in chunks(connection):
            received += data
            if b"\n\n" in received:
                break
    answer = parse_answer(received)
    assert (answer.one("transfer-encoding"), answer.one("connection")) == (None, "close")
    assert answer.rest.startswith(b"id: ")
    for path in ("/", "/?plain", "/nothing", "/events?after=x"):
        old, new = (ask(process.port, request(path, "Connection: close", version=each)) for each in ("1.0", "1.1"))
        assert (old.status, old.rest) == (new.status, new.rest)
        assert old.one("content-length") == new.one("content-length") == str(len(old.rest))


def test_head_requests_are_answered_and_take_no_place(process: HelloProcess) -> None:
    """HEAD has the status of GET and no body, also for the endless stream."""
    for path, status in (("/", 200), ("/?plain", 200), ("/events", 200), ("/events?after=x", 400)):
        answer = ask(process.port, request(path, "Connection: close", method="HEAD"))
        assert (answer.status, answer.rest) == (status, b"")
    assert process.metrics()["hello_clients"] == 0


def first(port: int, sent: bytes) -> bytes:
    """Return everything that is received for what is sent."""
    with connect(port) as connection:
        send(connection, sent)
        return b"".join(chunks(connection))


def second(port: int, sent: bytes) -> bytes:
    """Return everything that is received for what is sent after a request that was answered."""
    with connect(port) as connection:
        send(connection, request("/"))
        assert receive_head(connection).status == 404
        send(connection, sent)
        return b"".join(chunks(connection))


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize(
    ("ask", "sent"),
    [
        pytest.param(first, b"", id="silent"),
        pytest.param(first, request("/")[:-2], id="half"),
        pytest.param(first, b"\r\n", id="empty line"),
        pytest.param(first, request("/", "Transfer-Encoding: chunked"), id="no end of an empty body"),
        pytest.param(second, b"GET /", id="half of a second"),
        pytest.param(second, b"\r\n", id="empty line as a second"),
    ],
)
async def test_slow_head_is_refused(
    ask: Callable[[int, bytes], bytes], sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that is not complete in time, or an empty body whose end does not come, is answered 408."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)
    async with serving(Starlette()) as port:
        assert b"HTTP/1.1 408 " in await anyio.to_thread.run_sync(ask, port, sent)


async def exchange(connection: socket.socket, path: str = "/") -> Answer:
    """Return the head of the answer to one more request on this connection."""
    send(connection, request(path, method="HEAD"))
    return await anyio.to_thread.run_sync(receive_head, connection)


async def has_ended(connection: socket.socket) -> bool:
    """Return True once the server has closed the connection; raises TimeoutError if it does not within SECONDS."""
    return await anyio.to_thread.run_sync(connection.recv, 1) == b""


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_idle_connection_is_kept_for_75_s(clock: Clock) -> None:
    """A connection serves another request 74 s after an answer, and is closed after 76 s: balancers keep it for 60."""
    async with serving(Starlette()) as port:
        with connect(port) as connection:
            for _ in range(2):
                assert (await exchange(connection)).status == 404
                await clock.advance(74, step=1.0)
            assert (await exchange(connection)).status == 404
            await clock.advance(76, step=1.0)
            assert await has_ended(connection)


@on_uvloop
async def test_oldest_idle_connection_is_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the one that has been idle for longest is closed; streams and silent ones are not idle."""
    monkeypatch.setattr(http_protocol, "MAX_IDLE", 2)
    hub = Hub(history=1, instance="here", max_clients=1, metrics=Metrics())
    async with serving(public_app(hub, allowed_origins=[])) as port:
        with ExitStack() as stack:
            stream, silent, *idle = [stack.enter_context(connect(port)) for _ in range(5)]
            send(stream, request("/events"))
            for connection in (*idle[:2], idle[0], idle[2]):
                assert (await exchange(connection)).status == 200
            assert await has_ended(idle[1])
            for connection in (idle[0], idle[2], silent):
                assert (await exchange(connection)).status == 200
            assert b"welcome" in await anyio.to_thread.run_sync(stream.recv, 1 << 16)


@on_uvloop
async def test_draining_relay_ends_its_connections() -> None:
    """An answer of a draining relay is the last one on its connection, so that a balancer's next request moves."""
    hub = Hub(history=1, instance="here", max_clients=1, metrics=Metrics())
    async with serving(public_app(hub, allowed_origins=[])) as port:
        with connect(port) as stream, ExitStack() as stack:
            send(stream, request("/events"))
            asked = {path: stack.enter_context(connect(port)) for path in ("/", "/?plain", "/x", "/ws", "/?x")}
            for path, connection in asked.items():
                assert "close" not in (await exchange(connection, path)).all("connection")
            await hub.drain(0)
            for path, connection in asked.items():
                assert "close" in (await exchange(connection, path)).all("connection")
                assert await has_ended(connection)
            received = await anyio.to_thread.run_sync(lambda: b"".join(chunks(stream)))
            assert received.endswith(b"0\r\n\r\n")


def test_kernel_notices_a_vanished_client() -> None:
    """The kernel ends an accepted connection whose bytes are not acknowledged for a minute."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        missing("only Linux has the option TCP_USER_TIMEOUT")
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
