"""uvicorn's HTTP with the limits that it lacks, and a WebSocket's handshake that ends by handing the connection over.

It knows bytes and timers, and neither the apps nor what is broadcast.
"""

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from hello.web.line import ABORT_SECONDS, EXTENSION, Line

HEAD_SECONDS = 10.0  # from the first byte of a request, or the connection, to the end of its head
MAX_HEAD = 16 * 1024  # bytes in the head of a request: a browser with many cookies sends 4 KiB
MAX_EARLY = 4096  # bytes that a client may send before its handshake is answered
MAX_UNSENT = 16 * 1024  # bytes that wait here for the kernel, and in the kernel for the peer

log = logging.getLogger(__name__)


class Http(HttpToolsProtocol):
    """HTTP with limits on a request's head (Kludex/uvicorn#157); one request at a time, and none with a body.

    Who sends too much of a head is answered 431, who is too slow 408, who sends a body 413, and who does not wait for
    an answer 429 (RFC 6585, RFC 9110); all are hung up on.
    """

    _timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _size = 0  # bytes that came while it was awaited
    _refusal: bytes | None = None  # what to answer when the parser gives up, where it is not 400
    _has_body = False
    _handshake: "_Handshake | None" = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        transport.set_write_buffer_limits(high=MAX_UNSENT, low=MAX_UNSENT - 1)  # every byte taken counts as progress
        self._raw = transport
        super().connection_made(_Transport(transport, self.loop))  # type: ignore[arg-type]  # all that it is asked for
        self._await_head()

    @property
    def stuck(self) -> bool:
        """Whether it does not read what it was sent."""
        return self.flow.write_paused

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        if self._handshake is not None:
            self._handshake.lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._handshake.early += data
            if len(self._handshake.early) > MAX_EARLY:
                self.transport.abort()
            return
        if self.cycle is None or self.cycle.response_complete:  # so that what comes belongs to a head
            if self._timer is None:
                self._await_head()
            self._size += len(data)
            if self._size > MAX_HEAD:
                self._refuse(b"431 Request Header Fields Too Large")
                return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
            return
        except httptools.HttpParserUpgrade as upgrade:
            end = upgrade.args[0]
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._should_upgrade():  # else it was answered like any other request
            self._shake_hands(data[end:])

    def let_go(self) -> asyncio.Transport:
        """The connection, for whoever takes it over; nothing here knows it any more."""
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # it holds us, and we hold it
        return self._raw

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_body = False
        if self.cycle is not None and not self.cycle.response_complete:
            self._give_up(b"429 Too Many Requests")

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._has_body |= name.lower() in (b"content-length", b"transfer-encoding") and value != b"0"

    def on_headers_complete(self) -> None:
        if self._has_body:  # nobody asks for one, and it may trickle in for ever
            self._give_up(b"413 Content Too Large")
        self._end_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:
            super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == b"websocket" and self.parser.get_http_version() == "1.1"

    def _get_upgrade(self) -> bytes | None:
        fields = [value.lower() for name, value in self.headers if name == b"connection"]  # there may be several
        upgrades = [value.lower() for name, value in self.headers if name == b"upgrade"]
        asked = b"upgrade" in (token.strip() for field in fields for token in field.split(b","))
        return upgrades[-1] if asked and upgrades else None

    def _shake_hands(self, early: bytes) -> None:
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers)
        websocket = ServerProtocol()
        if headers.get_all("Sec-WebSocket-Version") == ["13"]:
            method = self.scope["method"]
            response = websocket.accept(Request(self.url.decode("latin-1"), headers, method=method))
        else:
            response = websocket.reject(426, "the version of WebSocket here is 13\n")  # RFC 6455, section 4.4
            response.headers["Sec-WebSocket-Version"] = "13"
        if response.status_code != 101:
            self.transport.write(response.serialize())
            self.transport.close()
            return
        url = httptools.parse_url(self.url)
        self._handshake = _Handshake(self, response.headers["Sec-WebSocket-Accept"], early)
        scope = {
            **self.scope,
            "type": "websocket",
            "scheme": "ws",
            "path": unquote(url.path.decode("latin-1")),
            "raw_path": url.path,
            "query_string": url.query or b"",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}, EXTENSION: {"hand_over": self._handshake.hand_over}},
        }
        task = self.loop.create_task(self._handshake.run(self.app, scope))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, b"408 Request Timeout")

    def _end_head(self) -> None:
        self._size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, status: bytes) -> None:
        self._refusal = status
        raise ValueError  # ends the parser, whose caller then asks for `send_400_response`

    def _refuse(self, status: bytes) -> None:
        self._end_head()
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()


class _Handshake:
    """The handshake of a WebSocket (RFC 6455, section 4.2), as ASGI has it: refused by the app, or handed to a line."""

    def __init__(self, http: Http, accept: str, early: bytes) -> None:
        self.early = early  # what the client has said without waiting for the answer
        self._http = http
        self._accept = accept
        self._answered = False
        self._begun = False
        self._lost = asyncio.Event()
        self._head = b""
        self._body = b""

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception:
            log.exception("an error in a handshake")
        if not self._answered:
            self._answer(_head(500, [(b"Content-Length", b"0")]))

    def lost(self) -> None:
        self._lost.set()

    def hand_over(self, line: Line) -> None:
        """Accept, and let the line have the connection."""
        answer = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {self._accept}\r\n\r\n"
        )
        self._answered = True
        line.begin(self._http.let_go(), self._http.connections, answer.encode())
        if self.early:
            line.data_received(self.early)

    async def _receive(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            return {"type": "websocket.connect"}
        await self._lost.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Any) -> None:
        match message["type"]:
            case "websocket.http.response.start":
                self._head = _head(message["status"], message["headers"])
            case "websocket.http.response.body":
                self._body += message["body"]
                if not message.get("more_body"):
                    self._answer(self._head, self._body)
            case "websocket.close":
                self._answer(_head(403, [(b"Content-Length", b"0")]))
            case other:
                raise RuntimeError(f"this server has WebSockets handed over, and does not take {other}")

    def _answer(self, head: bytes, body: bytes = b"") -> None:
        self._answered = True
        self._http.transport.write(head + b"Connection: close\r\n\r\n" + body)
        self._http.transport.close()


def _head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    fields = b"".join(b"%s: %s\r\n" % field for field in headers)
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() + fields


class _Transport:
    """A transport that, once closed, does not wait for ever for a peer that reads nothing."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self.write = transport.write  # without a detour: it is called for every frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(ABORT_SECONDS, self._transport.abort)
