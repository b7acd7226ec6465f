"""The browsers of one relay, each with a cursor into what it is to be sent. It knows neither WebSocket nor HTTP.

A browser costs a cursor and no queue: to resume is to start its cursor elsewhere, to be slow is to have one that
lags, to have lost something is to have one that fell off the log's tail.
"""

import math
from abc import ABC, abstractmethod

import anyio

from hello.feed import NEW, Cursor, Feed, Owed, Relayed
from hello.message import Entry, Position
from hello.metrics import Metrics

BEAT_SECONDS = 10.0  # how often a browser hears from its relay, so that it can tell a dead line from a quiet one
SLOW_SECONDS = 1.0  # a browser that keeps the relay waiting for longer counts as slow
BATCH_SECONDS = 0.1  # between two batches of browsers that are moved away

MOVED = 1012  # "service restart" (RFC 6455's registry): reconnect soon


class Refused(Exception):
    """No more browsers for now; the text says why, and `retry_after` (seconds) when to come again."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


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
        if (owed := self.audience.feed.after(self.cursor)) is not None:
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
        return self.audience.feed.behind(self.cursor)


class Audience:
    """All browsers of one relay, and what they are to be told."""

    def __init__(self, *, history: int, instance: str, max_clients: int, metrics: Metrics) -> None:
        self.feed = Feed(history=history, instance=instance)
        self.draining = False
        self.empty = anyio.Event()  # set once the last browser has left a draining relay
        self._max_clients = max_clients
        self._browsers: set[Browser] = set()
        self._metrics = metrics
        self._rung: dict[Reader, None] = {}  # those whom news is told, in this order
        metrics.browsers.set_function(lambda: len(self))
        metrics.slow_browsers.set_function(lambda: len(self._slow()))
        metrics.lag.set_function(lambda: max((browser.behind for browser in self._slow()), default=0))

    def __len__(self) -> int:
        return len(self._browsers)

    @property
    def head(self) -> Position | None:
        """The newest position that this relay has read; None before the first."""
        return self.feed.head

    def append(self, entry: Entry) -> Relayed | None:
        """See `Feed.append`. Nobody is woken yet: see `wake`."""
        return self.feed.append(entry)

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
        self.feed.channel_turned(up)
        self.wake()

    async def beat(self) -> None:
        """Send a sign of life every BEAT_SECONDS, for ever: one timer for all browsers."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            self.feed.beat()
            self.wake()

    def join(self, browser: Browser, start: Position | int) -> None:
        """Take in a browser that has seen everything up to a position, or wants so many of the newest messages first.

        Raises Refused while draining, and when the relay is full.
        """
        if self.draining:
            raise Refused("this relay is stopping", retry_after=1)
        if len(self._browsers) >= self._max_clients:
            raise Refused(f"this relay is full ({self._max_clients} browsers)", retry_after=10)
        browser.cursor = self.feed.start(start)
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

    def gaps_told(self, count: int) -> None:
        """So many losses have been told to browsers."""
        self._metrics.gaps.labels("browser").inc(count)

    def _slow(self) -> list[Browser]:
        late = anyio.current_time() - SLOW_SECONDS
        return [each for each in self._browsers if each.waiting_since is not None and each.waiting_since < late]
