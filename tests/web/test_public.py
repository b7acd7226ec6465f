"""The public server's doors and headers, over its app in this event loop, and over a real socket where that differs."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hello.channel.memory import MemoryChannel
from hello.message import now_ms
from hello.testing import Closed, Process, Refused, running
from hello.web.origin import may_open, stream_sources
from tests.processes import HelloProcess


@pytest.fixture
async def relay() -> AsyncIterator[Process]:
    """A relay with one message, whose broadcaster is silent for the rest of the test."""
    channel = MemoryChannel(1000)
    async with running("combined", channel, interval_min=1000, interval_max=1000) as system:
        yield system.relays[0]


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    with HelloProcess(interval_min="0.01", interval_max="0.05", text="x" * 4000) as running_process:
        yield running_process


@pytest.mark.parametrize(
    ("origin", "host", "may"),
    [
        (None, "hello.test", True),
        ("http://hello.test", "hello.test", True),
        ("https://hello.test", "hello.test", True),
        ("http://hello.test:80", "hello.test", True),
        ("https://hello.test", "hello.test:443", True),
        ("http://HELLO.test", "hello.TEST", True),
        ("http://hello.test:8000", "hello.test:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://friend.example", "hello.test", True),
        ("HTTPS://Friend.Example", "hello.test", True),
        ("http://friend.example", "hello.test", False),
        ("http://hello.test:8001", "hello.test:8000", False),
        ("http://hello.test", "hello.test:8000", False),
        ("https://hello.test", "hello.test:80", False),
        ("http://www.hello.test", "hello.test", False),
        ("http://test", "hello.test", False),
        ("http://hello.test.", "hello.test", False),
        ("http://hello.test.evil.example", "hello.test", False),
        ("http://evil.example/hello.test", "hello.test", False),
        ("http://hello.test@evil.example", "hello.test", False),
        ("null", "hello.test", False),
        ("", "hello.test", False),
        ("file://", "hello.test", False),
        ("ftp://hello.test", "hello.test", False),
        ("http://hello.test", None, False),
        ("http://", "", False),
    ],
)
def test_only_the_page_itself_and_friends_may_open_a_stream(origin: str | None, host: str | None, may: bool) -> None:
    """Same host and port as asked for, or allowed by name; a near miss is a miss."""
    assert may_open(origin, host, ["https://friend.example"]) is may


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_a_foreign_page_is_refused(relay: Process, path: str) -> None:
    """With 403, before anything else is looked at."""
    with pytest.raises(Refused) as refused:
        async with relay.open(f"{path}?after=x", {"origin": "http://evil.example"}):
            pass
    assert refused.value.answer.status == 403
    assert "HELLO_ALLOWED_ORIGINS" in refused.value.answer.body


@pytest.mark.parametrize("path", ["/ws", "/events"])
@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("after=yesterday", "a position is MILLISECONDS-SEQUENCE"),
        ("after=", "a position is MILLISECONDS-SEQUENCE"),
        ("after=99999999999999-0", "ahead of this relay's clock"),
        ("last=many", "`last` is a number"),
        ("last=-1", "`last` is a number"),
        ("last=", "`last` is a number"),
        ("last=99999999", "`last` is a number"),
        ("after=1-0&last=1", "not both"),
    ],
)
async def test_a_bad_start_is_refused_before_the_upgrade(relay: Process, path: str, query: str, complaint: str) -> None:
    """With 400, and in words."""
    with pytest.raises(Refused, match=complaint) as refused:
        async with relay.open(f"{path}?{query}"):
            pass
    assert refused.value.answer.status == 400


async def test_last_event_id_beats_after(relay: Process) -> None:
    """An EventSource that reconnects repeats its first query, and says where it is in the header."""
    async with relay.open("/events?last=10") as stream:
        assert (await stream.receive())["type"] == "welcome"
        message = await stream.receive()
        assert stream.last_event_id == message["position"]
    with pytest.raises(Refused, match="position"):
        async with relay.open("/events", {"last-event-id": "x"}):
            pass
    resumed = {"last-event-id": message["position"]}
    async with relay.open("/events?after=1-0", resumed) as one, relay.open("/events?last=10", resumed) as other:
        relay.terminate()  # what is owed comes first
        for stream in (one, other):
            assert (await stream.receive())["type"] == "welcome"
            with pytest.raises(Closed):
                await stream.receive()


async def test_the_frames_are_those_of_the_contract(relay: Process) -> None:
    """Types, fields and units."""
    async with relay.open("/ws?last=1") as stream:
        welcome, message = await stream.receive(), await stream.receive()
    assert welcome == {
        "type": "welcome",
        "relay": relay.instance,
        "head": message["position"],
        "channel": "up",
    }
    assert message.keys() == {
        *("type", "position", "id", "text", "broadcaster", "sent_at", "relayed_at", "relay"),
    }
    assert abs(message["sent_at"] - now_ms()) < 60_000
    assert re.fullmatch(r"\d+-\d+", message["position"])


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/nothing.js", "/nothing", "/events?after=x"])
async def test_every_answer_has_the_headers_that_protect_it(relay: Process, path: str) -> None:
    """Errors included."""
    answer = await relay.get(path, app="public")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "connect-src 'self' ws://hello.test wss://hello.test;" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_plain_request_for_the_websocket_says_what_is_missing(relay: Process) -> None:
    """It may be a proxy that drops the upgrade."""
    answer = await relay.get("/ws", app="public")
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")


async def test_a_host_that_is_no_host_does_not_get_into_the_policy(relay: Process) -> None:
    """The header is whatever somebody sends."""
    for host in ("x; script-src *", "a b", "", "x/y", "[::1", "user@host"):
        assert stream_sources(host) == ""
        answer = await relay.get("/", app="public", headers={"host": host})
        assert "connect-src 'self';" in answer.headers["content-security-policy"]


async def test_the_page_is_asked_about_and_not_sent_again(relay: Process) -> None:
    """An ETag and `no-cache`: a rollout shows at once, and costs nothing where nothing changed."""
    for path in ("/", "/page/main.js"):
        first = await relay.get(path, app="public")
        assert first.status == 200
        again = await relay.get(path, app="public", headers={"if-none-match": first.headers["etag"]})
        assert (again.status, again.body) == (304, "")


async def test_nothing_of_the_operators_is_public(relay: Process) -> None:
    """And nothing public is on the operators' server."""
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await relay.get(path)).status == 200
        assert (await relay.get(path, app="public")).status == 404
    for path in ("/", "/events", "/page/main.js"):
        assert (await relay.get(path)).status == 404


def test_a_refusal_is_a_plain_answer_to_the_handshake(process: HelloProcess) -> None:
    """Over a real socket too the status comes before any upgrade."""
    with pytest.raises(InvalidStatus) as refused, connect(websocket_url(process) + "?after=x"):
        pass
    assert refused.value.response.status_code == 400
    assert b"MILLISECONDS-SEQUENCE" in (refused.value.response.body or b"")
    assert refused.value.response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(("size", "code"), [(4096, None), (4097, 1009), (1_000_000, 1009)])
def test_a_frame_of_more_than_4_kib_closes_with_1009(process: HelloProcess, size: int, code: int | None) -> None:
    with connect(websocket_url(process), max_size=None) as websocket:
        if code is None:
            websocket.send("x" * size)
            receive(websocket, 20)
        else:
            with pytest.raises(ConnectionClosed):  # in the midst of sending, if it is a large one
                send_and_read_all(websocket, "x" * size)
            assert websocket.close_code == code


def test_a_client_without_websocket_can_follow_too(process: HelloProcess) -> None:
    """Server-sent events, as curl would show them; only messages carry an id."""
    with urllib.request.urlopen(f"{process.url}events?last=2", timeout=10) as answer:  # noqa: S310  # made here
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        lines = [answer.readline().decode().rstrip("\n") for _ in range(8)]
    assert json.loads(lines[0].removeprefix("data: "))["type"] == "welcome"
    assert lines[1] == ""
    for start in (2, 5):
        assert lines[start] == "id: " + json.loads(lines[start + 1].removeprefix("data: "))["position"]
        assert lines[start + 2] == ""


def test_a_head_request_is_answered_and_takes_no_place(process: HelloProcess) -> None:
    """On every route, the endless one included."""
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(f"{process.url}events?after=x", method="HEAD"))  # noqa: S310  # made here
    for path in ("", "events", "page/main.js"):
        request = urllib.request.Request(process.url + path, method="HEAD")  # noqa: S310  # made here
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # as above
            assert answer.status == 200
            assert answer.read() == b""
    assert "hello_clients 0.0" in metrics(process)


@pytest.mark.slow
def test_a_reader_that_stops_costs_a_bounded_number_of_bytes() -> None:
    """Its socket fills, the relay waits for it alone, and memory does not grow with what it is owed."""
    with HelloProcess(
        interval_min="0.001", interval_max="0.002", text="x" * 4000, history="100", drain_seconds="0.5"
    ) as process:
        handshake = (
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{process.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        with connect(websocket_url(process), max_size=None) as quick, socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", process.port))
            slow.sendall(handshake.encode())
            while "hello_slow_clients 1.0" not in metrics(process):
                receive(quick, 100)
            before = resident(process)
            receive(quick, 2000)  # the slow one is owed some 8 MB more
            assert resident(process) - before < 2_000_000
            assert "hello_slow_clients 1.0" in metrics(process)
            assert process.terminate() == 0, "nor does it hold up the end"
            assert '"error"' not in process.output


def receive(websocket: ClientConnection, count: int) -> None:
    for _ in range(count):
        websocket.recv(timeout=10)


def websocket_url(process: HelloProcess) -> str:
    return process.url.replace("http", "ws") + "ws"


def send_and_read_all(websocket: ClientConnection, text: str) -> None:
    websocket.send(text)
    for _ in websocket:
        pass


def metrics(process: HelloProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{process.ops_port}/metrics", timeout=10) as answer:  # made here
        text: bytes = answer.read()
    return text.decode()


def resident(process: HelloProcess) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)$", metrics(process), re.MULTILINE)
    assert found is not None
    return float(found[1])
