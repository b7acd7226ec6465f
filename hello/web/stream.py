"""The stream of frames to a browser, over WebSocket and as server-sent events.

Our own server gives a WebSocket to a Line. Server-sent events, and WebSockets of any other ASGI server, have a task
each that writes the same frames: see `_pump`.
"""

import re
from collections.abc import Awaitable, Callable, Collection

import anyio
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from hello.audience import MOVED, Audience, Browser, Refused
from hello.feed import Frame, Owed
from hello.message import Malformed, Position, now_ms
from hello.web.line import EXTENSION, STALL_SECONDS, TOO_SLOW, Crowd, Line
from hello.web.origin import may_open

AHEAD_MS = 60_000  # how far a position may be ahead of this relay's clock: clocks of a cluster differ by less
CLOSE_SECONDS = 5.0  # for the closing frame of a browser that may not be reading any more

# Proxies would keep events back to compress or to buffer them.
STREAM_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}

_NUMBER = re.compile(r"[0-9]{1,7}")


def start_of(query: QueryParams, headers: Headers, head: Position | None) -> Position | int:
    """Where a stream is to start: after a position, or with the so many newest messages.

    `Last-Event-ID` beats `after`, since an EventSource that reconnects repeats its first query. `head` is the newest
    position here: a channel whose clock was ahead once is ahead for good, and what it gave must be taken back.

    Raises Malformed for anything that is neither.
    """
    after, last = query.get("after"), query.get("last")
    if after is not None and last is not None:
        raise Malformed("give `after` or `last`, not both")
    if resumed := headers.get("last-event-id"):
        after, last = resumed, None
    if after is not None:
        position = Position.parse(after)
        if position.milliseconds > max(now_ms(), head.milliseconds if head else 0) + AHEAD_MS:
            raise Malformed(
                f"position {position} is more than a minute ahead of this relay's clock, and of its messages"
            )
        return position
    if last is not None and not _NUMBER.fullmatch(last):
        raise Malformed(f"`last` is a number of messages, not {last[:40]!r}")
    return int(last or 0)


class Streams:
    """The two endpoints of an audience."""

    def __init__(self, audience: Audience, allowed_origins: Collection[str]) -> None:
        self._audience = audience
        self._crowd = Crowd(audience)
        self._allowed_origins = allowed_origins

    async def websocket(self, websocket: WebSocket) -> None:
        """`/ws`: each frame is one text frame; the README lists them."""
        if (refusal := self._refusal(websocket.headers)) is not None:
            return await websocket.send_denial_response(refusal)
        try:
            start = start_of(websocket.query_params, websocket.headers, self._audience.head)
            if (extension := websocket.scope.get("extensions", {}).get(EXTENSION)) is not None:
                line = Line(self._crowd)
                self._audience.join(line, start)
                extension["hand_over"](line)
                return None
            browser = Waiting(self._audience)
            self._audience.join(browser, start)
        except Malformed as error:
            return await websocket.send_denial_response(PlainTextResponse(f"{error}\n", 400))
        except Refused as error:
            headers = {"Retry-After": str(error.retry_after)}
            return await websocket.send_denial_response(PlainTextResponse(f"{error}\n", 503, headers))

        async def gone() -> None:
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass

        try:
            await websocket.accept()
            code = await self._pump(browser, lambda frame: websocket.send_text(frame.json.decode()), gone)
            if code is not None:
                with anyio.move_on_after(CLOSE_SECONDS):
                    await websocket.close(code)
        except* WebSocketDisconnect:
            pass  # it went while it was written to
        finally:
            self._audience.leave(browser)

    async def events(self, request: Request) -> Response:
        """`/events`: the same frames as server-sent events (WHATWG HTML, section 9.2); only messages carry an id."""
        if (refusal := self._refusal(request.headers)) is not None:
            return refusal
        response = self._events(request)
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() in self._allowed_origins:
            response.headers["Access-Control-Allow-Origin"] = origin  # without it a browser keeps the events to itself
        return response

    def _events(self, request: Request) -> Response:
        try:
            start = start_of(request.query_params, request.headers, self._audience.head)
            if request.method == "HEAD":  # there is no body to wait for
                return Response(media_type=_Events.media_type, headers=STREAM_HEADERS)
            browser = Waiting(self._audience)
            self._audience.join(browser, start)
        except Malformed as error:
            return PlainTextResponse(f"{error}\n", 400)
        except Refused as error:
            # An EventSource gives up for good on anything but 200.
            return PlainTextResponse(
                f"retry: {error.retry_after * 1000}\n: {error}\n\n",
                headers={"Cache-Control": "no-store", "Retry-After": str(error.retry_after)},
                media_type="text/event-stream",
            )
        return _Events(lambda write, gone: self._pump(browser, write, gone), lambda: self._audience.leave(browser))

    def _refusal(self, headers: Headers) -> Response | None:
        for origin in headers.getlist("origin"):  # a second one is no browser's
            if not may_open(origin, headers.get("host"), self._allowed_origins):
                text = f"pages of {origin} may not open this stream: see HELLO_ALLOWED_ORIGINS\n"
                return PlainTextResponse(text, 403)
        return None

    async def _pump(
        self,
        browser: "Waiting",
        write: Callable[[Frame], Awaitable[None]],
        gone: Callable[[], Awaitable[None]],
    ) -> int | None:
        """Write what the browser is owed until it goes or is to go; the code to close it with, if it is there yet."""
        code: int | None = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                await gone()
                group.cancel_scope.cancel()

            group.start_soon(watch)
            while code is None:
                bell, moving = browser.bell, browser.moving
                if (owed := browser.take()) is not None:
                    if not await _written(browser, owed, write):
                        code = TOO_SLOW
                elif moving:
                    code = MOVED
                else:
                    await bell.wait()
            group.cancel_scope.cancel()
        return code


class Waiting(Browser):
    """A browser with a task that writes to it, and waits for the bell in between."""

    __slots__ = ("bell",)

    def __init__(self, audience: Audience) -> None:
        super().__init__(audience)
        self.bell = anyio.Event()  # rung, and replaced, whenever there may be something to take

    def ring(self) -> None:
        self.bell.set()
        self.bell = anyio.Event()


async def _written(browser: Browser, owed: Owed, write: Callable[[Frame], Awaitable[None]]) -> bool:
    """Write the frames, each as soon as the one before it was taken; whether all were, or one was not for too long."""
    for frame in owed.frames:
        browser.waiting_since = anyio.current_time()
        with anyio.move_on_after(STALL_SECONDS):
            await write(frame)
            browser.waiting_since = None
        if browser.waiting_since is not None:
            return False
    return True


class _Events(Response):
    """A response that pumps frames for as long as the client is there."""

    media_type = "text/event-stream"

    def __init__(
        self,
        pump: Callable[[Callable[[Frame], Awaitable[None]], Callable[[], Awaitable[None]]], Awaitable[int | None]],
        leave: Callable[[], None],
    ) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._pump = pump
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(frame: Frame) -> None:
            await send({"type": "http.response.body", "body": _event(frame), "more_body": True})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            code = await self._pump(write, gone)
            if code is not None:
                with anyio.move_on_after(CLOSE_SECONDS):
                    await send({"type": "http.response.body", "body": b"retry: 500\n\n", "more_body": False})
        finally:
            self._leave()


def _event(frame: Frame) -> bytes:
    name = f"id: {frame.position}\n".encode() if frame.position else b""
    return b"%sdata: %s\n\n" % (name, frame.json)
