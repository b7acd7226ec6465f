"""A rollout starts and ends processes in the order of Kubernetes."""

from typing import Any

import anyio
import pytest
import trio.testing

from hello.testing import SHAPES
from tests.faults.rollout import ALL, deployment, roll_out


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Record:
    """Processes by number, with their actors; a start takes a second, and a drain longer."""

    def __init__(self, *actors: str) -> None:
        self.steps: list[str] = []
        self.ready: dict[int, str] = dict(enumerate(actors))
        self.draining = 0
        self._count = len(actors)

    async def start(self, actors: str) -> int:
        await anyio.sleep(1)
        self._count += 1
        self.ready[self._count] = actors
        self.steps.append(f"+{actors}")
        return self._count

    async def end(self, process: int) -> None:
        actors = self.ready.pop(process)
        self.steps.append(f"-{actors}")
        self.draining += 1
        await anyio.sleep(1.5)
        self.draining -= 1

    async def roll_out(self, *wanted: str, surge: int = ALL) -> None:
        await roll_out(dict(self.ready), wanted, start=self.start, end=self.end, surge=surge)
        assert sorted(self.ready.values()) == sorted(wanted)
        assert not self.draining, "it has returned before the old processes ended"

    def of(self, name: str) -> list[str]:
        return [step for step in self.steps if deployment(step[1:]) == name]


@pytest.mark.parametrize(("surge", "steps"), [(ALL, "+relay +relay -relay -relay"), (1, "+relay -relay " * 2)])
async def test_surge(surge: int, steps: str) -> None:
    """The new processes start at once, or so many at a time; each is ready before an old one is terminated."""
    record = Record("relay", "relay")
    await record.roll_out("relay", "relay", surge=surge)
    assert record.steps == steps.split()


async def test_switch_to_combined() -> None:
    """The second relay and the broadcaster end first."""
    record = Record(*SHAPES["split"])
    await record.roll_out(*SHAPES["combined"])
    assert record.of("relay") == ["-relay", "+broadcaster,relay", "-relay"]
    assert record.of("broadcaster") == ["-broadcaster"]


async def test_switch_to_split() -> None:
    """A second old process starts first, so that there are up to three broadcasters at once."""
    record = Record(*SHAPES["combined"])
    await record.roll_out(*SHAPES["split"])
    both = "broadcaster,relay"
    assert record.of("relay") == [f"+{both}", "+relay", "+relay", f"-{both}", f"-{both}"]
    assert record.of("broadcaster") == ["+broadcaster"]
