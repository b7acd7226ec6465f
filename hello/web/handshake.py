"""A WebSocket's opening handshake (RFC 6455, section 4.2), as ASGI has it: refused with an answer, or handed to a Line.

It knows neither how its request came nor what the app asks of it.
"""

import asyncio
import logging
from base64 import b64decode
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from websockets.utils import accept_key

from hello.web.line import EXTENSION, Line

MAX_EARLY = 4096  # bytes that a client may send before it is answered

Fields = Iterable[tuple[bytes, bytes]]

log = logging.getLogger(__name__)


class BadHandshake(Exception):
    """What was asked for is no handshake; `answer` says so."""

    def __init__(self, status: int, text: str, *fields: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.answer = _answer(status, fields, f"{text}\n".encode())


class Handshake:
    """One handshake, whose request was well-formed.

    `accept` is called with the line that the app gives the connection to and the answer for it, `refuse` with the
    answer of an app that does not; `run` calls one of the two once, whatever the app does, unless it is cancelled.
    """

    def __init__(
        self, method: str, headers: Fields, accept: Callable[[Line, bytes], None], refuse: Callable[[bytes], None]
    ) -> None:
        """Raises BadHandshake if it is none."""
        self._key = _key(method, headers)
        self._accept = accept
        self._refuse = refuse
        self._answered = False
        self._begun = False
        self._lost = asyncio.Event()
        self._start: Any = None
        self._body = b""

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        """Let the app decide; `scope` is that of the request."""
        extensions = {"websocket.http.response": {}, EXTENSION: {"hand_over": self._hand_over}}
        try:
            await app({**scope, "extensions": extensions}, self._receive, self._send)
        except Exception:  # as with any other request: this one is answered 500, and the log has it whole
            log.exception("an error in a handshake")
        if not self._answered:
            self._end(_answer(500, [], b""))

    def lost(self) -> None:
        """The client has gone."""
        self._lost.set()

    def _hand_over(self, line: Line) -> None:
        self._answered = True
        answer = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(self._key)}\r\n\r\n"
        )
        self._accept(line, answer.encode())

    async def _receive(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            return {"type": "websocket.connect"}
        await self._lost.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Any) -> None:
        match message["type"]:
            case "websocket.http.response.start":
                self._start = message
            case "websocket.http.response.body":
                self._body += message["body"]
                if not message.get("more_body"):
                    self._end(_answer(self._start["status"], self._start["headers"], self._body))
            case "websocket.close":
                self._end(_answer(403, [], b""))
            case other:
                raise RuntimeError(f"WebSockets are handed over here (see {EXTENSION}), and do not take {other}")

    def _end(self, answer: bytes) -> None:
        self._answered = True
        self._refuse(answer)


def _key(method: str, headers: Fields) -> str:
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    if method != "GET":
        raise BadHandshake(405, "a WebSocket is opened by GET", (b"Allow", b"GET"))
    if [value for name, value in headers if name == b"sec-websocket-version"] != [b"13"]:
        raise BadHandshake(426, "the version of WebSocket here is 13", (b"Sec-WebSocket-Version", b"13"))  # section 4.4
    try:
        good = len(keys) == 1 and len(b64decode(keys[0], validate=True)) == 16
    except ValueError:
        good = False
    if not good:
        raise BadHandshake(400, "there is one Sec-WebSocket-Key, and it is 16 bytes in base64")
    return keys[0].decode()


def _answer(status: int, fields: Fields, body: bytes) -> bytes:
    """The last answer on a connection."""
    named = [b"%s: %s\r\n" % field for field in fields]
    if not any(name.lower() == b"content-length" for name, _ in fields):
        named.append(b"Content-Length: %d\r\n" % len(body))
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    return b"".join([line, *named, b"Connection: close\r\n\r\n", body])
