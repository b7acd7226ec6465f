"""A bounded log of entries, read by position. It must not know channels or clients.

The channel in memory is such a log, and so is the history that a relay keeps for its clients.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Generic

from hello.message import ORIGIN, E, Gap, Position, with_gaps


class Log(Generic[E]):
    """The last `history` entries, in the order of their positions, found by position or by message id."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._ring: list[E] = []  # entry number n, counted from 0 without end, is at index n % history
        self._count = 0
        self._positions: dict[str, Position] = {}  # by message id
        self._trimmed = ORIGIN  # the newest position that is no longer kept

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def head(self) -> Position | None:
        """The position of the newest entry; None if the log has never had an entry."""
        return self._at(self._count - 1).position if self._count else None

    def find(self, message_id: str) -> Position | None:
        """Return the position of the kept entry with this message id, or None."""
        return self._positions.get(message_id)

    def append(self, entry: E) -> None:
        """Add the newest entry, and trim the oldest one if there are more than `history`.

        Raises ValueError if the position of the entry is not after the head: readers would skip the entry.
        """
        if self.head is not None and entry.position <= self.head:
            raise ValueError(f"entry {entry.position} does not come after {self.head}")
        if len(self._ring) < self._history:
            self._ring.append(entry)
        else:
            oldest = self._at(self._count)
            self._trimmed = oldest.position
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

    def with_gaps(self, entries: Sequence[E], position: Position | None) -> Iterator[E | Gap]:
        """Yield `entries`, the first ones of `after(position)`, and a Gap before each that does not follow.

        Where the log has trimmed entries after `position`, the first item is always a Gap: the `prev` of the oldest
        kept entry does not show that loss if the entry was appended to a channel restored from an older snapshot.
        """
        if not entries or position is None or self.keeps_all_after(position):
            yield from with_gaps(entries, position)
        else:
            yield Gap(position, entries[0].position)
            yield from with_gaps(entries, None)

    def keeps_all_after(self, position: Position) -> bool:
        """Return True if no entry after `position` has been trimmed."""
        return self._trimmed <= position

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
        """Return the position after which a reader gets the `count` newest entries and then every new one."""
        if count == 0 or not self._count:
            return self.head
        return self._at(self._count - min(count, len(self._ring))).prev

    def _at(self, number: int) -> E:
        return self._ring[number % self._history]
