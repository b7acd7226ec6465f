"""The browsers of one relay: a log, and a cursor into it for each of them. It knows neither WebSocket nor HTTP.

A browser costs a position and no queue: to resume is to start its cursor elsewhere, to be slow is to have one that
lags, to have lost something is to have one that fell off the log's tail.
"""

import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import anyio

from hello.log import Log
from hello.message import Entry, Gap, Position, now_ms
from hello.metrics import Metrics

BEAT_SECONDS = 10.0  # how often a browser hears from its relay, so that it can tell a dead line from a quiet one
TAKE = 200  # entries that a browser takes in one turn: one that comes back from far away delays nobody
SLOW_SECONDS = 1.0  # a browser that keeps the relay waiting for longer counts as slow
BATCH_SECONDS = 0.1  # between two batches of browsers that are moved away

MOVED = 1012  # "service restart" (RFC 6455's registry): reconnect soon


class Frame(NamedTuple):
    """What one browser is sent: a JSON object, and the position if it is a message."""

    json: str
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


class Browser:
    """One browser's place in the audience. Whoever writes to it takes what it is owed, and waits for the bell."""

    __slots__ = ("_audience", "_beat", "_position", "_status", "bell", "moving", "waiting_since")

    def __init__(self, audience: "Audience", position: Position | None) -> None:
        self.bell = anyio.Event()  # rung, and replaced, whenever there may be something to take
        self.moving = False  # once all that is owed has been written, it is to be closed with MOVED
        self.waiting_since: float | None = None  # since when a write to it has not come to its end
        self._audience = audience
        self._position = position
        self._status: Frame | None = None
        self._beat = audience.beats

    def take(self) -> list[Frame]:
        """What it is owed now and has not taken yet: at most TAKE messages, the losses before them, and news."""
        audience = self._audience
        frames = []
        if self._status is None:
            frames.append(audience.welcome())
        elif self._status is not audience.status:
            frames.append(audience.status)
        self._status = audience.status
        for item in audience.log.after(self._position, TAKE):
            if isinstance(item, Gap):
                frames.append(audience.gap(item))
            else:
                frames.append(item.frame)
                self._position = item.position
        if self._beat != audience.beats:
            self._beat = audience.beats
            frames.append(BEAT)
        return frames

    @property
    def behind(self) -> int:
        """How many messages there are that it has not taken yet."""
        return self._audience.log.behind(self._position)

    def ring(self) -> None:
        self.bell.set()
        self.bell = anyio.Event()


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
        frame = _frame(
            "message",
            position=str(entry.position),
            id=message.id,
            text=message.text,
            broadcaster=message.broadcaster,
            sent_at=message.sent_at,
            relayed_at=relayed_at,
            relay=self._instance,
        )
        relayed = Relayed(entry.position, prev, message, relayed_at, frame._replace(position=entry.position))
        self.log.append(relayed)
        return relayed

    def wake(self) -> None:
        """Let every browser look for what it is owed."""
        for browser in self._browsers:
            browser.ring()

    def channel_turned(self, up: bool) -> None:
        """Tell every browser that the channel went away, or came back."""
        self._channel = "up" if up else "down"
        self.status = _frame("status", channel=self._channel, since=now_ms())
        self.wake()

    async def beat(self) -> None:
        """Send a sign of life every BEAT_SECONDS, for ever: one timer for all browsers."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            self.beats += 1
            self.wake()

    def join(self, start: Position | int) -> Browser:
        """Take in a browser that has seen everything up to a position, or wants so many of the newest messages first.

        Raises Refused while draining, and when the relay is full.
        """
        if self.draining:
            raise Refused("this relay is stopping", retry_after=1)
        if len(self._browsers) >= self._max_clients:
            raise Refused(f"this relay is full ({self._max_clients} browsers)", retry_after=10)
        browser = Browser(self, self.log.before_last(start) if isinstance(start, int) else start)
        self._browsers.add(browser)
        return browser

    def leave(self, browser: Browser) -> None:
        """Forget a browser, however it went."""
        self._browsers.discard(browser)
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

    def welcome(self) -> Frame:
        head = None if self.head is None else str(self.head)
        return _frame("welcome", relay=self._instance, head=head, channel=self._channel)

    def gap(self, gap: Gap) -> Frame:
        self._metrics.gaps.labels("browser").inc()
        return _frame("gap", after=str(gap.after), before=str(gap.before))

    def _slow(self) -> list[Browser]:
        late = anyio.current_time() - SLOW_SECONDS
        return [each for each in self._browsers if each.waiting_since is not None and each.waiting_since < late]


def _frame(kind: str, **fields: object) -> Frame:
    return Frame(json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":")))


BEAT = _frame("beat")
