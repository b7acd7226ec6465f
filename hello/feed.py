"""What a client gets next: the log, the status of the channel and the beats, read by cursors. It knows no clients.

A cursor names the last message, status and beat that a client was sent. `Feed.poll` returns the frames after a cursor,
and the cursor to poll with next. Statuses and beats are numbered. An example: a log with a history of 3 has trimmed 1-0
and 2-0, and has 3-0 to 5-0; status 1 was "down", status 2 "up"; no beat was sent yet. A client that was away since 1-0
joins, with status 0, since it has had no welcome:

    poll(Cursor(position=1-0, status=0, beat=0))    welcome                               next: Cursor(1-0, 2, 0)
    poll(Cursor(position=1-0, status=2, beat=0))    gap 1-0 to 3-0, messages 3-0 to 5-0   next: Cursor(5-0, 2, 0)
    poll(Cursor(position=5-0, status=2, beat=0))    None: the client has caught up

Then the channel goes down, by status 3:

    poll(Cursor(position=5-0, status=2, beat=0))    status: down                          next: Cursor(5-0, 3, 0)

Until the relay has read its channel (`set_loaded`) the channel is "down", and a client gets no message: its cursor
keeps where it resumes, or how many recent messages it wants. The first status "up" tells it where its stream starts.

Equal cursors get the same frames, made once. Nearly all clients have caught up, and have the same cursor. Clients that
resume at the same time from different positions soon have equal cursors too: the log is divided into blocks of about
BLOCK_BYTES, and a poll that does not reach the head ends where a block ends. So every later cursor is at the end of a
block, and the frames after it are made once for all clients that come by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hello.frames import BEAT, Frame, gap_frame, message_frame, status_frame, welcome_frame
from hello.log import Log
from hello.message import ORIGIN, Entry, Gap, Position, now_ms, with_gaps

# The frames of one poll have about so many bytes: the last one may exceed it. A transport does not poll while its last
# write is incomplete, so that about so much is buffered in this process for a client that does not read.
BLOCK_BYTES = 16 * 1024
CACHE_SIZE = 256  # cursors whose next frames are kept, of about BLOCK_BYTES each, in each of two caches


@dataclass(frozen=True, slots=True)
class RelayedEntry(Entry):
    """An entry with the time when this relay read it (UNIX milliseconds), and its frame, made once for all clients."""

    relayed_at: int
    frame: Frame
    block: int  # the number of the block in which its frame begins


class Cursor(NamedTuple):
    """What a client was sent so far."""

    # Of the last message, or where the client starts. A number says how many of the newest messages the client wants,
    # until it was sent a welcome or a status with its start.
    position: Position | int
    status: int  # the number of the last status frame; 0 before the welcome
    beat: int  # the number of the last beat


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
        # The cursor of every client that has caught up. The first status, "down", has number 1.
        self.caught_up = Cursor(position=0, status=1, beat=0)
        self._log: Log[RelayedEntry] = Log(history)
        self._instance = instance
        self.process: dict[str, object] = {"relay": instance}  # what a welcome says of this process
        self._channel = "down"
        self._since = now_ms()  # the time of the last status
        self._high_watermark = ORIGIN  # of the channel when the relay subscribed
        self._loaded_status: int | None = None  # the number of the first status "up"; None before
        self._dropped: tuple[Position, Position] | None = None  # position and `prev` of the last entry, if dropped
        self._bytes = 0  # of the frames of all messages so far
        self._cache: dict[Cursor, Pending] = {}  # the results of `poll`, until a message, status or beat is added
        # Results that end before the head: they outlive `_cache`, since new messages do not change them. `_messages`
        # uses a result as long as all messages after its cursor are kept.
        self._blocks: dict[Cursor, Pending] = {}

    @property
    def head(self) -> Position | None:
        """The newest position that this relay has read; None before the first."""
        return self._log.head

    @property
    def end(self) -> Position | None:
        """Up to where this relay has read: the head, or where an empty channel begins; None before `set_loaded`."""
        return None if self._loaded_status is None else self.head or self._high_watermark

    def append(self, entry: Entry) -> RelayedEntry | None:
        """Add an entry of the channel, and return it as the clients get it.

        An entry whose message the log already has is dropped (None): a channel that lost the message may have accepted
        it again. The next entry then gets the `prev` of the dropped one. Example: the head is 5-0; 6-0 with prev 5-0 is
        dropped; 7-0 with prev 6-0 is added with prev 5-0, so that no client sees a gap.
        """
        prev = entry.prev
        if self._dropped is not None and prev == self._dropped[0]:
            prev = self._dropped[1]
        if self._log.find(entry.message.id) is not None:
            self._dropped = (entry.position, prev)
            return None
        self._dropped = None
        # A channel that was restored from an older snapshot may give an entry a `prev` before the head of this log, if
        # no process had sent it the higher position yet. To raise `prev` hides no loss: clients at
        # the head have missed nothing, and all others are sent the entries up to the head first.
        prev = max(prev, self.head or ORIGIN)
        relayed_at = now_ms()
        frame = message_frame(entry, relay=self._instance, relayed_at=relayed_at)
        block = self._bytes // BLOCK_BYTES
        self._bytes += len(frame.json)
        relayed = RelayedEntry(entry.position, prev, entry.message, relayed_at, frame, block)
        self._log.append(relayed)
        self._set_caught_up(self.caught_up._replace(position=entry.position))
        return relayed

    def set_high_watermark(self, position: Position) -> None:
        """Set the high watermark of the channel, where an empty channel begins; no effect after `set_loaded`."""
        if self._loaded_status is None:
            self._high_watermark = position

    def set_loaded(self) -> None:
        """Add the first status "up": the log has all that the channel keeps, and from now on clients get messages."""
        self._loaded_status = self.caught_up.status + 1
        self.set_channel_up(True)
        self._set_caught_up(self.caught_up._replace(position=self._resolve(0)))  # 0 so far, if the log is empty

    def set_channel_up(self, up: bool) -> None:
        """Add a status: the channel went away, or came back. Before `set_loaded` it stays down."""
        if self._loaded_status is None:
            return
        self._channel, self._since = "up" if up else "down", now_ms()
        self._set_caught_up(self.caught_up._replace(status=self.caught_up.status + 1))
        self._blocks.clear()  # only frees memory: the keys hold the old status, so that `poll` never finds them again

    def beat(self) -> None:
        """Add a beat."""
        self._set_caught_up(self.caught_up._replace(beat=self.caught_up.beat + 1))
        self._blocks.clear()  # only frees memory, in the same way

    def cursor_at(self, start: Position | int) -> Cursor:
        """Return the cursor of a new client that resumes after a position or, for a number, gets so many messages."""
        return Cursor(start, status=0, beat=self.caught_up.beat)

    def count_after(self, cursor: Cursor) -> int:
        """Return how many messages come after the cursor; none before `set_loaded`."""
        return 0 if self._loaded_status is None else self._log.count_after(self._resolve(cursor.position))

    def includes(self, sent: Cursor, wanted: Cursor) -> bool:
        """Return True if a client at `sent` has all that one at `wanted` has.

        Before `set_loaded` only statuses and beats count, since no client gets messages.
        """
        if sent.status < wanted.status or sent.beat < wanted.beat:
            return False
        return self._loaded_status is None or self._resolve(sent.position) >= self._resolve(wanted.position)

    def poll(self, cursor: Cursor) -> Pending | None:
        """Return what comes after the cursor: status and beat, then about BLOCK_BYTES of messages; None if nothing."""
        if cursor == self.caught_up:
            return None
        pending = self._cache.get(cursor)
        if pending is None:
            is_current = (cursor.status, cursor.beat) == (self.caught_up.status, self.caught_up.beat)
            if is_current and self._loaded_status is None:
                return None
            pending = self._messages(cursor) if is_current else self._status_and_beat(cursor)
            _put(self._cache, cursor, pending)
        return pending if pending.frames else None  # a client that is ahead of this relay has no frames pending

    def _status_and_beat(self, cursor: Cursor) -> Pending:
        frames, position, start = [], cursor.position, None
        if self._loaded_status is not None and cursor.status < self._loaded_status:
            position = start = self._resolve(position)
        if cursor.status == 0:
            frames.append(welcome_frame(self.process, channel=self._channel, start=start, head=self.head))
        elif cursor.status != self.caught_up.status:
            frames.append(status_frame(channel=self._channel, since=self._since, start=start, head=self.head))
        if cursor.beat != self.caught_up.beat:
            frames.append(BEAT)
        end = self.caught_up._replace(position=position)
        return Pending(frames, gaps=0, next=end, more=self.count_after(end) > 0)

    def _messages(self, cursor: Cursor) -> Pending:
        position = self._resolve(cursor.position)
        # Only a result that no append changes goes into `_blocks`. If messages after the position are trimmed, it
        # begins with a gap that grows with each trim.
        is_reusable = self._log.keeps_all_after(position)
        if is_reusable and (known := self._blocks.get(cursor)) is not None:
            return known
        entries: list[RelayedEntry] = []
        size, more = 0, False
        for entry in self._log.after(position):
            if size >= BLOCK_BYTES:
                # Cut at the end of a block: drop the entries in the block of `entry`. The first one always stays: in
                # the bytes of all frames it begins BLOCK_BYTES or more before `entry`, and so in an earlier block.
                entries, more = [each for each in entries if each.block < entry.block], True
                break
            entries.append(entry)
            size += len(entry.frame.json)
        frames = [gap_frame(each) if isinstance(each, Gap) else each.frame for each in with_gaps(entries, position)]
        end = cursor._replace(position=entries[-1].position) if entries else cursor
        pending = Pending(frames, gaps=len(frames) - len(entries), next=end, more=more)
        if is_reusable and more:
            _put(self._blocks, cursor, pending)
        return pending

    def _resolve(self, start: Position | int) -> Position:
        """Return the position of a client that starts there; for a number, so many messages before the end."""
        return start if isinstance(start, Position) else self._log.before_newest(start) or self._high_watermark

    def _set_caught_up(self, caught_up: Cursor) -> None:
        self.caught_up = caught_up
        self._cache.clear()


def _put(cache: dict[Cursor, Pending], cursor: Cursor, pending: Pending) -> None:
    if len(cache) >= CACHE_SIZE:
        cache.clear()
    cache[cursor] = pending
