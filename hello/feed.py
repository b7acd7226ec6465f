"""What a client gets next: the log, the status of the channel and the beats, read by cursors. It knows no clients.

A cursor names the last message, status and beat that a client was sent. `Feed.poll` returns the frames after a cursor,
and the cursor to poll with next. An example, with a history of 3 and the entries 1-0 to 5-0, so that 1-0 and 2-0 are
trimmed; the second status reported the channel up, and no beat was sent yet:

    cursor                   poll returns
    Cursor(1-0, 0, 0)        welcome;                                 then Cursor(1-0, 2, 0): a new client has status 0
    Cursor(1-0, 2, 0)        gap from 1-0 to 3-0, messages 3-0 to 5-0;  then Cursor(5-0, 2, 0)
    Cursor(5-0, 2, 0)        None: the client is caught up
    the channel goes down:
    Cursor(5-0, 2, 0)        status down;                             then Cursor(5-0, 3, 0)

Equal cursors get the same frames, so that `poll` makes frames once for all clients at the same place. Nearly all
clients are caught up. Clients that resume from different positions soon share cursors too: the log is divided into
blocks of about BLOCK_BYTES, and a poll that does not reach the head ends where a block ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hello.frames import BEAT, Frame, gap_frame, message_frame, status_frame, welcome_frame
from hello.log import Log
from hello.message import Entry, Gap, Position, now_ms

BLOCK_BYTES = 16 * 1024  # of frames; so many wait in this process for a client whose kernel buffers are full
CACHE_SIZE = 256  # cursors whose next frames are kept; at most about 16 KiB each


@dataclass(frozen=True, slots=True)
class RelayedEntry(Entry):
    """An entry with the time when this relay read it (UNIX milliseconds), and its frame, made once for all clients."""

    relayed_at: int
    frame: Frame
    block: int  # the number of the block in which its frame begins


class Cursor(NamedTuple):
    """What a client was sent so far."""

    position: Position | None  # of the last message; None is before the oldest one
    status: int  # the number of the last status frame; 0 before the welcome
    beat: int  # the number of the last beat


NOT_JOINED = Cursor(None, 0, 0)  # the cursor of a client that has not joined


@dataclass(slots=True, eq=False)
class Pending:
    """The frames after a cursor, made once for all clients at that cursor."""

    frames: Sequence[Frame]
    gaps: int  # among the frames
    next: Cursor
    more: bool  # True if there were already more frames after `next` when these were made
    websocket: bytes | None = None  # the frames encoded for WebSocket, once they are needed


class Feed:
    """The messages that a relay has read, the status of its channel, and beats."""

    def __init__(self, *, history: int, instance: str) -> None:
        self.caught_up = Cursor(None, 1, 0)  # the cursor of every client that was sent everything
        self._log: Log[RelayedEntry] = Log(history)
        self._instance = instance
        self._channel = "down"
        self._status_frame = status_frame(channel="down", since=now_ms())
        self._dropped: tuple[Position, Position] | None = (
            None  # position and `prev` of the last entry, if it was dropped
        )
        self._bytes = 0  # of the frames of all messages so far
        self._to_head: dict[Cursor, Pending] = {}  # what reaches the head: valid until something is added
        self._blocks: dict[Cursor, Pending] = {}  # whole blocks before the head: valid while the log keeps them

    @property
    def head(self) -> Position | None:
        """The newest position that this relay has read; None before the first."""
        return self._log.head

    def append(self, entry: Entry) -> RelayedEntry | None:
        """Add an entry of the channel, and return it as the clients get it.

        An entry whose message the log already has is dropped (None): a channel that lost the message may have accepted
        it again. The next entry then gets the `prev` of the dropped one: after 5-0, 6-0 (dropped, prev 5-0) and 7-0
        (prev 6-0) the log has 7-0 with prev 5-0, and no client sees a gap.
        """
        prev = entry.prev
        if self._dropped is not None and prev == self._dropped[0]:
            prev = self._dropped[1]
        if self._log.find(entry.message.id) is not None:
            self._dropped = (entry.position, prev)
            return None
        self._dropped = None
        relayed_at = now_ms()
        frame = message_frame(entry, relay=self._instance, relayed_at=relayed_at)
        block = self._bytes // BLOCK_BYTES
        self._bytes += len(frame.json)
        relayed = RelayedEntry(entry.position, prev, entry.message, relayed_at, frame, block)
        self._log.append(relayed)
        self._move_head(self.caught_up._replace(position=entry.position))
        return relayed

    def set_channel_up(self, up: bool) -> None:
        """Add a status: the channel went away, or came back."""
        self._channel = "up" if up else "down"
        self._status_frame = status_frame(channel=self._channel, since=now_ms())
        self._move_head(self.caught_up._replace(status=self.caught_up.status + 1))
        self._blocks.clear()  # their cursors have the last status, which comes before any message now

    def beat(self) -> None:
        """Add a beat."""
        self._move_head(self.caught_up._replace(beat=self.caught_up.beat + 1))
        self._blocks.clear()  # likewise

    def cursor_at(self, start: Position | int) -> Cursor:
        """Return the cursor of a new client that resumes after a position, or wants so many of the newest messages."""
        position = self._log.before_newest(start) if isinstance(start, int) else start
        return Cursor(position, status=0, beat=self.caught_up.beat)

    def count_after(self, cursor: Cursor) -> int:
        """Return how many messages come after the cursor."""
        return self._log.count_after(cursor.position)

    def poll(self, cursor: Cursor) -> Pending | None:
        """Return what comes after the cursor: status and beat, or messages and gaps of about BLOCK_BYTES; or None."""
        if cursor == self.caught_up:
            return None
        pending = self._to_head.get(cursor)
        if pending is None:
            is_current = (cursor.status, cursor.beat) == (self.caught_up.status, self.caught_up.beat)
            pending = self._messages(cursor) if is_current else self._news(cursor)
            _put(self._to_head, cursor, pending)
        return pending if pending.frames else None

    def _news(self, cursor: Cursor) -> Pending:
        frames = []
        if cursor.status == 0:
            frames.append(welcome_frame(relay=self._instance, head=self.head, channel=self._channel))
        elif cursor.status != self.caught_up.status:
            frames.append(self._status_frame)
        if cursor.beat != self.caught_up.beat:
            frames.append(BEAT)
        return Pending(
            frames, gaps=0, next=self.caught_up._replace(position=cursor.position), more=self.count_after(cursor) > 0
        )

    def _messages(self, cursor: Cursor) -> Pending:
        position = cursor.position
        # From any other position the next frames change when the log trims an entry.
        is_kept = position is not None and self._log.keeps_all_after(position)
        if is_kept and (known := self._blocks.get(cursor)) is not None:
            return known
        entries: list[RelayedEntry] = []
        size, more = 0, False
        for entry in self._log.after(position):
            if size >= BLOCK_BYTES:
                entries, more = _whole_blocks(entries, entry.block), True
                break
            entries.append(entry)
            size += len(entry.frame.json)
        frames = [
            gap_frame(item) if isinstance(item, Gap) else item.frame for item in self._log.with_gaps(entries, position)
        ]
        end = cursor._replace(position=entries[-1].position) if entries else cursor
        pending = Pending(frames, gaps=len(frames) - len(entries), next=end, more=more)
        if is_kept and more:
            _put(self._blocks, cursor, pending)
        return pending

    def _move_head(self, caught_up: Cursor) -> None:
        self.caught_up = caught_up
        self._to_head.clear()


def _whole_blocks(entries: list[RelayedEntry], next_block: int) -> list[RelayedEntry]:
    """Return the entries that come before `next_block`; all of them if they all are in it."""
    count = len(entries)
    while count and entries[count - 1].block == next_block:
        count -= 1
    return entries[:count] or entries


def _put(cache: dict[Cursor, Pending], cursor: Cursor, pending: Pending) -> None:
    if len(cache) >= CACHE_SIZE:
        cache.clear()
    cache[cursor] = pending
