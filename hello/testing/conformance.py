"""The promises of `hello.channel`, one check each, for any backend. It must not name a backend, or need pytest.

Tasks are ordered by what they have received: no check sleeps for luck. A check runs on the current event loop, in real
or virtual time.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel

from hello.channel import HEARTBEAT_SECONDS, LEASE_SECONDS, MAX_BATCH, Batch, Channel, ChannelLost, Fenced
from hello.message import ORIGIN, Entry, Message, Position

LIMIT_SECONDS = 30.0  # nothing hangs: a step that takes longer breaks a promise
LATE_SECONDS = 2.0  # by which a lease may expire late, or a heartbeat come late
A = TypeVar("A")  # the argument of a call
R = TypeVar("R")  # its result

POLL_SECONDS = 0.05  # between two attempts, where the backend gives no event to wait for


class Backend(Protocol):
    """One kind of channel under test, empty at first. All channels that it opens share their entries."""

    def open(self, history: int = 1000) -> AbstractAsyncContextManager[Channel]:
        """Open a channel that keeps `history` entries."""

    def cut(self) -> None:
        """Take the backend away from every open channel."""

    def heal(self) -> None:
        """Bring the backend back, with all that it had accepted."""

    def held(self) -> int:
        """Return how many things subscriptions hold at the moment, in a unit of the backend's own."""


async def check_channel(promise: str, backend: Backend) -> None:
    """Check one of PROMISES over an empty backend.

    Raises AssertionError if the promise is broken, TimeoutError if a step takes longer than LIMIT_SECONDS, and
    ValueError if there is no such promise.
    """
    if promise not in _CHECKS:
        raise ValueError(f"no promise {promise!r}: give one of {', '.join(_CHECKS)}")
    await _CHECKS[promise](backend)


def make_message(number: int, broadcaster: str = "test") -> Message:
    """Return a message with the id `BROADCASTER-NUMBER`."""
    return Message(f"{broadcaster}-{number}", f"message {number}", broadcaster, sent_at=1_700_000_000_000 + number)


def ids(entries: list[Entry]) -> list[str]:
    """Return the message ids of the entries."""
    return [entry.message.id for entry in entries]


async def publish_all(channel: Channel, numbers: Iterable[int], broadcaster: str = "test") -> list[Position]:
    """Publish a message with each of these numbers, one after the other, and return their positions."""
    return [await channel.publish(make_message(number, broadcaster)) for number in numbers]


async def receive(batches: AsyncIterator[Batch], count: int) -> list[Entry]:
    """Return the next `count` entries."""
    entries: list[Entry] = []
    with anyio.fail_after(LIMIT_SECONDS):
        while len(entries) < count:
            entries += await anext(batches)
    assert len(entries) == count, f"received {len(entries)} entries, not {count}"
    return entries


async def receive_all(batches: AsyncIterator[Batch]) -> list[Entry]:
    """Return the next entries until the reader has caught up."""
    entries: list[Entry] = []
    with anyio.fail_after(LIMIT_SECONDS):
        while batch := await anext(batches):
            entries += batch
    return entries


async def read(channel: Channel, after: Position | None = None) -> list[Entry]:
    """Return the entries that a new subscriber receives until it has caught up."""
    async with channel.subscribe(after) as batches:
        return await receive_all(batches)


async def exhaust(batches: AsyncIterator[Batch]) -> None:
    """Receive batches until an error or a cancellation."""
    async for _ in batches:
        pass


async def _check_order(backend: Backend) -> None:
    """Two subscribers receive what three publishers publish at the same time in one order."""
    async with backend.open() as one, backend.open() as two:
        received: list[list[Entry]] = []
        returned: dict[str, list[Position]] = {}

        async def publish(channel: Channel, broadcaster: str) -> None:
            returned[broadcaster] = await publish_all(channel, range(50), broadcaster)

        async def follow(batches: AsyncIterator[Batch]) -> None:
            received.append(await receive(batches, 150))

        async with one.subscribe(None) as first, two.subscribe(None) as second, anyio.create_task_group() as group:
            group.start_soon(follow, first)
            group.start_soon(follow, second)
            group.start_soon(publish, one, "a")
            group.start_soon(publish, two, "b")
            group.start_soon(publish, two, "c")
        entries = received[0]
        assert entries == received[1], "two subscribers received different orders"
        assert entries[0].prev == ORIGIN, "the first entry has a predecessor"
        chained = all(entry.prev == before.position for before, entry in itertools.pairwise(entries))
        assert chained, "the `prev` of an entry is not the position of its predecessor"
        assert all(entry.prev < entry.position for entry in entries), "an entry has a position below its predecessor's"
        for broadcaster in "abc":
            own = [entry for entry in entries if entry.message.broadcaster == broadcaster]
            sent = [make_message(number, broadcaster) for number in range(50)]
            assert [entry.message for entry in own] == sent, "a publisher's messages are not as it sent them"
            assert [entry.position for entry in own] == returned[broadcaster], "`publish` returned another position"


async def _check_seam(backend: Backend) -> None:
    """From each position a subscriber receives the kept entries, then the new ones: none missing, none twice.

    So it does where the kept entries are more than one batch.
    """
    async with backend.open(history=2 * MAX_BATCH) as channel:
        positions = await publish_all(channel, range(20))
        published = 20
        for first in (0, 1, 8, 20):
            after = positions[first - 1] if first else None
            async with channel.subscribe(after) as batches, anyio.create_task_group() as group:
                group.start_soon(publish_all, channel, range(published, published + 20))
                published += 20
                entries = await receive(batches, published - first)
            assert ids(entries) == [f"test-{number}" for number in range(first, published)]

        for first in range(0, MAX_BATCH, 100):
            await _all_at_once(channel.publish, [make_message(first + number, "many") for number in range(100)])
        async with channel.subscribe(None) as batches:
            assert len(await anext(batches)) <= MAX_BATCH, "a batch is too large"
        entries = await read(channel)
        assert len({entry.message.id for entry in entries}) == len(entries) == published + MAX_BATCH


async def _check_gap(backend: Backend) -> None:
    """Where entries after the reader's position are gone, the next entry does not follow; else every entry does."""
    async with backend.open(history=3) as channel:
        positions = await publish_all(channel, [0])
        async with channel.subscribe(positions[0]) as slow:
            positions += await publish_all(channel, range(1, 10))
            for entries in (await read(channel, positions[0]), await receive_all(slow)):
                assert ids(entries) == ["test-7", "test-8", "test-9"]
                assert not entries[0].follows(positions[0]), "entries are gone, and the next one hides it"
                assert entries[1].follows(entries[0].position), "a loss is reported where there is none"
        entries = await read(channel, positions[6])
        assert ids(entries) == ["test-7", "test-8", "test-9"]
        assert entries[0].follows(positions[6]), "a loss is reported where there is none"


async def _check_once(backend: Backend) -> None:
    """A known message id adds nothing and returns the first position, whoever repeats it, also at the same time."""
    async with backend.open(history=5) as one, backend.open(history=5) as two:
        first = await one.publish(make_message(0))
        await publish_all(two, range(1, 5))
        assert await one.publish(make_message(0)) == first, "a repeated message has another position"
        assert await two.publish(make_message(0)) == first, "a repeated message has another position"
        assert ids(await read(one)) == [f"test-{number}" for number in range(5)], "a repeated message was appended"
        await one.publish(make_message(5))
        assert await one.publish(make_message(0)) > first, "an id is known beyond the history"

        positions = await _all_at_once(one.publish, [make_message(6)] * 10)
        assert len(positions) == 10, "a publish did not return"
        assert len(set(positions)) == 1, "one message published at the same time has several positions"
        assert ids(await read(one)).count("test-6") == 1, "one message published at the same time was appended twice"


async def _check_ready(backend: Backend) -> None:
    """Whatever is published once `subscribe` has been entered is received, and then an empty batch follows at once."""
    async with backend.open() as one, backend.open() as two:
        position: Position | None = None
        for number in range(20):
            async with one.subscribe(position) as batches:
                position = await two.publish(make_message(number))
                entries = await receive(batches, 1)
                assert ids(entries) == [f"test-{number}"]
                assert position > batches.high_watermark, "an entry is not after the high watermark before it"
                assert entries[0].follows(batches.high_watermark), "the first entry does not follow the high watermark"
                with anyio.fail_after(HEARTBEAT_SECONDS):
                    assert await anext(batches) == [], "an entry comes twice"


async def _check_bounded(backend: Backend) -> None:
    """The last `history` entries are kept, however slow a reader is."""
    async with backend.open(history=10) as channel, channel.subscribe(None) as slow:
        for number in range(25):
            await channel.publish(make_message(number))
            kept = len(await read(channel))
            assert kept == min(number + 1, 10), f"{kept} of {number + 1} entries are kept, with a history of 10"
        assert len(await receive_all(slow)) == 10


async def _check_leader(backend: Backend) -> None:
    """One holder at a time has the lease; others are fenced; the lease ends by release, or by itself in time."""
    async with backend.open() as one, backend.open() as two:
        assert await one.acquire("a")
        assert await one.acquire("a"), "a holder cannot renew its lease"
        assert not await two.acquire("b"), "two holders have the lease"
        first = await one.publish(make_message(1), "a")
        with _raises(Fenced):
            await two.publish(make_message(2), "b")
        assert await two.publish(make_message(1), "b") == first, "a message that was accepted is refused"
        await two.release("b")
        assert not await two.acquire("b"), "a holder released the lease of another one"
        await one.release("a")
        with _raises(Fenced):
            await one.publish(make_message(3), "a")
        assert await two.acquire("b"), "a released lease cannot be acquired"
        await two.publish(make_message(4), "b")
        await one.publish(make_message(5))
        assert ids(await read(one)) == ["test-1", "test-4", "test-5"], "a publish without a holder needs no lease"

        await anyio.sleep(LEASE_SECONDS / 4)
        renewed_at = anyio.current_time()
        assert await two.acquire("b")
        number = itertools.count(6)
        with anyio.fail_after(LIMIT_SECONDS), _raises(Fenced):
            while True:
                # Neither a publish nor another holder's attempt may make the lease longer or shorter.
                await two.publish(make_message(next(number)), "b")
                if anyio.current_time() - renewed_at < 0.9 * LEASE_SECONDS:
                    await one.acquire("c")
                await anyio.sleep(POLL_SECONDS)
        lasted = anyio.current_time() - renewed_at
        assert 0.95 * LEASE_SECONDS < lasted < LEASE_SECONDS + LATE_SECONDS, f"the lease lasted {lasted:.2f} s"
        assert await one.acquire("c"), "a lease that has expired cannot be acquired"
        await one.release("c")

        acquired = await _all_at_once(one.acquire, [str(number) for number in range(10)])
        assert sorted(acquired) == [False] * 9 + [True], "of ten at the same time not just one acquired the lease"


async def _check_outage(backend: Backend) -> None:
    """While the backend is away every call raises ChannelLost in time; once it is back nothing is missing.

    While it is there, a heartbeat proves so to a quiet subscription.
    """
    async with backend.open() as channel:
        position = await channel.publish(make_message(1))
        async with channel.subscribe(None) as batches:
            assert ids(await receive_all(batches)) == ["test-1"]
            quiet_since = anyio.current_time()
            with anyio.fail_after(LIMIT_SECONDS):
                assert await anext(batches) == [], "an entry comes twice"
            quiet = anyio.current_time() - quiet_since
            in_time = 0.9 * HEARTBEAT_SECONDS < quiet < HEARTBEAT_SECONDS + LATE_SECONDS
            assert in_time, f"the heartbeat came after {quiet:.2f} s"
            backend.cut()
            with anyio.fail_after(LIMIT_SECONDS):
                calls = (channel.publish(make_message(2)), channel.acquire("a"), channel.release("a"), read(channel))
                for call in (exhaust(batches), *calls):
                    with _raises(ChannelLost):
                        await call
        backend.heal()
        await channel.publish(make_message(2))
        assert ids(await read(channel, position)) == ["test-2"]
        assert ids(await read(channel)) == ["test-1", "test-2"]


class _Stop(Exception):
    """Ends a subscription by an error."""


async def _check_leave(backend: Backend) -> None:
    """Leaving a subscription normally, by an error or by cancellation frees everything that it held."""
    async with backend.open() as channel:
        await channel.publish(make_message(1))
        before = backend.held()

        async with channel.subscribe(None) as batches:
            await receive_all(batches)
            assert backend.held() > before, "`held` does not see what a subscription holds"
        await _until_freed(backend, before)
        with _raises(_Stop):
            async with channel.subscribe(None) as batches:
                await receive_all(batches)
                raise _Stop
        await _until_freed(backend, before)
        with anyio.CancelScope() as scope:
            async with channel.subscribe(None) as batches:
                await receive_all(batches)
                scope.cancel()
                await exhaust(batches)
        await _until_freed(backend, before)


async def _all_at_once(call: Callable[[A], Awaitable[R]], arguments: Sequence[A]) -> list[R]:
    """Call a function with each of these arguments at the same time, and return the results as they come."""
    results: list[R] = []

    async def add(argument: A) -> None:
        results.append(await call(argument))

    async with anyio.create_task_group() as group:
        for argument in arguments:
            group.start_soon(add, argument)
    return results


async def _until_freed(backend: Backend, count: int) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while backend.held() > count:
            await anyio.lowlevel.checkpoint()


@contextmanager
def _raises(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


_CHECKS: Mapping[str, Callable[[Backend], Awaitable[None]]] = {
    "order": _check_order,
    "seam": _check_seam,
    "gap": _check_gap,
    "once": _check_once,
    "ready": _check_ready,
    "bounded": _check_bounded,
    "leader": _check_leader,
    "outage": _check_outage,
    "leave": _check_leave,
}
PROMISES = tuple(_CHECKS)  # the names of the promises in `hello.channel`
