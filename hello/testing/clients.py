"""Streams and a client, connected to an ASGI app in the same event loop. It must not know how the app was started."""

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import httpx
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from starlette.datastructures import Headers
from starlette.types import ASGIApp
from websockets.frames import CloseCode

from hello.client import ClientProtocol, Lost, Opened, Repeated, Shown, StatusChanged

ALL = 1_000_000  # messages: more than any test keeps


@dataclass(frozen=True)
class Answer:
    """The answer to a plain request, or to a stream that was refused; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str


class Refused(Exception):
    """A stream was not opened; `answer` has the reason."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.body}")
        self.answer = answer


class Closed(Exception):
    """The relay closed the stream: with `code` over WebSocket, with None as server-sent events."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class _Receiver(Protocol):
    async def receive(self) -> dict[str, Any]: ...

    async def until_closed(self) -> int | None:
        """Receive frames until the relay closes the stream, and return the code that `Closed` has."""
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed.code


class Stream(_Receiver):
    """An open stream. A frame that is not received blocks the relay, as a client that does not read does."""

    def __init__(self, incoming: ObjectReceiveStream[Any], outgoing: ObjectSendStream[Any]) -> None:
        self.last_event_id: str | None = None  # of the last server-sent event that had an id
        self._incoming = incoming
        self._outgoing = outgoing
        self._text = ""  # server-sent events that arrived and were not received yet

    async def receive(self) -> dict[str, Any]:
        """Return the next frame.

        Raises Closed if the relay has closed the stream.
        """
        while True:
            if "\n\n" in self._text:
                event, self._text = self._text.split("\n\n", 1)
                fields = dict(line.split(": ", 1) for line in event.split("\n"))
                self.last_event_id = fields.get("id", self.last_event_id)
                if "data" in fields:
                    return _decoded(fields["data"])
                continue
            try:
                message = await self._incoming.receive()
            except anyio.EndOfStream:
                raise Closed(1006) from None  # RFC 6455: the connection ended without a close frame
            match message["type"]:
                case "websocket.send":
                    return _decoded(message["text"])
                case "websocket.close":
                    raise Closed(message["code"])
                case _:
                    self._text += message["body"].decode()
                    if not message.get("more_body"):
                        raise Closed(None)

    async def send(self, text: str) -> None:
        """Send a text frame to the relay, over WebSocket."""
        await self._outgoing.send({"type": "websocket.receive", "text": text})


class Server(Protocol):
    """Something that opens streams, such as a Process of the harness."""

    def open(self, path: str) -> Any: ...


class Client(_Receiver):
    """A client over all its connections, by the rules of `hello.client`."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []  # message frames
        self.gaps: list[dict[str, Any]] = []  # gap frames
        self.channel: str | None = None  # `up` or `down`, as the relay sent it last
        self.repeated = 0  # messages that came again; they were not shown again
        self.moves = 0  # WebSockets that a relay closed with 1012, service restart
        self._protocol = ClientProtocol(last=ALL)

    @asynccontextmanager
    async def open(self, server: Server, path: str = "/ws") -> AsyncIterator["Client"]:
        """Connect to `/ws` or `/events`: first with all that is kept, then from where the last connection ended."""
        async with server.open(f"{path}?{self._protocol.resume_query}") as self._stream:
            try:
                yield self
            finally:
                self._protocol.disconnected()

    async def receive(self) -> dict[str, Any]:
        """Receive one frame, and return it.

        Raises Closed if the relay has closed the stream.
        """
        try:
            frame: dict[str, Any] = await self._stream.receive()
        except Closed as closed:
            self.moves += closed.code == CloseCode.SERVICE_RESTART
            raise
        for item in self._protocol.receive(frame):
            match item:
                case Shown():
                    self.shown.append(item.frame)
                case Lost():
                    self.gaps.append({"type": "gap", "after": str(item.after), "before": str(item.before)})
                case Repeated():
                    self.repeated += 1
                case Opened() | StatusChanged():
                    self.channel = item.channel
        return frame

    async def until_shown(self, count: int) -> None:
        """Receive frames until so many messages were shown in all."""
        while len(self.shown) < count:
            await self.receive()

    async def until_channel(self, state: str) -> None:
        """Receive frames until the channel is reported `up` or `down`."""
        while self.channel != state:
            await self.receive()


async def get(app: ASGIApp, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Send the app a GET request, and return its answer, whose body is decompressed."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hello.test") as client:
        response = await client.get(path, headers=headers)
    return Answer(response.status_code, response.headers, response.text)


@asynccontextmanager
async def open_stream(
    app: ASGIApp, path: str, headers: Mapping[str, str] | None, ended: anyio.Event
) -> AsyncIterator[Stream]:
    """Open `/ws` or `/events` of the app; leaving disconnects, and `ended` breaks the connection.

    Raises Refused if the app does not open the stream.
    """
    kind = "websocket" if path.startswith("/ws") else "http"
    to_app, app_receives = anyio.create_memory_object_stream[Any](math.inf)
    app_sends, from_app = anyio.create_memory_object_stream[Any](0)

    async def run_app() -> None:
        with app_sends:
            async with anyio.create_task_group() as group:

                async def break_connection() -> None:
                    await ended.wait()
                    group.cancel_scope.cancel()

                group.start_soon(break_connection)
                await app(_scope(kind, path, headers), app_receives.receive, app_sends.send)
                group.cancel_scope.cancel()

    refusal: Answer | None = None
    async with to_app, app_receives, from_app, anyio.create_task_group() as group:
        group.start_soon(run_app)
        await to_app.send({"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"})
        first = await from_app.receive()
        if first["type"] != "websocket.accept" and first.get("status") != 200:
            refusal = _answer([first, *[message async for message in from_app]])
        else:
            try:
                yield Stream(from_app, to_app)
            finally:
                with anyio.CancelScope(shield=True):
                    await to_app.send({"type": f"{kind}.disconnect"})
                    async for _ in from_app:
                        pass  # sent before the app noticed the disconnect
    if refusal is not None:
        raise Refused(refusal)


def _decoded(text: str) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(text)
    return frame


def _scope(kind: str, path: str, headers: Mapping[str, str] | None) -> dict[str, Any]:
    parts = urlsplit(path)
    all_headers = {"host": "hello.test", **{name.lower(): value for name, value in (headers or {}).items()}}
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
        "extensions": {"websocket.http.response": {}},
        **({"subprotocols": []} if kind == "websocket" else {"method": "GET"}),
    }


def _answer(messages: Sequence[Any]) -> Answer:
    body = b"".join(message.get("body", b"") for message in messages[1:])
    return Answer(messages[0]["status"], Headers(raw=messages[0]["headers"]), body.decode())
