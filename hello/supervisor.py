"""Supervision of a channel: its status for one actor, and a subscription that survives losses.

A lost channel is retried without end. Any other error is raised, and ends the process. This file must not know what an
actor does, or who the clients are.
"""

import logging
from collections.abc import AsyncGenerator, Callable

import anyio

from hello.backoff import Backoff
from hello.channel import Batch, Channel, ChannelLost
from hello.message import Position
from hello.metrics import Metrics

log = logging.getLogger(__name__)


class ChannelStatus:
    """Whether the channel replies to one actor, for the log, the metrics and, by `on_change`, for the clients."""

    def __init__(self, actor: str, metrics: Metrics, on_change: Callable[[bool], None] = lambda up: None) -> None:
        self.up: bool | None = None  # None until the first reply or failure
        self._actor = actor
        self._on_change = on_change
        self._gauge = metrics.channel_up.labels(actor)
        self._last_reply = self._last_change = anyio.current_time()
        metrics.channel_last_reply_age.labels(actor).set_function(lambda: anyio.current_time() - self._last_reply)

    def replied(self) -> None:
        """Record that the channel has replied to this actor, if only by an empty batch."""
        self._last_reply = anyio.current_time()
        if self.up is False:
            log.info("%s: channel back after %.1f s", self._actor, self._last_reply - self._last_change)
        if not self.up:
            self._set(up=True)

    def lost(self, reason: ChannelLost) -> None:
        """Record a failed attempt; only the first one after a reply is logged."""
        if self.up is not False:
            log.warning("%s: channel lost, retrying until it is back: %s", self._actor, reason)
            self._set(up=False)

    def _set(self, *, up: bool) -> None:
        self.up = up
        self._last_change = anyio.current_time()
        self._gauge.set(up)
        self._on_change(up)


async def follow(
    channel: Channel, position: Callable[[], Position | None], status: ChannelStatus
) -> AsyncGenerator[Batch, None]:
    """Yield the batches of a subscription without an end: after each loss it subscribes again after `position()`."""
    backoff = Backoff()
    while True:
        try:
            async with channel.subscribe(position()) as batches:
                status.replied()
                async for batch in batches:
                    status.replied()
                    yield batch
        except ChannelLost as reason:
            status.lost(reason)
        await backoff.wait()
