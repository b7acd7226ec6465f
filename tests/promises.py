"""The rules for what a reader of the channel receives, for the checkers of tests/faults and tests/histories.

A reader is a client, over all its connections, or one subscription of a relay. The rules know no clock, no process and
no socket: a checker knows which entries were accepted, and decides which of them are lost to a reader.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from operator import attrgetter
from typing import NamedTuple

from hello.message import Gap, Position

KINDS = ("missing", "repeated", "out of order", "invented", "false gap", "unreported gap", "late", "status", "leader")

_position = attrgetter("position")


class Finding(NamedTuple):
    """A broken promise: its kind, when it was broken, and what happened."""

    kind: str
    at: float
    text: str


@dataclass(slots=True)
class Accepted:
    """An entry that the channel accepted, and when it was first gone: lost, or trimmed from the history."""

    at: float
    position: Position
    id: str
    broadcaster: str | None
    removed_at: float | None = None


class Received(NamedTuple):
    """A message that a reader received, with the gap that was reported before it.

    `shown` is False if the client did not show the message, since it had shown it before, and None for a relay.
    `certain` is False if the gap may be none.
    """

    at: float
    position: Position
    id: str
    gap: Gap | None = None
    shown: bool | None = True
    certain: bool = True


class State(NamedTuple):
    """What a client knows of the channel from now on: `up`, `down`, or `gone` while it does not receive."""

    at: float
    state: str
    relay: str


class AcceptedLog:
    """All entries that were ever accepted, in order."""

    def __init__(self, entries: Iterable[Accepted] = ()) -> None:
        self.entries: list[Accepted] = []
        self.had_by_all: set[Position] = set()  # lost once every reader had them: nothing shows that they are missing
        self._by_position: dict[Position, Accepted] = {}
        for entry in entries:
            self.append(entry)

    def append(self, entry: Accepted) -> None:
        self.entries.append(entry)
        self._by_position[entry.position] = entry

    def has(self, position: Position, message_id: str) -> bool:
        """True if this message was accepted at this position."""
        entry = self._by_position.get(position)
        return entry is not None and entry.id == message_id

    def between(self, after: Position | None, before: Position) -> Sequence[Accepted]:
        """Return the entries between two positions, both excluded; none if `after` is None."""
        if after is None:
            return ()
        start = bisect_right(self.entries, after, key=_position)
        if start < len(self.entries) and self.entries[start].position == before:
            return ()  # by far the most frequent answer
        between = self.entries[start : bisect_left(self.entries, before, key=_position)]
        return [each for each in between if each.position not in self.had_by_all]


class Reader:
    """Checks what one reader receives, message by message. `cursor` is where it starts; None: at any entry.

    `is_lost(entry, at)` is True if this reader cannot receive an entry any more at that time, False if the entry must
    be the next one that the reader receives, and None if the reader need not receive it.
    """

    def __init__(
        self,
        name: str,
        log: AcceptedLog,
        is_lost: Callable[[Accepted, float], bool | None],
        cursor: Position | None = None,
    ) -> None:
        self.name = name
        self.cursor = cursor  # the reader has received all messages up to here, or a gap in their place
        self.shown: set[str] = set()  # message ids
        self._log = log
        self._is_lost = is_lost
        self._received: set[Position] = set()

    def receive(self, message: Received) -> list[Finding]:
        """Return what is wrong with a message, the gap before it, or the lack of a gap."""
        what = f"{self.name}: {message.id} at {message.position}"
        return [Finding(kind, message.at, f"{what} {text}") for kind, text in self._receive(message)]

    def _receive(self, message: Received) -> Iterator[tuple[str, str]]:
        position, gap = message.position, message.gap
        if not self._log.has(position, message.id):
            yield "invented", "was never accepted"
            return
        if position in self._received:
            yield "repeated", "was received before"
            return
        if self.cursor is not None and position <= self.cursor:
            yield "out of order", f"was received after {self.cursor}"
            return
        if message.shown and message.id in self.shown:
            yield "repeated", "was shown before"
        if message.shown is False and message.id not in self.shown:
            yield "missing", "was received, and never shown"
        if gap is not None and message.certain:
            yield from self._check_gap(gap, message)
        for entry in self._log.between(self.cursor, position):
            if message.shown is not None and (entry.id in self.shown or entry.id == message.id):
                continue  # accepted again after a loss: the client has the first one, or this one
            if (lost := self._is_lost(entry, message.at)) is None:
                continue
            if not lost:
                yield "missing", f"was received without {entry.id} at {entry.position}, which is not lost"
            elif gap is None or not gap.after < entry.position < gap.before:
                yield "unreported gap", f"was received, and not that {entry.id} at {entry.position} is lost"
        self.cursor = position
        self._received.add(position)
        if message.shown:
            self.shown.add(message.id)

    def _check_gap(self, gap: Gap, message: Received) -> Iterator[tuple[str, str]]:
        what = f"was received with a gap from {gap.after} to {gap.before},"
        if gap.before > message.position or (self.cursor is not None and gap.after < self.cursor):
            yield "false gap", f"{what} and all messages up to {self.cursor} before"
        elif not any(self._is_lost(entry, message.at) for entry in self._log.between(gap.after, gap.before)):
            yield "false gap", f"{what} where no message is lost"


def seconds_to_down(states: Sequence[State], relay: str, start: float, limit: float) -> float | None:
    """Return how long after the start of an outage a client knew that the channel is down: inf if not within `limit`.

    None if the client was not connected to this relay all the time.
    """
    number = bisect_right(states, start, key=attrgetter("at"))
    meanwhile = [state for state in states[max(number - 1, 0) :] if state.at <= start + limit]
    if number == 0 or not all(state.relay == relay and state.state != "gone" for state in meanwhile):
        return None
    return next((max(state.at - start, 0.0) for state in meanwhile if state.state == "down"), inf)
