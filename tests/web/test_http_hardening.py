"""What a stranger's request can reach, and what each answer carries: paths, bodies and errors, over sockets."""

import asyncio
import json
import logging
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_network
from types import SimpleNamespace

import anyio
import pytest
from starlette.applications import Starlette

from hello import hub as hub_module
from hello.hub import Hub
from hello.message import Position
from hello.metrics import Metrics
from hello.web import admission, server
from hello.web.admission import AdmissionQueue
from hello.web.http_protocol import MAX_HEAD
from hello.web.public import public_app
from hello.web.refusals import Refusals
from tests.processes import HelloProcess
from tests.web.conftest import Clock
from tests.web.inprocess import serving
from tests.web.measurements import ENDED_SECONDS, eventually
from tests.web.raw import Answer, ask, ask_head, connect, handshake, receive_head, request, send

FRIEND = "https://friend.example"
HOST = "hello.test:8000"  # the host that the client requests, whatever address it connects to
PROTECTION = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
STREAMS = ["/ws", "/events"]
TRICKLE_SECONDS = 1.0  # from one byte of a body to the next


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    with HelloProcess(interval_min="0.05", interval_max="0.1", allowed_origins=FRIEND) as running:
        yield running


def opening(stream: str, *fields: str | bytes, host: str = HOST) -> bytes:
    """Return the request that opens a stream."""
    if stream.startswith("/ws"):
        return handshake(stream, *fields, host=host)
    return request(stream, "Connection: close", *fields, host=host)


def is_protected(answer: Answer, sources: str | None = None) -> bool:
    """Return True if the answer has each of the protecting headers once; `sources` are those of the page's streams."""
    policy = answer.one("content-security-policy") or ""
    return (
        policy.startswith("default-src 'none'; ")
        and (f" connect-src {sources};" in policy if sources else "connect" not in policy)
        and re.sub("'sha256-[^']{44}'", "", policy).count("'self'") == bool(sources)
        and "frame-ancestors 'none'" in policy
        and "unsafe" not in policy
        and {name: answer.one(name) for name in PROTECTION} == PROTECTION
    )


@pytest.mark.parametrize(
    ("sent", "status", "caching"),
    [
        pytest.param(request("/"), 200, "no-cache", id="page"),
        pytest.param(request("/", method="HEAD"), 200, "no-cache", id="HEAD"),
        pytest.param(request("/events"), 200, "no-store, no-transform", id="events"),
        pytest.param(request("/?plain"), 200, "no-cache", id="plain page"),
        pytest.param(request("/page/main.js"), 404, "no-cache", id="no such path"),
        pytest.param(request("/", method="POST"), 405, "no-cache", id="POST"),
        pytest.param(request("/events?after=x"), 400, "no-cache", id="bad start"),
        pytest.param(request("/events", "Origin: http://evil.example"), 403, "no-cache", id="foreign origin"),
        pytest.param(handshake("/ws", "Origin: http://evil.example"), 403, "no-cache", id="foreign WebSocket"),
        pytest.param(request("/ws"), 426, "no-cache", id="no upgrade"),
        *(pytest.param(handshake(path), 404, "no-cache", id=f"WebSocket {path}") for path in ("/", "/x", "/events")),
    ],
)
def test_every_answer_is_protected(process: HelloProcess, sent: bytes, status: int, caching: str) -> None:
    """Refusals and errors have the headers too; one is only for addresses that the browser trusts, as it shows."""
    for end, policy in ((b"\r\n\r\n", None), (b"\r\nSec-Fetch-Dest: document\r\n\r\n", "same-origin")):
        answer = ask_head(process.port, sent.replace(b"\r\n\r\n", end))
        assert (answer.status, answer.one("cache-control")) == (status, caching)
        is_page = answer.one("etag") is not None
        assert is_protected(answer, "'self' ws://127.0.0.1 wss://127.0.0.1" if is_page else None)
        assert answer.one("cross-origin-opener-policy") == policy
        assert (answer.one("upgrade") == "websocket") is (status == 426)


@pytest.mark.parametrize("host", ["x; script-src *", "a b", "x/y", "[::1", "user@host", "[::1]:8000", "a_b.test"])
def test_policy_names_no_invalid_host(process: HelloProcess, host: str) -> None:
    """The Host header is whatever a stranger sends, and a policy cannot name each valid host (CSP Level 3, 2.3.1)."""
    assert is_protected(ask_head(process.port, request("/", host=host)), sources="'self'")


class BrokenHub(Hub):
    def join(self, client: hub_module.Client, start: Position | int) -> None:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
@pytest.mark.parametrize("stream", STREAMS)
async def test_error_is_answered_without_its_text(stream: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error in the app is answered 500; its text is in the log alone."""
    hub = BrokenHub(history=1, instance="broken", max_clients=1, metrics=Metrics())
    async with serving(public_app(hub, allowed_origins=[])) as port:
        answer = await anyio.to_thread.run_sync(ask_head, port, opening(stream, host="127.0.0.1"))
    assert answer.status == 500
    assert b"bug" not in answer.rest
    assert b"Traceback" not in answer.rest
    assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    assert is_protected(answer) or stream == "/ws"  # this answer of the server has no content


OPS_PATHS = [
    *("/livez", "/readyz", "/metrics", "/metrics/", "/metrics?x", "/METRICS"),
    *("//metrics", "/./metrics", "/x/../metrics", "/page/../metrics", "/page/../../metrics", "/page//metrics"),
    *("/%6detrics", "/%2e/metrics", "/page/%2e%2e/metrics", "/page/%2e%2e%2fmetrics", "/page/..%2f..%2fmetrics"),
    *("/page/..%5cmetrics", "/page/..\\metrics", "/;/metrics", "/page/..;/metrics", "/metrics%00", "/metrics%0a"),
    *("/%252e%252e/metrics", "http://{host}/metrics", "http://{host}//livez", "//{host}/metrics", "metrics"),
]


def test_ops_paths_are_not_public(process: HelloProcess) -> None:
    """No spelling of an ops path, and no Host, reaches the ops app; and the ops server serves nothing public."""
    for path in OPS_PATHS:
        for host in ("127.0.0.1", f"127.0.0.1:{process.ops_port}"):
            answer = ask(process.port, request(path.format(host=host), "Connection: close", host=host))
            assert (path, answer.status in (400, 404)) == (path, True)
            assert not any(word in answer.rest for word in (b"hello_", b"ready", b"alive")), path
    assert [process.status(path) for path in ("/", "/events", "/livez")] == [404, 404, 200]


def test_bad_targets_are_not_logged() -> None:
    """A stranger cannot fill the log; many bad targets at once disturb no other request."""
    with HelloProcess() as process, ExitStack() as stack:
        for path in ("/%00", "/%ff", "/" + "x" * 300, "/?plain=%00", "/events?last=%00"):
            ask(process.port, request(path, "Connection: close"))
            ask(process.port, handshake(path))
        process.signal(signal.SIGSTOP)  # so that all come in one step of the event loop
        connections = [stack.enter_context(connect(process.port)) for _ in range(50)]
        for connection in connections:
            connection.sendall(handshake("http://127.0.0.1"))
        process.signal(signal.SIGCONT)
        assert {receive_head(connection).status for connection in connections} <= {400, 404}
        assert ask_head(process.port, request("/")).status == 200
        assert process.terminate() == 0
        assert '"error"' not in process.output
        assert "Traceback" not in process.output


@pytest.mark.parametrize("stream", STREAMS)
def test_own_page_is_admitted_and_foreign_ones_are_not(process: HelloProcess, stream: str) -> None:
    """Origin is compared with Host; no page but a friend's gets CORS headers."""
    for origin, host, status in (
        ("http://hello.test:8000", HOST, 101 if stream == "/ws" else 200),
        ("https://hello.test", "hello.test:443", 101 if stream == "/ws" else 200),
        ("http://hello.test:8001", HOST, 403),
        ("null", HOST, 403),
    ):
        answer = ask_head(process.port, opening(stream, f"Origin: {origin}", host=host))
        assert answer.status == status
        assert answer.all("access-control-allow-origin") == []


@pytest.mark.parametrize("origin", [FRIEND, "HTTPS://Friend.Example."])
def test_friend_may_read_the_events(process: HelloProcess, origin: str) -> None:
    """The origin is repeated as sent, since browsers compare letter by letter; caches learn that answers vary."""
    for stream, status in (("/events", 200), ("/events?after=x", 400)):
        answer = ask_head(process.port, opening(stream, f"Origin: {origin}"))
        assert answer.status == status
        assert answer.one("access-control-allow-origin") == origin
        assert "Origin" in [name.strip() for value in answer.all("vary") for name in value.split(",")]
        assert answer.all("access-control-allow-credentials") == []


LOCAL = ["localhost", "localhost.:1", "LOCALHOST:1", "a.localhost:8001", "127.0.0.1", "10.0.0.1:80", "[::1]:8001", None]
REBOUND = [
    *("rebind.evil", "rebind.evil:8001", "localhost.evil", "localhost..", "evillocalhost", "127.0.0.1.evil", "1.evil"),
    *("", "a b", "@"),
]


def test_ops_server_on_loopback_is_safe_from_rebinding(process: HelloProcess) -> None:
    """The ops server on a loopback address answers for loopback names and IP addresses alone, and names the others."""
    for hosts, status in ((LOCAL, 200), (REBOUND, 421)):
        for host in hosts:
            sent = request("/livez", "Connection: close", host=host, version="1.1" if host is not None else "1.0")
            answer = ask(process.ops_port, sent)
            assert (host, answer.status) == (host, status)
            assert status == 200 or f"{host!r}: see HELLO_OPS_HOST\n".encode() in answer.rest
    assert {ask_head(process.port, request("/", host=host)).status for host in REBOUND} == {200}  # it has no list
    with HelloProcess(ops_host="0.0.0.0") as open_to_all:  # noqa: S104
        assert ask_head(open_to_all.ops_port, request("/livez", host="rebind.evil")).status == 200


def test_allowed_hosts() -> None:
    """With HELLO_ALLOWED_HOSTS the public server answers for these hosts alone, at any port, over both streams."""
    with HelloProcess(allowed_hosts="Hello.test., [::1]") as process:
        for hosts, refused in ((["hello.test", "HELLO.test.:81", "[::1]:8000"], False), (REBOUND, True)):
            for host in hosts:
                for sent, status in ((request("/", host=host), 200), (handshake("/ws", host=host), 101)):
                    answer = ask_head(process.port, sent)
                    assert (host, answer.status) == (host, 421 if refused else status)
        answer = ask(process.port, request("/events", "Connection: close", host="rebind.evil"))
        assert (answer.status, answer.rest) == (421, b"no answer for 'rebind.evil': see HELLO_ALLOWED_HOSTS\n")
        assert is_protected(answer)


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("field", "body"),
    [
        pytest.param(CHUNKED, [b"0\r\n\r\n"], id="chunks"),
        pytest.param(CHUNKED, [b"0;x=y\r\n", b"Host: evil.example\r\n\r\n"], id="trailer"),
        pytest.param("Content-Length: 00", [], id="length"),
    ],
)
def test_empty_body_is_no_body(process: HelloProcess, field: str, body: list[bytes]) -> None:
    """Both servers answer requests that declare a body and have none, in one write or several; an Upgrade may not."""
    for port, head, status in (
        (process.port, request("/", field, method="HEAD"), 200),
        (process.ops_port, request("/livez", field, method="HEAD"), 200),
        (process.port, handshake("/ws", field, "Origin: http://127.0.0.1"), 413 if body else 101),
    ):
        for pieces in ([b"".join([head, *body])], [head, *body]):
            with connect(port) as connection:
                for _ in range(2 if status == 200 else 1):
                    for piece in pieces:
                        send(connection, piece)
                        assert process.status("/livez") == 200  # by then the server has read the piece
                    assert receive_head(connection).status == status


@pytest.mark.parametrize(
    ("framing", "first"),
    [
        pytest.param("Content-Length: 1000000", b"x", id="length"),
        pytest.param(CHUNKED, b"1\r\nx", id="chunks"),
        pytest.param(f"{CHUNKED}\r\nExpect: 100-continue", b"", id="expectation"),
    ],
)
def test_trickling_body_is_refused(process: HelloProcess, framing: str, first: bytes) -> None:
    """Both servers answer 413 at the first byte, or before it if the client waits, and soon end the connection."""
    asked = [(process.port, path) for path in ("/", "/events", "/ws", "/nothing")]
    asked += [(process.ops_port, path) for path in ("/livez", "/readyz", "/metrics", "/nothing")]
    start = time.monotonic()
    with ExitStack() as stack:
        waiting = {}
        for port, path in asked:
            connection = stack.enter_context(connect(port))
            connection.sendall(request(path, framing, method="GET" if path == "/events" else "POST") + first)
            assert receive_head(connection).status == 413
            waiting[connection] = path
        while waiting and time.monotonic() - start < ENDED_SECONDS:
            for connection in select.select(list(waiting), [], [], TRICKLE_SECONDS)[0]:
                with suppress(ConnectionError):
                    if connection.recv(1 << 16):
                        continue
                del waiting[connection]
            for connection in waiting:
                with suppress(ConnectionError):
                    connection.sendall(b"1\r\nx\r\n" if "chunked" in framing else b"x")
        assert not waiting, f"still open: {list(waiting.values())}"


def test_refusals_are_counted_and_logged() -> None:
    """The public server counts each refusal by its reason, and the first of a minute names client, Origin and Host."""
    told = "X-Forwarded-For: 1.2.3.4, 2001:db8::1, 10.1.2.3"  # a client may write the first one itself
    refused = {
        "origin": [opening(stream, b"Origin: http://e\x85vil", told) for stream in STREAMS],
        "host": [request("/", host="rebind.evil"), handshake("/ws", host="rebind.evil")],
        "upgrade": [request("/ws", host=HOST), handshake("/ws", host=HOST).replace(b": 13", b": 8")],
        "request": [b"\x16\x03\x01\r\n\r\n", request("/events?after=x", host=HOST), request("/", host=HOST) * 2],
        "head": [request("/", *["a:"] * 100), request("/" + "y" * MAX_HEAD)],
        "body": [request("/", "Content-Length: 1") + b"x"],
        "full": [opening(stream) for stream in STREAMS],
        "draining": [opening(stream) for stream in STREAMS],
    }
    settings = {"allowed_hosts": "hello.test", "max_clients": "1", "trusted_proxies": "127.0.0.1, 10.0.0.0/8"}
    with HelloProcess(**settings) as process, connect(process.port) as only:
        only.sendall(opening("/ws"))
        assert receive_head(only).status == 101
        for sent in (request("/nothing", host=HOST), request("/", host=HOST, method="POST")):
            assert ask_head(process.port, sent).status in (404, 405)
        for reason, requests in refused.items():
            if reason == "draining":
                process.signal(signal.SIGTERM)
                process.wait_for("/readyz", 503)
            for sent in requests:
                ask_head(process.port, sent)
        counted = {reason: process.metrics()[f'hello_refused_total{{reason="{reason}"}}'] for reason in refused}
        assert counted == {reason: len(requests) for reason, requests in refused.items()}
        assert process.wait() == 0
    lines = [json.loads(line) for line in process.output.splitlines()]
    warnings = [line["message"] for line in lines if line["level"] == "warning"]
    assert [line.partition(":")[0] for line in warnings] == [f"refused ({reason})" for reason in refused]
    for part in ("'2001:db8::1'", r"'http://e\x85vil'", f"'{HOST}'", "HELLO_ALLOWED_ORIGINS"):
        assert part in warnings[0]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_refused_client_behind_proxies(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A log line a minute names the last client that no trusted proxy is; another peer's header is not believed."""
    trusted = [ip_network(each) for each in ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")]
    for proxies, fields, client in (
        ([], ["X-Forwarded-For: 1.2.3.4"], "127.0.0.1"),
        (trusted, [], "127.0.0.1"),
        (trusted, ["X-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.0.0.1"], "1.2.3.4"),
        (trusted, ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-For: 1.2.3.4:5678"], "1.2.3.4:5678"),
        (trusted, ["X-Forwarded-For: 10.0.0.2, [2001:db8::1]:443, ::ffff:10.0.0.3"], "10.0.0.2"),
        (trusted, ["X-Forwarded-For: unknown, 10.0.0.1:80", "Forwarded: for=9.9.9.9"], "unknown"),
        (trusted, ['Forwarded: for=9.9.9.9, For="[2001:db9::1]:4711";proto=https, for=10.0.0.1'], "[2001:db9::1]:4711"),
    ):
        refusals = Refusals(Metrics().refused, proxies)
        async with serving(Starlette(), serve=partial(server.serve, on_refused=refusals.add)) as port:
            for seconds in (0, 59, 2):
                await clock.advance(seconds, step=1.0)
                sent = request("/", *fields, CHUNKED) + b"1\r\nx"
                assert (await anyio.to_thread.run_sync(ask_head, port, sent)).status == 413
        lines = [record.getMessage() for record in caplog.records if record.name == "hello.web.refusals"]
        assert [f"client {client!r}, " in line for line in lines] == [True, True]
        caplog.clear()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_admission_queue_survives_an_error() -> None:
    """After an error of one function the queued ones are called, and later ones too."""
    loop, done, called = asyncio.get_running_loop(), anyio.Event(), []
    loop.set_exception_handler(lambda _loop, context: called.append(str(context["exception"])))

    def fail() -> None:
        raise RuntimeError("a bug")

    queue = AdmissionQueue()
    for function in (fail, lambda: called.append("the next"), lambda: queue.enqueue(done.set)):
        queue.enqueue(function)
    with anyio.fail_after(5):
        await done.wait()
    assert called == ["a bug", "the next"]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_admission_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queued functions run until STEP_SECONDS have passed, and what else is due runs before the next ones."""
    now, ran, done = 0.0, [0], anyio.Event()
    monkeypatch.setattr(admission, "time", SimpleNamespace(perf_counter=lambda: now))

    def work() -> None:
        nonlocal now
        now += admission.STEP_SECONDS * 0.4
        ran[-1] += 1

    def other() -> None:
        ran.append(0)
        asyncio.get_running_loop().call_soon(done.set if sum(ran) == 7 else other)

    queue = AdmissionQueue()
    for _ in range(7):
        queue.enqueue(work)
    asyncio.get_running_loop().call_soon(other)
    with anyio.fail_after(5):
        await done.wait()
    assert ran == [3, 3, 1, 0]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_queued_connection_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """While data of a connection waits for admission, nothing more is read from it: the rest waits in the kernel."""
    queued: list[partial[None]] = []
    monkeypatch.setattr(AdmissionQueue, "enqueue", lambda _, process: queued.append(process))
    async with serving(Starlette()) as port:
        with connect(port) as first, connect(port) as second:
            whole = request("/", "Connection: close")
            first.sendall(whole[:1])
            await eventually(lambda: len(queued) == 1, "the first byte is queued")
            first.sendall(whole[1:])
            second.sendall(b"G")  # the server reads in the order of arrival
            await eventually(lambda: len(queued) == 2, "the other connection is queued")
            assert [each.args for each in queued] == [(b"G",), (b"G",)]
            queued.pop(0)()
            await eventually(lambda: len(queued) == 2, "the rest is read")
            queued.pop()()
            assert (await anyio.to_thread.run_sync(receive_head, first)).status == 404
