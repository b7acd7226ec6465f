"""The relay: how many bytes it appends between two notifications, and the losses that it counts."""

from collections.abc import AsyncGenerator
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from hello.channel import Batch
from hello.feed import BLOCK_BYTES
from hello.hub import Client, Hub
from hello.message import ORIGIN, Entry, Message, Position
from hello.metrics import Metrics
from hello.relay import relay

MESSAGES = 1000


class EagerClient(Client):
    """A client that polls at each notification; `polled` has the bytes of each poll, by notification."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.polled: list[list[int]] = []

    def notify(self) -> None:
        polls = []
        while (pending := self.poll()) is not None:
            polls.append(sum(len(frame.json) for frame in pending.frames))
        if polls:
            self.polled.append(polls)


@pytest.mark.parametrize("size", [1, 120, 4096])
async def test_large_batch_in_writes(size: int) -> None:
    """A large batch reaches a caught-up client in single writes, and other tasks run in between."""
    hub = Hub(history=MESSAGES, instance="relay-1", max_clients=10, metrics=Metrics())
    client = EagerClient(hub)
    entries: list[Entry] = []
    for number in range(1, MESSAGES + 1):
        prev = entries[-1].position if entries else ORIGIN
        entries.append(Entry(Position(number, 0), prev, Message(str(number), "x" * size, "b", 0)))
    counts = [0]  # of notifications, at each run of another task

    async def other_task() -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            counts.append(len(client.polled))

    async def batches() -> AsyncGenerator[Batch, None]:
        yield []
        hub.join(client, 0)
        client.notify()  # the welcome
        await anyio.lowlevel.checkpoint()
        yield list(entries)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(other_task)
        await group.start(lambda task_status: relay(batches(), hub, metrics=Metrics(), task_status=task_status))
        while hub.feed.head != entries[-1].position or hub.feed.count_after(client.cursor):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()

    counts.append(len(client.polled))
    writes = client.polled[1:]
    assert all(len(polls) == 1 for polls in writes), "one write for each notification"
    assert sum(map(sum, writes)) / BLOCK_BYTES + 1 > len(writes) * 0.9, "each write is nearly a block"
    assert len(writes) > 5
    # Two, since trio runs the tasks that are ready in a random order.
    assert all(later - earlier <= 2 for earlier, later in pairwise(counts)), "another task ran in between"


async def test_losses_are_counted() -> None:
    """The relay counts each entry that does not follow the one before, and none at its start."""
    hub, metrics = Hub(history=10, instance="relay-1", max_clients=10, metrics=Metrics()), Metrics()

    async def batches() -> AsyncGenerator[Batch, None]:
        for number, prev in ((5, 4), (6, 5), (9, 8), (12, 9), (20, 15)):
            yield [Entry(Position(number, 0), Position(prev, 0), Message(str(number), "x", "b", 0))]

    await relay(batches(), hub, metrics=metrics)
    assert metrics.registry.get_sample_value("hello_gaps_total", {"reader": "relay"}) == 2
