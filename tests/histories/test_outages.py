"""The promise as properties, in virtual time: whatever is killed, cut, wiped or restarted, in whichever order.

A history of steps runs over processes whose broadcaster publishes by itself, or by a step of the history alone. The
checker finds what was wrong.
"""

import logging
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hello.testing import SHAPES
from tests.histories.harness import ON_DEMAND
from tests.histories.steps import Step, histories, run, wait

HISTORY = 4  # short, so that most histories trim
PUBLISH = [Step("publish", (count, by)) for count in range(1, HISTORY + 2) for by in range(2)]
SHAPE = st.sampled_from(sorted(SHAPES, reverse=True))
DRAIN = {"drain_seconds": 1}

# Each property has a few examples in the quick tier, and many in the tier `slow`.
few_and_many = pytest.mark.parametrize("share", [0.1, pytest.param(1.0, marks=pytest.mark.slow)], ids=["few", "many"])


@pytest.fixture(autouse=True, scope="module")
def _silence() -> Iterator[None]:
    """A thousand outages would be a long log."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", range(3))  # for as many workers
@few_and_many
def test_messages_on_demand(share: float, part: int) -> None:
    """Exactly once, in order, and every loss reported, with bursts of messages anywhere between the faults."""
    progress = histories(PUBLISH, PUBLISH, [wait(0.1), wait(1), wait(4)])  # two times in three a message is published

    @settings(deadline=None, max_examples=int(share * 300))
    @given(shape=SHAPE, steps=progress, hurry=st.booleans())
    def check(shape: str, steps: Sequence[Step], hurry: bool) -> None:
        assert run(shape, steps, history=HISTORY, hurry=hurry, broadcaster=ON_DEMAND, **DRAIN) == []

    check()


@few_and_many
def test_messages_at_intervals(share: float) -> None:
    """Exactly once, in order, and every loss reported, with the broadcaster of production."""

    @settings(deadline=None, max_examples=int(share * 200))
    @given(shape=SHAPE, steps=histories([wait(0.1), wait(0.5), wait(2), wait(5)]), hurry=st.booleans())
    def check(shape: str, steps: Sequence[Step], hurry: bool) -> None:
        assert run(shape, steps, history=HISTORY, hurry=hurry, interval_min=0.3, interval_max=1.0, **DRAIN) == []

    check()
