"""The actor that relays: it appends what the channel yields to the hub. It knows neither clients nor backends."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from hello.channel import Batch
from hello.feed import BLOCK_BYTES
from hello.hub import Hub
from hello.message import Position
from hello.metrics import Metrics

# Bytes of frames between two notifications of the clients. It is less, by a typical message, than what a client takes
# at once: so a client that is caught up gets each piece in one write, and stays caught up when much is published.
FLUSH_BYTES = BLOCK_BYTES - 512


async def relay(
    batches: AsyncIterator[Batch],
    hub: Hub,
    *,
    metrics: Metrics,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Append the entries of the batches to the hub, and notify its clients, without an end.

    `batches` resumes after the head of the hub, however often the channel is lost. The actor has started once it has
    appended every entry that the channel kept.
    """
    started = False
    position: Position | None = None  # of the last entry received
    async for batch in batches:
        unsent = 0  # bytes of frames appended since the last notification
        for entry in batch:
            if not entry.follows(position):
                metrics.gaps.labels("relay").inc()
            position = entry.position
            if unsent > FLUSH_BYTES:
                hub.notify_all()
                unsent = 0
                await anyio.lowlevel.checkpoint()
            if (relayed := hub.append(entry)) is not None:
                unsent += len(relayed.frame.json)
                if started:  # the history is not counted: it was relayed before
                    metrics.relayed.inc()
                    metrics.relay_seconds.observe(max(0, relayed.relayed_at - relayed.message.sent_at) / 1000)
        hub.notify_all()
        if not batch and not started:
            started = True
            task_status.started()
