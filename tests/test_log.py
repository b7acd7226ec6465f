"""The bounded log against a model: a list that is cut off at its front."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.log import Log
from hello.message import ORIGIN, Entry, Gap, Message, Position, with_gaps


def entries(steps: list[int]) -> list[Entry]:
    """Return entries whose positions are these steps apart; a step over 2 stands for a lost entry."""
    made: list[Entry] = []
    for number, step in enumerate(steps):
        prev = made[-1].position if made else ORIGIN
        position = Position(prev.milliseconds + step, 0)
        lost = Position(position.milliseconds - 1, 0) if step > 2 else prev
        made.append(Entry(position, lost, Message(str(number), "x", "b", 0)))
    return made


@given(
    steps=st.lists(st.integers(1, 4), max_size=30),
    history=st.integers(1, 12),
    after=st.none() | st.integers(0, 100),
    limit=st.integers(1, 40),
)
def test_log_is_a_list(steps: list[int], history: int, after: int | None, limit: int) -> None:
    """From every position the log yields the kept entries of the list, and the gaps between them."""
    log: Log[Entry] = Log(history)
    made = entries(steps)
    for entry in made:
        log.append(entry)
    kept = made[-history:]
    assert log.count_after(None) == len(kept)
    assert log.head == (made[-1].position if made else None)

    position = None if after is None else Position(after, 0)
    assert log.count_after(position) == sum(position is None or entry.position > position for entry in kept)
    expected: list[Entry | Gap] = []
    for entry in [entry for entry in kept if position is None or entry.position > position][:limit]:
        if position is not None and entry.prev > position:
            expected.append(Gap(position, entry.position))
        expected.append(entry)
        position = entry.position
    position = None if after is None else Position(after, 0)
    found = list(log.after(position, limit))
    assert list(with_gaps(found, position)) == expected
    for entry in made:
        assert log.find(entry.message.id) == (entry.position if entry in kept else None)


@given(steps=st.lists(st.integers(1, 4), max_size=30), history=st.integers(1, 12), count=st.integers(0, 40))
def test_newest_without_gap(steps: list[int], history: int, count: int) -> None:
    """The newest entries begin without a gap."""
    log: Log[Entry] = Log(history)
    made = entries(steps)
    for entry in made:
        log.append(entry)
    start = log.before_newest(count)
    found = list(log.after(start)) if made else []
    assert found == (made[-history:][-count:] if count else [])
    assert not found or next(with_gaps(found, start)) is found[0]


def test_positions_never_go_back() -> None:
    """An entry at or before the head, or with a predecessor before the head, is refused."""
    log: Log[Entry] = Log(3)
    one, two = entries([1, 1])
    log.append(two)
    early = Entry(Position(9, 0), one.position, Message("9", "x", "b", 0))
    for late, error in ((one, "does not come after"), (two, "does not come after"), (early, "before the head")):
        with pytest.raises(ValueError, match=error):
            log.append(late)
