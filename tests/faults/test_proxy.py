"""What the proxy does to a connection, seen from both of its ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import pytest
from redis import Redis

from hello.channel import Channel, ChannelLost, open_channel
from hello.testing.conformance import make_message
from tests.faults.proxy import Proxy, proxy_to
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

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.accepted: asyncio.Queue[End] = asyncio.Queue()
        self.ends: list[End] = []

    async def accept(self, *streams: Any) -> None:
        self.ends.append(End(*streams))
        self.accepted.put_nowait(self.ends[-1])

    async def connect(self) -> End:
        self.ends.append(End(*await asyncio.open_connection("127.0.0.1", self.proxy.port)))
        return self.ends[-1]

    async def connect_through(self) -> tuple[End, End]:
        """Return both ends of a new connection."""
        return await self.connect(), await self.accepted.get()

    async def is_refused(self) -> bool:
        try:
            await self.connect()
        except ConnectionRefusedError:
            return True
        return False


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxied]:
    server = await asyncio.start_server(lambda *streams: around.accept(*streams), "127.0.0.1", 0)
    async with proxy_to(server.sockets[0].getsockname()[1]) as proxy:
        around = Proxied(proxy)
        with anyio.fail_after(LIMIT_SECONDS):
            yield around
    server.close()
    for end in around.ends:
        end.writer.transport.abort()


@asynccontextmanager
async def proxied_channel(server: RedisServer) -> AsyncIterator[tuple[Proxy, Channel]]:
    async with (
        proxy_to(server.port) as proxy,
        open_channel(f"redis://127.0.0.1:{proxy.port}", history=10) as channel,
    ):
        yield proxy, channel


@pytest.fixture(name="around")
async def _around() -> AsyncIterator[Proxied]:
    async with proxied() as around:
        yield around


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


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_cut_and_reset(around: Proxied, how: str) -> None:
    """Both reset the connections, and the next one works; a cut refuses connections until it ends."""
    ends = await around.connect_through()
    around.proxy.set("cut") if how == "cut" else around.proxy.reset()
    for end in ends:
        with pytest.raises(ConnectionResetError):
            await end.reader.read()
    if how == "cut":
        assert await around.is_refused()
        around.proxy.set("open")
    while await around.is_refused():
        await anyio.lowlevel.checkpoint()
    around.ends[-1].writer.write(b"again")
    assert await (await around.accepted.get()).reader.readexactly(5) == b"again"


async def test_hang(around: Proxied) -> None:
    """A proxy that hangs accepts connections and passes nothing on, not even an end, until it is open again."""
    client, server = await around.connect_through()
    around.proxy.set("hang")
    client.writer.write(b"late")
    client.writer.close()
    (await around.connect()).writer.write(b"later")
    await settle()
    assert await is_silent(server)
    assert around.accepted.empty()
    around.proxy.set("open")
    assert await server.reader.read() == b"late"
    assert await (await around.accepted.get()).reader.readexactly(5) == b"later"


async def test_delay(around: Proxied) -> None:
    """Everything comes later, and in order."""
    client, server = await around.connect_through()
    around.proxy.set("delay")
    client.writer.write(b"one")
    await settle()
    assert await is_silent(server)
    client.writer.write(b"two")
    assert await server.reader.readexactly(6) == b"onetwo"


async def test_slice(around: Proxied) -> None:
    """Everything comes in slices, and in order."""
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
