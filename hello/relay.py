"""The actor that passes on: what the channel says goes to the audience. It knows neither browsers nor backends."""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskStatus

from hello.audience import Audience
from hello.channel import Channel
from hello.message import Gap
from hello.metrics import Metrics


async def relay(
    channel: Channel,
    audience: Audience,
    *,
    heard: Callable[[], None],
    persist: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    metrics: Metrics,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Follow the channel for ever, from where the audience stands each time that it was lost.

    The actor has started once it has passed on everything that the channel kept.
    """
    started = False

    async def follow() -> None:
        nonlocal started
        async with channel.subscribe(audience.head) as batches:
            heard()
            async for batch in batches:
                heard()
                for item in batch:
                    if isinstance(item, Gap):
                        metrics.gaps.labels("relay").inc()
                    else:
                        audience.append(item)
                audience.wake()
                if not batch and not started:
                    started = True
                    task_status.started()

    await persist(follow)
