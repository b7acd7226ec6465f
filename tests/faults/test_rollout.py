"""A rollout starts and ends processes in the order in which Kubernetes does."""

import anyio
import pytest

from hello.testing import SHAPES
from tests.faults.rollout import deployment, roll_out

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the order is the same on each loop


class Record:
    """Processes are their actors and a number; those that were told to stop end when nothing else can happen."""

    def __init__(self, *actors: str) -> None:
        self.steps: list[str] = []
        self.ready: dict[int, str] = dict(enumerate(actors))
        self.draining = 0
        self._count = len(actors)

    async def start(self, actors: str) -> int:
        await anyio.wait_all_tasks_blocked()
        self._count += 1
        self.ready[self._count] = actors
        self.steps.append(f"+{actors}")
        return self._count

    async def end(self, process: int) -> None:
        actors = self.ready.pop(process)
        self.steps.append(f"-{actors}")
        self.draining += 1
        await anyio.wait_all_tasks_blocked()
        self.draining -= 1

    async def roll_out(self, *wanted: str) -> None:
        await roll_out(dict(self.ready), wanted, start=self.start, end=self.end)
        assert sorted(self.ready.values()) == sorted(wanted)
        assert not self.draining, "it returns once the old have ended"

    def of(self, name: str) -> list[str]:
        return [step for step in self.steps if deployment(step[1:]) == name]


async def test_each_new_process_is_ready_before_an_old_one_is_told_to_stop() -> None:
    record = Record("relay", "relay")
    await record.roll_out("relay", "relay")
    assert record.steps == ["+relay", "-relay"] * 2


async def test_from_split_to_combined_the_second_relay_and_the_broadcaster_go_first() -> None:
    record = Record(*SHAPES["split"])
    await record.roll_out(*SHAPES["combined"])
    assert record.of("relay") == ["-relay", "+broadcaster,relay", "-relay"]
    assert record.of("broadcaster") == ["-broadcaster"]


async def test_from_combined_to_split_a_second_one_of_the_old_comes_first() -> None:
    """So that there are up to three broadcasters at once."""
    record = Record(*SHAPES["combined"])
    await record.roll_out(*SHAPES["split"])
    both = "broadcaster,relay"
    assert record.of("relay") == [f"+{both}", "+relay", f"-{both}", "+relay", f"-{both}"]
    assert record.of("broadcaster") == ["+broadcaster"]
