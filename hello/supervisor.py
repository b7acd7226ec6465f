"""When the channel is lost it is tried again for ever; any other error falls through and ends the process.

It knows neither actors nor browsers; it wraps what they do with the channel.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from hello.channel import ChannelLost
from hello.metrics import Metrics

T = TypeVar("T")

SHORTEST_PAUSE = 0.1  # seconds before the second attempt; most losses are a connection that was closed
LONGEST_PAUSE = 2.0  # seconds; longer would add to an outage, shorter to the load on a server that starts
STEADY_SECONDS = 10.0  # an attempt that held for so long was no part of the trouble before it

log = logging.getLogger(__name__)


class Link:
    """One actor's connection with the channel, as the log, the metrics and the browsers are told of it."""

    def __init__(self, actor: str, metrics: Metrics, changed: Callable[[bool], None] = lambda up: None) -> None:
        self.up = False
        self._actor = actor
        self._changed = changed
        self._gauge = metrics.channel_up.labels(actor)
        self._heard_at = self._since = anyio.current_time()
        self._told = False
        metrics.channel_word_age.labels(actor).set_function(lambda: anyio.current_time() - self._heard_at)

    def word(self) -> None:
        """The channel has said something to this actor, if only that it is there."""
        self._heard_at = anyio.current_time()
        if not self.up:
            if self._told:
                log.info("%s: channel back after %.1f s", self._actor, self._heard_at - self._since)
            self._turn(True)

    def lost(self, reason: ChannelLost) -> None:
        """The channel was lost; only the first loss after a word is logged."""
        if self.up or not self._told:
            self._told = True
            log.warning("%s: channel lost, trying again until it is back: %s", self._actor, reason)
        if self.up:
            self._turn(False)

    def _turn(self, up: bool) -> None:
        self.up = up
        self._since = anyio.current_time()
        self._gauge.set(up)
        self._changed(up)


async def persist(attempt: Callable[[], Awaitable[T]], link: Link) -> T:
    """Run `attempt` until it ends without losing the channel, and return what it returns.

    The pauses between two attempts double up to LONGEST_PAUSE; each is drawn between half of that and the whole.
    """
    failures = 0
    while True:
        began = anyio.current_time()
        try:
            return await attempt()
        except ChannelLost as reason:
            link.lost(reason)
        failures = 0 if anyio.current_time() - began > STEADY_SECONDS else failures + 1
        pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(failures, 10))
        await anyio.sleep(random.uniform(pause / 2, pause))
