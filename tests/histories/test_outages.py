"""The promise as properties, in virtual time: whatever is killed, cut, wiped or restarted, in whichever order.

A history of steps runs over whole processes, whose broadcaster publishes by itself, or over bare ones (no servers),
which are quicker by far. The checker finds what was wrong.
"""

import logging
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hello.testing import SHAPES, Process
from tests.histories.harness import BareProcess
from tests.histories.steps import Step, histories, run, wait

HISTORY = 4  # short, so that most histories trim
PUBLISH = [Step("publish", (count, by)) for count in range(1, HISTORY + 2) for by in range(2)]
FLAGS = {"interval_min": 0.3, "interval_max": 1.0, "drain_seconds": 1}  # of whole processes
SHAPE = st.sampled_from(sorted(SHAPES, reverse=True))
BARE = given(
    shape=SHAPE,
    steps=histories(PUBLISH, PUBLISH, [wait(0.1), wait(1), wait(4)]),  # two times in three a message is published
    hurry=st.booleans(),
)
WHOLE = given(
    shape=SHAPE,
    steps=histories([wait(0.1), wait(0.5), wait(2), wait(5)]),
    hurry=st.booleans(),
)

# Each property has a few examples in the quick tier, and many in the tier `slow`.
few = settings(deadline=None, max_examples=60)
many = settings(deadline=None, max_examples=300)
PARTS = pytest.mark.parametrize("part", range(3))  # of the many, for as many workers


@pytest.fixture(autouse=True, scope="module")
def _silence() -> Iterator[None]:
    """A thousand outages would be a long log."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@few
@BARE
def test_bare_processes(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    """Exactly once, in order, and every loss reported, over a few histories."""
    assert run(BareProcess, shape, steps, history=HISTORY, hurry=hurry) == []


@pytest.mark.slow
@PARTS
@many
@BARE
def test_bare_processes_at_length(shape: str, steps: Sequence[Step], hurry: bool, part: int) -> None:
    """The same over many histories."""
    assert run(BareProcess, shape, steps, history=HISTORY, hurry=hurry) == []


@settings(few, max_examples=25)
@WHOLE
def test_whole_processes(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    """Exactly once, in order, and every loss reported, with settings, servers and drain, over a few histories."""
    assert run(Process, shape, steps, history=HISTORY, hurry=hurry, **FLAGS) == []


@pytest.mark.slow
@settings(many, max_examples=200)
@WHOLE
def test_whole_processes_at_length(shape: str, steps: Sequence[Step], hurry: bool) -> None:
    """The same over many histories."""
    assert run(Process, shape, steps, history=HISTORY, hurry=hurry, **FLAGS) == []
