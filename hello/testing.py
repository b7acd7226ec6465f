"""The whole system in one event loop, in any shape, in real or virtual time, and a browser to look at it.

    async with running("split", channel) as system, system.relays[0].open("/ws?last=10") as stream:
        assert (await stream.receive())["type"] == "welcome"

It runs on asyncio and, with a channel in memory, on trio, whose clock may jump. Nothing here opens a socket.
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream, TaskGroup, TaskStatus
from starlette.types import ASGIApp

from hello.channel import Batch, Channel, ChannelLost
from hello.message import Message, Position
from hello.settings import load
from hello.system import run

# The processes of a shape, each by its actors: what the overlays of the same names say to Kubernetes.
SHAPES: Mapping[str, Sequence[str]] = {
    "combined": ("broadcaster,relay",),
    "split": ("relay", "relay", "broadcaster"),
}


class CuttableChannel:
    """A channel whose backend can be cut off and healed, as a network would do it to a remote one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._cut = anyio.Event()

    def cut(self) -> None:
        """From now on publish and subscription raise ChannelLost; one that waits does so at its next word."""
        self._cut.set()

    def heal(self) -> None:
        """The backend is back, with everything that it had accepted."""
        if self._cut.is_set():  # else live subscriptions would not hear of the next cut
            self._cut = anyio.Event()

    async def publish(self, message: Message, speaker: str | None = None) -> Position:
        self._check()
        return await self._channel.publish(message, speaker)

    async def claim(self, speaker: str) -> bool:
        self._check()
        return await self._channel.claim(speaker)

    async def release(self, speaker: str) -> None:
        self._check()
        await self._channel.release(speaker)

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[AsyncIterator[Batch]]:
        self._check()
        async with self._channel.subscribe(after) as batches, aclosing(self._follow(batches)) as checked:
            yield checked

    async def _follow(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        cut = self._cut  # a subscription does not outlive a cut, even one that was healed meanwhile
        async for batch in batches:  # one comes at least every WORD_SECONDS
            if cut.is_set():
                raise ChannelLost("cut off")
            yield batch

    def _check(self) -> None:
        if self._cut.is_set():
            raise ChannelLost("cut off")


@dataclass(frozen=True)
class Answer:
    """What came back for a plain request, or for a stream that was refused; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str


class Refused(Exception):
    """A stream was not opened; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.body}")
        self.answer = answer


class Closed(Exception):
    """The relay closed the stream: with `code` over WebSocket, with None as server-sent events."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Stream:
    """An open stream. What is not received keeps the relay waiting, as with a browser that reads nothing."""

    def __init__(self, incoming: ObjectReceiveStream[Any], outgoing: ObjectSendStream[Any]) -> None:
        self.last_event_id: str | None = None  # of the last server-sent event that had an id
        self._incoming = incoming
        self._outgoing = outgoing
        self._text = ""  # server-sent events that have come and were not received yet

    async def receive(self) -> dict[str, Any]:
        """The next frame.

        Raises Closed once there are no more.
        """
        while True:
            if "\n\n" in self._text:
                block, self._text = self._text.split("\n\n", 1)
                fields = dict(line.split(": ", 1) for line in block.split("\n"))
                self.last_event_id = fields.get("id", self.last_event_id)
                if "data" in fields:
                    return _decoded(fields["data"])
                continue
            try:
                event = await self._incoming.receive()
            except anyio.EndOfStream:
                raise Closed(1006) from None  # RFC 6455: nobody said goodbye
            match event["type"]:
                case "websocket.send":
                    return _decoded(event["text"])
                case "websocket.close":
                    raise Closed(event["code"])
                case _:
                    self._text += event["body"].decode()
                    if not event.get("more_body"):
                        raise Closed(None)

    async def until_closed(self) -> int | None:
        """Take in all that comes until the relay closes the stream, and return the code that `Closed` has."""
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed.code

    async def send(self, text: str) -> None:
        """Say something to the relay, over WebSocket."""
        await self._outgoing.send({"type": "websocket.receive", "text": text})


@dataclass
class Browser:
    """What a page keeps over all its connections, by the page's own rules."""

    shown: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    channel: str | None = None
    repeated: int = 0  # message ids that came more than once, and were not shown again

    @asynccontextmanager
    async def open(self, process: "Process", path: str = "/ws") -> AsyncIterator["Browser"]:
        """Connect by `/ws` or `/events`, resuming after what was shown, or with all that is kept."""
        start = f"after={self.shown[-1]['position']}" if self.shown else "last=1000000"
        async with process.open(f"{path}?{start}") as self._stream:
            yield self

    async def step(self) -> dict[str, Any]:
        """Take in one frame, and return it."""
        frame = await self._stream.receive()
        match frame["type"]:
            case "message" if frame["id"] in {message["id"] for message in self.shown}:
                self.repeated += 1
            case "message":
                self.shown.append(frame)
            case "gap":
                self.gaps.append(frame)
            case "welcome" | "status":
                self.channel = frame["channel"]
        return frame

    async def see(self, count: int) -> None:
        """Take in frames until so many messages were shown in all."""
        while len(self.shown) < count:
            await self.step()

    async def until_closed(self) -> int | None:
        """Take in frames until the relay closes the stream, and return the code that `Closed` has."""
        while True:
            try:
                await self.step()
            except Closed as closed:
                return closed.code

    async def see_channel(self, state: str) -> None:
        """Take in frames until the channel is said to be `up` or `down`."""
        while self.channel != state:
            await self.step()


class Process:
    """One process of the system, with what a platform can do to it."""

    def __init__(self, actors: str, instance: str) -> None:
        self.actors = actors
        self.instance = instance
        self.apps: dict[str, ASGIApp] = {}
        self.ready = anyio.Event()
        self.ended = anyio.Event()
        self._stop = anyio.Event()
        self._scope = anyio.CancelScope()

    def terminate(self) -> None:
        """What SIGTERM does: it drains and ends by itself, see `ended`."""
        self._stop.set()

    def kill(self) -> None:
        """What SIGKILL does: it ends where it stands."""
        self._scope.cancel()

    async def get(self, path: str, *, app: str = "operators", headers: Mapping[str, str] | None = None) -> Answer:
        """Ask one of its servers, `operators` or `public`, for something that is not a stream."""
        events: list[Any] = []
        sent = False

        async def receive() -> Any:
            nonlocal sent
            if sent:
                await anyio.sleep_forever()
            sent = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(event: Any) -> None:
            events.append(event)

        await self.apps[app](_scope("http", path, headers), receive, send)
        return _answer(events)

    @asynccontextmanager
    async def open(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Stream]:
        """Open `/ws` or `/events`, with a query if there is one; leaving hangs up.

        Raises Refused if the relay does not let this browser in.
        """
        kind = "websocket" if path.startswith("/ws") else "http"
        to_app, app_receives = anyio.create_memory_object_stream[Any](math.inf)
        app_sends, from_app = anyio.create_memory_object_stream[Any](0)

        async def serve_stream() -> None:
            with anyio.CancelScope() as scope, app_sends:
                async with anyio.create_task_group() as group:

                    async def die_with_the_process() -> None:
                        await self.ended.wait()
                        scope.cancel()

                    group.start_soon(die_with_the_process)
                    await self.apps["public"](_scope(kind, path, headers), app_receives.receive, app_sends.send)
                    group.cancel_scope.cancel()

        refusal: Answer | None = None
        async with to_app, app_receives, from_app, anyio.create_task_group() as group:
            group.start_soon(serve_stream)
            await to_app.send({"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"})
            first = await from_app.receive()
            if first["type"] != "websocket.accept" and first.get("status") != 200:
                refusal = _answer([first, *[event async for event in from_app]])
            else:
                try:
                    yield Stream(from_app, to_app)
                finally:
                    with anyio.CancelScope(shield=True):
                        await to_app.send({"type": f"{kind}.disconnect"})
                        async for _ in from_app:
                            pass  # what was written before the relay noticed
        if refusal is not None:
            raise Refused(refusal)

    async def run(self, channel: Channel, flags: Mapping[str, str]) -> None:
        """Run until it ends, or an error in it is raised."""

        async def serve(name: str, app: ASGIApp, stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
            self.apps[name] = app
            task_status.started()
            await stop.wait()

        # The channel was opened by whoever runs this system; a URL has to be there, and memory is for one process only.
        own = {"actors": self.actors, "instance": self.instance, "channel": "redis://in-this-process"}
        try:
            with self._scope:
                settings = load({**own, **flags})
                await run(settings, channel, serve=serve, stop=self._stop, task_status=_Sets(self.ready))
        finally:
            self.ended.set()


class System:
    """Processes over one channel."""

    def __init__(self, channel: Channel, flags: Mapping[str, str], group: TaskGroup) -> None:
        self.processes: list[Process] = []
        self._channel = channel
        self._flags = flags
        self._group = group

    @property
    def relays(self) -> list[Process]:
        """The processes that serve browsers and have not ended."""
        return [process for process in self.processes if "relay" in process.actors and not process.ended.is_set()]

    def launch(self, actors: str) -> Process:
        """Start a process that runs these actors, and do not wait for it."""
        process = Process(actors, f"{actors.replace(',', '-')}-{len(self.processes)}")
        self.processes.append(process)
        self._group.start_soon(process.run, self._channel, self._flags)
        return process

    async def start(self, actors: str) -> Process:
        """Start a process that runs these actors, and return once it is ready."""
        process = self.launch(actors)
        await process.ready.wait()
        return process


@asynccontextmanager
async def running(shape: str, channel: Channel, **flags: object) -> AsyncIterator[System]:
    """Run the system in a shape of SHAPES; `flags` are settings by their names, such as `interval_min=0.1`.

    All processes are ready on entering, and are killed on leaving. An error in one of them is raised.
    """
    async with anyio.create_task_group() as group:
        system = System(channel, {name: str(value) for name, value in flags.items()}, group)
        for actors in SHAPES[shape]:
            await system.start(actors)
        yield system
        group.cancel_scope.cancel()


class _Sets(TaskStatus[None]):
    """Sets an event; a process that is stopped before it was ready ends without it, which a group would not allow."""

    def __init__(self, event: anyio.Event) -> None:
        self._event = event

    def started(self, value: None = None) -> None:
        self._event.set()


def _decoded(text: str) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(text)
    return frame


def _scope(kind: str, path: str, headers: Mapping[str, str] | None) -> dict[str, Any]:
    parts = urlsplit(path)
    named = {"host": "hello.test", **{name.lower(): value for name, value in (headers or {}).items()}}
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "extensions": {"websocket.http.response": {}},
        **({"subprotocols": []} if kind == "websocket" else {"method": "GET"}),
    }


def _answer(events: Sequence[Any]) -> Answer:
    headers = {name.decode().lower(): value.decode() for name, value in events[0]["headers"]}
    return Answer(events[0]["status"], headers, b"".join(event.get("body", b"") for event in events[1:]).decode())
