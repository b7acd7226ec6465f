"""The channel in memory: a log in this process. It knows nothing of other backends, and cannot be lost."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel

from hello.channel import BATCH, LEASE_SECONDS, WORD_SECONDS, Batch, Fenced
from hello.log import Log
from hello.message import ORIGIN, Entry, Message, Position, now_ms


class MemoryChannel:
    """See `hello.channel` for what it promises. It runs on asyncio and on trio, in real and in virtual time."""

    def __init__(self, history: int, mark: Position = ORIGIN) -> None:
        """Keep `history` entries; positions go on after `mark`, the last one of a channel that this one stands for."""
        self._log: Log[Entry] = Log(history)
        self._mark = mark
        self._changed = anyio.Event()
        self._voice: str | None = None  # whose it is, until it lapses
        self._lapses = 0.0  # by the event loop's clock

    async def publish(self, message: Message, speaker: str | None = None) -> Position:
        await anyio.lowlevel.checkpoint()
        if (known := self._log.find(message.id)) is not None:
            return known
        if speaker is not None and speaker != self._speaker():
            raise Fenced
        prev = self._log.head or self._mark
        position = prev.following(now_ms())
        self._log.append(Entry(position, prev, message))
        self._changed.set()
        self._changed = anyio.Event()
        return position

    async def claim(self, speaker: str) -> bool:
        await anyio.lowlevel.checkpoint()
        if self._speaker() not in (None, speaker):
            return False
        self._voice, self._lapses = speaker, anyio.current_time() + LEASE_SECONDS
        return True

    async def release(self, speaker: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self._voice == speaker:
            self._voice = None

    def _speaker(self) -> str | None:
        return self._voice if anyio.current_time() < self._lapses else None

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[AsyncIterator[Batch]]:
        await anyio.lowlevel.checkpoint()
        position = self._log.before_last(len(self._log)) if after is None else after
        async with aclosing(self._follow(position)) as batches:
            yield batches

    async def _follow(self, position: Position | None) -> AsyncGenerator[Batch, None]:
        caught_up = False
        while True:
            batch = list(self._log.after(position, BATCH))
            if not batch and caught_up:
                with anyio.move_on_after(WORD_SECONDS):  # nothing can come between the look into the log and this
                    await self._changed.wait()
                batch = list(self._log.after(position, BATCH))
            caught_up = caught_up or not batch
            match batch:
                case [*_, Entry(position=position)]:
                    pass
            yield batch
