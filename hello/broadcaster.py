"""The actor that publishes: it waits until it is the leader, publishes, pauses, and repeats. It knows no channel."""

import random
from collections.abc import Awaitable, Callable

import anyio

from hello.message import Message


async def broadcaster(
    wait_until_leader: Callable[[], Awaitable[bool]],
    publish: Callable[[Message], Awaitable[object]],
    *,
    text: str,
    instance: str,
    interval: tuple[float, float],
) -> None:
    """Publish `text` without an end; the pauses between messages, in seconds, are drawn uniformly from `interval`.

    `instance` is the name of this process. `wait_until_leader` waits until this broadcaster is the leader. It returns
    True if it became the leader since the last call: another broadcaster may then have published a moment ago.
    `publish` returns once the message has been accepted, or dropped since another broadcaster is the leader.
    """
    while True:
        if await wait_until_leader():
            await anyio.sleep(interval[0])  # messages of two leaders are not closer than those of one
        await publish(Message.new(text, broadcaster=instance))
        await anyio.sleep(random.uniform(*interval))
