"""The leader's lease, for one broadcaster: of several, only the leader publishes. It must not know clients."""

import logging
from contextlib import suppress

import anyio
from anyio.abc import TaskStatus

from hello.backoff import Backoff
from hello.channel import Channel, ChannelLost, Fenced
from hello.message import Message, Position
from hello.supervisor import ChannelStatus

RENEW_SECONDS = 1.0  # between two attempts; a leader that died has a successor within LEASE_SECONDS + RENEW_SECONDS
RELEASE_SECONDS = 1.0  # for the release when the process stops; if the channel does not reply, the lease expires

log = logging.getLogger(__name__)


class Lease:
    """The lease as one holder has it or waits for it.

    `holder` names this very run of the broadcaster: another run of the same instance is another holder.
    """

    def __init__(self, channel: Channel, holder: str, status: ChannelStatus) -> None:
        self._channel = channel
        self._holder = holder
        self._status = status
        self._leader = anyio.Event()  # set while this holder is the leader, as far as it knows
        self._is_new = False  # True from becoming the leader until `wait_until_leader` has returned it

    @property
    def is_leader(self) -> bool:
        """True if this holder may publish, as far as it knows: the channel itself decides at each publish."""
        return self._leader.is_set()

    async def renew(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Acquire the lease and renew it, without an end.

        The task has started once the channel has replied, whether or not this holder is the leader then.
        """
        backoff, started = Backoff(), False
        while True:
            try:
                acquired = await self._channel.acquire(self._holder)
            except ChannelLost as reason:
                # It remains the leader, as far as it knows: `publish` retries its message, and the channel decides.
                self._status.lost(reason)
                await backoff.wait()
                continue
            self._status.replied()
            if acquired is not self.is_leader or not started:
                log.info("broadcaster: %s", "is the leader" if acquired else "waits, another broadcaster is the leader")
            if acquired and not self.is_leader:
                self._is_new = True
                self._leader.set()
            elif not acquired:
                self._step_down()
            if not started:
                started = True
                task_status.started()
            await anyio.sleep(RENEW_SECONDS)

    async def wait_until_leader(self) -> bool:
        """Return once this holder is the leader; True if it has become the leader since the last call."""
        await self._leader.wait()
        is_new, self._is_new = self._is_new, False
        return is_new

    async def publish(self, message: Message) -> Position | None:
        """Publish the message, repeatedly with the same id until the channel has accepted it; return its position.

        None if another holder has become the leader: the channel has not accepted the message, and it is dropped.
        """
        backoff = Backoff()
        while True:
            try:
                position = await self._publish(message)
            except ChannelLost as reason:
                self._status.lost(reason)
                await backoff.wait()
            except Fenced:
                log.warning("broadcaster: is no longer the leader, and dropped a message that was not accepted")
                self._step_down()
                return None
            else:
                self._status.replied()
                return position

    async def release(self) -> None:
        """Release the lease, so that another holder need not wait until it expires. Call it after `renew` has ended."""
        with anyio.move_on_after(RELEASE_SECONDS), suppress(ChannelLost):
            await self._channel.release(self._holder)

    async def _publish(self, message: Message) -> Position:
        while True:
            try:
                return await self._channel.publish(message, self._holder)
            except Fenced:
                # The lease may have expired in an outage, or been evicted, even again and again. Only if another holder
                # has it now is the message dropped.
                if not await self._channel.acquire(self._holder):
                    raise

    def _step_down(self) -> None:
        if self.is_leader:
            self._leader = anyio.Event()
