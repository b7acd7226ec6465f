"""The values that travel, with their text forms: Message, Position, Entry and Gap. It imports no file of hello."""

import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypeVar

MAX_SAFE_INTEGER = 2**53 - 1  # the largest integer that JavaScript, and Lua inside Redis, represent exactly
MAX_TIME = 8_640_000_000_000_000  # UNIX milliseconds; the last moment of a Date in JavaScript (ECMA-262, 21.4.1.1)
MAX_ID = 128  # characters; a UUID has 36
MAX_NAME = 253  # characters; the longest name that DNS, and so Kubernetes, gives a host
MAX_TEXT = 4096  # characters; a frame stays small enough to be sent to thousands of clients

_POSITION = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")


def now_ms() -> int:
    """Return the UNIX time in milliseconds, the unit of all times in messages and positions."""
    return time.time_ns() // 1_000_000


class Malformed(ValueError):
    """The input does not have the form that it should have; the message of the error says what is wrong with it."""


class Position(NamedTuple):
    """The place of an entry in a channel; positions compare as pairs of integers, never as text."""

    milliseconds: int  # UNIX time
    sequence: int

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `MILLISECONDS-SEQUENCE`, both decimal without leading zeros, such as `1700000000000-0`.

        Raises Malformed if the text has any other form or a number above MAX_SAFE_INTEGER.
        """
        found = _POSITION.fullmatch(text)
        if found is None:
            raise Malformed(f"a position is MILLISECONDS-SEQUENCE, such as 1700000000000-0, not {text[:40]!r}")
        position = cls(int(found[1]), int(found[2]))
        if max(position) > MAX_SAFE_INTEGER:
            raise Malformed(f"a position's numbers are at most {MAX_SAFE_INTEGER}, not {text[:40]!r}")
        return position

    def successor(self, clock_ms: int) -> "Position":
        """Return the position of the next entry, appended at the UNIX time `clock_ms`.

        It is greater than this position even if the clock was set back: `5-0` at time 9 gives `9-0`, at time 3 `5-1`.
        """
        return max(Position(clock_ms, 0), Position(self.milliseconds, self.sequence + 1))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"


ORIGIN = Position(0, 0)  # before every entry


@dataclass(frozen=True, slots=True)
class Message:
    """One broadcast. `sent_at` is UNIX time in milliseconds; a repeated publish has the same `id`.

    Raises Malformed if a field has the wrong type, is empty or too long, has a lone surrogate or, for `sent_at`, is not
    between 0 and MAX_TIME.
    """

    id: str
    text: str
    broadcaster: str
    sent_at: int

    def __post_init__(self) -> None:
        for field, limit in (("id", MAX_ID), ("text", MAX_TEXT), ("broadcaster", MAX_NAME)):
            _check_text(field, getattr(self, field), limit)
        # A bool is an int in Python, but `true` in JSON.
        if type(self.sent_at) is not int or not 0 <= self.sent_at <= MAX_TIME:
            raise Malformed(f"a message's sent_at is UNIX time in milliseconds, not {self.sent_at!r}")

    @classmethod
    def new(cls, text: str, broadcaster: str) -> "Message":
        """Make a message with a fresh id, sent now."""
        return cls(id=uuid.uuid4().hex, text=text, broadcaster=broadcaster, sent_at=now_ms())

    def to_json(self) -> str:
        """Return the message as a JSON object without spaces."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Entry:
    """A message at its position in a channel. `prev` is the position of its predecessor; the first entry has ORIGIN."""

    position: Position
    prev: Position
    message: Message

    def follows(self, position: Position | None) -> bool:
        """Return True if a reader that has every entry up to `position` misses nothing before this entry.

        This is the one rule for gaps. The entry 8-0 with prev 5-0 follows 5-0, but not 4-0: a reader at 4-0 has missed
        5-0. It also follows 6-0: a reader may have an entry that the channel has lost since. A reader without a
        position (None) cannot miss anything.
        """
        return position is None or self.prev <= position


@dataclass(frozen=True, slots=True)
class Gap:
    """A loss: entries with positions between `after` and `before`, both excluded, cannot be sent to a reader."""

    after: Position
    before: Position


E = TypeVar("E", bound=Entry)


def with_gaps(entries: Iterable[E], position: Position | None) -> Iterator[E | Gap]:
    """Yield the entries for a reader at `position`, and a Gap before each entry that does not follow the one before."""
    for entry in entries:
        if position is not None and not entry.follows(position):  # "is not None" is for the type checker only
            yield Gap(position, entry.position)
        yield entry
        position = entry.position


def _check_text(field: str, value: object, limit: int) -> None:
    if not isinstance(value, str):
        raise Malformed(f"a message's {field} is text, not {type(value).__name__}")
    if not 0 < len(value) <= limit:
        raise Malformed(f"a message's {field} has 1 to {limit} characters, not {len(value)}")
    if not value.isascii():  # most texts are ASCII, and need no trial encoding
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Malformed(f"a message's {field} is Unicode text without lone surrogates") from error
