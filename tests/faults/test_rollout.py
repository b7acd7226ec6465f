"""A rollout starts and ends processes in the order of Kubernetes."""

import anyio
import pytest

from hello.testing import SHAPES
from tests.faults.rollout import ALL, deployment, roll_out

pytestmark = pytest.mark.parametrize("anyio_backend", ["virtual time"], indirect=True)

RELAYS, BOTH = ["relay", "relay"], "broadcaster,relay"


@pytest.mark.parametrize(
    ("old", "wanted", "surge", "relays", "broadcasters"),
    [
        pytest.param(RELAYS, RELAYS, ALL, ["+relay", "+relay", "-relay", "-relay"], [], id="all at once"),
        pytest.param(RELAYS, RELAYS, 1, ["+relay", "-relay", "+relay", "-relay"], [], id="one by one"),
        # The second relay and the broadcaster end first.
        pytest.param(
            *(SHAPES["split"], SHAPES["combined"], ALL, ["-relay", f"+{BOTH}", "-relay"], ["-broadcaster"]),
            id="switch to combined",
        ),
        # A second old process starts first, so that there are up to three broadcasters at once.
        pytest.param(
            *(SHAPES["combined"], SHAPES["split"], ALL),
            *([f"+{BOTH}", "+relay", "+relay", f"-{BOTH}", f"-{BOTH}"], ["+broadcaster"]),
            id="switch to split",
        ),
    ],
)
async def test_order(old: list[str], wanted: list[str], surge: int, relays: list[str], broadcasters: list[str]) -> None:
    """The new processes start at once, or so many at a time; each is ready before an old one is terminated."""
    running, steps, draining = dict(enumerate(old)), list[str](), 0

    async def start(actors: str) -> int:
        await anyio.sleep(1)
        steps.append(f"+{actors}")
        process = len(old) + len(steps)
        running[process] = actors
        return process

    async def end(process: int) -> None:
        nonlocal draining
        steps.append(f"-{running.pop(process)}")
        draining += 1
        await anyio.sleep(1.5)
        draining -= 1

    await roll_out(dict(running), wanted, start=start, end=end, surge=surge)
    assert sorted(running.values()) == sorted(wanted)
    assert not draining, "it has returned before the old processes ended"
    assert [step for step in steps if deployment(step[1:]) == "relay"] == relays
    assert [step for step in steps if deployment(step[1:]) == "broadcaster"] == broadcasters
