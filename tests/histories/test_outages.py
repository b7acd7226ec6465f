"""The promise as properties, on virtual time: whatever is killed, cut off, wiped or restarted, and in whichever order.

One history of steps, run over whole processes with a broadcaster that speaks by itself, or over bare ones (no servers),
which are quicker by far. The checker reads what happened, and says what should not have been.
"""

import logging
import os
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hello.testing import SHAPES, Process
from tests.histories.steps import Publish, Step, Wait, histories, run
from tests.histories.world import Bare

CI = bool(os.environ.get("CI"))
HISTORY = 4  # short, so that most histories trim
SAYS = [Publish(count, by) for count in range(1, HISTORY + 2) for by in range(2)]
SHAPE = st.sampled_from(sorted(SHAPES, reverse=True))


@pytest.fixture(autouse=True, scope="module")
def _silence() -> Iterator[None]:
    """A thousand outages would be a long log."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


BARE = given(
    shape=SHAPE,
    steps=histories(SAYS, SAYS, [Wait(0.1), Wait(1), Wait(4)]),  # two times in three something is said
    hurry=st.booleans(),
)
WHOLE = given(
    shape=SHAPE,
    steps=histories([Wait(0.1), Wait(0.5), Wait(2), Wait(5)]),
    hurry=st.booleans(),
)


def run_bare(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    assert run(Bare, shape, steps, history=HISTORY, hurry=hurry) == []


def run_whole(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    flags = {"interval_min": 0.3, "interval_max": 1.0, "drain_seconds": 1}
    assert run(Process, shape, steps, history=HISTORY, hurry=hurry, **flags) == []


# Each property has a few examples in the quick tier, and many in the tier `slow`.
few = settings(deadline=None, max_examples=60)
many = settings(deadline=None, max_examples=2000 if CI else 600)


@few
@BARE
def test_histories_of_bare_processes(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    run_bare(shape, steps, hurry)


@pytest.mark.slow
@many
@BARE
def test_many_histories_of_bare_processes(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    run_bare(shape, steps, hurry)


@settings(few, max_examples=25)
@WHOLE
def test_histories_of_the_whole_system(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    run_whole(shape, steps, hurry)


@pytest.mark.slow
@settings(many, max_examples=400 if CI else 200)
@WHOLE
def test_many_histories_of_the_whole_system(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    run_whole(shape, steps, hurry)
