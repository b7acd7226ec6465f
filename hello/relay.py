"""The actor that relays: it appends to the hub every entry of the channel. It knows neither clients nor backends."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from hello.channel import Batch
from hello.feed import BLOCK_BYTES
from hello.hub import Hub
from hello.message import Position
from hello.metrics import Metrics


async def relay(
    batches: AsyncIterator[Batch],
    hub: Hub,
    *,
    metrics: Metrics,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Append the entries of the batches to the hub, and notify its clients, without an end.

    After a loss of the channel, `batches` must resume after the head of the hub's feed. The actor has started once it
    has appended every entry that the channel kept: until then clients get no messages.
    """
    started = False
    position: Position | None = None  # of the last entry received, even if the hub dropped it (see `Feed.append`)
    async for batch in batches:
        unsent = 0  # bytes of frames appended since the last notification
        for entry in batch:
            if not entry.follows(position):
                metrics.gaps.labels("relay").inc()
            position = entry.position
            # A client gets about BLOCK_BYTES by one poll. If it is notified each time that so much is new, a client
            # that keeps up needs one poll and one write for each notification. The checkpoint lets other tasks run.
            if unsent >= BLOCK_BYTES:
                hub.notify_all()
                unsent = 0
                await anyio.lowlevel.checkpoint()
            if (relayed := hub.feed.append(entry)) is not None:
                unsent += len(relayed.frame.json)
                if started:  # the history was relayed when it was new, and its age would spoil relay_seconds
                    metrics.relayed.inc()
                    metrics.relay_seconds.observe(max(0, relayed.relayed_at - relayed.message.sent_at) / 1000)
        hub.notify_all()
        if not batch and not started:  # the first empty batch: the subscription has caught up
            started = True
            hub.set_loaded()
            task_status.started()
