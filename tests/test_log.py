"""A bounded log against the plainest model of one: a list that is cut off at its front."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.log import Log
from hello.message import ORIGIN, Entry, Gap, Message, Position


def entries(steps: list[int]) -> list[Entry]:
    """Entries whose positions are these steps apart; a step of 2 and more leaves room for one that is missing."""
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
def test_a_log_gives_what_a_list_would(steps: list[int], history: int, after: int | None, limit: int) -> None:
    log: Log[Entry] = Log(history)
    made = entries(steps)
    for entry in made:
        log.append(entry)
    kept = made[-history:]
    assert len(log) == len(kept)
    assert log.head == (made[-1].position if made else None)

    position = None if after is None else Position(after, 0)
    assert log.behind(position) == sum(position is None or entry.position > position for entry in kept)
    expected: list[Entry | Gap] = []
    for entry in [entry for entry in kept if position is None or entry.position > position][:limit]:
        if position is not None and entry.prev > position:
            expected.append(Gap(position, entry.position))
        expected.append(entry)
        position = entry.position
    given_ = list(log.after(None if after is None else Position(after, 0), limit))
    assert given_ == expected
    for entry in made:
        assert log.find(entry.message.id) == (entry.position if entry in kept else None)


@given(steps=st.lists(st.integers(1, 4), max_size=30), history=st.integers(1, 12), count=st.integers(0, 40))
def test_the_newest_few_come_without_a_gap(steps: list[int], history: int, count: int) -> None:
    log: Log[Entry] = Log(history)
    made = entries(steps)
    for entry in made:
        log.append(entry)
    given_ = list(log.after(log.before_last(count))) if made else []
    wanted = made[-history:][-count:] if count else []
    assert [item for item in given_ if isinstance(item, Entry)] == wanted
    assert not given_ or isinstance(given_[0], Entry)


def test_a_log_does_not_go_back() -> None:
    log: Log[Entry] = Log(3)
    one, two = entries([1, 1])
    log.append(two)
    for late in (one, two):
        with pytest.raises(ValueError, match="does not come after"):
            log.append(late)


def test_what_was_forgotten_is_told_whatever_predecessor_the_oldest_entry_names() -> None:
    """A backend that was restored, and that nobody told how far it had been, goes on after an old position."""
    log: Log[Entry] = Log(2)
    for number, prev in ((1, 0), (2, 1), (3, 2), (4, 1), (5, 4)):
        log.append(Entry(Position(number, 0), Position(prev, 0), Message(str(number), "Hello", "b", 0)))
    first, *_ = log.after(Position(1, 0))
    assert first == Gap(Position(1, 0), Position(4, 0))
    assert [type(item) for item in log.after(Position(3, 0))] == [Entry, Entry]
