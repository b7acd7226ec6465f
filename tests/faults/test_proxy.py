"""What the proxy does to a connection, seen from both of its ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import pytest
from redis import Redis

from hello.channel import Channel, ChannelLost, open_channel
from hello.testing.conformance import make_message
from tests.faults.proxy import Proxy
from tests.faults.recorder import until
from tests.redis_server import RedisServer

LIMIT_SECONDS = 20.0


@pytest.fixture
def anyio_backend() -> str:
    """The proxy uses asyncio's own streams."""
    return "asyncio"


class End(NamedTuple):
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Proxied:
    """A proxy with its clients, before a server that accepts and sends nothing by itself."""

    def __init__(self) -> None:
        self.proxy: Proxy
        self.clients: list[End] = []
        self.servers: list[End] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.servers.append(End(reader, writer))

    async def connect(self) -> End:
        self.clients.append(End(*await asyncio.open_connection("127.0.0.1", self.proxy.port)))
        return self.clients[-1]

    async def accepted(self, count: int) -> End:
        """Return the server's end of connection number `count`."""
        await until(lambda: len(self.servers) == count, LIMIT_SECONDS, "the server has accepted")
        return self.servers[-1]

    async def connect_through(self) -> tuple[End, End]:
        """Return both ends of a new connection."""
        count = len(self.servers)
        return await self.connect(), await self.accepted(count + 1)

    async def is_refused(self) -> bool:
        try:
            await self.connect()
        except ConnectionRefusedError:
            return True
        return False


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxied]:
    around = Proxied()
    server = await asyncio.start_server(around.accept, "127.0.0.1", 0)
    around.proxy = Proxy("test", server.sockets[0].getsockname()[1])
    async with anyio.create_task_group() as group:
        await group.start(around.proxy.run)
        with anyio.fail_after(LIMIT_SECONDS):
            yield around
        group.cancel_scope.cancel()
    server.close()
    for end in around.clients + around.servers:
        end.writer.transport.abort()


@asynccontextmanager
async def proxied_channel(server: RedisServer) -> AsyncIterator[tuple[Proxy, Channel]]:
    proxy = Proxy("test", server.port)
    async with anyio.create_task_group() as group:
        await group.start(proxy.run)
        async with open_channel(f"redis://127.0.0.1:{proxy.port}", history=10) as channel:
            yield proxy, channel
        group.cancel_scope.cancel()


async def settle() -> None:
    """Let everything pass that would pass by now: bytes through another proxy there and back, twice."""
    async with proxied() as other:
        client, server = await other.connect_through()
        for _ in range(2):
            client.writer.write(b"?")
            server.writer.write(await server.reader.readexactly(1))
            await client.reader.readexactly(1)


async def is_silent(end: End) -> bool:
    """True if nothing has come that was not read, not even an end."""
    with anyio.move_on_after(0) as nothing:
        await end.reader.read(1)
    return nothing.cancelled_caught


async def assert_reset(*ends: End) -> None:
    for end in ends:
        with pytest.raises(ConnectionResetError):
            await end.reader.read()


async def test_open() -> None:
    """An open proxy passes everything on, and the end."""
    async with proxied() as around:
        client, server = await around.connect_through()
        client.writer.write(b"a question" * 20_000)
        assert await server.reader.readexactly(200_000) == b"a question" * 20_000
        server.writer.write(b"an answer")
        server.writer.close()
        assert await client.reader.read() == b"an answer"


async def test_cut() -> None:
    """A cut resets the connections, and refuses new ones until it ends."""
    async with proxied() as around:
        ends = await around.connect_through()
        around.proxy.set("cut")
        await assert_reset(*ends)
        assert await around.is_refused()
        around.proxy.set("open")
        while await around.is_refused():
            await anyio.lowlevel.checkpoint()
        server = await around.accepted(2)
        around.clients[-1].writer.write(b"again")
        assert await server.reader.readexactly(5) == b"again"


async def test_hang() -> None:
    """A proxy that hangs accepts connections and passes nothing on, not even an end, until it is open again."""
    async with proxied() as around:
        client, server = await around.connect_through()
        around.proxy.set("hang")
        client.writer.write(b"late")
        client.writer.close()
        (await around.connect()).writer.write(b"later")
        await settle()
        assert await is_silent(server)
        assert len(around.servers) == 1
        around.proxy.set("open")
        assert await server.reader.read() == b"late"
        assert await (await around.accepted(2)).reader.readexactly(5) == b"later"


async def test_delay() -> None:
    """Everything comes later, and in order."""
    async with proxied() as around:
        client, server = await around.connect_through()
        around.proxy.set("delay")
        client.writer.write(b"one")
        await settle()
        assert await is_silent(server)
        client.writer.write(b"two")
        assert await server.reader.readexactly(6) == b"onetwo"


async def test_slice() -> None:
    """Everything comes in slices, and in order."""
    async with proxied() as around:
        client, server = await around.connect_through()
        around.proxy.set("slice")
        sent = bytes(range(256)) * 4
        client.writer.write(sent)
        received = b""
        while len(received) < len(sent):
            part = await server.reader.read(len(sent))
            assert len(part) < len(sent)
            received += part
        assert received == sent


async def test_reset() -> None:
    """A reset ends the connections, and the next one works."""
    async with proxied() as around:
        ends = await around.connect_through()
        around.proxy.reset()
        await assert_reset(*ends)
        client, server = await around.connect_through()
        client.writer.write(b"again")
        assert await server.reader.readexactly(5) == b"again"


async def test_lose_reply(redis_server: RedisServer) -> None:
    """One publish is executed without a reply; other calls and later publishes get theirs."""
    async with proxied_channel(redis_server) as (proxy, channel):
        with Redis.from_url(redis_server.url) as direct:
            proxy.set("lose reply")
            assert await channel.acquire("test")
            with pytest.raises(ChannelLost):
                await channel.publish(make_message(1))
            assert direct.xlen("hello") == 1
            await channel.publish(make_message(1))
            await channel.publish(make_message(2))
            assert (direct.xlen("hello"), proxy.lost_replies) == (2, 1)


async def test_hold(redis_server: RedisServer) -> None:
    """A publish that is held is never executed, while the lease is acquired."""
    async with proxied_channel(redis_server) as (proxy, channel):
        await channel.publish(make_message(1))
        proxy.set("hold")

        async def publish() -> None:
            with pytest.raises(ChannelLost):
                await channel.publish(make_message(2))

        async with anyio.create_task_group() as publishing:
            publishing.start_soon(publish)
            await settle()
            assert await channel.acquire("test")
            proxy.set("open")
        await channel.publish(make_message(3))
    with Redis.from_url(redis_server.url, decode_responses=True) as direct:
        assert list(direct.hgetall("{hello}:ids")) == ["test-1", "test-3"]
