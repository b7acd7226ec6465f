"""The browsers of one relay: a log, and a cursor into it for each of them. It knows neither WebSocket nor HTTP.

A browser costs a cursor and no queue: to resume is to start its cursor elsewhere, to be slow is to have one that
lags, to have lost something is to have one that fell off the log's tail. What comes next after a cursor is put together
once for all who share it, and nearly all do: those who have been given everything.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from json import JSONEncoder
from typing import NamedTuple

import anyio

from hello.log import Log
from hello.message import Entry, Gap, Position, now_ms
from hello.metrics import Metrics

BEAT_SECONDS = 10.0  # how often a browser hears from its relay, so that it can tell a dead line from a quiet one
TAKE = 200  # entries that a browser takes in one turn: one that comes back from far away delays nobody
TAKE_BYTES = 16 * 1024  # and no further entry from so many bytes on: they wait here if the kernel does not take them
SHARED = 64  # cursors for which what comes next is kept until something new comes: those of one moment
SLOW_SECONDS = 1.0  # a browser that keeps the relay waiting for longer counts as slow
BATCH_SECONDS = 0.1  # between two batches of browsers that are moved away

MOVED = 1012  # "service restart" (RFC 6455's registry): reconnect soon


class Frame(NamedTuple):
    """What one browser is sent: a JSON object in UTF-8, and the position if it is a message."""

    json: bytes
    position: Position | None = None


class Refused(Exception):
    """No more browsers for now; the text says why, and `retry_after` (seconds) when to come again."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Relayed(Entry):
    """An entry that this relay has read, and when (UNIX milliseconds); its frame is made once, for every browser."""

    relayed_at: int
    frame: Frame


@dataclass(frozen=True, slots=True, eq=False)
class Cursor:
    """What a browser has been given so far. It never changes, so that all who have been given the same share one."""

    position: Position | None  # of the last message; None is before them all
    status: Frame | None = None  # the news of the channel; None before the welcome
    beat: int = 0


@dataclass(slots=True, eq=False)
class Owed:
    """What comes next after a cursor, made once for all who share it, and the cursor after that."""

    frames: list[Frame]
    cursor: Cursor
    more: bool  # whether that cursor is behind already
    gaps: int  # among the frames
    wire: bytes | None = None  # the frames as they are written, kept here by whoever writes to many


class Reader(ABC):
    """A place in the audience: a cursor, and a bell. Whoever hears the bell takes what is owed, and writes it."""

    __slots__ = ("audience", "cursor")

    def __init__(self, audience: "Audience", cursor: Cursor) -> None:
        self.audience = audience
        self.cursor = cursor

    @abstractmethod
    def ring(self) -> None:
        """There may be something to take."""

    def take(self, readers: int = 1) -> Owed | None:
        """What is owed now and was not taken yet, for so many who are at this place; None if that is nothing."""
        if (owed := self.audience.after(self.cursor)) is not None:
            self.cursor = owed.cursor
            if owed.gaps:
                self.audience.gaps_told(owed.gaps * readers)
        return owed


class Browser(Reader):
    """One browser."""

    __slots__ = ("moving", "waiting_since")

    def __init__(self, audience: "Audience") -> None:
        super().__init__(audience, NEW)
        self.moving = False  # once all that is owed has been written, it is to be closed with MOVED
        self.waiting_since: float | None = None  # since when a write to it has not come to its end

    @property
    def behind(self) -> int:
        """How many messages there are that it has not taken yet."""
        return self.audience.log.behind(self.cursor.position)


class Audience:
    """All browsers of one relay, and what they are to be told."""

    def __init__(self, *, history: int, instance: str, max_clients: int, metrics: Metrics) -> None:
        self.log: Log[Relayed] = Log(history)
        self.beats = 0
        self.status = _frame("status", channel="down", since=now_ms())
        self.draining = False
        self.empty = anyio.Event()  # set once the last browser has left a draining relay
        self._instance = instance
        self._max_clients = max_clients
        self._browsers: set[Browser] = set()
        self._channel = "down"
        self._bridge: tuple[Position, Position] | None = None
        self._metrics = metrics
        self._rung: dict[Reader, None] = {}  # those whom news is told, in this order
        self._newest: Cursor | None = None  # of all who have been given everything; None if nobody has
        self._fresh: Cursor | None = None  # of all who come to hear what is new
        self._owed: dict[Cursor, Owed] = {}  # what comes next, for those who have been given the same
        metrics.browsers.set_function(lambda: len(self))
        metrics.slow_browsers.set_function(lambda: len(self._slow()))
        metrics.lag.set_function(lambda: max((browser.behind for browser in self._slow()), default=0))

    def __len__(self) -> int:
        return len(self._browsers)

    @property
    def head(self) -> Position | None:
        """The newest position that this relay has read; None before the first."""
        return self.log.head

    def append(self, entry: Entry) -> Relayed | None:
        """Add an entry that the channel gave, and return it as the browsers get it. Nobody is woken yet: see `wake`.

        A message that the log holds already is dropped (None): a channel that lost its data may have accepted it again.
        """
        prev = entry.prev
        if self._bridge is not None and prev == self._bridge[0]:
            prev = self._bridge[1]  # the predecessor was dropped, so that its own predecessor takes its place
        if self.log.find(entry.message.id) is not None:
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
        relayed = Relayed(entry.position, prev, message, relayed_at, Frame(json, entry.position))
        self.log.append(relayed)
        self._changed()
        return relayed

    def wake(self) -> None:
        """Let every browser look for what it is owed."""
        for reader in list(self._rung):  # which may be spared meanwhile
            reader.ring()

    def tell(self, reader: Reader) -> None:
        """Ring for this one when there is news; a crowd is told first, before those who may have left it."""
        self._rung[reader] = None

    def spare(self, reader: Reader) -> None:
        """Do not ring any more: it is told as one of a crowd, or has gone."""
        self._rung.pop(reader, None)

    def channel_turned(self, up: bool) -> None:
        """Tell every browser that the channel went away, or came back."""
        self._channel = "up" if up else "down"
        self.status = _frame("status", channel=self._channel, since=now_ms())
        self._changed()
        self.wake()

    async def beat(self) -> None:
        """Send a sign of life every BEAT_SECONDS, for ever: one timer for all browsers."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            self.beats += 1
            self._changed()
            self.wake()

    def join(self, browser: Browser, start: Position | int) -> None:
        """Take in a browser that has seen everything up to a position, or wants so many of the newest messages first.

        Raises Refused while draining, and when the relay is full.
        """
        if self.draining:
            raise Refused("this relay is stopping", retry_after=1)
        if len(self._browsers) >= self._max_clients:
            raise Refused(f"this relay is full ({self._max_clients} browsers)", retry_after=10)
        position = self.log.before_last(start) if isinstance(start, int) else start
        if position != self.head:
            browser.cursor = Cursor(position, beat=self.beats)
        else:
            browser.cursor = self._fresh = self._fresh or Cursor(position, beat=self.beats)
        self._browsers.add(browser)
        self.tell(browser)

    def leave(self, browser: Browser) -> None:
        """Forget a browser, however it went."""
        self._browsers.discard(browser)
        self.spare(browser)
        if self.draining and not self._browsers:
            self.empty.set()

    async def drain(self, seconds: float) -> None:
        """Refuse newcomers and move everybody away, in batches over at most so many seconds; return when all were told.

        The batches keep the relays that they go to from being asked by all at once, so that few browsers go quickly.
        Each is still written what it is owed, and then closed by whoever writes to it.
        """
        self.draining = True
        if not self._browsers:
            self.empty.set()
        waiting = list(self._browsers)
        deadline = anyio.current_time() + seconds
        while waiting := [browser for browser in waiting if browser in self._browsers]:
            turns = max(1, round((deadline - anyio.current_time()) / BATCH_SECONDS))  # fewer, where a batch takes long
            size = math.ceil(len(waiting) / turns)
            for browser in waiting[:size]:
                browser.moving = True
                browser.ring()
            del waiting[:size]
            if waiting:
                await anyio.sleep(BATCH_SECONDS)

    def after(self, cursor: Cursor) -> Owed | None:
        """What comes next: at most TAKE messages, the losses before them, and news; None if there is nothing."""
        if cursor is self._newest:
            return None
        owed = self._owed.get(cursor)
        if owed is None:
            if len(self._owed) >= SHARED:
                self._owed.clear()
            owed = self._owed[cursor] = self._next(cursor)
        return owed if owed.frames else None

    def gaps_told(self, count: int) -> None:
        """So many losses have been told to browsers."""
        self._metrics.gaps.labels("browser").inc(count)

    def _next(self, cursor: Cursor) -> Owed:
        frames: list[Frame] = []
        position, gaps, size = cursor.position, 0, 0
        if cursor.status is None:
            head = None if self.head is None else str(self.head)
            frames.append(_frame("welcome", relay=self._instance, head=head, channel=self._channel))
        elif cursor.status is not self.status:
            frames.append(self.status)
        for item in self.log.after(position, TAKE):
            if size >= TAKE_BYTES:
                break
            if isinstance(item, Gap):
                frames.append(_frame("gap", after=str(item.after), before=str(item.before)))
                gaps += 1
            else:
                frames.append(item.frame)
                position = item.position
                size += len(item.frame.json)
        if cursor.beat != self.beats:
            frames.append(BEAT)
        if position != self.head:  # it comes from a relay that is ahead of this one, or has more to take
            more = self.log.behind(position) > 0
            return Owed(frames, Cursor(position, self.status, self.beats), more, gaps)
        if self._newest is None:
            self._newest = Cursor(position, self.status, self.beats)
        return Owed(frames, self._newest, more=False, gaps=gaps)

    def _changed(self) -> None:
        self._newest = self._fresh = None
        self._owed.clear()

    def _slow(self) -> list[Browser]:
        late = anyio.current_time() - SLOW_SECONDS
        return [each for each in self._browsers if each.waiting_since is not None and each.waiting_since < late]


_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _json(kind: str, **fields: object) -> bytes:
    return _encode({"type": kind, **fields}).encode()


def _frame(kind: str, **fields: object) -> Frame:
    return Frame(_json(kind, **fields))


BEAT = _frame("beat")
NEW = Cursor(None)  # of a browser that has not joined
