"""What travels: Message, Position, Entry and Gap, values that know their wire form and nothing else."""

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypeVar

LARGEST_INTEGER = 2**53 - 1  # the largest that JavaScript, and Lua inside Redis, still count exactly
MAX_ID = 128  # characters; a UUID has 36
MAX_NAME = 253  # characters; the longest name that DNS, and so Kubernetes, gives a host
MAX_TEXT = 4096  # characters; a frame stays small enough to be sent to thousands of browsers

_POSITION = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")


def now_ms() -> int:
    """UNIX time in milliseconds, as it stands in messages and positions."""
    return time.time_ns() // 1_000_000


class Malformed(ValueError):
    """Input that is not what it claims to be; the message says what is wrong with it."""


class Position(NamedTuple):
    """Where an entry stands in a channel; positions compare as pairs of integers, never as text."""

    milliseconds: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `MILLISECONDS-SEQUENCE`, both decimal without leading zeros.

        Raises Malformed for anything else.
        """
        found = _POSITION.fullmatch(text)
        if found is None:
            raise Malformed(f"a position is MILLISECONDS-SEQUENCE, such as 1700000000000-0, not {text[:40]!r}")
        position = cls(int(found[1]), int(found[2]))
        if max(position) > LARGEST_INTEGER:
            raise Malformed(f"a position's numbers are at most {LARGEST_INTEGER}, not {text[:40]!r}")
        return position

    def following(self, clock: int) -> "Position":
        """The position of the next entry when the clock says `clock` (UNIX milliseconds): it never goes back."""
        return max(Position(clock, 0), Position(self.milliseconds, self.sequence + 1))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"


ORIGIN = Position(0, 0)  # before every entry


@dataclass(frozen=True, slots=True)
class Message:
    """One thing said. `sent_at` is UNIX time in milliseconds; a retry carries the same `id`.

    Raises Malformed if a field is of the wrong type, empty or too long.
    """

    id: str
    text: str
    broadcaster: str
    sent_at: int

    def __post_init__(self) -> None:
        for field, limit in (("id", MAX_ID), ("text", MAX_TEXT), ("broadcaster", MAX_NAME)):
            _check_text(field, getattr(self, field), limit)
        # bool is an int to Python, and not to anybody else who reads the wire.
        if type(self.sent_at) is not int or not 0 <= self.sent_at <= LARGEST_INTEGER:
            raise Malformed(f"a message's sent_at is UNIX time in milliseconds, not {self.sent_at!r}")

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Message":
        """Read what `to_json` wrote.

        Raises Malformed if it is not a JSON object with exactly a message's fields.
        """
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise Malformed(f"a message is a JSON object: {error}") from error
        if not isinstance(fields, dict):
            raise Malformed(f"a message is a JSON object, not {type(fields).__name__}")
        if fields.keys() != _MESSAGE_FIELDS:
            raise Malformed(f"a message has the fields {sorted(_MESSAGE_FIELDS)}, not {sorted(fields)}")
        return cls(**fields)


_MESSAGE_FIELDS = frozenset(Message.__annotations__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message at its position in a channel, with the position of its predecessor (ORIGIN for the first)."""

    position: Position
    prev: Position
    message: Message

    def follows(self, position: Position | None) -> bool:
        """Whether a reader that has seen everything up to `position` misses nothing before this entry.

        This is the one rule for gaps. A reader without a position cannot miss anything.
        """
        return position is None or self.prev <= position


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries with positions between `after` and `before`, both excluded, are lost for this reader."""

    after: Position
    before: Position


E = TypeVar("E", bound=Entry)


def told(entries: Iterable[E], position: Position | None) -> Iterator[E | Gap]:
    """What a reader at `position` is given for the entries after it: each loss is told before what follows it."""
    for entry in entries:
        if position is not None and not entry.follows(position):
            yield Gap(position, entry.position)
        yield entry
        position = entry.position


def _check_text(field: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise Malformed(f"a message's {field} is text, not {type(value).__name__}")
    if not 0 < len(value) <= limit:
        raise Malformed(f"a message's {field} has 1 to {limit} characters, not {len(value)}")
    if not value.isascii():  # as most are, so that nothing is encoded just to look
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Malformed(f"a message's {field} is Unicode text without lone surrogates") from error
