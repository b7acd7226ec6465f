"""Opens the channel that a URL names. Only this file knows all backends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hello.channel import Channel
from hello.channel.address import SCHEMES as REDIS_SCHEMES
from hello.channel.address import Access, scheme_of

SCHEMES = ("memory", *REDIS_SCHEMES)  # of the URLs that `open_channel` accepts
DEFAULT_STREAM = "hello"
NO_ACCESS = Access()


@asynccontextmanager
async def open_channel(
    url: str, *, history: int, access: Access = NO_ACCESS, stream: str = DEFAULT_STREAM, replicas_ack: int = 0
) -> AsyncIterator[Channel]:
    """Open the channel of this URL, which keeps `history` entries (at least 1); leaving the context closes it.

    Channels with the same URL and the same `stream` are one. In memory each channel is one of its own, and only
    `history` has an effect. A name with braces would put the keys into several hash slots of a Redis Cluster.

    A message is published once `replicas_ack` replicas of Redis have acknowledged it.

    Opening does not need the backend to be there: the first publish or subscribe connects to it.

    Raises ValueError if the scheme is not one of SCHEMES, or the rest of the URL cannot be parsed.
    """
    match scheme_of(url):
        case "memory":
            from hello.channel.memory import MemoryChannel

            yield MemoryChannel(history)
        case scheme if scheme in SCHEMES:
            from hello.channel.redis import open_redis  # imported here, so that only a user of Redis loads its client

            async with open_redis(url, access, history=history, stream=stream, replicas_ack=replicas_ack) as channel:
                yield channel
        case scheme:
            raise ValueError(f"no channel for {scheme!r}: give one of {', '.join(f'{known}://' for known in SCHEMES)}")
