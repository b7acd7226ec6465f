"""The clients of one relay: admission, notification, drain. It must not know by which transport they connect.

A client costs a cursor and no queue: a client that resumes is a cursor that starts at a position, a slow client is a
cursor that lags, and a loss is a cursor that is older than the oldest entry of the log.
"""

import math
from abc import ABC, abstractmethod

import anyio

from hello.feed import Cursor, Feed, Pending
from hello.message import Position
from hello.metrics import Metrics

BEAT_SECONDS = 10.0  # between two beats: a client recognises a dead connection by their absence
SLOW_SECONDS = 1.0  # a client that has blocked a write for longer counts as slow
DRAIN_STEP_SECONDS = 0.1  # between two portions of the clients that are drained
STOPPING_RETRY_SECONDS = 1  # in a rollout the next relay runs already
FULL_RETRY_SECONDS = 10  # there is room again when another client leaves


class Refused(Exception):
    """The relay takes no more clients now; the text says why, `retry_after` (seconds) when to try again."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Subscriber(ABC):
    """What the hub notifies when there may be frames: one client, or a group of clients with equal cursors.

    A transport may move clients that have caught up into a group, which is notified, and polls, once for all of them. A
    client that leaves the group gets the cursor of the group: its own one does not move meanwhile.
    """

    __slots__ = ("cursor", "hub")

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.cursor = hub.feed.caught_up  # `Hub.join` sets that of a client

    @abstractmethod
    def notify(self) -> None:
        """Poll, and send what there is, or arrange for that; must not raise."""

    def poll(self, clients: int = 1) -> Pending | None:
        """Return the next frames and move the cursor, or None if there are none; `clients` is the size of the group."""
        if (pending := self.hub.feed.poll(self.cursor)) is not None:
            self.cursor = pending.next
            if pending.gaps:
                self.hub.count_gaps(pending.gaps * clients)
        return pending


class Client(Subscriber):
    """One client, over whatever transport."""

    __slots__ = ("blocked_since", "drain_end")

    def __init__(self, hub: "Hub") -> None:
        super().__init__(hub)
        self.drain_end: Cursor | None = None  # at this cursor a client that is drained is closed; None before its drain
        self.blocked_since: float | None = None  # event loop time since which a write to it has not been completed

    @property
    def drained(self) -> bool:
        """True once its transport is to close it ("service restart"): it was sent all that there was at its drain.

        What comes later it gets from the next relay: a client that is slower than the channel would never catch up.
        """
        return self.drain_end is not None and self.hub.feed.includes(self.cursor, self.drain_end)


class Hub:
    """All clients of one relay, and the feed that they poll."""

    def __init__(self, *, history: int, instance: str, max_clients: int, metrics: Metrics) -> None:
        self.feed = Feed(history=history, instance=instance)
        self.draining = False
        self.empty = anyio.Event()  # set once the last client has left a draining relay
        self._max_clients = max_clients
        self._clients: set[Client] = set()
        self._metrics = metrics
        # An ordered set: subscribers are notified in the order in which they subscribed. A transport must subscribe a
        # group before its clients: then the cursor of the group has moved, and a client that catches up later in the
        # same round has an equal cursor and can join.
        self._subscribers: dict[Subscriber, None] = {}
        metrics.clients.set_function(lambda: len(self))
        metrics.slow_clients.set_function(lambda: len(self._slow_cursors()))
        # A client that is not slow gets its pending frames within a second, so that its lag is of no interest.
        metrics.lag.set_function(lambda: max(map(self.feed.count_after, self._slow_cursors()), default=0))

    def __len__(self) -> int:
        return len(self._clients)

    def notify_all(self) -> None:
        """Notify every subscriber that there may be frames to poll, since the feed itself notifies nobody."""
        for subscriber in list(self._subscribers):  # a copy, since subscribers join and leave groups in `notify`
            subscriber.notify()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Notify this subscriber from now on."""
        self._subscribers[subscriber] = None

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Stop notifying this subscriber; nothing happens if it is not subscribed."""
        self._subscribers.pop(subscriber, None)

    def set_loaded(self) -> None:
        """Note that the feed has all that the channel keeps, and send the clients what they wait for."""
        self.feed.set_loaded()
        self.notify_all()

    def set_channel_up(self, up: bool) -> None:
        """Send every client the status of the channel."""
        self.feed.set_channel_up(up)
        self.notify_all()

    async def beat(self) -> None:
        """Send a beat every BEAT_SECONDS, without an end: one timer for all clients."""
        while True:
            await anyio.sleep(BEAT_SECONDS)
            self.feed.beat()
            self.notify_all()

    def join(self, client: Client, start: Position | int) -> None:
        """Admit a client that resumes after a position or, if `start` is a number, gets so many of the newest messages.

        Its transport then polls for the welcome.

        Raises Refused if the relay is draining or full.
        """
        self.check_room()
        client.cursor = self.feed.cursor_at(start)
        self._clients.add(client)
        self.subscribe(client)

    def check_room(self) -> None:
        """Raise Refused if the relay is draining or full, and do nothing else."""
        if self.draining:
            raise Refused("this relay is stopping", STOPPING_RETRY_SECONDS)
        if len(self._clients) >= self._max_clients:
            raise Refused(f"this relay is full ({self._max_clients} clients)", FULL_RETRY_SECONDS)

    def leave(self, client: Client) -> None:
        """Forget a client whose connection has ended, for whatever reason."""
        self._clients.discard(client)
        self.unsubscribe(client)
        if self.draining and not self._clients:
            self.empty.set()

    async def drain(self, seconds: float) -> None:
        """Refuse new clients, and let the transports close the joined ones, in portions over at most so many seconds.

        Returns once every client has its `drain_end`: its transport still sends it what is pending. The portions keep
        the other relays from getting all clients at once. A portion is at least one client: with few clients the drain
        ends early.
        """
        self.draining = True
        if not self._clients:
            self.empty.set()
        waiting = list(self._clients)
        deadline = anyio.current_time() + seconds
        while waiting := [client for client in waiting if client in self._clients]:
            # Computed anew each time: if a portion took long, the others are larger.
            portions = max(1, round((deadline - anyio.current_time()) / DRAIN_STEP_SECONDS))
            size = math.ceil(len(waiting) / portions)
            for client in waiting[:size]:
                client.drain_end = self.feed.caught_up
                client.notify()
            del waiting[:size]
            if waiting:
                await anyio.sleep(DRAIN_STEP_SECONDS)

    def count_gaps(self, count: int) -> None:
        """Add to the number of gaps that clients were sent."""
        self._metrics.gaps.labels("client").inc(count)

    def _slow_cursors(self) -> list[Cursor]:
        limit = anyio.current_time() - SLOW_SECONDS
        return [each.cursor for each in self._clients if each.blocked_since is not None and each.blocked_since < limit]
