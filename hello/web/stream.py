"""The two endpoints of the stream: WebSocket and server-sent events. It must not know the server below ASGI.

Our own server hands a WebSocket over to a WebSocketConnection. Server-sent events, and WebSockets of any other ASGI
server, have a task per client that sends the same frames: see `_send_frames`.
"""

import json
import re
from collections.abc import Awaitable, Callable, Collection

import anyio
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import CloseCode

from hello.feed import Pending
from hello.frames import Frame
from hello.hub import Client, Hub, Refused
from hello.message import Malformed, Position, now_ms
from hello.web.origin import may_open
from hello.web.websocket import EXTENSION, STALL_SECONDS, CaughtUp, WebSocketConnection

MAX_AHEAD_MS = 60_000  # of a position over this relay's clock: the clocks of a cluster differ by less
MAX_HOST = 255  # characters of a Host that are sent back: no name is longer (RFC 1035, 2.3.4)
CLOSE_SECONDS = 5.0  # for the close frame to a client that may not read any more

# Without the first two a proxy may hold events back, to compress or to buffer them. Without the last one a proxy may
# send a client that was moved back to its old relay, by the connection that its stream has left idle.
STREAM_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no", "Connection": "close"}

_NUMBER = re.compile(r"[0-9]{1,7}")


def start_of(query: QueryParams, headers: Headers, end: Position | None) -> Position | int:
    """Return where a stream starts: after a position, or with so many of the newest messages.

    `Last-Event-ID` overrides `after`, since an EventSource that reconnects repeats its first query. `end` is where this
    relay has read up to: if the clock of the channel was ahead once, its positions stay ahead, and are valid. Before
    the relay has read its channel (None) any position may be valid.

    Raises Malformed if the query or the header has another form, or a position is far in the future.
    """
    after, last = query.get("after"), query.get("last")
    if after is not None and last is not None:
        raise Malformed("give `after` or `last`, not both")
    if resumed := headers.get("last-event-id"):
        after, last = resumed, None
    if after is not None:
        position = Position.parse(after)
        if end is not None and position.milliseconds > max(now_ms(), end.milliseconds) + MAX_AHEAD_MS:
            raise Malformed(f"position {position} is over a minute ahead of this relay's clock, and of its messages")
        return position
    if last is not None and not _NUMBER.fullmatch(last):
        raise Malformed(f"`last` is a number of messages, not {last[:40]!r}")
    return int(last or 0)


class Streams:
    """The two endpoints of one hub."""

    def __init__(self, hub: Hub, allowed_origins: Collection[str]) -> None:
        self._hub = hub
        self._caught_up = CaughtUp(hub)
        self._allowed_origins = allowed_origins

    async def websocket(self, websocket: WebSocket) -> None:
        """`/ws`: each frame is one text frame of the WebSocket."""
        if (refusal := self._refusal(websocket.headers)) is not None:
            return await websocket.send_denial_response(refusal)
        try:
            start = start_of(websocket.query_params, websocket.headers, self._hub.feed.end)
            if (extension := websocket.scope.get("extensions", {}).get(EXTENSION)) is not None:
                connection = WebSocketConnection(self._caught_up)
                self._hub.join(connection, start)
                extension["hand_over"](connection)
                return None
            client = TaskClient(self._hub)
            self._hub.join(client, start)
        except Malformed as error:
            return await websocket.send_denial_response(PlainTextResponse(f"{error}\n", 400))
        except Refused as error:
            headers = {"Retry-After": str(error.retry_after)}
            return await websocket.send_denial_response(PlainTextResponse(f"{error}\n", 503, headers))

        async def send_text(frame: Frame) -> None:
            await websocket.send_text(frame.json.decode())

        try:
            await websocket.accept()
            await _send_frames(client, send_text, websocket.receive, websocket.close)
        except* WebSocketDisconnect:
            pass  # the client disconnected during a write
        finally:
            self._hub.leave(client)

    async def upgrade_required(self, request: Request) -> Response:
        """`/ws` by a plain request: what keeps a WebSocket from opening, for a page whose browser does not tell it.

        `?origin=` is the origin of that page: a browser sends no Origin with a GET to the page's own host.
        """
        host, refusal = request.headers.get("host"), None
        try:
            self._hub.check_room()
        except Refused as error:
            refusal = str(error)
        answer = {
            "error": "this is a WebSocket; a proxy in between may not pass on Upgrade and Connection",
            "host": host and host[:MAX_HOST],
            "may_open": may_open(request.query_params.get("origin"), host, self._allowed_origins),
            "refusal": refusal,
        }
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}  # RFC 9110, 15.5.22
        return Response(json.dumps(answer, indent=2) + "\n", 426, headers, "application/json")

    async def events(self, request: Request) -> Response:
        """`/events`: the same frames as server-sent events (WHATWG HTML, section 9.2); an id is where to resume."""
        # The request would keep its own `headers` and `query_params` for the life of the stream.
        headers, query = Headers(raw=request.scope["headers"]), QueryParams(request.scope["query_string"])
        if (refusal := self._refusal(headers)) is not None:
            return refusal
        response = self._events(request.method, query, headers)
        response.headers["Vary"] = "Origin"
        origin = headers.get("origin")
        if origin is not None and may_open(origin, None, self._allowed_origins):
            response.headers["Access-Control-Allow-Origin"] = origin  # else its browser discards the events
        return response

    def _events(self, method: str, query: QueryParams, headers: Headers) -> Response:
        try:
            start = start_of(query, headers, self._hub.feed.end)
            if method == "HEAD":  # its answer has no body
                return Response(media_type=_Events.media_type, headers=STREAM_HEADERS)
            client = TaskClient(self._hub)
            self._hub.join(client, start)
        except Malformed as error:
            return PlainTextResponse(f"{error}\n", 400)
        except Refused as error:
            # An EventSource never retries after an answer other than 200.
            return PlainTextResponse(
                f"retry: {error.retry_after * 1000}\n: {error}\n\n",
                headers={"Cache-Control": "no-store", "Retry-After": str(error.retry_after)},
                media_type="text/event-stream",
            )
        return _Events(client)

    def _refusal(self, headers: Headers) -> Response | None:
        for origin in headers.getlist("origin"):  # no browser sends a second one
            if not may_open(origin, headers.get("host"), self._allowed_origins):
                text = f"pages of {origin} may not open this stream: see HELLO_ALLOWED_ORIGINS\n"
                return PlainTextResponse(text, 403)
        return None


class TaskClient(Client):
    """A client with a task that sends its frames, and waits for `news` in between."""

    __slots__ = ("news",)

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.news = anyio.Event()  # set, and replaced, whenever there may be frames to poll

    def notify(self) -> None:
        self.news.set()
        self.news = anyio.Event()


async def _send_frames(
    client: TaskClient,
    send: Callable[[Frame], Awaitable[None]],
    receive: Receive,
    close: Callable[[CloseCode], Awaitable[None]],
) -> None:
    """Send the client its frames until it disconnects, or is to be closed."""
    code: CloseCode | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while not (await receive())["type"].endswith(".disconnect"):  # what else a client sends has no effect
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        while code is None:
            news = client.news
            if client.drained:
                code = CloseCode.SERVICE_RESTART
            elif (pending := client.poll()) is not None:
                if not await _all_sent(client, pending, send):
                    code = CloseCode.TRY_AGAIN_LATER
            else:
                await news.wait()
        group.cancel_scope.cancel()
    if code is not None:
        with anyio.move_on_after(CLOSE_SECONDS):
            await close(code)


async def _all_sent(client: Client, pending: Pending, send: Callable[[Frame], Awaitable[None]]) -> bool:
    """Send the frames one by one; False if one of them was not taken within STALL_SECONDS."""
    for frame in pending.frames:
        client.blocked_since = anyio.current_time()
        with anyio.move_on_after(STALL_SECONDS):
            await send(frame)
            client.blocked_since = None
        if client.blocked_since is not None:
            return False
    return True


class _Events(Response):
    """A response that sends a client its frames for as long as it is connected."""

    media_type = "text/event-stream"

    def __init__(self, client: TaskClient) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_event(frame: Frame) -> None:
            await send({"type": "http.response.body", "body": _event(frame), "more_body": True})

        async def end(code: CloseCode) -> None:
            await send({"type": "http.response.body", "body": b"retry: 500\n\n", "more_body": False})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            scope["headers"], scope["query_string"] = [], b""  # up to 30 KiB that nothing reads during the stream
            await _send_frames(self._client, send_event, receive, end)
        finally:
            self._client.hub.leave(self._client)


def _event(frame: Frame) -> bytes:
    event_id = f"id: {frame.resume}\n".encode() if frame.resume else b""
    return b"%sdata: %s\n\n" % (event_id, frame.json)
