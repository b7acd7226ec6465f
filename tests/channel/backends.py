"""The backends that the channel's suites run over: see `hello.testing.Backend`."""

import gc
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis

from hello.channel import Channel
from hello.channel.urls import open_channel
from hello.testing import CuttableChannel
from tests.redis_server import RedisServer


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
        """Count the generators that follow a log: a subscription in memory consists of one."""
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
        """Count the connections that wait in a blocking read, or were left open by one."""
        with redis.Redis.from_url(self._server.url) as client:
            # The server counts a closed connection until it has read its end.
            others = ("evalsha", "eval", "client|list")  # of publishers, and of this method
            return sum(info["cmd"] not in others for info in client.client_list())
