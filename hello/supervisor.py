"""Supervision of a channel: its status for one actor, and a subscription that survives losses.

A lost channel is retried without end. Any other error is raised, and ends the process. This file must not know what an
actor does, or who the clients are.
"""

import logging
import math
from collections.abc import AsyncGenerator, Callable

import anyio
from anyio.abc import TaskStatus

from hello.backoff import Backoff
from hello.channel import Batch, Channel, ChannelLost
from hello.message import Position
from hello.metrics import Metrics

UNREACHABLE_SECONDS = 10.0  # after which an actor is ready without its channel: see `ChannelStatus.ready`

log = logging.getLogger(__name__)


class ChannelStatus(TaskStatus[None]):
    """Whether the channel replies to one actor, for the log, the metrics and, by `on_change`, for the clients.

    It is the TaskStatus of the actor too. `ready` is set once the actor has started, or its channel was unreachable for
    UNREACHABLE_SECONDS: it then waits for the channel as it would after a loss. Otherwise Kubernetes would stop a
    rollout, or the drain of a node, until the server is back; and the server may be on that very node, and come back
    elsewhere only after the drain. A channel that refuses, or whose name does not resolve, may be a wrong setting: then
    a rollout must stop.
    """

    def __init__(self, actor: str, metrics: Metrics, on_change: Callable[[bool], None] = lambda up: None) -> None:
        self.up: bool | None = None  # None until the first reply or failure
        self.ready = anyio.Event()
        self.reason = ""  # of the last loss
        self._unreachable_since = math.inf
        self._actor = actor
        self._on_change = on_change
        self._gauge = metrics.channel_up.labels(actor)
        self._last_reply = self._last_change = anyio.current_time()
        metrics.channel_last_reply_age.labels(actor).set_function(lambda: anyio.current_time() - self._last_reply)

    def started(self, value: None = None) -> None:
        """Record that the actor has started."""
        self.ready.set()

    def replied(self) -> None:
        """Record that the channel has replied to this actor, if only by an empty batch."""
        self._last_reply = anyio.current_time()
        self._unreachable_since = math.inf
        if self.up is False:
            log.info("%s: channel back after %.1f s", self._actor, self._last_reply - self._last_change)
        if not self.up:
            self._set(up=True)

    def lost(self, reason: ChannelLost) -> None:
        """Record a failed attempt; the first one, and the first one after a reply, is logged."""
        now = anyio.current_time()
        self.reason = str(reason)
        self._unreachable_since = min(self._unreachable_since, now) if reason.unreachable else math.inf
        if now - self._unreachable_since >= UNREACHABLE_SECONDS:
            self.ready.set()
        if self.up is not False:
            log.warning("%s: channel lost, retrying until it is back: %s", self._actor, reason)
            self._set(up=False)

    def _set(self, *, up: bool) -> None:
        self.up = up
        self._last_change = anyio.current_time()
        self._gauge.set(up)
        self._on_change(up)


async def follow(
    channel: Channel,
    position: Callable[[], Position | None],
    status: ChannelStatus,
    on_subscribe: Callable[[Position], None] = lambda high_watermark: None,
) -> AsyncGenerator[Batch, None]:
    """Yield the batches of a subscription without an end: after each loss it subscribes again after `position()`.

    `on_subscribe` gets the high watermark of each subscription, before its first batch.
    """
    backoff = Backoff()
    while True:
        try:
            async with channel.subscribe(position()) as batches:
                status.replied()
                on_subscribe(batches.high_watermark)
                async for batch in batches:
                    status.replied()
                    yield batch
        except ChannelLost as reason:
            status.lost(reason)
        await backoff.wait()
