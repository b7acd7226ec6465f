"""The channel, a log with positions: its methods and its promises.

A backend is one way to keep the promises, such as Redis, and has a file of its own.

Nine promises, each a check of that name in `hello.testing.check_channel`, which every backend passes:

order    all subscribers receive the entries in one and the same order
seam     a subscriber from position p receives every kept entry after p, then the new ones: none missing, none twice
         where the two meet
gap      where entries after p are gone, the `prev` of the next entry is greater than p: no loss is skipped silently.
         A server that lost its newest entries must not use their positions again. So the code for a backend remembers
         the high watermark, the highest position that this process has published or read, and sends it to the server
         with every call: new entries come after it
once     publishing a message again (same id) adds nothing, and returns the position that the message already has, as
         long as it is among the last `history` entries
ready    once `subscribe` has been entered, every entry published afterwards is received, unless it was trimmed first,
         and comes after the high watermark of the subscription
bounded  a channel keeps exactly its last `history` entries, however slow its readers are
leader   at most one process at a time has the lease, until it releases the lease or has not renewed it for
         LEASE_SECONDS; a new message from any other holder is refused (Fenced)
outage   while the server is away or refuses, publish and subscription raise ChannelLost within seconds
leave    leaving a subscription frees everything that it held, on error and cancellation too

A backend of several servers keeps one more, which its own tests show:

durable  with n copies asked for, a message counts as published once n other servers have it, and no failover is in
         progress: it survives the loss of any one server, and a failover by hand
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from hello.message import Entry, Message, Position

HEARTBEAT_SECONDS = 2.0  # between two batches of a quiet subscription: an empty batch proves that the server replies
# A leader that died blocks the others for so long. A living one renews every second, and may be two seconds late.
LEASE_SECONDS = 3.0
MAX_BATCH = 1000  # entries: a reader that is far behind does not block the event loop

Batch = list[Entry]


class Subscription(AsyncIterator[Batch]):
    """The batches of a subscription, without an end.

    `high_watermark` is the highest position that any process had published or read, as far as the server knew when the
    subscription was entered. A reader of an empty channel starts there: if the `prev` of an entry is greater, another
    entry was lost before it.
    """

    def __init__(self, high_watermark: Position, batches: AsyncGenerator[Batch, None]) -> None:
        self.high_watermark = high_watermark
        self._batches = batches

    async def __anext__(self) -> Batch:
        return await anext(self._batches)


class ChannelLost(Exception):
    """The server is away, or refuses; a retry may help. The text of the error says what happened, in one line.

    `unreachable` is True if nothing replies, and nothing points to a wrong setting: the name of the server resolves,
    and neither a log-in nor a TLS handshake has failed.
    """

    def __init__(self, text: str, *, unreachable: bool = False) -> None:
        super().__init__(text)
        self.unreachable = unreachable


class Unsupported(Exception):
    """The server is of a version that cannot keep the promises. The text of the error says which, and which can."""


class Fenced(Exception):
    """The message was not accepted, since the process that published it does not have the lease."""


class Channel(Protocol):
    """A way to publish, a way to subscribe to what is published, and a lease for the one process that publishes.

    `holder` is the name under which a process acquires the lease.

    A method raises Unsupported if the first server that this channel reaches cannot keep the promises. If a later one
    cannot, as after a failover, the method raises ChannelLost: another one may follow.
    """

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        """Append the message and return its position; a message whose id is known is not appended again.

        With a `holder`, a new message is appended only if this holder has the lease at that moment. With None the lease
        is not checked, for tools and tests.

        Raises ChannelLost if it is not certain that the message was accepted: publish the very same message again.
        Raises Fenced if the message certainly was not accepted, since the holder does not have the lease.
        """
        ...

    async def acquire(self, holder: str) -> bool:
        """Acquire the lease if it is free, or renew it, for LEASE_SECONDS from now; False if another holder has it.

        Raises ChannelLost if it is not certain whether the lease was acquired.
        """
        ...

    async def release(self, holder: str) -> None:
        """Give the lease up, if this holder has it.

        Raises ChannelLost if it is not certain that the lease was released; it then expires by itself.
        """
        ...

    def subscribe(self, after: Position | None) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe to the entries after a position; None starts at the oldest kept entry.

        Each batch has the entries that came since the last one, in order, at most MAX_BATCH. The first time that the
        reader has caught up it gets one empty batch; after that, an empty batch after every HEARTBEAT_SECONDS without
        an entry. The reader finds losses by `Entry.follows`.

        Raises ChannelLost on entering and on iterating.
        """
        ...
