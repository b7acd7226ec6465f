"""Who gets in, and what every answer carries: headers, origins, addresses and bodies, over raw sockets."""

import asyncio
import logging
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import anyio
import pytest

from hello import hub as hub_module
from hello.hub import Hub
from hello.message import Position
from hello.metrics import Metrics
from hello.web import server
from hello.web.admission import AdmissionQueue
from hello.web.listener import listen
from hello.web.public import public_app
from tests.processes import HelloProcess
from tests.web.measurements import record
from tests.web.raw import TEXT, Answer, Client, ask, ask_head, connected, handshake, receive_head, request

FRIEND = "https://friend.example"
HOST = "hello.test:8000"  # what the browser believes to talk to; which address it comes in by is another matter
PROTECTION = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
STREAMS = ["/ws", "/events"]
TRICKLE_SECONDS = 1.0  # from one byte of a body to the next
ENDED_SECONDS = 30.0  # in which a connection ends that may be open for 5 s


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    with HelloProcess(interval_min="0.05", interval_max="0.1", allowed_origins=FRIEND) as running:
        yield running


@pytest.fixture(scope="module")
def full() -> Iterator[HelloProcess]:
    """A relay that has as many browsers as it takes."""
    with HelloProcess(max_clients="1", allowed_origins=FRIEND) as running, Client(running.port) as only:
        only.next(TEXT)
        yield running


def start(stream: str, *fields: str, host: str = HOST) -> bytes:
    """The request that opens a stream."""
    if stream.startswith("/ws"):
        return handshake(stream, *fields, host=host)
    return request(stream, "Connection: close", *fields, host=host)


def is_protected(answer: Answer) -> bool:
    """Whether the answer carries each of the headers that protect, once."""
    policy = answer.one("content-security-policy") or ""
    return (
        policy.startswith("default-src 'none'; script-src 'self'; ")
        and "frame-ancestors 'none'" in policy
        and "unsafe" not in policy
        and {name: answer.one(name) for name in PROTECTION} == PROTECTION
    )


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(request("/"), 200, id="the page"),
        pytest.param(request("/", method="HEAD"), 200, id="the page's head"),
        pytest.param(request("/page/main.js"), 200, id="a file of the page"),
        pytest.param(request("/events"), 200, id="the stream"),
        pytest.param(request("/nothing"), 404, id="a wrong address"),
        pytest.param(request("/page/nothing.js"), 404, id="a file that is not there"),
        pytest.param(request("/page/"), 404, id="a directory"),
        pytest.param(request("/", method="POST"), 405, id="a post"),
        pytest.param(request("/events", method="DELETE"), 405, id="a delete"),
        pytest.param(request("/page/main.js", method="PUT"), 405, id="a put"),
        pytest.param(request("/events?after=x"), 400, id="a bad start"),
        pytest.param(handshake("/ws?after=x"), 400, id="a bad start of a WebSocket"),
        pytest.param(request("/events", "Origin: http://evil.example"), 403, id="a foreign page"),
        pytest.param(handshake("/ws", "Origin: http://evil.example"), 403, id="a foreign page's WebSocket"),
        pytest.param(request("/ws"), 426, id="no upgrade"),
    ],
)
def test_every_answer_carries_the_headers_that_protect_it(process: HelloProcess, sent: bytes, status: int) -> None:
    """Each of them once, on refusals and errors too."""
    answer = ask_head(process.port, sent)
    assert answer.status == status
    assert is_protected(answer)


@pytest.mark.parametrize("path", ["/", "/nothing", "/events", "/metrics", "/page/main.js"])
def test_a_websocket_at_a_wrong_address_is_refused_with_the_same_headers(process: HelloProcess, path: str) -> None:
    answer = ask(process.port, handshake(path))
    assert answer.status in (403, 404)
    assert is_protected(answer)


@pytest.mark.parametrize(("sent", "status"), [(start("/ws"), 503), (start("/events"), 200)], ids=STREAMS)
def test_a_full_relay_refuses_with_the_same_headers(full: HelloProcess, sent: bytes, status: int) -> None:
    """And says when to come again: an EventSource gives up for good on anything but 200."""
    answer = ask(full.port, sent)
    assert answer.status == status
    assert answer.one("retry-after") == "10"
    assert is_protected(answer)
    assert status == 503 or b"retry: 10000\n" in answer.rest


class Broken(Hub):
    def join(self, client: hub_module.Client, start: Position | int) -> None:
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
@pytest.mark.parametrize("stream", STREAMS)
async def test_an_error_of_ours_is_answered_500_and_tells_nothing(
    stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the same headers; the log has what happened, the answer has not."""
    hub = Broken(history=1, instance="broken", max_clients=1, metrics=Metrics())
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        app = public_app(hub, allowed_origins=[])
        await group.start(lambda *, task_status: server.serve(app, stop, listener=listener, task_status=task_status))
        answer = await anyio.to_thread.run_sync(ask_head, port, start(stream))
        stop.set()
    assert answer.status == 500
    assert b"fault" not in answer.rest
    assert b"Traceback" not in answer.rest
    assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    assert is_protected(answer) or stream == "/ws"  # uvicorn's own answer, which has nothing in it


OPERATORS_ADDRESSES = [
    *("/livez", "/readyz", "/metrics", "/metrics/", "/metrics?x", "/METRICS"),
    *("//metrics", "/./metrics", "/x/../metrics", "/page/../metrics", "/page/../../metrics", "/page//metrics"),
    *("/%6detrics", "/%2e/metrics", "/page/%2e%2e/metrics", "/page/%2e%2e%2fmetrics", "/page/..%2f..%2fmetrics"),
    *("/page/..%5cmetrics", "/page/..\\metrics", "/;/metrics", "/page/..;/metrics", "/metrics%00", "/metrics%0a"),
    *("/%252e%252e/metrics", "http://{host}/metrics", "http://{host}//livez", "//{host}/metrics", "metrics"),
]


@pytest.mark.parametrize("address", OPERATORS_ADDRESSES)
def test_nothing_of_the_operators_can_be_reached_from_outside(process: HelloProcess, address: str) -> None:
    """However the address is spelt, and whatever host is asked for."""
    for host in ("127.0.0.1", f"127.0.0.1:{process.ops_port}"):
        answer = ask(process.port, request(address.format(host=host), "Connection: close", host=host))
        assert answer.status in (400, 404)
        assert b"hello_" not in answer.rest
        assert b"ready" not in answer.rest
        assert b"alive" not in answer.rest


@pytest.mark.parametrize(
    "path",
    [
        *("/page/../stream.py", "/page/../../settings.py", "/page/x/../../stream.py", "/page/./../stream.py"),
        *("/page/%2e%2e/stream.py", "/page/..%2fstream.py", "/page/%2e%2e%2fstream.py", "/page/.%2e/stream.py"),
        *("/page/%252e%252e/stream.py", "/page/..%5cstream.py", "/page/..\\stream.py", "/page/..;/stream.py"),
        *("/page/....//stream.py", "/page//etc/passwd", "/page/%2fetc/passwd", "/page///etc/passwd"),
        *("/page/../../../../../../../../../../../../etc/passwd", "/page/file:///etc/passwd", "/page/~/x", "/page/.."),
        *("/page/main.js%00", "/page/%00", "/page/" + "x" * 300, "/page/%ff"),
        *("/page/" + "x/" * 2000, "/page/%c0%ae%c0%ae/stream.py", "/page/con", "/page/__init__.py"),
    ],
    ids=lambda path: path[:60],
)
def test_no_file_but_the_pages_own_can_be_had(process: HelloProcess, path: str) -> None:
    """Whatever an address climbs over, escapes or makes of itself."""
    answer = ask(process.port, request(path, "Connection: close"))
    assert answer.status in (400, 404)
    assert b"import" not in answer.rest
    assert b"root:" not in answer.rest


def test_wrong_addresses_leave_no_trace_in_the_log() -> None:
    """Nobody can fill it."""
    with HelloProcess() as process:
        for path in ("/page/%00", "/page/main.js%00", "/page/%ff", "/page/" + "x" * 300, "/%00", "/events?last=%00"):
            ask(process.port, request(path, "Connection: close"))
            ask(process.port, handshake(path))
        assert process.terminate() == 0
        assert '"error"' not in process.output


NEAR_MISSES = {
    "another port": ["http://hello.test:8001"],
    "no port": ["http://hello.test"],
    "a sub-domain": ["http://www.hello.test:8000"],
    "the domain above": ["http://test:8000"],
    "a name that ends so": ["http://evilhello.test:8000"],
    "a name that begins so": ["http://hello.test.evil.example:8000"],
    "no origin that could be told": ["null"],
    "a dot behind": ["http://hello.test.:8000"],
    "a user": ["http://hello.test:8000@evil.example"],
    "the host as user": ["http://hello.test@evil.example:8000"],
    "a path": ["http://hello.test:8000/"],
    "an empty one": [""],
    "a list": ["http://hello.test:8000, http://evil.example"],
    "two in one": ["http://hello.test:8000 http://evil.example"],
    "a second that is foreign": ["http://hello.test:8000", "http://evil.example"],
    "a first that is foreign": ["http://evil.example", "http://hello.test:8000"],
    "a friend over http": ["http://friend.example"],
    "a friend at another port": ["https://friend.example:444"],
    "a friend's sub-domain": ["https://www.friend.example"],
    "a friend and a stranger": [FRIEND, "http://evil.example"],
    "another scheme": ["ws://hello.test:8000"],
    "a letter that looks like one": ["http://h\u0435llo.test:8000"],
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("origins", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_a_page_that_is_nearly_ours_is_foreign(process: HelloProcess, stream: str, origins: list[str]) -> None:
    """Refused before the stream begins, and its browser is not allowed to read the refusal."""
    answer = ask(process.port, start(stream, *(f"Origin: {origin}" for origin in origins)))
    assert answer.status in ({403} if len(origins) == 1 else {400, 403})
    assert answer.all("access-control-allow-origin") == []


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://hello.test:8000", HOST),
        ("https://hello.test:8000", HOST),
        ("http://HELLO.Test:8000", HOST),
        ("http://hello.test:8000", "Hello.TEST:8000"),
        ("http://hello.test", "hello.test:80"),
        ("https://hello.test:443", "hello.test"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_the_page_itself_is_let_in_and_needs_no_permission(
    process: HelloProcess, stream: str, origin: str, host: str
) -> None:
    """In any spelling of its host; no other page learns that it might read."""
    answer = ask_head(process.port, start(stream, f"Origin: {origin}", host=host))
    assert answer.status == (101 if stream == "/ws" else 200)
    assert answer.all("access-control-allow-origin") == []


@pytest.mark.parametrize("origin", [FRIEND, "HTTPS://Friend.Example"])
def test_a_friend_may_read_the_events(process: HelloProcess, origin: str) -> None:
    """It is named as it named itself, since browsers compare letter by letter; caches are told that answers differ."""
    for sent in (start("/events", f"Origin: {origin}"), start("/events?after=x", f"Origin: {origin}")):
        answer = ask_head(process.port, sent)
        assert answer.status == (400 if b"after" in sent else 200)
        assert answer.one("access-control-allow-origin") == origin
        assert "Origin" in [name.strip() for value in answer.all("vary") for name in value.split(",")]
        assert answer.all("access-control-allow-credentials") == []


def test_a_friend_hears_that_the_relay_is_full(full: HelloProcess) -> None:
    """Without the permission its EventSource would take the refusal for an error, and give up for good."""
    answer = ask(full.port, start("/events", f"Origin: {FRIEND}"))
    assert answer.status == 200
    assert answer.one("access-control-allow-origin") == FRIEND
    assert b"retry: 10000\n" in answer.rest


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_body_that_trickles_in_is_not_waited_for(process: HelloProcess, framing: str) -> None:
    """A refusal at once, and the end of the connection within seconds, on both servers."""
    asked = [(process.port, path) for path in ("/", "/events", "/ws", "/page/main.js", "/nothing")]
    asked += [(process.ops_port, path) for path in ("/livez", "/readyz", "/metrics", "/nothing")]
    began = time.monotonic()
    with ExitStack() as stack:
        waiting = {}
        for port, path in asked:
            connection = stack.enter_context(connected(port))
            connection.sendall(request(path, framing, method="GET" if path == "/events" else "POST"))
            assert receive_head(connection).status == 413
            waiting[connection] = path
        answered = time.monotonic() - began
        assert answered < ENDED_SECONDS
        while waiting and time.monotonic() - began < ENDED_SECONDS:
            for connection in select.select(list(waiting), [], [], TRICKLE_SECONDS)[0]:
                with suppress(ConnectionError):
                    if connection.recv(1 << 16):
                        continue
                del waiting[connection]
            for connection in waiting:
                with suppress(ConnectionError):
                    connection.sendall(b"1\r\nx\r\n" if "chunked" in framing else b"x")
        assert not waiting, f"still open: {list(waiting.values())}"
    record("nine trickling bodies: seconds to the last answer", f"{answered:.2f}")
    record("nine trickling bodies: seconds to the last end", f"{time.monotonic() - began:.1f}")


def test_an_address_without_a_path_holds_up_nobody() -> None:
    """Many at once, in one turn of the server: each is answered, and so is whoever comes behind them."""
    with HelloProcess() as process, ExitStack() as stack:
        process.signal(signal.SIGSTOP)
        connections = [stack.enter_context(connected(process.port)) for _ in range(50)]
        for connection in connections:
            connection.sendall(handshake("http://127.0.0.1"))
        process.signal(signal.SIGCONT)
        assert {receive_head(connection).status for connection in connections} <= {400, 404}
        assert ask_head(process.port, request("/")).status == 200
        assert process.terminate() == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_an_error_at_the_door_is_not_the_others() -> None:
    """Whoever waits behind it is called all the same, and so is whoever comes later."""
    loop, done, called = asyncio.get_running_loop(), anyio.Event(), []
    loop.set_exception_handler(lambda _loop, context: called.append(str(context["exception"])))

    def fail() -> None:
        raise RuntimeError("an error of ours")

    door = AdmissionQueue()
    for take in (fail, lambda: called.append("behind it"), lambda: door.enqueue(done.set)):
        door.enqueue(take)
    with anyio.fail_after(5):
        await done.wait()
    assert called == ["an error of ours", "behind it"]
