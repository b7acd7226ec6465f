"""uvicorn's HTTP protocol with the limits that it lacks. It knows bytes and timers, and must not know the apps.

The way of a new connection:

    Listener            accepts the socket, and makes an HttpProtocol for it
    HttpProtocol        data_received ─▶ AdmissionQueue ─▶ _parse: at most one piece of data per connection waits
         │ a plain request ─▶ uvicorn runs the app in a task; the answer goes back, the next request may come
         │ Upgrade: websocket
         ▼
    Handshake           checks the headers, and runs the app in a task
         ▼
    the app             routes to Streams.websocket, which checks origin and position, and lets a client join the hub
         │ refused ─▶ Handshake ─▶ HttpProtocol._refuse_upgrade: the answer, and the end of the connection
         ▼ hands over
    WebSocketConnection takes the transport; the HttpProtocol is dropped
"""

import asyncio
import re
from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hello.web.admission import AdmissionQueue
from hello.web.handshake import BadHandshake, Handshake
from hello.web.refusals import EXTENSION, OnRefused
from hello.web.websocket import ABORT_SECONDS, WebSocketConnection

HEAD_SECONDS = 10.0  # from the first byte of a request, or from the connection, to the end of the request
QUEUED_HEAD_SECONDS = 1.0  # more, as long as data of the connection is in the admission queue: it may complete the head
MAX_HEAD = 16 * 1024  # bytes in the head of a request: a browser with many cookies sends 4 KiB
MAX_FIELDS = 100  # in a head: a proxied browser sends some 30, and each costs 150 bytes beside its text
# Until an idle connection is closed. Balancers keep theirs for 60 s: a server that is the first to close a connection
# may do so while a request is on its way.
KEEP_ALIVE_SECONDS = 75
MAX_IDLE = 500  # idle connections: about half of the usual limit of 1024 descriptors; each takes 9 KiB
MAX_EARLY = 4096  # bytes that a client may send between its handshake and the answer
MAX_UNSENT = 16 * 1024  # bytes that wait in this process until the kernel takes them

_REASONS = {b"408": "head", b"413": "body", b"431": "head"}  # of refusals, by their status; others are "request"
_ABSOLUTE = re.compile(rb"[A-Za-z]+://([^/?#]*)")  # a target with its authority (RFC 9112, 3.2.2)


class HttpProtocol(HttpToolsProtocol):
    """HTTP with a limited head (Kludex/uvicorn#157), one request at a time, and no request body.

    A head that is too large or has too many fields is answered 431, a head that is too slow 408, the first byte of a
    body 413, and a request before the answer to the last one 429 (RFC 6585, RFC 9110); each is the last answer on its
    connection. A declared body that is empty is allowed, within the limits of the head.
    """

    _timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _head_bytes = 0  # received while a head is awaited
    _error = b"400 Bad Request"  # the status line to answer with when the parser stops
    _queued = False  # data of this connection is in the admission queue
    _is_upgrade = False  # the request opens a WebSocket
    _handshake: Handshake | None = None
    _early = b""  # data that the client sent before the answer to its handshake

    transport: "_Transport"  # type: ignore[assignment]  # it has every method that uvicorn calls

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], shared: "Shared") -> None:
        super().__init__(config, server_state, app_state)
        self._queue, self._idle, self._on_refused = shared

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows the type
        # This replaces uvicorn's own method, which makes two system calls for addresses that nothing here reads.
        transport.set_write_buffer_limits(high=MAX_UNSENT, low=MAX_UNSENT - 1)  # every byte taken counts as progress
        self.transport = _Transport(transport)
        self.flow = FlowControl(self.transport)  # type: ignore[arg-type]  # it has every method that uvicorn calls
        self.scheme = "http"
        self.connections.add(self)
        self._await_head()

    @property
    def stuck(self) -> bool:
        """True if the client does not read what was written."""
        return self.flow.write_paused

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._unset_keepalive_if_required()
        self._handshake = None  # this breaks a reference cycle
        super().connection_lost(exc)
        self.transport.lost()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._handshake is not None:
            self._keep_early(data)
        elif len(data) > MAX_HEAD:  # no head and no body may be so large
            self._respond_and_close(b"431 Request Header Fields Too Large")
        else:
            self._queued = True
            self.transport.pause_reading()  # so that each connection has at most one piece of data in the queue
            self._queue.enqueue(partial(self._parse, data))

    def _parse(self, data: bytes) -> None:
        self._queued = False
        if self.parser is None or self.transport.is_closing():
            return  # the client disconnected while the data was in the queue
        self.transport.resume_reading()
        if self.cycle is None or self.cycle.response_complete:  # the data belongs to a head
            if self._timer is None:
                self._await_head()
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._respond_and_close(b"431 Request Header Fields Too Large")
                return
        try:
            self.parser.feed_data(data)
            return
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._should_upgrade():
            self._start_handshake(rest)
        elif rest:  # a CONNECT or another Upgrade was a plain request, and the parser has not read what follows it
            self._respond_and_close(b"429 Too Many Requests")

    # Calls of the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: partial(self._on_refused, self.transport.wrapped)}  # type: ignore[dict-item]  # it is ours
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_parser(b"429 Too Many Requests")

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == MAX_FIELDS:
            self._stop_parser(b"431 Request Header Fields Too Large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # A client that expects 100 has a body, and waits for an answer (RFC 9110, 10.1.1). The body of an Upgrade, an
        # empty one too, would be taken for what follows the request.
        declared = any(n in (b"content-length", b"transfer-encoding") and v.strip(b" \t0") for n, v in self.headers)
        if self.expect_100_continue or (declared and self.parser.should_upgrade()):
            self._stop_parser(b"413 Content Too Large")
        self._check_host()
        self._is_upgrade = self._opens_websocket()
        self.headers = []  # for the trailer of an empty body, which nothing reads; the scope has the fields of the head

    def on_body(self, body: bytes) -> None:  # no endpoint reads one, and it may trickle in without an end
        self._stop_parser(b"413 Content Too Large")

    def on_message_complete(self) -> None:
        # uvicorn starts the app at the end of the head. Here it starts at the end of the request: until then a body may
        # begin. Proxies send chunks with nothing in them for a request without a body, and not always with its head.
        self._end_head()
        super().on_headers_complete()
        super().on_message_complete()
        if not self._is_upgrade:
            if self.parser.get_http_version() == "1.0":
                _send_without_chunks(self.cycle)
            self.url = b""  # the scope has what the app needs, and may drop it during a long answer

    def _check_host(self) -> None:
        """Reject a request without one Host (RFC 9112, 3.2); the host of an absolute target replaces its value."""
        places = [place for place, (name, _) in enumerate(self.headers) if name == b"host"]
        if len(places) > 1 or (not places and self.parser.get_http_version() != "1.0"):
            self._stop_parser(b"400 Bad Request")
        if places and (absolute := _ABSOLUTE.match(self.url)):
            self.headers[places[0]] = (b"host", absolute[1])

    def send_400_response(self, msg: str) -> None:
        self._respond_and_close(self._error)

    def _should_upgrade(self) -> bool:
        return self._is_upgrade

    def _opens_websocket(self) -> bool:
        connection = [value.lower() for name, value in self.headers if name == b"connection"]  # there may be several
        upgrade = [value.lower() for name, value in self.headers if name == b"upgrade"]
        has_token = b"upgrade" in (token.strip() for value in connection for token in value.split(b","))
        return has_token and upgrade[-1:] == [b"websocket"] and self.parser.get_http_version() == "1.1"

    # The handshake of a WebSocket.

    def _start_handshake(self, early: bytes) -> None:
        try:
            url = httptools.parse_url(self.url)
            handshake = Handshake(self.scope["method"], self.scope["headers"], self._hand_over, self._refuse_upgrade)
            path = url.path or b"/"  # an absolute target may have no path
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except BadHandshake as error:
            self._report("upgrade")
            self._refuse_upgrade(error.response)
        else:
            self._handshake = handshake
            self._keep_early(early)
            target = {"path": unquote(path.decode("latin-1")), "raw_path": path, "query_string": url.query or b""}
            scope = {**self.scope, "type": "websocket", "scheme": "ws", "subprotocols": [], **target}
            task = self.loop.create_task(handshake.run(self.app, scope))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > MAX_EARLY:
            self.transport.abort()

    def _hand_over(self, connection: WebSocketConnection, answer: bytes) -> None:
        self.connections.discard(self)
        self.parser = self._handshake = None  # type: ignore[assignment]  # this breaks two reference cycles
        connection.begin(self.transport.wrapped, self.connections, answer)
        if self._early and not self.transport.is_closing():
            connection.data_received(self._early)

    def _refuse_upgrade(self, response: bytes) -> None:
        self.transport.write(response)
        self.transport.close()

    # The limits.

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._queued:
            self._timer = self.loop.call_later(QUEUED_HEAD_SECONDS, self._head_is_late)
        else:
            self._respond_and_close(b"408 Request Timeout")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._idle[self] = None
            if len(self._idle) > MAX_IDLE:
                self._idle.popitem(last=False)[0].transport.close()

    def _unset_keepalive_if_required(self) -> None:
        super()._unset_keepalive_if_required()
        self._idle.pop(self, None)

    def _end_head(self) -> None:
        self._head_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_parser(self, status: bytes) -> None:
        self._error = status
        raise ValueError  # the parser then raises HttpParserError, and `_parse` calls `send_400_response`

    def _respond_and_close(self, status: bytes) -> None:
        if self._head_bytes or not status.startswith(b"408"):  # without a byte: a browser may never use a connection
            self._report(_REASONS.get(status[:3], "request"))
        self._end_head()
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()

    def _report(self, reason: str) -> None:
        self._on_refused(self.transport.wrapped, self.scope["headers"] if self.scope else [], reason)


class Shared(NamedTuple):
    """What the connections of one server share."""

    queue: AdmissionQueue
    idle: OrderedDict[HttpProtocol, None]  # those that wait for a further request, the oldest first
    on_refused: OnRefused


def _send_without_chunks(cycle: RequestResponseCycle) -> None:
    """Let the end of the connection be the end of a body whose length is not known: HTTP/1.0 has no chunks."""
    send, cycle.chunked_encoding = cycle.send, False

    async def send_all(message: Any) -> None:
        cycle.expected_content_length = len(message.get("body", b""))  # the cycle refuses any other length
        await send(message)

    cycle.send = send_all  # type: ignore[method-assign]  # the cycle is made by uvicorn, and has no hook for this


class _Transport:
    """A transport whose `close` aborts after ABORT_SECONDS, so that a client that does not read cannot keep it open."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.wrapped = transport
        self._timer: asyncio.TimerHandle | None = None
        self.write = transport.write  # an attribute, since it is called for every frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def close(self) -> None:
        if not self.wrapped.is_closing():
            self.wrapped.close()
            self._timer = asyncio.get_running_loop().call_later(ABORT_SECONDS, self.wrapped.abort)

    def lost(self) -> None:
        """Cancel the abort: a transport of asyncio's own loop raises on `abort` once its connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
