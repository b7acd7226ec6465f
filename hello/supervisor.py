"""When the channel is lost it is tried again for ever; any other error falls through and ends the process.

It knows neither actors nor browsers: it stands between an actor and the channel.
"""

import logging
import random
from collections.abc import AsyncGenerator, Callable

import anyio

from hello.channel import Batch, Channel, ChannelLost
from hello.message import Message, Position
from hello.metrics import Metrics

SHORTEST_PAUSE = 0.1  # seconds, at most, before the second attempt; most losses are a connection that was closed
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


class Pauses:
    """The pauses between attempts: they double up to LONGEST_PAUSE, and begin anew after an attempt that held.

    Each is drawn between half of that and the whole, so that processes that lost the channel together spread out.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._began = anyio.current_time()

    async def sleep(self) -> None:
        held = anyio.current_time() - self._began > STEADY_SECONDS
        self._failures = 1 if held else min(self._failures + 1, 10)
        pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** (self._failures - 1))
        await anyio.sleep(random.uniform(pause / 2, pause))
        self._began = anyio.current_time()


async def publish(channel: Channel, message: Message, link: Link) -> Position:
    """Publish the message, again and again with the same id until the channel has accepted it."""
    pauses = Pauses()
    while True:
        try:
            position = await channel.publish(message)
        except ChannelLost as reason:
            link.lost(reason)
            await pauses.sleep()
        else:
            link.word()
            return position


async def follow(channel: Channel, position: Callable[[], Position | None], link: Link) -> AsyncGenerator[Batch, None]:
    """The batches of a subscription that does not end: after each loss it resumes from `position()`."""
    pauses = Pauses()
    while True:
        try:
            async with channel.subscribe(position()) as batches:
                link.word()
                async for batch in batches:
                    link.word()
                    yield batch
        except ChannelLost as reason:
            link.lost(reason)
        await pauses.sleep()
