"""The connection (hello/watch/connection.py) to a server that follows a script, to none, and through proxies."""

import asyncio
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from hello import client
from hello.client import ClientProtocol, Lost, Opened, Repeated, Resumed, Shown
from hello.watch import connection
from hello.watch.connection import Connecting, Disconnected, Event, Via, stay_connected
from hello.watch.transport import MAX_FRAME, stream_address
from tests.client_histories import message, welcome
from tests.conftest import missing
from tests.faults.proxy import Proxy
from tests.page.proxies import plain, running
from tests.processes import HelloProcess

LIMIT_SECONDS = 30.0  # for what takes a moment, on a busy machine too
SILENT = "silent"  # the end of a script: stay connected, and send nothing more


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The library that connects is asyncio's, and so is the command."""
    return "asyncio", {}


over_both = pytest.mark.parametrize("via", ["ws", "sse"])


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float]]:
    """Let no attempt wait; the parameters of each delay."""
    calls: list[tuple[str, int, float]] = []

    def no_delay(reason: str, attempt: int, jitter: float) -> float:
        calls.append((reason, attempt, jitter))
        return 0.0

    monkeypatch.setattr(connection, "backoff_delay", no_delay)
    return calls


class Following:
    """`stay_connected` in a task of its own, and the events that it has shown."""

    def __init__(self, port: int, last: int = 0, via: Via = "auto") -> None:
        self.protocol = ClientProtocol(last)
        self.events: list[Event] = []
        self._address = f"ws://127.0.0.1:{port}/ws"
        self._via = via
        self._more = anyio.Event()
        self._read = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Following"]:
        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(stay_connected, self._address, self.protocol, self._show, self._via)
                yield self
                group.cancel_scope.cancel()

    def _show(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()
        self._more = anyio.Event()

    async def until(self, kind: type, **fields: object) -> None:
        """Read on to an event of this kind with these fields."""
        while True:
            for event in self.events[self._read :]:
                self._read += 1
                if isinstance(event, kind) and event._asdict().items() >= fields.items():
                    return
            await self._more.wait()

    @property
    def ends(self) -> list[tuple[str, str]]:
        return [(event.state, event.detail) for event in self.events if isinstance(event, Disconnected)]


def encoded(frame: Any) -> Any:
    return json.dumps(frame) if isinstance(frame, dict) else frame


@asynccontextmanager
async def relay(*scripts: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str], anyio.Event]]:
    """Play the first script to the first connection, and so on: the port, the requests, and when all are played.

    A script is a response (status, body) to the request, or frames (those that are no objects are sent as they are)
    and an end: a code to close with, None to abort the connection, or SILENT. 1012 ends events with `retry`.
    """
    requests: list[str] = []
    done = anyio.Event()

    async def respond(peer: ServerConnection, request: Request) -> Response | None:
        requests.append(request.path)
        if len(requests) > len(scripts):
            done.set()
            return peer.respond(503, "the scripts are played")
        script = scripts[len(requests) - 1]
        if isinstance(script, tuple):
            return peer.respond(*script)
        if request.path.startswith("/events"):
            await play_events(peer, *script)
        return None

    async def play_events(peer: ServerConnection, *script: Any) -> None:
        events = (f"data: {encoded(frame)}\n\n" for frame in script[:-1])
        end = "retry: 500\n\n" if script[-1] == 1012 else ""
        peer.transport.write(f"HTTP/1.1 200\r\nContent-Type: text/event-stream\r\n\r\n{''.join(events)}{end}".encode())
        if script[-1] != SILENT:
            peer.transport.close()
        await peer.wait_closed()

    async def play(peer: ServerConnection) -> None:
        *frames, end = scripts[len(requests) - 1]
        for frame in frames:
            await peer.send(encoded(frame))
        if end == SILENT:
            await peer.wait_closed()
        elif end is None:
            peer.transport.abort()
        else:
            await peer.close(end, "as scripted")

    async with serve(play, "127.0.0.1", 0, process_request=respond, close_timeout=0.1, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], requests, done


async def follow(*scripts: Any, last: int = 0, via: Via = "ws") -> tuple[Following, list[str]]:
    """Follow a relay of these scripts to their end: what came, and the queries that it received."""
    async with relay(*scripts) as (port, requests, done), Following(port, last, via).running() as following:
        await done.wait()
    return following, [request.partition("?")[2] for request in requests[: len(scripts)]]


@over_both
@pytest.mark.usefixtures("delays")
async def test_resume(via: Via) -> None:
    """From the last message, and before the first from the head; a frame that is malformed is asked for again."""
    broken = message("9-0", "b", text=None)
    following, queries = await follow(
        (503, "this relay is full"),
        [welcome("7-0"), 1012],
        [welcome("9-0"), message("8-0", "a"), broken, message("10-0", "c"), SILENT],
        [welcome("9-0"), message("9-0", "b"), 1012],
        last=3,
        via=via,
    )
    assert queries == ["last=3", "last=3", "after=7-0", "after=8-0"]
    assert [event.message.id for event in following.events if isinstance(event, Shown)] == ["a", "b"]


@over_both
@pytest.mark.usefixtures("delays")
async def test_a_rejected_position_leads_to_recent_messages(via: Via) -> None:
    """Only where the response names it."""
    following, queries = await follow(
        [welcome("8-0"), message("9-0", "a"), None],
        (400, "Bad Request"),
        (400, "position 9-0 is more than a minute ahead of this relay's clock, and of its messages\n"),
        [welcome("2-0"), message("1-0", "a"), message("2-0", "b"), None],
        via=via,
    )
    assert queries == ["last=0", "after=9-0", "after=9-0", "last=50"]
    assert "beginning anew" in following.ends[2][1]
    assert following.protocol.resume_query == "after=2-0"


End = tuple[Any, str, str]  # a script, and the reason and the detail that it leads to
ENDS: list[End] = [
    ([welcome(), SILENT], "dead", "no frame for 1 s"),
    ((503, "this relay is stopping\nand more\n"), "unreachable", "503 Service Unavailable: this relay is stopping"),
    ((404, ""), "unreachable", "404 Not Found"),
    ((403, "x" * 1000), "unreachable", "403 Forbidden: " + "x" * 185),
    ([welcome(), "{", SILENT], "garbled", "a frame is a JSON object: Expecting property name"),
    ([welcome(), "[" * 60_000, SILENT], "garbled", "a frame is a JSON object: maximum recursion depth"),
    ([message("1-0", "a"), SILENT], "garbled", "a connection begins with a welcome"),
]
WEBSOCKET_ENDS: list[End] = [
    ([welcome(), 1012], "moved", "closed with 1012 (service restart) as scripted"),
    ([welcome(), 1013], "slow", "closed with 1013 (try again later) as scripted"),
    ([welcome(), 1000], "lost", "closed with 1000 (OK) as scripted"),
    ([welcome(), None], "lost", "the connection broke"),
    ([1000], "unreachable", "closed with 1000 (OK) as scripted"),
    ([welcome(), b"{}", SILENT], "garbled", "a frame is text, not binary"),
    ([welcome(), "x" * (MAX_FRAME + 1), SILENT], "garbled", "closed by us with 1009 (message too big)"),
]
EVENTS_ENDS: list[End] = [
    ([welcome(), 1012], "moved", "the relay ended the stream"),
    ([welcome(), None], "lost", "the relay ended the stream"),
    ([None], "unreachable", "the relay ended the stream"),
    ([welcome(), "x" * (2 * MAX_FRAME), SILENT], "garbled", "an event has over 65536 bytes"),
]


@pytest.mark.parametrize(("via", "scripts"), [("ws", ENDS + WEBSOCKET_ENDS), ("sse", ENDS + EVENTS_ENDS)])
async def test_each_end_has_a_reason(
    via: Via, scripts: list[End], monkeypatch: pytest.MonkeyPatch, delays: list[tuple[str, int, float]]
) -> None:
    """It is shown with its detail; the delay depends on it, and on the attempts since a steady connection."""
    monkeypatch.setattr(client, "STABLE", 0.0)
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 1.0)
    following, _ = await follow(*(script for script, _, _ in scripts), via=via)
    ends = [event for event in following.events if isinstance(event, Disconnected)][: len(scripts)]
    for end, (_, reason, detail) in zip(ends, scripts, strict=True):
        assert end.state == reason
        assert end.detail.startswith(detail)
        assert len(end.detail) <= 200
    opened = [isinstance(script, list) and script[0] == welcome() for script, _, _ in scripts]
    attempts = itertools.accumulate(opened, lambda attempt, opens: 1 if opens else attempt + 1, initial=0)
    assert [end.attempt for end in ends] == list(attempts)[1:]
    assert [(reason, attempt) for reason, attempt, _ in delays[: len(ends)]] == [
        (end.state, end.attempt) for end in ends
    ]
    jitters = {jitter for _, _, jitter in delays}
    assert len(jitters) > 1
    assert all(0 <= jitter <= 1 for jitter in jitters)


@over_both
@pytest.mark.usefixtures("delays")
async def test_without_a_first_frame_a_relay_is_unreachable(via: Via, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the request gets no response, or no frame follows it."""
    monkeypatch.setattr(connection, "OPEN_TIMEOUT", 0.2)
    following, _ = await follow([SILENT], via=via)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the kernel accepts, and nothing responds
        async with Following(deaf.getsockname()[1], via=via).running() as unanswered:
            await unanswered.until(Disconnected)
    assert following.ends[0] == unanswered.ends[0] == ("unreachable", "no frame within 0.2 s")


@over_both
async def test_nothing_is_lost_over_a_link_that_hangs(via: Via, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy keeps its connection and passes nothing on, until it is healed."""
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 1.0)
    monkeypatch.setattr(connection, "OPEN_TIMEOUT", 1.0)
    with HelloProcess(interval_min="0.02", interval_max="0.1") as process:
        proxy = Proxy("test", process.port)
        async with anyio.create_task_group() as group:
            await group.start(proxy.run)
            async with Following(proxy.port, via=via).running() as following:
                await following.until(Opened)
                proxy.set("hang")
                hung = anyio.current_time()
                await following.until(Disconnected, state="dead")
                assert anyio.current_time() - hung < 10  # as long as the library's close() waits for the peer
                await following.until(Disconnected, state="unreachable")
                proxy.set("open")
                await following.until(Resumed)
            group.cancel_scope.cancel()
    assert [event.missed for event in following.events if isinstance(event, Resumed)][-1] > 0
    assert not [event for event in following.events if isinstance(event, Lost | Repeated)]


EVENTS = [welcome(), message("1-0", "a"), 1012]


@pytest.mark.usefixtures("delays")
@pytest.mark.parametrize(
    ("scripts", "paths", "obstacles"),
    [
        (
            [(426, ""), EVENTS] * 2,
            "/ws /events /ws /events",
            ["426 Upgrade Required: a proxy does not pass on"],
        ),
        ([(403, "a"), EVENTS, (403, "b"), EVENTS], "/ws /events /ws /events", ["403 Forbidden: a", "403 Forbidden: b"]),
        ([[1000], EVENTS], "/ws /events", ["closed with 1000 (OK) as scripted"]),
        ([[SILENT], EVENTS], "/ws /events", ["no frame within 0.5 s"]),
        ([(502, "")], "/ws", []),
        ([[welcome(), 1012], [1000], EVENTS], "/ws /ws /ws", []),
    ],
)
async def test_events_where_no_websocket_opens(
    scripts: list[Any], paths: str, obstacles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same attempt, if a server answers; the next attempt begins with a WebSocket. An obstacle is shown once."""
    monkeypatch.setattr(connection, "FIRST_OPEN_TIMEOUT", 0.5)
    async with relay(*scripts) as (port, requests, done), Following(port).running() as following:
        await done.wait()
    assert [request.partition("?")[0] for request in requests[: len(scripts)]] == paths.split()
    found = [event for event in following.events if isinstance(event, Connecting)][1:]
    for connecting, obstacle in itertools.zip_longest(found, obstacles):
        assert connecting[:2] == (f"http://127.0.0.1:{port}/events", "events")
        assert connecting.why.startswith(f"no WebSocket opens: {obstacle}")


async def test_behind_a_plain_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are used until the proxy passes WebSocket on; nothing is lost, and nothing is repeated."""
    monkeypatch.setattr(connection, "PROBE_INTERVAL", 0.2)
    with (
        HelloProcess(interval_min="0.02", interval_max="0.1", drain_seconds="0.1") as process,
        running("nginx", plain("nginx", process.port), tmp_path) as (url, reload),
    ):
        async with Following(urlsplit(url).port or 0).running() as following:
            await following.until(Connecting, transport="events")
            await following.until(Opened, transport="events")
            await following.until(Shown)
            reload(plain("nginx", process.port, 2))
            await following.until(Connecting, why="a WebSocket opens again")
            await following.until(Opened, transport="websocket")
            await following.until(Resumed)
            await following.until(Shown)
    obstacle = "no WebSocket opens: 426 Upgrade Required: a proxy does not pass on Upgrade and Connection"
    assert [event.why for event in following.events if isinstance(event, Connecting)][1] == obstacle
    assert not [event for event in following.events if isinstance(event, Disconnected | Lost | Repeated)]


@asynccontextmanager
async def answering(*replies: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that sends these bytes to each connection, the last ones from then on: its host, and the requests."""
    requests: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readline()).decode().strip())
        writer.write(replies[min(len(requests), len(replies)) - 1].replace("\n", "\r\n").encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


def redirect(*locations: str) -> str:
    return "HTTP/1.1 302 Found\n" + "".join(f"Location: {each}\n" for each in locations) + "\n"


async def unreachable(address: str, via: Via = "ws") -> str:
    """Return why nothing can be received from there."""
    with anyio.fail_after(LIMIT_SECONDS):
        ended = await connection._Connector(address, ClientProtocol(0), lambda _: None).connect(via)
    assert ended is not None
    assert ended.reason == "unreachable"
    return ended.detail


HTML = "an HTML page, from a proxy or another server"
OLD = "the server or a proxy answers with HTTP/1.0, which has no WebSocket"
LEADS = "redirected to "
STREAM = "HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n"
VALID = "valid HTTP response: "


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        ("HTTP/1.1 502 Bad Gateway\n\n\n<html>\n<p>nginx</html>", f"{HTML}: 502 Bad Gateway"),
        ("HTTP/1.1 200 OK\n\n<?xml version='1.0'?>\n<!DOCTYPE html>", f"{HTML}: 200 OK"),
        ("HTTP/1.1 403 \n\n<?xml version='1.0'?><Error/>", "an XML page, from a proxy or another server: 403"),
        ("HTTP/1.1 404 Not Found\n\n{\n  'why': 'no route'\n}", "404 Not Found: { 'why': 'no route' }"),
        ("HTTP/1.0 502 Bad Gateway\n\n<html>", (f"{OLD}: 502 Bad Gateway", f"{HTML}: 502 Bad Gateway")),
        ("HTTP/1.1 426 Upgrade Required\n\n{}", ("426 Upgrade Required: a proxy does not pass on Upgrade", "426 Up")),
        ("SSH-2.0-OpenSSH_9.2\n", (f"did not receive a {VALID}", f"no {VALID}")),
        ("", (f"did not receive a {VALID}connection closed", f"no {VALID}Server disconnected")),
        (f"{STREAM}retry: 1000\n: this relay is full\n\n", ("200 OK: retry: 1000", "this relay is full")),
        (redirect(), "302 Found"),
        (redirect("ftp://me:secret@h/"), f"{LEADS}ftp://h/"),
        (redirect("http://[::1/"), (f"{LEADS}http://[::1/, which is not", f"no {VALID}Invalid URL in location")),
        (redirect("/ws", "/ws"), ("more than 10 redirects", "redirected to http://HOST/ws")),
    ],
)
@over_both
async def test_an_answer_that_opens_no_stream_is_named(reply: str, detail: str | tuple[str, str], via: Via) -> None:
    """Whatever a proxy or another server sends, over WebSocket and as events."""
    async with answering(reply) as (host, _):
        found = await unreachable(f"ws://{host}/ws", via)
    assert found.replace(host, "HOST").startswith(detail if isinstance(detail, str) else detail[via == "sse"])
    assert "secret" not in found


@over_both
async def test_a_redirect_keeps_the_query(via: Via) -> None:
    """Without which a client would not resume; the end of a redirect is named."""
    page = "HTTP/1.1 200 OK\n\n<html>"
    async with answering(page) as (end, requests), answering(redirect(f"http://{end}/a")) as (start, _):
        detail = await unreachable(f"ws://{start}/ws", via)
    assert requests == ["GET /a?last=0 HTTP/1.1"]
    assert detail == f"redirected to {'ws' if via == 'ws' else 'http'}://{end}/a: {HTML}: 200 OK"


@over_both
@pytest.mark.parametrize("how", ["flag", "variable", "neither"])
async def test_own_certificate_authorities(how: str, via: Via, tmp_path: Path) -> None:
    """After a redirect from http too."""
    if not shutil.which("openssl"):
        missing("no openssl, which makes a certificate: apt-get install openssl")
    files = (f"{tmp_path}/ca.pem", f"{tmp_path}/key.pem")
    make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=localhost"
    make += f" -addext subjectAltName=DNS:localhost -out {files[0]} -keyout {files[1]}"
    await anyio.run_process(make.split())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    script = [welcome(), message("1-0", "a"), SILENT]
    async with relay(*[script] * 9, tls=context) as (port, _, _):
        location = f"https://localhost:{port}/{'ws' if via == 'ws' else 'events'}"
        async with answering(redirect(location)) as (host, _):
            end = ["--ca", files[0]] if how == "flag" else []
            end += ["--seconds", "3"] if how == "neither" else ["--messages", "1"]
            environment = {**os.environ, "no_proxy": "*", "SSL_CERT_FILE": files[0] if how == "variable" else ""}
            command = [sys.executable, "-W", "error", "-m", "hello", "watch", host, "--via", via, *end]
            with anyio.fail_after(LIMIT_SECONDS):
                ended = await anyio.run_process(command, check=False, env=environment)
    assert ended.returncode == (how == "neither")
    assert (b"CERTIFICATE_VERIFY_FAILED" in ended.stdout) == (how == "neither")


@over_both
@pytest.mark.parametrize("variable", ["https_proxy", "HTTP_PROXY", "socks_proxy"])
async def test_a_proxy_is_named(variable: str, via: Via, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its variable, and without its password: one that refuses, is dead, is malformed, or sends nothing."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    address, found = "ws://relay.test/ws", []
    async with answering("HTTP/1.1 403 Forbidden\n\n") as (proxy, requests):
        monkeypatch.setenv(variable, f"http://me:secret@{proxy}")
        found.append(await unreachable(address, via))
    found.append(await unreachable(address, via))
    for malformed in ("me:secret@127.0.0.1:1", "http://me:secret@127.0.0.1:1/path"):
        monkeypatch.setenv(variable, malformed)
        found.append(await unreachable(address, via))
    monkeypatch.setattr(connection, "OPEN_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{deaf.getsockname()[1]}")
        found.append(await unreachable(address, via))
    for detail in found:
        assert re.match(rf"through the proxy ((http|socks5h)://)?127\.0\.0\.1:\d+\S* of {variable}: .", detail)
        assert "secret" not in detail
    if variable != "socks_proxy":  # for which there is no library here
        get = "GET http://relay.test/events?last=0 HTTP/1.1"
        assert requests == ["CONNECT relay.test:80 HTTP/1.1" if via == "ws" else get]
        assert [("403" in found[0]), "Connect call failed" in found[1], "no frame" in found[-1]] == [True] * 3


@pytest.mark.parametrize(
    ("url", "address"),
    [
        *(("http://h:1", "ws://h:1/ws"), ("HTTPS://H/", "wss://H/ws"), ("http://h:1/a/b", "ws://h:1/a/b/ws")),
        *(("http://h:1/a//", "ws://h:1/a/ws"), ("https://h/a/events//", "wss://h/a/ws"), ("ws://h/ws", "ws://h/ws")),
        *(("http://h/my-events", "ws://h/my-events/ws"), ("localhost:8000/a", "ws://localhost:8000/a/ws")),
        *(("wss://h/a/ws", "wss://h/a/ws"), ("[::1]:8000", "ws://[::1]:8000/ws"), ("http://h/#top", "ws://h/ws")),
        *(("http://me:secret@h/", "ws://me:secret@h/ws"), ("http://bücher.example/", "ws://bücher.example/ws")),
    ],
)
def test_stream_address(url: str, address: str) -> None:
    """The stream is beside the page."""
    assert stream_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://", "ftp://h/", "http:///x", "http://h:port/", "http://h:99999/", "http://h:0/", "http://[::1/"),
        *("http://h /", "http://h/\n", "http://h/?last=5", f"http://{'a' * 64}/", "http://a..b/", "http://me@h/"),
        *("redis://h", "://h", "http://h\x1b/"),
    ],
)
def test_a_bad_address_is_rejected(url: str) -> None:
    """In one printable sentence."""
    with pytest.raises(ValueError, match="is not the address of a page") as caught:
        stream_address(url)
    assert str(caught.value).isprintable()
