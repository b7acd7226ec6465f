"""When the channel is lost it is tried again for ever; any other error falls through and ends the process.

Here a broadcaster gets its voice, and a relay its subscription.

It knows neither actors nor browsers: it stands between an actor and the channel.
"""

import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import anyio
from anyio.abc import TaskStatus

from hello.channel import Batch, Channel, ChannelLost, Fenced
from hello.message import Message, Position
from hello.metrics import Metrics

SHORTEST_PAUSE = 0.1  # seconds, at most, before the second attempt; most losses are a connection that was closed
LONGEST_PAUSE = 2.0  # seconds; longer would add to an outage, shorter to the load on a server that starts
RENEW_SECONDS = 1.0  # between two claims of the voice: who waits for it has it within LEASE_SECONDS and this
RELEASE_SECONDS = 1.0  # for letting it go when the process stops; a channel that does not answer lets it lapse
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


class Voice:
    """The channel's one voice, as one broadcaster has it or waits for it.

    `speaker` names this very run of the broadcaster: another run of the same instance is another speaker.
    """

    def __init__(self, channel: Channel, speaker: str, link: Link) -> None:
        self._channel = channel
        self._speaker = speaker
        self._link = link
        self._mine = anyio.Event()  # set while this broadcaster has the voice, for all that it knows

    @property
    def mine(self) -> bool:
        """Whether this broadcaster may speak, for all that it knows; the channel has the last word."""
        return self._mine.is_set()

    async def keep(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Claim the voice, and keep it, for ever; started once the channel has answered, whoever has the voice."""
        pauses, started = Pauses(), False
        while True:
            try:
                mine = await self._channel.claim(self._speaker)
            except ChannelLost as reason:
                self._link.lost(reason)
                await pauses.sleep()
                continue
            self._link.word()
            if mine is not self.mine or not started:
                log.info("broadcaster: %s", "has the voice" if mine else "waits, another one has the voice")
            if mine:
                self._mine.set()
            else:
                self._lose()
            if not started:
                started = True
                task_status.started()
            await anyio.sleep(RENEW_SECONDS)

    async def turn(self) -> bool:
        """Return once this broadcaster has the voice; whether it had to wait for it."""
        waited = not self.mine
        await self._mine.wait()
        return waited

    async def say(self, message: Message) -> Position | None:
        """Publish the message, again and again with the same id until the channel has accepted it.

        None if another one has the voice meanwhile: the channel has not accepted the message, and it is dropped.
        """
        pauses = Pauses()
        while True:
            try:
                position = await self._publish(message)
            except ChannelLost as reason:
                self._link.lost(reason)
                await pauses.sleep()
            except Fenced:
                log.warning("broadcaster: lost the voice, and dropped a message that was not accepted")
                self._lose()
                return None
            else:
                self._link.word()
                return position

    async def release(self) -> None:
        """Let the voice go, so that another one need not wait until it lapses."""
        with anyio.move_on_after(RELEASE_SECONDS), suppress(ChannelLost):
            await self._channel.release(self._speaker)

    async def _publish(self, message: Message) -> Position:
        try:
            return await self._channel.publish(message, self._speaker)
        except Fenced:
            # The lease may have lapsed, in an outage, without anybody else taking the voice: hold on to the message.
            if await self._channel.claim(self._speaker):
                return await self._channel.publish(message, self._speaker)
            raise

    def _lose(self) -> None:
        if self.mine:
            self._mine = anyio.Event()


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
