"""The actor that publishes, and what such an actor sees of the channel: a Publisher. It knows no channel.

An actor is a task that runs as long as its process: this one, or the relay.
"""

import random
from typing import Protocol

import anyio

from hello.message import Position


class Publisher(Protocol):
    """What an actor gets to publish with. In a process it is the leader's lease, `hello.lease.Lease`."""

    async def leader(self) -> float:
        """Return once this process is the leader: of several that run the actor, only the leader may publish.

        The value is the event loop's time (`anyio.current_time()`) at which it became the leader.
        """
        ...

    async def publish(self, text: str) -> Position | None:
        """Publish a new message with this text, and return its position once the channel has accepted it.

        None if another process has become the leader: the message was not accepted, and is not published later.

        Raises Malformed if the text is empty or has more than MAX_TEXT characters.
        """
        ...


async def broadcaster(publisher: Publisher, *, text: str, interval: tuple[float, float]) -> None:
    """Publish `text` without an end; the pauses between messages, in seconds, are drawn uniformly from `interval`."""
    while True:
        leader_since = await publisher.leader()
        # The former leader may have published a moment before: messages of two leaders are no closer than those of one,
        # but for a message that was retried while another process was the leader, and gave the lease up again.
        await anyio.sleep_until(leader_since + interval[0])
        if await publisher.publish(text) is None:
            continue  # another process is the leader, and publishes: this one waits until it is the leader again
        await anyio.sleep(random.uniform(*interval))
