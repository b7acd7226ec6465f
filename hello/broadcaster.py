"""The actor that speaks: it waits for its turn, publishes a message, pauses, and goes on. It knows no channel."""

import random
import uuid
from collections.abc import Awaitable, Callable

import anyio

from hello.message import Message, now_ms


async def broadcaster(
    turn: Callable[[], Awaitable[bool]],
    outbox: Callable[[Message], Awaitable[object]],
    *,
    text: str,
    instance: str,
    interval: tuple[float, float],
) -> None:
    """Say `text` for ever; the pauses, in seconds, are drawn uniformly from `interval`.

    `turn` returns once this broadcaster may speak, and whether another one may have spoken until now. `outbox` returns
    once the message was accepted, however long that takes, or will never be: it is not replaced by another one.
    """
    while True:
        if await turn():
            await anyio.sleep(interval[0])  # two messages are never closer than that
        await outbox(Message(id=uuid.uuid4().hex, text=text, broadcaster=instance, sent_at=now_ms()))
        await anyio.sleep(random.uniform(*interval))
