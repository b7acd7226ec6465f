"""The whole system in one event loop, in any shape, in real or virtual time, and a browser to look at it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio

from hello.channel import Batch, Channel, ChannelLost
from hello.message import Message, Position


class CuttableChannel:
    """A channel whose backend can be cut off and healed, as a network would do it to a remote one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._cut = anyio.Event()

    def cut(self) -> None:
        """From now on publish and subscription raise ChannelLost; one that waits does so at its next word."""
        self._cut.set()

    def heal(self) -> None:
        """The backend is back, with everything that it had accepted."""
        self._cut = anyio.Event()

    async def publish(self, message: Message) -> Position:
        self._check()
        return await self._channel.publish(message)

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[AsyncIterator[Batch]]:
        self._check()
        async with self._channel.subscribe(after) as batches, aclosing(self._follow(batches)) as checked:
            yield checked

    async def _follow(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        cut = self._cut  # a subscription does not outlive a cut, even one that was healed meanwhile
        async for batch in batches:  # one comes at least every WORD_SECONDS
            if cut.is_set():
                raise ChannelLost("cut off")
            yield batch

    def _check(self) -> None:
        if self._cut.is_set():
            raise ChannelLost("cut off")
