"""A bounded log of entries, read by position. It knows neither channels nor clients.

The channel in memory is such a log, and so is the history that a relay keeps for its clients.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Generic

from hello.message import ORIGIN, E, Position


class Log(Generic[E]):
    """The last `history` entries, in the order of their positions, found by position or by message id."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._ring: list[E] = []  # entry number n, counted from 0 without end, is at index n % history
        self._count = 0
        self._positions: dict[str, Position] = {}  # by message id

    @property
    def head(self) -> Position | None:
        """The position of the newest entry; None if the log has never had an entry."""
        return self._at(self._count - 1).position if self._count else None

    def find(self, message_id: str) -> Position | None:
        """Return the position of the kept entry with this message id, or None."""
        return self._positions.get(message_id)

    def append(self, entry: E) -> None:
        """Add the newest entry, and trim the oldest one if there are more than `history`.

        Its message must not be in the log: see `find`.

        Raises ValueError if its position is not after the head: readers would skip it. Raises ValueError if its `prev`
        is before the head; a `prev` after the head is a gap. The reason: if 6-0 with prev 3-0 were accepted at the head
        5-0, and 5-0 were trimmed later, a reader at 4-0 would miss 5-0 without a gap, since 6-0 follows 4-0 (see
        `Entry.follows`).
        """
        head = self.head or ORIGIN
        if entry.position <= head:
            raise ValueError(f"entry {entry.position} does not come after the head {head}")
        if entry.prev < head:
            raise ValueError(
                f"entry {entry.position} has the predecessor {entry.prev}, which is before the head {head}"
            )
        if len(self._ring) < self._history:
            self._ring.append(entry)
        else:
            oldest = self._at(self._count)  # where the new entry goes
            del self._positions[oldest.message.id]
            self._ring[self._count % self._history] = entry
        self._positions[entry.message.id] = entry.position
        self._count += 1

    def after(self, position: Position | None, limit: int | None = None) -> Iterator[E]:
        """Yield the kept entries after `position` (None: from the oldest), oldest first, at most `limit` of them.

        A position ahead of the head yields nothing: a client may come from a relay that is a moment ahead of this one.
        Nothing may be appended before the iterator is used up.
        """
        start = self._count - self.count_after(position)
        end = self._count if limit is None else min(start + limit, self._count)
        return (self._at(number) for number in range(start, end))

    def keeps_all_after(self, position: Position) -> bool:
        """Return True if no entry after `position` has been trimmed."""
        return not self._ring or self._at(self._count - len(self._ring)).follows(position)

    def count_after(self, position: Position | None) -> int:
        """Return how many kept entries come after `position`; all of them come after None."""
        kept = len(self._ring)
        if position is None:
            return kept
        if kept and self._at(self._count - 1).position <= position:
            return 0  # by far the most frequent answer
        numbers = range(self._count - kept, self._count)
        return kept - bisect_right(numbers, position, key=lambda number: self._at(number).position)

    def before_newest(self, count: int) -> Position | None:
        """Return the position from which a reader gets the `count` newest entries, and no gap before the first one."""
        if count == 0 or not self._count:
            return self.head
        return self._at(self._count - min(count, len(self._ring))).prev

    def _at(self, number: int) -> E:
        return self._ring[number % self._history]
