"""The leader's lease of two broadcasters, through pauses and outages, in virtual time."""

import sys
from types import SimpleNamespace

import anyio
import pytest
from anyio.abc import TaskGroup

from hello.broadcaster import Publisher
from hello.channel import ChannelLost
from hello.channel.memory import MemoryChannel
from hello.lease import RENEW_SECONDS, Lease
from hello.message import Message, Position
from hello.metrics import Metrics
from hello.testing import Client, CuttableChannel, running
from hello.testing.conformance import read

HOUR = 3600

pytestmark = pytest.mark.parametrize("anyio_backend", ["virtual time"], indirect=True)


class LossyChannel(CuttableChannel):
    """A channel that is cut after the next publish was accepted and before its reply, if `lose_reply` is set."""

    lose_reply = False

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        position = await super().publish(message, holder)
        if self.lose_reply:
            self.lose_reply = False
            self.cut()
            raise ChannelLost("the reply was lost")
        return position


class EvictingChannel(CuttableChannel):
    """A channel whose lease is evicted before each of the next `evictions` publishes, as Redis does it in need.

    With a `successor`, that holder acquires it.
    """

    evictions = 0
    successor: str | None = None

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        if self.evictions and holder is not None:
            self.evictions -= 1
            await self.release(holder)
            if self.successor is not None:
                await self.acquire(self.successor)
        return await super().publish(message, holder)


class Pair:
    """The leases of two broadcasters on one channel, each with a connection of its own."""

    def __init__(self) -> None:
        self.channel = MemoryChannel(100)
        self.connections = [LossyChannel(self.channel), LossyChannel(self.channel)]
        self.one, self.two = (
            Lease(connection, instance, Metrics()) for connection, instance in zip(self.connections, "ab", strict=True)
        )

    async def texts(self) -> list[str]:
        """Return the texts of the messages that the channel has accepted."""
        return [entry.message.text for entry in await read(self.channel)]


@pytest.fixture
async def pair() -> Pair:
    return Pair()


async def renewing(group: TaskGroup, lease: Lease) -> None:
    """Let the lease be renewed, and return once the channel has replied."""
    group.start_soon(lease.renew)
    await lease.status.ready.wait()


async def test_leader(pair: Pair) -> None:
    """The first is the leader at once, the second after the release; each learns since when it is the leader."""
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        await renewing(group, pair.one)
        assert await pair.one.leader() == began
        await renewing(group, pair.two)
        with anyio.move_on_after(HOUR) as waiting:
            await pair.two.leader()
        assert waiting.cancelled_caught
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(pair.two.renew)
        await pair.one.release()
        with anyio.fail_after(RENEW_SECONDS + 0.1):
            assert began + HOUR <= await pair.two.leader() == anyio.current_time()
        assert await pair.one.leader() == began
        group.cancel_scope.cancel()


async def test_evicted_lease_costs_no_message() -> None:
    """A lease that is evicted again and again costs no message, as long as no other holder becomes the leader."""
    channel = EvictingChannel(MemoryChannel(100))
    lease = Lease(channel, "a", Metrics())
    async with anyio.create_task_group() as group:
        await renewing(group, lease)
        for number in range(5):
            channel.evictions = number
            assert await lease.publish(str(number)) is not None
        assert lease.is_leader
        group.cancel_scope.cancel()
    assert [entry.message.text for entry in await read(channel)] == [str(number) for number in range(5)]


async def test_actor_learns_what_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor gets the position of each message, and None for one that a new leader fenced; nothing ends."""
    channel = EvictingChannel(MemoryChannel(100))
    results: list[Position | None] = []

    async def actor(publisher: Publisher) -> None:
        while True:
            await publisher.leader()
            results.append(await publisher.publish(str(len(results))))
            channel.evictions, channel.successor = int(len(results) == 2), "another"
            await anyio.sleep(1)

    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(actor=actor))
    client = Client()
    async with running("combined", channel, broadcaster="own:actor") as system, client.open(system.relays[0]):
        await client.until_shown(4)
    assert [message["text"] for message in client.shown[:4]] == ["0", "1", "3", "4"]
    shown = [message["position"] for message in client.shown[:4]]
    assert [position and str(position) for position in results[:5]] == [*shown[:2], None, *shown[2:]]


@pytest.mark.parametrize("accepted", [True, False], ids=["reply lost", "request lost"])
async def test_new_leader_after_outage(pair: Pair, accepted: bool) -> None:
    """Under a new leader a message that was accepted stays, once, and one that was not is dropped."""
    connection = pair.connections[0]
    position: list[Position | None] = []

    async def publish() -> None:
        position.append(await pair.one.publish("first"))

    async with anyio.create_task_group() as group:
        await renewing(group, pair.one)
        await renewing(group, pair.two)
        if accepted:
            connection.lose_reply = True
        else:
            connection.cut()
        async with anyio.create_task_group() as publishing:
            publishing.start_soon(publish)
            await pair.two.leader()
            await pair.two.publish("second")
            connection.heal()
        group.cancel_scope.cancel()
    assert await pair.texts() == (["first", "second"] if accepted else ["second"])
    assert (position[0] is not None) is accepted
