"""What browsers are sent: messages from the log and news of the channel, as frames; and what comes next after a cursor.

What comes next is put together once for all who are at the same place. Nearly all are: those who have been given
everything. Those who come back from far away soon are too, since what they take ends where the log's blocks end. This
file knows neither who reads nor how frames are written.
"""

from dataclasses import dataclass
from json import JSONEncoder
from typing import NamedTuple, TypeVar

from hello.log import Log
from hello.message import Entry, Gap, Position, now_ms

BLOCK = 16 * 1024  # bytes of frames that a reader takes at once: they wait here if the kernel does not take them
SHARED = 256  # places for which what comes next is kept; 16 KiB each

K = TypeVar("K")

_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Frame(NamedTuple):
    """What one browser is sent: a JSON object in UTF-8, and the position if it is a message."""

    json: bytes
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Relayed(Entry):
    """An entry that this relay has read, and when (UNIX milliseconds); its frame is made once, for every browser."""

    relayed_at: int
    frame: Frame
    block: int  # the number of the block that its frame begins in


@dataclass(frozen=True, slots=True, eq=False)
class Cursor:
    """What a reader has been given so far. It never changes, so that all who have been given the same share one."""

    position: Position | None  # of the last message; None is before them all
    status: Frame | None  # the news of the channel; None before the welcome
    beats: int


@dataclass(slots=True, eq=False)
class Owed:
    """What comes next after a cursor, made once for all who share it, and the cursor after that."""

    frames: list[Frame]
    gaps: int  # among the frames
    cursor: Cursor
    more: bool  # whether there is something after that cursor already
    wire: bytes | None = None  # the frames as they are written, kept here by whoever writes to many


class Feed:
    """The messages that a relay has read, and the news."""

    def __init__(self, *, history: int, instance: str) -> None:
        self._log: Log[Relayed] = Log(history)
        self._instance = instance
        self._channel = "down"
        self._status = _frame("status", channel="down", since=now_ms())
        self._beats = 0
        self._bridge: tuple[Position, Position] | None = None
        self._bytes = 0  # of the frames of all messages there ever were
        self._newest: Cursor | None = None
        self._fresh: Cursor | None = None  # of all who come to hear what is new
        self._next: dict[Cursor, Owed] = {}  # what comes next, until something new does
        self._blocks: dict[Position | None, Owed] = {}  # the same after a position, for what ends before the head

    @property
    def newest(self) -> Cursor | None:
        """The cursor of all who have been given everything; None if nobody has."""
        return self._newest

    @property
    def head(self) -> Position | None:
        """The newest position that this relay has read; None before the first."""
        return self._log.head

    def append(self, entry: Entry) -> Relayed | None:
        """Add an entry that the channel gave, and return it as the browsers get it.

        A message that the log holds already is dropped (None): a channel that lost its data may have accepted it again.
        """
        prev = entry.prev
        if self._bridge is not None and prev == self._bridge[0]:
            prev = self._bridge[1]  # the predecessor was dropped, so that its own predecessor takes its place
        if self._log.find(entry.message.id) is not None:
            self._bridge = (entry.position, prev)
            return None
        self._bridge = None
        message, relayed_at = entry.message, now_ms()
        json = _json(
            "message",
            position=str(entry.position),
            id=message.id,
            text=message.text,
            broadcaster=message.broadcaster,
            sent_at=message.sent_at,
            relayed_at=relayed_at,
            relay=self._instance,
        )
        block = self._bytes // BLOCK
        self._bytes += len(json)
        relayed = Relayed(entry.position, prev, message, relayed_at, Frame(json, entry.position), block)
        self._log.append(relayed)
        self._changed()
        return relayed

    def channel_turned(self, up: bool) -> None:
        """The channel went away, or came back."""
        self._channel = "up" if up else "down"
        self._status = _frame("status", channel=self._channel, since=now_ms())
        self._changed()
        self._blocks.clear()

    def beat(self) -> None:
        """It is time for a sign of life."""
        self._beats += 1
        self._changed()
        self._blocks.clear()

    def start(self, start: Position | int) -> Cursor:
        """The cursor of one who has seen everything up to a position, or wants so many of the newest messages first."""
        position = self._log.before_last(start) if isinstance(start, int) else start
        if position != self.head:
            return Cursor(position, None, self._beats)
        self._fresh = self._fresh or Cursor(position, None, self._beats)
        return self._fresh

    def behind(self, cursor: Cursor) -> int:
        """How many messages come after it."""
        return self._log.behind(cursor.position)

    def after(self, cursor: Cursor) -> Owed | None:
        """What comes next: news alone, or messages of at most about a block with the losses before them; or nothing."""
        if cursor is self._newest:
            return None
        owed = self._next.get(cursor)
        if owed is None:
            if cursor.status is self._status and cursor.beats == self._beats:
                owed = self._messages(cursor.position)
            else:
                owed = self._news(cursor)
            _keep(self._next)[cursor] = owed
        return owed if owed.frames else None

    def _news(self, cursor: Cursor) -> Owed:
        frames = []
        if cursor.status is None:
            head = None if self.head is None else str(self.head)
            frames.append(_frame("welcome", relay=self._instance, head=head, channel=self._channel))
        elif cursor.status is not self._status:
            frames.append(self._status)
        if cursor.beats != self._beats:
            frames.append(BEAT)
        return Owed(frames, 0, self._at(cursor.position), self.behind(cursor) > 0)

    def _messages(self, position: Position | None) -> Owed:
        kept = position is not None and self._log.keeps_after(position)  # else what comes next changes with the log
        if kept and (known := self._blocks.get(position)) is not None:
            return known
        start, frames, gaps, size = position, list[Frame](), 0, 0
        lost: Gap | None = None
        block, whole = -1, (0, 0, position)  # what has ended with the last block
        for item in self._log.after(position):
            if isinstance(item, Gap):
                lost = item
                continue
            if item.block != block:
                block, whole = item.block, (len(frames), gaps, position)
            if size >= BLOCK:
                if whole[0] > 0:
                    count, gaps, position = whole
                    del frames[count:]
                owed = Owed(frames, gaps, self._at(position), more=True)
                if kept:
                    _keep(self._blocks)[start] = owed
                return owed
            if lost is not None:
                frames.append(_frame("gap", after=str(lost.after), before=str(lost.before)))
                gaps, lost = gaps + 1, None
            frames.append(item.frame)
            position = item.position
            size += len(item.frame.json)
        return Owed(frames, gaps, self._at(position), more=False)

    def _at(self, position: Position | None) -> Cursor:
        """A cursor to which all news has been told."""
        if position != self.head:
            return Cursor(position, self._status, self._beats)
        self._newest = self._newest or Cursor(position, self._status, self._beats)
        return self._newest

    def _changed(self) -> None:
        self._newest = self._fresh = None
        self._next.clear()


def _keep(known: dict[K, Owed]) -> dict[K, Owed]:
    """Make room for one more."""
    if len(known) >= SHARED:
        known.clear()
    return known


def _json(kind: str, **fields: object) -> bytes:
    return _encode({"type": kind, **fields}).encode()


def _frame(kind: str, **fields: object) -> Frame:
    return Frame(_json(kind, **fields))


BEAT = _frame("beat")
NEW = Cursor(None, None, 0)  # of a reader that has not joined
