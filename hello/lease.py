"""The leader's lease, for one broadcaster: of several, only the leader publishes. It must not know clients."""

import logging
import uuid
from contextlib import suppress

import anyio

from hello.backoff import Backoff
from hello.broadcaster import Publisher
from hello.channel import Channel, ChannelLost, Fenced
from hello.message import Message, Position
from hello.metrics import Metrics
from hello.supervisor import ChannelStatus

RENEW_SECONDS = 1.0  # between two attempts; a leader that died has a successor within LEASE_SECONDS + RENEW_SECONDS
RELEASE_SECONDS = 1.0  # for the release when the process stops; if the channel does not reply, the lease expires

log = logging.getLogger(__name__)


class Lease(Publisher):
    """The lease as one process has it or waits for it."""

    def __init__(self, channel: Channel, instance: str, metrics: Metrics) -> None:
        self._channel = channel
        self._instance = instance
        self._holder = f"{instance} {uuid.uuid4().hex}"  # another run of the same instance is another holder
        self.status = ChannelStatus("broadcaster", metrics)
        self._metrics = metrics
        self._leader = anyio.Event()  # set while this process is the leader, as far as it knows
        self._leader_since = 0.0  # event loop time
        metrics.leader.set_function(lambda: self.is_leader)

    @property
    def is_leader(self) -> bool:
        """True if this process may publish, as far as it knows: the channel itself decides at each publish."""
        return self._leader.is_set()

    async def renew(self) -> None:
        """Acquire the lease and renew it, without an end.

        `status` has started once the channel has replied, whether or not this process is the leader then.
        """
        backoff = Backoff()
        while True:
            try:
                acquired = await self._acquire()
            except ChannelLost as reason:
                # It remains the leader, as far as it knows: `publish` retries its message, and the channel decides.
                self.status.lost(reason)
                await backoff.wait()
                continue
            if acquired is not self.is_leader or not self.status.up:  # at the start and after an outage, too
                log.info("broadcaster: %s", "is the leader" if acquired else "waits, another broadcaster is the leader")
            self.status.replied()
            if acquired and not self.is_leader:
                self._leader_since = anyio.current_time()
                self._leader.set()
            elif not acquired:
                self._step_down()
            self.status.started()
            await anyio.sleep(RENEW_SECONDS)

    async def leader(self) -> float:
        await self._leader.wait()
        return self._leader_since

    async def publish(self, text: str) -> Position | None:
        """Publish the text as a message, repeatedly with the same id until the channel has accepted it."""
        message = Message.new(text, broadcaster=self._instance)
        backoff = Backoff()
        while True:
            try:
                position = await self._publish(message)
            except ChannelLost as reason:
                self.status.lost(reason)
                await backoff.wait()
            except Fenced:
                log.warning("broadcaster: is no longer the leader, and dropped a message that was not accepted")
                self._metrics.fenced.inc()
                self._step_down()
                return None
            else:
                self.status.replied()
                self._metrics.published.inc()
                return position

    async def release(self) -> None:
        """Release the lease, so that another holder need not wait until it expires.

        Call it after `renew` and every `publish` have ended: both acquire the lease.
        """
        with anyio.move_on_after(RELEASE_SECONDS), suppress(ChannelLost):
            await self._channel.release(self._holder)

    async def _publish(self, message: Message) -> Position:
        while True:
            try:
                return await self._channel.publish(message, self._holder)
            except Fenced:
                # The lease may have expired in an outage, or a Redis that is short of memory may have evicted it, even
                # again and again. Only if another holder has it now is the message dropped.
                if not await self._acquire():
                    raise

    async def _acquire(self) -> bool:
        # A request that is cancelled on its way may arrive after that of `release`, and no process would be the leader
        # until the lease expires. The wait is short: a channel that does not reply is lost within seconds.
        with anyio.CancelScope(shield=True):
            acquired = await self._channel.acquire(self._holder)
        return acquired  # noqa: RET504  # returned outside, since to mypy the scope may swallow any exception

    def _step_down(self) -> None:
        if self.is_leader:
            self._leader = anyio.Event()
