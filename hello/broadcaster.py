"""The actor that speaks: it publishes a message, pauses, and goes on. It knows neither channel nor relay."""

import random
import uuid
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskStatus

from hello.message import Message, now_ms


async def broadcaster(
    outbox: Callable[[Message], Awaitable[object]],
    *,
    text: str,
    instance: str,
    interval: tuple[float, float],
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Say `text` for ever; the pauses, in seconds, are drawn uniformly from `interval`.

    `outbox` returns once the message was accepted, however long that takes: a message that could not be published is
    not replaced by another one. The actor has started once its first message was accepted.
    """
    started = False
    while True:
        await outbox(Message(id=uuid.uuid4().hex, text=text, broadcaster=instance, sent_at=now_ms()))
        if not started:
            started = True
            task_status.started()
        await anyio.sleep(random.uniform(*interval))
