"""The channel in memory: a log in this process. It knows no other backend, and cannot be lost."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel

from hello.channel import HEARTBEAT_SECONDS, LEASE_SECONDS, MAX_BATCH, Batch, Fenced, Subscription
from hello.log import Log
from hello.message import ORIGIN, Entry, Message, Position, now_ms


class MemoryChannel:
    """A channel with the promises of `hello.channel`, on asyncio and on trio; tests run it in virtual time."""

    def __init__(self, history: int, high_watermark: Position = ORIGIN) -> None:
        """Keep `history` entries. The first one has the `prev` `high_watermark`, as after a loss of all."""
        self._log: Log[Entry] = Log(history)
        self._high_watermark = high_watermark
        self._changed = anyio.Event()
        self._holder: str | None = None  # of the lease, until it expires
        self._expires = 0.0  # by the clock of the event loop

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        await anyio.lowlevel.checkpoint()
        if (known := self._log.find(message.id)) is not None:
            return known  # also to a process without the lease: its first attempt was accepted, and the reply lost
        if holder is not None and holder != self._current_holder():
            raise Fenced
        prev = self._log.head or self._high_watermark
        position = prev.successor(now_ms())
        self._log.append(Entry(position, prev, message))
        self._changed.set()
        self._changed = anyio.Event()
        return position

    async def acquire(self, holder: str) -> bool:
        await anyio.lowlevel.checkpoint()
        if self._current_holder() not in (None, holder):
            return False
        self._holder, self._expires = holder, anyio.current_time() + LEASE_SECONDS
        return True

    async def release(self, holder: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self._holder == holder:
            self._holder = None

    def _current_holder(self) -> str | None:
        return self._holder if anyio.current_time() < self._expires else None

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[Subscription]:
        await anyio.lowlevel.checkpoint()
        async with aclosing(self._follow(after)) as batches:
            yield Subscription(self._log.head or self._high_watermark, batches)

    async def _follow(self, position: Position | None) -> AsyncGenerator[Batch, None]:
        caught_up = False
        while True:
            batch = list(self._log.after(position, MAX_BATCH))
            if not batch and caught_up:
                # No entry can be appended between the read above and this wait: there is no checkpoint in between.
                with anyio.move_on_after(HEARTBEAT_SECONDS):
                    await self._changed.wait()
                batch = list(self._log.after(position, MAX_BATCH))
            if batch:
                position = batch[-1].position
            else:
                caught_up = True
            yield batch
