"""Processes of the system in one event loop, in any shape, in real or virtual time. It opens no socket."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import anyio
from anyio.abc import TaskGroup, TaskStatus
from starlette.types import ASGIApp

from hello.channel import Batch, Channel, ChannelLost, Subscription
from hello.message import Message, Position
from hello.settings import load
from hello.system import run
from hello.testing.clients import Answer, Stream, get, open_stream

# The actors of each process of a shape, as the overlay of that name deploys them.
SHAPES: Mapping[str, Sequence[str]] = {
    "combined": ("broadcaster,relay",),
    "split": ("relay", "relay", "broadcaster"),
}


class CuttableChannel:
    """A channel whose backend can be cut off and healed, as a network does it to a remote one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._cut = anyio.Event()
        self._unreachable = True

    def cut(self, *, unreachable: bool = True) -> None:
        """Let every call raise ChannelLost from now on, and a subscription that waits within HEARTBEAT_SECONDS.

        `unreachable` is that of the error.
        """
        self._unreachable = unreachable
        self._cut.set()

    def heal(self) -> None:
        """Bring the backend back, with everything that it had accepted."""
        if self._cut.is_set():  # a new event in a channel that is not cut would hide the next cut from subscriptions
            self._cut = anyio.Event()

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        self._check(self._cut)
        return await self._channel.publish(message, holder)

    async def acquire(self, holder: str) -> bool:
        self._check(self._cut)
        return await self._channel.acquire(holder)

    async def release(self, holder: str) -> None:
        self._check(self._cut)
        await self._channel.release(holder)

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[Subscription]:
        self._check(self._cut)
        async with self._channel.subscribe(after) as batches, aclosing(self._follow(batches)) as checked:
            yield Subscription(batches.high_watermark, checked)

    async def _follow(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        cut = self._cut  # a subscription does not survive a cut, even one that was healed meanwhile
        async for batch in batches:
            self._check(cut)
            yield batch

    def _check(self, cut: anyio.Event) -> None:
        if cut.is_set():
            raise ChannelLost("cut off", unreachable=self._unreachable)


class Process(TaskStatus[None]):
    """One process of the system, with what a platform can do to it.

    It is its own TaskStatus. That of a task group would raise if a process is stopped before it has started.
    """

    def __init__(self, actors: str, instance: str) -> None:
        self.actors = actors
        self.instance = instance
        self.apps: dict[str, ASGIApp] = {}  # `ops` and, in a relay, `public`
        self.serves = anyio.Event()  # set once a relay has its `public` app, with its channel or without
        self.ready = anyio.Event()
        self.ended = anyio.Event()
        self._stop = anyio.Event()
        self._scope = anyio.CancelScope()

    def started(self, value: None = None) -> None:
        """Set `ready`."""
        self.ready.set()

    def terminate(self) -> None:
        """Do what SIGTERM does: the process drains and ends by itself, see `ended`."""
        self._stop.set()

    def kill(self) -> None:
        """Do what SIGKILL does: the process ends at once."""
        self._scope.cancel()

    async def get(self, path: str, *, app: str = "ops", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a GET request to one of its apps, `ops` or `public`."""
        return await get(self.apps[app], path, headers)

    def open(self, path: str, headers: Mapping[str, str] | None = None) -> AbstractAsyncContextManager[Stream]:
        """Open `/ws` or `/events`, with a query if there is one; leaving disconnects.

        Raises Refused if the relay does not admit this client.
        """
        return open_stream(self.apps["public"], path, headers, self.ended)

    async def run(self, channel: Channel, flags: Mapping[str, str]) -> None:
        """Run until the process ends; an error in it is raised."""

        async def serve(name: str, app: ASGIApp, stop: anyio.Event, task_status: TaskStatus[None], **_: object) -> None:
            self.apps[name] = app
            if name == "public":
                self.serves.set()
            task_status.started()
            await stop.wait()

        # The test has opened the channel. The URL is not used, but memory:// would demand both actors in this process.
        own = {"actors": self.actors, "instance": self.instance, "channel": "redis://in-this-process"}
        try:
            with self._scope:
                settings = load({**own, **flags})
                await run(settings, channel, serve=serve, stop=self._stop, task_status=self)
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
        """The processes that serve clients and have not ended."""
        return [process for process in self.processes if "relay" in process.actors and not process.ended.is_set()]

    def launch(self, actors: str) -> Process:
        """Start a process that runs these actors, and do not wait until it is ready."""
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
