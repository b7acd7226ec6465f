"""The channel's nine promises, one test each, over every backend on every event loop that it runs on.

Nothing here names a backend. Tasks are ordered by what they have seen; no test waits for luck.
"""

import itertools
from collections.abc import AsyncIterator

import anyio
import pytest

from hello.channel import LEASE_SECONDS, Batch, Channel, ChannelLost, Fenced
from hello.message import Entry, Gap, Message, Position
from tests.channel.backends import Backend, MemoryBackend, RedisBackend

LIMIT_SECONDS = 30.0  # no test hangs: a promise that takes longer than this is broken


@pytest.fixture(
    params=["memory-asyncio", "memory-uvloop", "memory-trio", "redis-asyncio", "redis-uvloop"],
)
def combination(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, loop = str(request.param).split("-")
    return name, loop


@pytest.fixture
def anyio_backend(combination: tuple[str, str]) -> tuple[str, dict[str, object]]:
    return ("asyncio", {"use_uvloop": True}) if combination[1] == "uvloop" else (combination[1], {})


@pytest.fixture
def backend(combination: tuple[str, str], request: pytest.FixtureRequest) -> Backend:
    if combination[0] == "memory":
        return MemoryBackend()
    return RedisBackend(request.getfixturevalue("redis_server"))


def say(number: int, by: str = "test") -> Message:
    return Message(id=f"{by}-{number}", text=f"message {number}", broadcaster=by, sent_at=1_700_000_000_000 + number)


def ids(items: list[Entry | Gap]) -> list[str]:
    return [item.message.id for item in items if isinstance(item, Entry)]


async def take(batches: AsyncIterator[Batch], count: int) -> list[Entry | Gap]:
    """The next items, until `count` of them are entries."""
    items: list[Entry | Gap] = []
    with anyio.fail_after(LIMIT_SECONDS):
        while len(ids(items)) < count:
            items += await anext(batches)
    assert len(ids(items)) == count
    return items


async def take_all(batches: AsyncIterator[Batch]) -> list[Entry | Gap]:
    """The next items, until there is nothing more for now."""
    items: list[Entry | Gap] = []
    with anyio.fail_after(LIMIT_SECONDS):
        while batch := await anext(batches):
            items += batch
    return items


async def exhaust(batches: AsyncIterator[Batch]) -> None:
    async for _ in batches:
        pass


async def read(channel: Channel, after: Position | None = None) -> list[Entry | Gap]:
    """What a subscriber from `after` is given now."""
    async with channel.subscribe(after) as batches:
        return await take_all(batches)


async def test_order(backend: Backend) -> None:
    """Every subscriber sees the entries in one and the same order, whoever publishes them at once."""
    async with backend.open() as one, backend.open() as two:
        seen: list[list[Entry | Gap]] = []

        async def publish(channel: Channel, by: str) -> None:
            for number in range(50):
                await channel.publish(say(number, by))

        async def follow(batches: AsyncIterator[Batch]) -> None:
            seen.append(await take(batches, 150))

        async with (
            one.subscribe(None) as first,
            two.subscribe(None) as second,
            anyio.create_task_group() as group,
        ):
            group.start_soon(follow, first)
            group.start_soon(follow, second)
            group.start_soon(publish, one, "a")
            group.start_soon(publish, two, "b")
            group.start_soon(publish, two, "c")
        assert seen[0] == seen[1]
        entries = [item for item in seen[0] if isinstance(item, Entry)]
        assert len(entries) == len(seen[0]) == 150
        assert all(entry.prev == before.position for before, entry in itertools.pairwise(entries))
        for by in "abc":
            assert [item for item in ids(seen[0]) if item.startswith(by)] == [f"{by}-{n}" for n in range(50)]


@pytest.mark.parametrize("after", [None, 0, 7, 19])
async def test_seam(backend: Backend, after: int | None) -> None:
    """From a position on: every kept entry, then the live ones, none missing and none twice."""
    async with backend.open() as channel:
        positions = [await channel.publish(say(number)) for number in range(20)]
        async with channel.subscribe(None if after is None else positions[after]) as batches:
            async with anyio.create_task_group() as group:

                async def publish_more() -> None:
                    for number in range(20, 40):
                        await channel.publish(say(number))

                group.start_soon(publish_more)
                expected = [f"test-{number}" for number in range(0 if after is None else after + 1, 40)]
                items = await take(batches, len(expected))
            assert ids(items) == expected
            assert len(items) == len(expected)


async def test_gap(backend: Backend) -> None:
    """A reader whose next entries are gone is told between which positions; a reader without a position is not."""
    async with backend.open(history=3) as channel:
        positions = [await channel.publish(say(0))]
        async with channel.subscribe(positions[0]) as slow:
            positions += [await channel.publish(say(number)) for number in range(1, 10)]
            for items in (await read(channel, positions[0]), await take_all(slow)):
                assert items[0] == Gap(positions[0], positions[7])
                assert ids(items[1:]) == ["test-7", "test-8", "test-9"]
        assert ids(await read(channel, positions[6])) == ["test-7", "test-8", "test-9"]
        for after in (positions[6], None):
            assert not any(isinstance(item, Gap) for item in await read(channel, after))


async def test_once(backend: Backend) -> None:
    """A known message id adds nothing and gives the first position, whoever repeats it and however late."""
    async with backend.open(history=5) as one, backend.open(history=5) as two:
        first = await one.publish(say(0))
        for number in range(1, 5):
            await two.publish(say(number))
        assert await one.publish(say(0)) == first
        assert await two.publish(say(0)) == first
        assert ids(await read(one)) == [f"test-{number}" for number in range(5)]
        await one.publish(say(5))
        assert await one.publish(say(0)) > first, "beyond the history an id is forgotten"


async def test_once_at_once(backend: Backend) -> None:
    """The same message published many times at the same moment is one entry."""
    async with backend.open() as channel:
        positions = []

        async def publish() -> None:
            positions.append(await channel.publish(say(1)))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(publish)
        assert len(positions) == 10
        assert len(set(positions)) == 1
        assert ids(await read(channel)) == ["test-1"]


async def test_ready(backend: Backend) -> None:
    """Once `subscribe` has been entered, whatever is published afterwards is seen."""
    async with backend.open() as one, backend.open() as two:
        for number in range(20):
            async with one.subscribe(None) as batches:
                await two.publish(say(number))
                assert f"test-{number}" in ids(await take(batches, number + 1))


async def test_bounded(backend: Backend) -> None:
    """A channel keeps exactly its last entries, whoever lags, and a smaller history takes effect."""
    async with backend.open(history=10) as channel, channel.subscribe(None) as lagging:
        for number in range(25):
            await channel.publish(say(number))
            assert len(await read(channel)) == min(number + 1, 10)
        assert len(ids(await take_all(lagging))) == 10


async def test_voice(backend: Backend) -> None:
    """One speaker at a time; the others are fenced, and what was accepted stays accepted whoever repeats it."""
    async with backend.open() as one, backend.open() as two:
        assert await one.claim("a")
        assert await one.claim("a")
        assert not await two.claim("b")
        first = await one.publish(say(1), "a")
        with pytest.raises(Fenced):
            await two.publish(say(2), "b")
        assert await two.publish(say(1), "b") == first, "a known message is not refused"
        await two.release("b")
        assert not await two.claim("b"), "nobody lets go what another one has"
        await one.release("a")
        with pytest.raises(Fenced):
            await one.publish(say(3), "a")
        assert await two.claim("b")
        await two.publish(say(4), "b")
        await one.publish(say(5))
        assert ids(await read(one)) == ["test-1", "test-4", "test-5"], "who names no speaker needs no voice"


async def test_voice_lapses(backend: Backend) -> None:
    """A speaker that does not claim the voice again loses it in time, and is fenced from then on."""
    async with backend.open() as one, backend.open() as two:
        assert await one.claim("a")
        claimed = anyio.current_time()
        with anyio.fail_after(LIMIT_SECONDS):
            while not await two.claim("b"):
                await one.publish(say(1), "a")
        assert LEASE_SECONDS * 0.95 < anyio.current_time() - claimed < LEASE_SECONDS + 2
        with pytest.raises(Fenced):
            await one.publish(say(2), "a")
        assert not await one.claim("a")


async def test_voice_at_once(backend: Backend) -> None:
    """Of many that claim the voice at the same moment one has it."""
    async with backend.open() as channel:
        claims = []

        async def claim(speaker: str) -> None:
            claims.append(await channel.claim(speaker))

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(claim, str(number))
        assert sorted(claims) == [False] * 9 + [True]


async def test_outage(backend: Backend) -> None:
    """While the backend is away everything raises ChannelLost in time; once it is back nothing is missing."""
    async with backend.open() as channel:
        before = await channel.publish(say(1))
        async with channel.subscribe(None) as batches:
            assert ids(await take(batches, 1)) == ["test-1"]
            backend.cut()
            with anyio.fail_after(LIMIT_SECONDS):
                with pytest.raises(ChannelLost):
                    await exhaust(batches)
                with pytest.raises(ChannelLost):
                    await channel.publish(say(2))
                with pytest.raises(ChannelLost):
                    await channel.claim("a")
                with pytest.raises(ChannelLost):
                    await channel.release("a")
                with pytest.raises(ChannelLost):
                    async with channel.subscribe(before):
                        pass
        backend.heal()
        await channel.publish(say(2))
        assert ids(await read(channel, before)) == ["test-2"]
        assert ids(await read(channel)) == ["test-1", "test-2"]


@pytest.mark.parametrize("how", ["normally", "by error", "by cancellation"])
async def test_leave(backend: Backend, how: str) -> None:
    """Leaving a subscription, on whatever way, frees everything that it held."""

    class Stop(Exception):
        pass

    async with backend.open() as channel:
        await channel.publish(say(1))
        before = backend.held()
        entered = anyio.Event()

        async def follow() -> None:
            async with channel.subscribe(None) as batches:
                await take_all(batches)
                entered.set()
                if how == "by error":
                    raise Stop
                if how == "by cancellation":
                    await exhaust(batches)

        async with anyio.create_task_group() as group:

            async def run() -> None:
                if how == "by error":
                    with pytest.raises(Stop):
                        await follow()
                else:
                    await follow()

            group.start_soon(run)
            await entered.wait()
            if how == "by cancellation":
                assert backend.held() > before, "the measure sees what a subscription holds"
                group.cancel_scope.cancel()
        with anyio.fail_after(LIMIT_SECONDS):
            while backend.held() > before:
                await anyio.lowlevel.checkpoint()
