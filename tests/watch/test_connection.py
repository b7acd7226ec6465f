"""The connection (hello/watch/connection.py) to a server that follows a script, to none, and through a proxy."""

import asyncio
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

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from hello import client
from hello.client import ClientProtocol, Lost, Opened, Repeated, Resumed, Shown
from hello.watch import connection
from hello.watch.connection import Disconnected, Event, stay_connected, stream_address
from tests.client_histories import message, welcome
from tests.conftest import missing
from tests.faults.proxy import Proxy
from tests.processes import HelloProcess

LIMIT_SECONDS = 30.0  # for what takes a moment, on a busy machine too
SILENT = "silent"  # the end of a script: stay connected, and send nothing more


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The library that connects is asyncio's, and so is the command."""
    return "asyncio", {}


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

    def __init__(self, port: int, last: int = 0) -> None:
        self.protocol = ClientProtocol(last)
        self.events: list[Event] = []
        self._address = f"ws://127.0.0.1:{port}/ws"
        self._more = anyio.Event()
        self._read = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Following"]:
        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(stay_connected, self._address, self.protocol, self._show)
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


async def follow(*scripts: Any, last: int = 0) -> tuple[Following, list[str]]:
    """Follow a server whose first connection plays the first script, and so on: what came, and the queries received.

    A script is a response (status, body) to the handshake, or frames (those that are no objects are sent as they are)
    and an end: a code to close with, None to abort the connection, or SILENT.
    """
    queries: list[str] = []
    done = anyio.Event()

    def respond(peer: ServerConnection, request: Request) -> Response | None:
        queries.append(request.path.removeprefix("/ws?"))
        if len(queries) > len(scripts):
            done.set()
            return peer.respond(503, "the scripts are played")
        script = scripts[len(queries) - 1]
        return peer.respond(*script) if isinstance(script, tuple) else None

    async def play(peer: ServerConnection) -> None:
        *frames, end = scripts[len(queries) - 1]
        for frame in frames:
            await peer.send(json.dumps(frame) if isinstance(frame, dict) else frame)
        if end == SILENT:
            await peer.wait_closed()
        elif end is None:
            peer.transport.abort()
        else:
            await peer.close(end, "as scripted")

    server = await serve(play, "127.0.0.1", 0, process_request=respond, close_timeout=0.1)
    async with server, Following(server.sockets[0].getsockname()[1], last).running() as following:
        await done.wait()
    return following, queries[: len(scripts)]


@pytest.mark.usefixtures("delays")
async def test_resume() -> None:
    """From the last message, and before the first from the head; a frame that is malformed is asked for again."""
    broken = message("9-0", "b", text=None)
    following, queries = await follow(
        (503, "this relay is full"),
        [welcome("7-0"), 1012],
        [welcome("9-0"), message("8-0", "a"), broken, message("10-0", "c"), SILENT],
        [welcome("9-0"), message("9-0", "b"), 1012],
        last=3,
    )
    assert queries == ["last=3", "last=3", "after=7-0", "after=8-0"]
    assert [event.message.id for event in following.events if isinstance(event, Shown)] == ["a", "b"]


@pytest.mark.usefixtures("delays")
async def test_a_rejected_position_leads_to_recent_messages() -> None:
    """Only where the response names it."""
    following, queries = await follow(
        [welcome("8-0"), message("9-0", "a"), None],
        (400, "Bad Request"),
        (400, "position 9-0 is more than a minute ahead of this relay's clock, and of its messages\n"),
        [welcome("2-0"), message("1-0", "a"), message("2-0", "b"), None],
    )
    assert queries == ["last=0", "after=9-0", "after=9-0", "last=50"]
    assert "beginning anew" in following.ends[2][1]
    assert following.protocol.resume_query == "after=2-0"


async def test_each_end_has_a_reason(monkeypatch: pytest.MonkeyPatch, delays: list[tuple[str, int, float]]) -> None:
    """It is shown with its detail; the delay depends on it, and on the attempts since a steady connection."""
    monkeypatch.setattr(client, "STABLE", 0.0)
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 1.0)
    scripts: list[tuple[Any, str, str]] = [
        ([welcome(), 1012], "moved", "closed with 1012 (service restart) as scripted"),
        ([welcome(), 1013], "slow", "closed with 1013 (try again later) as scripted"),
        ([welcome(), 1000], "lost", "closed with 1000 (OK) as scripted"),
        ([welcome(), None], "lost", "the connection broke"),
        ([welcome(), SILENT], "dead", "no frame for 1 s"),
        ([1000], "unreachable", "closed with 1000 (OK) as scripted"),
        ((503, "this relay is stopping\nand more\n"), "unreachable", "503 Service Unavailable: this relay is stopping"),
        ((404, ""), "unreachable", "404 Not Found"),
        ((403, "x" * 1000), "unreachable", "403 Forbidden: " + "x" * 185),
        ([welcome(), "{", SILENT], "garbled", "a frame is a JSON object: Expecting property name"),
        ([welcome(), "[" * 60_000, SILENT], "garbled", "a frame is a JSON object: maximum recursion depth"),
        ([welcome(), b"{}", SILENT], "garbled", "a frame is text, not binary"),
        ([welcome(), "x" * (connection.MAX_FRAME + 1), SILENT], "garbled", "closed by us with 1009 (message too big)"),
        ([message("1-0", "a"), SILENT], "garbled", "a connection begins with a welcome"),
    ]
    following, _ = await follow(*(script for script, _, _ in scripts))
    ends = [event for event in following.events if isinstance(event, Disconnected)][: len(scripts)]
    for end, (_, reason, detail) in zip(ends, scripts, strict=True):
        assert end.state == reason
        assert end.detail.startswith(detail)
        assert len(end.detail) <= 200
    assert [end.attempt for end in ends] == [1, 1, 1, 1, 1, 2, 3, 4, 5, 1, 1, 1, 1, 2]
    assert [(reason, attempt) for reason, attempt, _ in delays[: len(ends)]] == [
        (end.state, end.attempt) for end in ends
    ]
    jitters = {jitter for _, _, jitter in delays}
    assert len(jitters) > 1
    assert all(0 <= jitter <= 1 for jitter in jitters)


@pytest.mark.usefixtures("delays")
async def test_without_a_first_frame_a_relay_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the handshake gets no response, or no frame follows it."""
    monkeypatch.setattr(connection, "OPEN_TIMEOUT", 0.2)
    following, _ = await follow([SILENT])
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the kernel accepts, and nothing responds
        async with Following(deaf.getsockname()[1]).running() as unanswered:
            await unanswered.until(Disconnected)
    assert following.ends[0] == unanswered.ends[0] == ("unreachable", "no frame within 0.2 s")


async def test_nothing_is_lost_over_a_link_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy keeps its connection and passes nothing on, until it is healed."""
    monkeypatch.setattr(connection, "IDLE_TIMEOUT", 1.0)
    monkeypatch.setattr(connection, "OPEN_TIMEOUT", 1.0)
    with HelloProcess(interval_min="0.02", interval_max="0.1") as process:
        proxy = Proxy("test", process.port)
        async with anyio.create_task_group() as group:
            await group.start(proxy.run)
            async with Following(proxy.port).running() as following:
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


async def unreachable(address: str) -> str:
    """Return why nothing can be received from there."""
    with anyio.fail_after(LIMIT_SECONDS):
        reason, detail, _ = await connection._follow(f"{address}?last=0", ClientProtocol(), lambda _: None)
    assert reason == "unreachable"
    return detail


HTML = "an HTML page, from a proxy or another server"
OLD = "the server or a proxy answers with HTTP/1.0, which has no WebSocket"
LEADS = "redirected to "


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        ("HTTP/1.1 502 Bad Gateway\n\n\n<html>\n<p>nginx</html>", f"{HTML}: 502 Bad Gateway"),
        ("HTTP/1.1 200 OK\n\n<?xml version='1.0'?>\n<!DOCTYPE html>", f"{HTML}: 200 OK"),
        ("HTTP/1.1 403 \n\n<?xml version='1.0'?><Error/>", "an XML page, from a proxy or another server: 403"),
        ("HTTP/1.1 404 Not Found\n\n{\n  'why': 'no route'\n}", "404 Not Found: { 'why': 'no route' }"),
        ("HTTP/1.0 502 Bad Gateway\n\n<html>", f"{OLD}: 502 Bad Gateway"),
        ("SSH-2.0-OpenSSH_9.2\n", "did not receive a valid HTTP response: invalid HTTP status line: SSH-2.0-Op"),
        ("", "did not receive a valid HTTP response: connection closed while reading HTTP status line"),
        (redirect(), "302 Found"),
        (redirect("ftp://me:secret@h/"), f"{LEADS}ftp://h/, which is not the address of a stream"),
        (redirect("http://[::1/"), f"{LEADS}http://[::1/, which is not the address of a stream"),
        (redirect("/ws", "/ws"), "more than 10 redirects"),
    ],
)
async def test_an_answer_that_opens_no_stream_is_named(reply: str, detail: str) -> None:
    """Whatever a proxy or another server sends."""
    async with answering(reply) as (host, _):
        found = await unreachable(f"ws://{host}/ws")
    assert found.replace(host, "HOST").startswith(detail)
    assert "secret" not in found


async def test_a_redirect_keeps_the_query() -> None:
    """Without which a client would not resume; the end of a redirect is named."""
    page = "HTTP/1.1 200 OK\n\n<html>"
    async with answering(page) as (end, requests), answering(redirect(f"http://{end}/a")) as (start, _):
        detail = await unreachable(f"ws://{start}/ws")
    assert requests == ["GET /a?last=0 HTTP/1.1"]
    assert detail == f"redirected to ws://{end}/a: {HTML}: 200 OK"


@pytest.mark.parametrize("how", ["flag", "variable", "neither"])
async def test_own_certificate_authorities(how: str, tmp_path: Path) -> None:
    """After a redirect from http too."""
    if not shutil.which("openssl"):
        missing("no openssl, which makes a certificate: apt-get install openssl")
    files = (f"{tmp_path}/ca.pem", f"{tmp_path}/key.pem")
    make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=localhost"
    make += f" -addext subjectAltName=DNS:localhost -out {files[0]} -keyout {files[1]}"
    await anyio.run_process(make.split())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    async def play(peer: ServerConnection) -> None:
        await peer.send(json.dumps(welcome()))
        await peer.send(json.dumps(message("1-0", "a")))
        await peer.wait_closed()

    async with serve(play, "127.0.0.1", 0, ssl=context) as server:
        location = f"https://localhost:{server.sockets[0].getsockname()[1]}/ws"
        async with answering(redirect(location)) as (host, _):
            end = ["--ca", files[0]] if how == "flag" else []
            end += ["--seconds", "1"] if how == "neither" else ["--messages", "1"]
            environment = {**os.environ, "no_proxy": "*", "SSL_CERT_FILE": files[0] if how == "variable" else ""}
            command = [sys.executable, "-W", "error", "-m", "hello", "watch", host, *end]
            with anyio.fail_after(LIMIT_SECONDS):
                ended = await anyio.run_process(command, check=False, env=environment)
    assert ended.returncode == (how == "neither")
    assert (b"CERTIFICATE_VERIFY_FAILED" in ended.stdout) == (how == "neither")


@pytest.mark.parametrize("variable", ["https_proxy", "HTTP_PROXY", "socks_proxy"])
async def test_a_proxy_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its variable, and without its password: one that refuses, is dead, is malformed, or sends nothing."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    address, found = "ws://relay.test/ws", []
    async with answering("HTTP/1.1 403 Forbidden\n\n") as (proxy, requests):
        monkeypatch.setenv(variable, f"http://me:secret@{proxy}")
        found.append(await unreachable(address))
    found.append(await unreachable(address))
    for malformed in ("me:secret@127.0.0.1:1", "http://me:secret@127.0.0.1:1/path"):
        monkeypatch.setenv(variable, malformed)
        found.append(await unreachable(address))
    monkeypatch.setattr(connection, "OPEN_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{deaf.getsockname()[1]}")
        found.append(await unreachable(address))
    for detail in found:
        assert re.match(rf"through the proxy ((http|socks5h)://)?127\.0\.0\.1:\d+\S* of {variable}: .", detail)
        assert "secret" not in detail
    if variable != "socks_proxy":  # for which there is no library here
        assert requests == ["CONNECT relay.test:80 HTTP/1.1"]
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
