"""The backends that the channel's suites run over: how to open one, cut it off, heal it, and see what it holds."""

import gc
import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import redis

from hello.channel import Channel, open_channel
from hello.testing import CuttableChannel
from tests.redis_server import RedisServer


class Backend(Protocol):
    """One kind of channel under test. What it opens shares its entries with all else that it opens."""

    def open(self, history: int = 1000) -> AbstractAsyncContextManager[Channel]: ...

    def cut(self) -> None:
        """Take the backend away from every channel that was opened."""
        ...

    def heal(self) -> None:
        """Bring it back with all that it had accepted."""
        ...

    def held(self) -> int:
        """How many things are held for subscriptions at the moment, in a unit of the backend's own."""
        ...


class MemoryBackend:
    def __init__(self) -> None:
        self._channel: CuttableChannel | None = None

    @asynccontextmanager
    async def open(self, history: int = 1000) -> AsyncIterator[Channel]:
        if self._channel is None:
            async with open_channel("memory://", history=history) as channel:
                self._channel = CuttableChannel(channel)
        yield self._channel

    def cut(self) -> None:
        assert self._channel is not None
        self._channel.cut()

    def heal(self) -> None:
        assert self._channel is not None
        self._channel.heal()

    def held(self) -> int:
        """The generators that follow a log: all that a subscription in memory consists of."""
        gc.collect()
        alive = (item for item in gc.get_objects() if inspect.isasyncgen(item) and item.ag_frame is not None)
        return sum(item.__name__ == "_follow" for item in alive)


class RedisBackend:
    def __init__(self, server: RedisServer) -> None:
        self._server = server

    @asynccontextmanager
    async def open(self, history: int = 1000) -> AsyncIterator[Channel]:
        async with open_channel(self._server.url, history=history) as channel:
            yield channel

    def cut(self) -> None:
        self._server.kill()

    def heal(self) -> None:
        self._server.start()

    def held(self) -> int:
        """The connections that wait in a blocking read, or were left open by one."""
        with redis.Redis.from_url(self._server.url) as client:
            # A closed connection is gone for the server only once it has read the end of it.
            return sum(info["cmd"] != "evalsha" for info in client.client_list() if info["cmd"] != "client|list")
