"""uvicorn's HTTP with the limits that it lacks: what one connection may ask, and leave unread.

It knows bytes and timers, and neither the apps nor what is broadcast; a WebSocket's connection is given away.
"""

import asyncio
from functools import partial
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from hello.web.door import Door
from hello.web.handshake import MAX_EARLY, BadHandshake, Handshake
from hello.web.line import ABORT_SECONDS, Line

HEAD_SECONDS = 10.0  # from the first byte of a request, or the connection, to the end of its head
AGAIN_SECONDS = 1.0  # more, for one whose head may be waiting at our own door
MAX_HEAD = 16 * 1024  # bytes in the head of a request: a browser with many cookies sends 4 KiB
MAX_UNSENT = 16 * 1024  # bytes that wait here for the kernel, and in the kernel for the peer


class Http(HttpToolsProtocol):
    """HTTP with limits on a request's head (Kludex/uvicorn#157); one request at a time, and none with a body.

    Who sends too much of a head is answered 431, who is too slow 408, who sends a body 413, and who does not wait for
    an answer 429 (RFC 6585, RFC 9110); all are hung up on.
    """

    _timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _size = 0  # bytes that came while it was awaited
    _refusal: bytes | None = None  # what to answer when the parser gives up, where it is not 400
    _has_body = False
    _waits = False  # something of it, at the door
    _upgrades = False  # to a WebSocket
    _handshake: Handshake | None = None
    _early = b""  # what the client has said without waiting for the answer to it

    transport: "_Transport"  # type: ignore[assignment]  # which does all that it is asked for

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], door: Door) -> None:
        super().__init__(config, server_state, app_state)
        self._door = door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        # Not uvicorn's own, which asks the kernel for addresses that nobody here wants to know.
        transport.set_write_buffer_limits(high=MAX_UNSENT, low=MAX_UNSENT - 1)  # every byte taken counts as progress
        self.transport = _Transport(transport, self.loop)
        self.flow = FlowControl(self.transport)  # type: ignore[arg-type]  # the same
        self.scheme = "http"
        self.connections.add(self)
        self._await_head()

    @property
    def stuck(self) -> bool:
        """Whether it does not read what it was sent."""
        return self.flow.write_paused

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        if self._handshake is not None:
            self._handshake.lost()
            self._handshake = None  # it holds us too
        super().connection_lost(exc)
        self.transport.lost()

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._say_early(data)
        elif len(data) > MAX_HEAD:  # whatever it is
            self._refuse(b"431 Request Header Fields Too Large")
        else:
            self._waits = True
            self.transport.pause_reading()  # so that nobody has more than one piece waiting
            self._door.enqueue(partial(self._take, data))

    def _take(self, data: bytes) -> None:
        self._waits = False
        if self.parser is None or self.transport.is_closing():
            return  # it has gone meanwhile
        self.transport.resume_reading()
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
        self._upgrades = self._asks_for_websocket()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:
            super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        return self._upgrades

    def _asks_for_websocket(self) -> bool:
        fields = [value.lower() for name, value in self.headers if name == b"connection"]  # there may be several
        upgrades = [value.lower() for name, value in self.headers if name == b"upgrade"]
        asked = b"upgrade" in (token.strip() for field in fields for token in field.split(b","))
        return asked and upgrades[-1:] == [b"websocket"] and self.parser.get_http_version() == "1.1"

    def _shake_hands(self, early: bytes) -> None:
        try:
            url = httptools.parse_url(self.url)
            handshake = Handshake(self.scope["method"], self.headers, self._hand_over, self._hang_up)
            path = url.path or b"/"  # an absolute target may have none
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except BadHandshake as error:
            self._hang_up(error.answer)
        else:
            self._handshake = handshake
            self._say_early(early)
            target = {
                "path": unquote(path.decode("latin-1")),
                "raw_path": path,
                "query_string": url.query or b"",
            }
            scope = {**self.scope, "type": "websocket", "scheme": "ws", "subprotocols": [], **target}
            task = self.loop.create_task(handshake.run(self.app, scope))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _say_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > MAX_EARLY:
            self.transport.abort()

    def _hand_over(self, line: Line, answer: bytes) -> None:
        self.connections.discard(self)
        self.parser = self._handshake = None  # type: ignore[assignment]  # they hold us, and we hold them
        line.begin(self.transport.bare, self.connections, answer)
        if self._early and not self.transport.is_closing():
            line.data_received(self._early)

    def _hang_up(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._waits:
            self._timer = self.loop.call_later(AGAIN_SECONDS, self._head_is_late)
        else:
            self._refuse(b"408 Request Timeout")

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


class _Transport:
    """A transport that, once closed, does not wait for ever for a peer that reads nothing."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.bare = transport
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.write = transport.write  # without a detour: it is called for every frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    def close(self) -> None:
        if not self.bare.is_closing():
            self.bare.close()
            self._timer = self._loop.call_later(ABORT_SECONDS, self.bare.abort)

    def lost(self) -> None:
        """Its connection has gone: asyncio's transports take no `abort` from then on."""
        if self._timer is not None:
            self._timer.cancel()
