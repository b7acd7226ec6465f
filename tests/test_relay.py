"""The actor that passes on: in which pieces."""

from collections.abc import AsyncGenerator
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from hello.audience import Audience, Browser
from hello.channel import Batch
from hello.feed import BLOCK
from hello.message import ORIGIN, Entry, Message, Position
from hello.metrics import Metrics
from hello.relay import relay

MESSAGES = 1000


class Eager(Browser):
    """A browser that takes what it is owed whenever it is told of something; `taken` has the bytes of each time."""

    def __init__(self, audience: Audience) -> None:
        super().__init__(audience)
        self.taken: list[list[int]] = []

    def ring(self) -> None:
        times = []
        while (owed := self.take()) is not None:
            times.append(sum(len(frame.json) for frame in owed.frames))
        if times:
            self.taken.append(times)


@pytest.mark.parametrize("size", [1, 120, 4096])
async def test_much_is_passed_on_in_pieces_of_one_write_with_a_turn_for_others_between(size: int) -> None:
    """However much comes at once: who has been given everything stays so, and nobody else waits for all of it."""
    audience = Audience(history=MESSAGES, instance="relay-1", max_clients=10, metrics=Metrics())
    browser = Eager(audience)
    said: list[Entry] = []
    for number in range(1, MESSAGES + 1):
        prev = said[-1].position if said else ORIGIN
        said.append(Entry(Position(number, 0), prev, Message(str(number), "x" * size, "b", 0)))
    turns = [0]

    async def others() -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            turns.append(len(browser.taken))

    async def inbox() -> AsyncGenerator[Batch, None]:
        yield []
        audience.join(browser, 0)
        browser.ring()  # the welcome
        await anyio.lowlevel.checkpoint()
        yield list(said)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        await group.start(lambda task_status: relay(inbox(), audience, metrics=Metrics(), task_status=task_status))
        while audience.head != said[-1].position or browser.behind:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()

    turns.append(len(browser.taken))
    pieces = browser.taken[1:]
    assert all(len(times) == 1 for times in pieces), "no more than one write each"
    assert sum(map(sum, pieces)) / BLOCK + 1 > len(pieces) * 0.9, "nor fewer messages in one than there is room for"
    assert len(pieces) > 5
    # Two: trio runs in any order those whose turn it is.
    assert all(later - earlier <= 2 for earlier, later in pairwise(turns)), "others had a turn"
