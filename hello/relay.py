"""The actor that passes on: what the channel says goes to the audience. It knows neither browsers nor backends."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from hello.audience import Audience
from hello.channel import Batch
from hello.feed import BLOCK
from hello.message import Gap
from hello.metrics import Metrics

# Bytes of frames passed on in one turn of the event loop: nobody waits long for them, and who has been given everything
# is given them in one write, so that it does not fall behind where the channel has much to say.
PIECE = BLOCK - 512  # a message less than what a reader takes at once


async def relay(
    inbox: AsyncIterator[Batch],
    audience: Audience,
    *,
    metrics: Metrics,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Pass on what comes, for ever; `inbox` goes on after what the audience has, however often the channel is lost.

    The actor has started once it has passed on everything that the channel kept.
    """
    started = False
    async for batch in inbox:
        size = 0
        for item in batch:
            if isinstance(item, Gap):
                metrics.gaps.labels("relay").inc()
                continue
            if size > PIECE:
                audience.wake()
                size = 0
                await anyio.lowlevel.checkpoint()
            if (relayed := audience.append(item)) is not None:
                size += len(relayed.frame.json)
                if started:  # history is not news
                    metrics.relayed.inc()
                    metrics.relay_seconds.observe(max(0, relayed.relayed_at - relayed.message.sent_at) / 1000)
        audience.wake()
        if not batch and not started:
            started = True
            task_status.started()
