"""The channel: a log with positions. Here are its methods and its promises; each backend has a file of its own.

Nine promises, each a test of that name which runs over every backend:

order    every subscriber sees the entries in one and the same order
seam     a subscriber from position p sees every kept entry after p, then the live ones: none missing, none twice
gap      where entries after p are gone, the subscriber is told so before the next entry; never silently skipped
once     publishing a message again (same id) adds nothing and returns the first position, within the last `history`
ready    once `subscribe` has been entered, whatever anyone publishes afterwards is seen
bounded  a channel keeps exactly its last `history` entries, whoever lags
voice    one speaker at a time has the voice, until it releases it or does not claim it for LEASE_SECONDS; a message of
         any other speaker is Fenced
outage   while the backend is away or refuses, publish and subscription raise ChannelLost within seconds
leave    leaving a subscription frees everything that it held, on error and cancellation too
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

from hello.message import Entry, Gap, Message, Position

WORD_SECONDS = 2.0  # a subscription that has nothing to say still says so as often as this: proof that it is not deaf
LEASE_SECONDS = 3.0  # how long a speaker that died keeps the voice: two claims of one a second may be late
BATCH = 1000  # entries in one batch, at most: a reader that comes back from far away does not hold up the event loop

Batch = list[Entry | Gap]


class ChannelLost(Exception):
    """The channel is away, or refuses; trying again may help. Its text says what happened, in one line."""


class Fenced(Exception):
    """The speaker does not have the voice, so that its message was not accepted."""


class Channel(Protocol):
    """A way to publish, a way to follow what was published, and a lease on being the one that speaks."""

    async def publish(self, message: Message, speaker: str | None = None) -> Position:
        """Append the message, and return the position that it has now, or had already if its id is known.

        With a `speaker`, only if this speaker has the voice at that moment; without one, whoever has it.

        Raises ChannelLost if it is not certain that the message was accepted: publish the very same message again.
        Raises Fenced if it certainly was not, since the speaker does not have the voice.
        """
        ...

    async def claim(self, speaker: str) -> bool:
        """Take the voice if it is free, or keep it, for LEASE_SECONDS from now; False while another speaker has it.

        Raises ChannelLost if it is not certain whether it was taken.
        """
        ...

    async def release(self, speaker: str) -> None:
        """Let the voice go, if this speaker has it.

        Raises ChannelLost if it is not certain that it was let go; it lapses then.
        """
        ...

    def subscribe(self, after: Position | None) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Follow the channel from position `after`; None starts at the oldest kept entry.

        What is entered yields batches of what has come since the last one, in order, without an end. A batch is empty
        where there is nothing more for now: once as soon as the reader has caught up, then every WORD_SECONDS.

        Where `after` is None and the channel has entries, a loss between entering and the first batch is told too; a
        reader that found a channel without a past is never told of one that it might have had.

        Raises ChannelLost on entering and on iterating.
        """
        ...


@asynccontextmanager
async def open_channel(url: str, *, history: int, password: str | None = None) -> AsyncIterator[Channel]:
    """Open the channel that `url` names, keeping `history` entries (at least 1); leaving closes it.

    Opening does not need the backend to be there: the first publish or subscribe finds out.

    Raises ValueError for a scheme that no backend answers to.
    """
    match urlsplit(url).scheme:
        case "memory":
            from hello.channel.memory import MemoryChannel

            yield MemoryChannel(history)
        case "redis" | "rediss":
            from hello.channel.redis import open_redis  # here alone, so that only who uses Redis loads its client

            async with open_redis(url, history=history, password=password) as channel:
                yield channel
        case scheme:
            raise ValueError(f"no channel for {scheme!r}: the known ones are memory://, redis:// and rediss://")
