"""Processes and pages over a backend that can be lost. What is done to them lives in `steps.py`."""

import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus
from starlette.datastructures import Headers, QueryParams

from hello.channel import Channel
from hello.hub import Hub
from hello.lease import Lease
from hello.message import Gap, Message, Position
from hello.metrics import Metrics
from hello.relay import relay
from hello.supervisor import ChannelStatus, follow
from hello.testing import SHAPES, Closed, Process, Refused, Stream
from hello.web.stream import TaskClient, start_of
from tests.histories.backend import Backend, Line
from tests.histories.record import (
    Ended,
    Gone,
    Healed,
    Heard,
    Opened,
    Opening,
    Reads,
    Record,
    Stopping,
    Told,
    Took,
)

RECONNECT_SECONDS = 0.5  # a page's pause before it connects again
QUIET_SECONDS = 10.0  # after healing, everybody has everything well within
POLL_SECONDS = 0.1  # how often it is looked whether they have
AGAIN_SECONDS = 0.1  # a bare broadcaster's pause before it says again what was refused
PAGES = 2
METRICS = Metrics()  # of all bare processes: nobody asks


class Bare(Process):
    """A process of channel, voice, subscription and hub alone: no settings, no servers, no time between messages.

    What it is given to say it says once it has the voice.
    """

    def __init__(self, actors: str, instance: str) -> None:
        super().__init__(actors, instance)
        self._to_say, self._says = anyio.create_memory_object_stream[Message](1000)

    def say(self, message: Message) -> None:
        self._to_say.send_nowait(message)

    async def run(self, channel: Channel, flags: Mapping[str, str]) -> None:
        history = int(flags["history"])
        self.hub = Hub(history=history, instance=self.instance, max_clients=100, metrics=METRICS)
        lease = Lease(channel, self.instance, ChannelStatus("broadcaster", METRICS))

        async def run_relay(*, task_status: TaskStatus[None]) -> None:
            link = ChannelStatus("relay", METRICS, self.hub.set_channel_up)
            async with aclosing(follow(channel, lambda: self.hub.head, link)) as batches:
                await relay(batches, self.hub, metrics=METRICS, task_status=task_status)

        async def speak() -> None:
            async for message in self._says:
                await lease.wait_until_leader()
                while await lease.publish(message) is None:  # fenced; it is said again once this process has the voice
                    await anyio.sleep(AGAIN_SECONDS)
                    await lease.wait_until_leader()

        try:
            with self._scope:
                async with anyio.create_task_group() as relays:
                    async with anyio.create_task_group() as speakers:

                        async def start() -> None:
                            if "relay" in self.actors:
                                await relays.start(run_relay)
                            if "broadcaster" in self.actors:
                                await speakers.start(lease.renew)
                                speakers.start_soon(speak)
                            self.ready.set()

                        speakers.start_soon(start)
                        await self._stop.wait()
                        speakers.cancel_scope.cancel()
                    if "broadcaster" in self.actors:
                        await lease.release()
                    relays.cancel_scope.cancel()
        finally:
            self.ended.set()
            self._to_say.close()
            self._says.close()
            self.hub.notify_all()

    @asynccontextmanager
    async def open(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Stream]:
        start = start_of(QueryParams(urlsplit(path).query), Headers(headers), self.hub.head)
        client = TaskClient(self.hub)
        self.hub.join(client, start)
        try:
            yield _Taken(client, self.ended)
        finally:
            self.hub.leave(client)


class _Taken(Stream):
    """What a browser of a bare process is owed, as a stream."""

    def __init__(self, client: TaskClient, ended: anyio.Event) -> None:
        self._client = client
        self._ended = ended
        self._frames: deque[bytes] = deque()

    async def receive(self) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        while not self._frames and not self._ended.is_set():
            news = self._client.news
            if (pending := self._client.poll()) is not None:
                self._frames.extend(frame.json for frame in pending.frames)
            if not self._frames:
                await news.wait()
        if self._ended.is_set():
            raise Closed(1006)
        frame: dict[str, Any] = json.loads(self._frames.popleft())
        return frame


class Page:
    """One page: while it wants to be connected it is, by the rules of the real one."""

    def __init__(self, number: int, relays: Callable[[], Sequence[Process]], record: Record) -> None:
        self.relay: str | None = None  # that it is connected to
        self.channel: str | None = None
        self.known: set[str] = set()  # message ids
        self.turn = number  # of the relays, the one that it connects to next
        self._number = number
        self._relays = relays
        self._record = record
        self._position: Position | None = None
        self._visits = 0
        self._visit = anyio.CancelScope()
        self._wants = anyio.Event()
        self._reads = anyio.Event()
        self._wants.set()
        self._reads.set()

    def leave(self) -> None:
        if self._wants.is_set():
            self._wants = anyio.Event()
            self._visit.cancel()

    def come(self, relay: int | None = None) -> None:
        """Connect, if it is not connected, to this one of the relays first."""
        if relay is not None:
            self.turn = relay
        self._wants.set()

    def lag(self) -> None:
        if self._reads.is_set():
            self._reads = anyio.Event()
            self._record.note(Reads(self._number, False))

    def read(self) -> None:
        self._reads.set()
        self._record.note(Reads(self._number, True))

    async def live(self) -> None:
        while True:
            await self._wants.wait()
            with anyio.CancelScope() as self._visit:
                if relays := self._relays():
                    await self._connect(relays[self.turn % len(relays)])
            await anyio.sleep(RECONNECT_SECONDS)

    async def _connect(self, process: Process) -> None:
        self.turn += 1
        self._visits += 1
        path, headers = ("/ws", "/events")[(self._number + self._visits) % 2], {}
        start = "last=1000000"
        if self._position is not None and path == "/events":
            headers["Last-Event-ID"] = str(self._position)  # an EventSource repeats its first query beside it
        elif self._position is not None:
            start = f"after={self._position}"
        code, ended = None, False
        self._record.note(Opening(self._number, process.instance))
        try:
            async with process.open(f"{path}?{start}", headers) as stream:
                self._record.note(Opened(self._number, process.instance))
                self.relay = process.instance
                try:
                    while True:
                        await self._reads.wait()
                        self._take(await stream.receive())
                except Closed as closed:
                    code, ended = closed.code, closed.code is None
        except* (Refused, anyio.EndOfStream):
            pass  # it drains, or was killed at this very moment
        finally:
            self.relay = self.channel = None
            self._record.note(Gone(self._number, code, ended))

    def _take(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "message":
                self._position = Position.parse(frame["position"])
                self.known.add(frame["id"])
                self._record.note(Took(self._number, self._position, frame["id"]))
            case "gap":
                gap = Gap(Position.parse(frame["after"]), Position.parse(frame["before"]))
                self._record.note(Told(self._number, gap))
            case "welcome" | "status":
                self.channel = frame["channel"]
                self._record.note(Heard(self._number, frame["channel"]))


class World:
    """All processes and pages of one history."""

    def __init__(self, kind: type[Process], history: int, group: TaskGroup, flags: Mapping[str, object]) -> None:
        self.record = Record()
        self.backend = Backend(history, self.record)
        self.pages = [Page(number, self._relays, self.record) for number in range(PAGES)]
        self.away = False  # for everybody, and so for those too who start now
        self._kind = kind
        self._all: list[tuple[Process, Line]] = []
        self._group = group
        self._flags = {"history": str(history), **{name: str(value) for name, value in flags.items()}}
        self._messages = itertools.count(1)
        self._stopping: set[Process] = set()
        self._killed: set[Process] = set()

    def start(self, actors: str) -> Process:
        process = self._kind(actors, f"{actors.replace(',', '-')}-{len(self._all)}")
        line = Line(self.backend, process.instance, self.record)
        if self.away:
            line.cut()
        self._all.append((process, line))
        self._group.start_soon(process.run, line, self._flags)
        return process

    @property
    def living(self) -> list[tuple[Process, Line]]:
        return [each for each in self._all if each[0] not in self._killed and not each[0].ended.is_set()]

    def lines(self, process: int | None) -> list[Line]:
        """The link of one living process, or all links."""
        lines = [line for _, line in self.living]
        return lines if process is None else [lines[process % len(lines)]] if lines else []

    def one(self, process: int) -> list[Process]:
        """One living process, or none if none lives."""
        living = self.living
        return [living[process % len(living)][0]] if living else []

    def publish(self, count: int, by: int) -> None:
        """Give a bare broadcaster something to say."""
        speakers = [
            process for process, _ in self.living if isinstance(process, Bare) and "broadcaster" in process.actors
        ]
        for _ in range(count if speakers else 0):
            number = next(self._messages)
            speakers[by % len(speakers)].say(Message(f"m{number}", "Hello", "b", 0))

    def _relays(self) -> list[Process]:
        return [process for process, _ in self.living if "relay" in process.actors and process.ready.is_set()]

    def stop(self, process: Process) -> None:
        self._stopping.add(process)
        self.record.note(Stopping(process.instance))
        process.terminate()

    def kill(self, process: Process) -> None:
        self._killed.add(process)
        process.kill()

    def heal(self, process: int | None) -> None:
        if process is None:
            self.away = False
            self.backend.loses_reply_to = None
        for line in self.lines(process):
            line.heal()

    async def begin(self, shape: str) -> None:
        """Start the processes of a shape, and pages that look at them."""
        for actors in SHAPES[shape]:
            await self.start(actors).ready.wait()
        for page in self.pages:
            self._group.start_soon(page.live)
        await anyio.wait_all_tasks_blocked()

    async def end(self) -> None:
        """Heal everything, let somebody speak, and wait until every page has seen it, but not for ever."""
        self.heal(None)
        for page in self.pages:
            page.come()
            page.read()
        for actor in ("relay", "broadcaster"):
            if not any(actor in process.actors and process not in self._stopping for process, _ in self.living):
                self.start(actor)
        before = self.backend.last
        self.record.note(Healed())
        for number in range(len(self.living)):
            self.publish(1, number)
        with anyio.move_on_after(QUIET_SECONDS):
            # Virtual time costs nothing to poll in, and it takes many parties to say that all is well.
            while self.backend.last == before or not all(map(self._has_all, self.pages)):  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        self.record.note(Ended())

    def _has_all(self, page: Page) -> bool:
        return page.channel == "up" and self.backend.last_id in page.known
