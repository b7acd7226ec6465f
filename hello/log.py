"""A bounded log of entries that readers follow by position; it knows neither channels nor browsers.

The memory channel is such a log, and so is what a relay keeps for its browsers.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import Generic

from hello.message import ORIGIN, E, Gap, Position, told


class Log(Generic[E]):
    """The last `history` entries, in order of their positions, found by position or by message id."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._ring: list[E] = []  # entry number n, counted from 0 for ever, lies at n % history
        self._count = 0
        self._positions: dict[str, Position] = {}
        self._forgotten = ORIGIN  # the newest position that is not kept any more

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def head(self) -> Position | None:
        """The newest entry's position; None while the log has never had one."""
        return self._at(self._count - 1).position if self._count else None

    def find(self, message_id: str) -> Position | None:
        """The position of the kept entry with this message id, or None."""
        return self._positions.get(message_id)

    def append(self, entry: E) -> None:
        """Add the newest entry, and forget the oldest beyond `history`.

        Raises ValueError if its position is not after the head: a log that goes back would hide entries.
        """
        if self.head is not None and entry.position <= self.head:
            raise ValueError(f"entry {entry.position} does not come after {self.head}")
        if len(self._ring) < self._history:
            self._ring.append(entry)
        else:
            oldest = self._at(self._count)
            self._forgotten = oldest.position
            del self._positions[oldest.message.id]
            self._ring[self._count % self._history] = entry
        self._positions[entry.message.id] = entry.position
        self._count += 1

    def after(self, position: Position | None, limit: int | None = None) -> Iterator[E | Gap]:
        """The kept entries after `position` (None: from the oldest), `limit` at most, each loss told before the next.

        A position ahead of the head is not an error: a reader may come from a relay that is a moment ahead of this one.
        Nothing may be appended while what is returned is in use.
        """
        start = self._count - self.behind(position)
        end = self._count if limit is None else min(start + limit, self._count)
        entries = (self._at(n) for n in range(start, end))
        if position is None or self.keeps_after(position):
            return told(entries, position)
        # The oldest entry may name a predecessor older than what was forgotten: a restored backend went on from there.
        return chain([Gap(position, self._at(start).position)], told(entries, None))

    def keeps_after(self, position: Position) -> bool:
        """Whether nothing was forgotten that a reader has not seen which has seen everything up to `position`."""
        return self._forgotten <= position

    def behind(self, position: Position | None) -> int:
        """How many kept entries come after `position`; None is before them all."""
        kept = len(self._ring)
        if position is None:
            return kept
        if kept and self._at(self._count - 1).position <= position:
            return 0  # by far the most frequent answer
        numbers = range(self._count - kept, self._count)
        return kept - bisect_right(numbers, position, key=lambda number: self._at(number).position)

    def before_last(self, count: int) -> Position | None:
        """The position from which a reader gets the `count` newest entries and then what comes."""
        if count == 0 or not self._count:
            return self.head
        return self._at(self._count - min(count, len(self._ring))).prev

    def _at(self, number: int) -> E:
        return self._ring[number % self._history]
