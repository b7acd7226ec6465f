"""The backend of a history and the connection of each process, with all faults that can happen to them.

They report what happens to the checker, and know no process.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import anyio

from hello.channel import Batch, ChannelLost, Fenced, Subscription
from hello.channel.memory import MemoryChannel
from hello.log import Log
from hello.message import ORIGIN, Entry, Message, Position, now_ms
from hello.testing import CuttableChannel
from tests.histories.checker import Checker


class Backend(MemoryChannel):
    """A channel in memory that can lose its entries, as a Redis whose publishers remember the last position.

    Subscriptions survive a loss, as a blocking read survives FLUSHALL. The lease does not.
    """

    def __init__(self, history: int, checker: Checker) -> None:
        super().__init__(history)
        self.last = ORIGIN  # the newest position that there ever was
        self.last_id: str | None = None  # of the message that was accepted there
        self.loses_reply_to: str | None = None  # `publish` or `acquire`: the next call of any process
        self.cuts_with_reply = False  # True: the connection that loses the reply is cut too
        self._history = history
        self._checker = checker
        self._saved: Sequence[Entry] = ()
        self._remembered = ORIGIN  # the newest position that the publishers know

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        position = await super().publish(message, holder)
        if position > self.last:
            self.last, self.last_id, self._remembered = position, message.id, position
            self._checker.accepted(self._entries()[-1], holder)
        return position

    async def acquire(self, holder: str) -> bool:
        granted = await super().acquire(holder)
        self._checker.acquired(holder, granted=granted)
        return granted

    async def release(self, holder: str) -> None:
        await super().release(holder)
        self._checker.released(holder)

    def wipe(self) -> None:
        """Lose all entries."""
        self._replace(Log(self._history), ())

    def save(self) -> None:
        """Take a snapshot."""
        self._saved = self._entries()

    def restore(self, *, known: bool = True) -> None:
        """Return to the snapshot, and lose what came after it.

        If that is not `known` to who publishes next, the next entry has the `prev` of the snapshot.
        """
        while now_ms() <= self.last.milliseconds:
            pass  # the clock alone keeps the next position above the last
        self._replace(_Restored(self._history) if known else Log(self._history), self._saved, known=known)

    def _replace(self, log: Log[Entry], entries: Sequence[Entry], *, known: bool = True) -> None:
        for entry in entries:
            log.append(entry)
        if not known:
            self._remembered = ORIGIN
        if isinstance(log, _Restored):
            log.high_watermark = self._remembered
        self._log, self._high_watermark, self._holder = log, self._remembered, None
        self._checker.replaced(frozenset(entry.position for entry in entries), known=known)

    def _entries(self) -> Sequence[Entry]:
        return list(self._log.after(None))


class _Restored(Log[Entry]):
    """A log whose publishers remember a later position than that of its newest entry, and continue from there."""

    high_watermark = ORIGIN

    @property
    def head(self) -> Position | None:
        head = super().head
        return head and max(head, self.high_watermark)


class Connection(CuttableChannel):
    """The connection of one process to the backend."""

    def __init__(self, backend: Backend, process: str, checker: Checker) -> None:
        super().__init__(backend)
        self._backend = backend
        self.breaks_after: int | None = None  # batches, after which the subscription ends
        self._is_cut = False
        self._process = process
        self._checker = checker
        self._works = anyio.Event()
        self._works.set()

    def cut(self, *, unreachable: bool = True) -> None:
        super().cut(unreachable=unreachable)
        self._is_cut = True
        self._checker.cut(self._process)

    def hang(self) -> None:
        """Let no call return until the connection is healed, as in a process that is paused."""
        if self._works.is_set():
            self._works = anyio.Event()
        self._checker.hung(self._process)

    def heal(self) -> None:
        if self._is_cut:
            super().heal()
        self._is_cut = False
        self._works.set()
        self.breaks_after = None
        self._checker.healed(self._process)

    def end(self) -> None:
        """Let a call that hangs fail: its process was killed."""
        super().cut()
        self._works.set()

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        assert holder is not None
        try:
            await self._works.wait()
            position = await super().publish(message, holder)
            self._lose_reply("publish")
        except Fenced:
            self._checker.published(holder, message.id, "fenced")
            raise
        except ChannelLost:
            self._checker.published(holder, message.id, "lost")
            raise
        self._checker.published(holder, message.id, "accepted")
        return position

    async def acquire(self, holder: str) -> bool:
        await self._works.wait()
        acquired = await super().acquire(holder)
        self._lose_reply("acquire")
        return acquired

    async def release(self, holder: str) -> None:
        await self._works.wait()
        await super().release(holder)

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[Subscription]:
        await self._works.wait()
        async with super().subscribe(after) as batches, aclosing(self._deliver(batches)) as delivered:
            self._checker.subscribed(self._process, after)
            yield Subscription(batches.high_watermark, delivered)

    async def _deliver(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        async for batch in batches:
            self._checker.read(self._process, batch)
            await self._works.wait()
            if self.breaks_after is not None:
                self.breaks_after -= 1
                if self.breaks_after < 0:
                    self.breaks_after = None
                    raise ChannelLost("the subscription broke")
            self._checker.delivered(self._process, batch)
            yield batch

    def _lose_reply(self, call: str) -> None:
        if self._backend.loses_reply_to == call:
            self._backend.loses_reply_to = None
            if self._backend.cuts_with_reply:
                self.cut()
            raise ChannelLost("the reply was lost")
