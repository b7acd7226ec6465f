"""uvicorn's two protocols with the limits that they lack: what one connection may ask, say and leave unread.

They know bytes, frames and timers, and neither the apps nor what is broadcast.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

HEAD_SECONDS = 10.0  # from the first byte of a request, or the connection, to the end of its head
MAX_HEAD = 16 * 1024  # bytes in the head of a request: a browser with many cookies sends 4 KiB
MAX_LINE = 8 * 1024  # bytes in one line of a head: the WebSocket handshake reads no longer ones
MAX_WAITING = 10  # requests that came before the one in front of them was answered: browsers send none
MAX_FRAME = 4096  # bytes in a browser's message
FRAMES_PER_MINUTE = 100  # a browser has nothing to say; one that says more than this is broken, or means harm
MAX_UNSENT = 16 * 1024  # bytes that wait here for the kernel, and in the kernel for the peer
ABORT_SECONDS = 5.0  # for what is unsent, and for the peer's part in closing, after we have closed

NOT_TEXT = 1007  # RFC 6455, section 7.4.1
RULES_BROKEN = 1008


class Http(HttpToolsProtocol):
    """HTTP with limits on a request's head (Kludex/uvicorn#157) and no interest in its body.

    Who sends too much of a head is answered 431, who is too slow 408, and who does not wait for answers 429 (RFC 6585,
    RFC 9110); all are hung up on.
    """

    _timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _size = 0  # bytes that came while it was awaited
    _fields = 0  # bytes in the fields of this head so far, for one that came whole
    _refusal: bytes | None = None  # what to answer when the parser gives up, where it is not 400
    _has_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        transport.set_write_buffer_limits(high=MAX_UNSENT, low=MAX_UNSENT - 1)  # every byte taken counts as progress
        super().connection_made(_Transport(transport, self.loop))  # type: ignore[arg-type]  # all that it is asked for
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None and not self.transport.is_closing():
            self._size += len(data)
            if self._size > MAX_HEAD:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if len(self.pipeline) > MAX_WAITING:
            self._refusal = b"429 Too Many Requests"
            raise ValueError  # ends the parser, which then asks for the answer below
        self._fields = 0
        self._has_body = False
        if self._timer is None:  # a further request on the same connection
            self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        line = len(name) + len(value)
        self._fields += line
        self._has_body |= name.lower() in (b"content-length", b"transfer-encoding") and value != b"0"
        if max(line, len(self.url)) > MAX_LINE or self._fields + len(self.url) > MAX_HEAD:
            self._refusal = b"431 Request Header Fields Too Large"
            raise ValueError

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()
        if self._has_body and self.cycle is not None:
            self.cycle.keep_alive = False  # nobody asks for one, and it may trickle in for ever

    def send_400_response(self, msg: str) -> None:
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:
            super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        return super()._should_upgrade() and self.parser.get_http_version() == "1.1"

    def _get_upgrade(self) -> bytes | None:
        fields = [value.lower() for name, value in self.headers if name == b"connection"]  # there may be several
        upgrades = [value.lower() for name, value in self.headers if name == b"upgrade"]
        asked = b"upgrade" in (token.strip() for field in fields for token in field.split(b","))
        return upgrades[-1] if asked and upgrades else None

    def _await_head(self) -> None:
        self._size = 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self._refuse, b"408 Request Timeout")

    def _end_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: bytes) -> None:
        self._end_head()
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()


class WebSocket(WebSocketsSansIOProtocol):
    """WebSocket with a limit on a browser's frames of every kind (each ping would be answered), and an answer to each
    handshake.
    """

    _minute = 0.0  # when it began, by the event loop's clock
    _frames = 0  # since then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.close_timeout = ABORT_SECONDS

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:  # it could not even be read
            answer = b"".join(self.conn.data_to_send())
            self.transport.write(
                answer or b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        if event.headers.get_all("Sec-WebSocket-Version") == ["13"]:
            super().handle_connect(event)
            return
        self.handshake_initiated = True
        response = self.conn.reject(426, "the version of WebSocket here is 13\n")  # RFC 6455, section 4.4
        response.headers["Sec-WebSocket-Version"] = "13"
        self.conn.send_response(response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def handle_text(self, event: Frame) -> None:
        if self._may_say_more():
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if self._may_say_more():
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        if self._may_say_more():
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._may_say_more():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._may_say_more():
            super().handle_pong(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self._fail(NOT_TEXT, "not UTF-8")
        else:
            super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        if self.close_sent:  # for a reason of the browser's, while the app was about to write
            raise ClientDisconnected
        await super().send(message)

    def _may_say_more(self) -> bool:
        if self.transport.is_closing():
            return False
        now = self.loop.time()
        if now - self._minute > 60:
            self._minute, self._frames = now, 0
        self._frames += 1
        if self._frames <= FRAMES_PER_MINUTE:
            return True
        self._fail(RULES_BROKEN, f"over {FRAMES_PER_MINUTE} frames a minute")
        return False

    def _fail(self, code: int, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()  # which sends what `fail` has prepared, tells the app, and closes


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


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
