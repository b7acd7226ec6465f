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
MAX_FRAME = 4096  # bytes in a browser's message
FRAMES_PER_MINUTE = 100  # a browser has nothing to say; one that says more than this is broken, or means harm
MAX_UNSENT = 16 * 1024  # bytes that wait here for the kernel, and in the kernel for the peer
ABORT_SECONDS = 5.0  # for what is unsent, and for the peer's part in closing, after we have closed

NOT_TEXT = 1007  # RFC 6455, section 7.4.1
RULES_BROKEN = 1008


class Http(HttpToolsProtocol):
    """HTTP with limits on a request's head (Kludex/uvicorn#157); one request at a time, and none with a body.

    Who sends too much of a head is answered 431, who is too slow 408, who sends a body 413, and who does not wait for
    an answer 429 (RFC 6585, RFC 9110); all are hung up on.
    """

    _timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _size = 0  # bytes that came while it was awaited
    _refusal: bytes | None = None  # what to answer when the parser gives up, where it is not 400
    _has_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        transport.set_write_buffer_limits(high=MAX_UNSENT, low=MAX_UNSENT - 1)  # every byte taken counts as progress
        super().connection_made(_Transport(transport, self.loop))  # type: ignore[arg-type]  # all that it is asked for
        self._await_head()

    @property
    def stuck(self) -> bool:
        """Whether it does not read what it was sent."""
        return self.flow.write_paused

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:  # so that what comes belongs to a head
            if self._timer is None:
                self._await_head()
            self._size += len(data)
            if self._size > MAX_HEAD:
                self._refuse(b"431 Request Header Fields Too Large")
                return
        super().data_received(data)

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
        return super()._should_upgrade() and self.parser.get_http_version() == "1.1"

    def _get_upgrade(self) -> bytes | None:
        fields = [value.lower() for name, value in self.headers if name == b"connection"]  # there may be several
        upgrades = [value.lower() for name, value in self.headers if name == b"upgrade"]
        asked = b"upgrade" in (token.strip() for field in fields for token in field.split(b","))
        return upgrades[-1] if asked and upgrades else None

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


class WebSocket(WebSocketsSansIOProtocol):
    """WebSocket with a limit on a browser's frames of every kind (each ping would be answered), and an answer to each
    handshake.
    """

    _minute = 0.0  # when it began, by the event loop's clock
    _frames = 0  # since then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.close_timeout = ABORT_SECONDS

    @property
    def stuck(self) -> bool:
        """Whether it could not even be sent the closing frame."""
        return not self.close_sent

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

    def handle_events(self) -> None:
        now = self.loop.time()
        if now - self._minute > 60:
            self._minute, self._frames = now, 0
        self._frames += sum(isinstance(event, Frame) for event in self.conn.events)
        if self._frames <= FRAMES_PER_MINUTE:
            super().handle_events()
        elif not self.transport.is_closing():
            self._fail(RULES_BROKEN, f"over {FRAMES_PER_MINUTE} frames a minute")

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self._fail(NOT_TEXT, "not UTF-8")
        else:
            super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self.writable.set()  # it is the last one: whoever reads again is to find it behind what was unsent
        await self.writable.wait()
        if self.close_sent:  # for a reason of the browser's, while the app was about to write
            raise ClientDisconnected
        await super().send(message)

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
