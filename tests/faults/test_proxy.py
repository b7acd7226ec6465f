"""What the proxy does to a connection: in each mode, and to publishes."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio import BrokenResourceError
from anyio.abc import SocketAttribute, SocketStream
from redis import Redis

from hello.channel import ChannelLost
from hello.channel.urls import open_channel
from hello.testing.conformance import make_message
from tests.faults.proxy import Mode, Proxy, proxy_to
from tests.redis_server import RedisServer

LIMIT_SECONDS = 20.0


@pytest.fixture
def anyio_backend() -> str:
    """The proxy uses asyncio's own streams."""
    return "asyncio"


@asynccontextmanager
async def echoed() -> AsyncIterator[Proxy]:
    """A proxy to a server that sends back what it receives."""

    async def echo(stream: SocketStream) -> None:
        async with stream:
            with suppress(BrokenResourceError):
                async for data in stream:
                    await stream.send(data)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610  # a rule for Django
        async with proxy_to(port) as proxy:
            yield proxy
        group.cancel_scope.cancel()


async def connect(proxy: Proxy) -> SocketStream:
    """Return a connection over which something has come back."""
    stream = await anyio.connect_tcp("127.0.0.1", proxy.port)
    await stream.send(b".")
    assert await receive(stream, 1) == b"."
    return stream


async def receive(stream: SocketStream, count: int) -> bytes:
    """Return so many bytes."""
    received = b""
    with anyio.fail_after(LIMIT_SECONDS):
        while len(received) < count:
            received += await stream.receive(count - len(received))
    return received


async def settle() -> None:
    """Let everything pass that would pass by now: bytes through another proxy there and back, twice."""
    async with echoed() as other:
        for _ in range(2):
            async with await connect(other):
                pass


async def is_silent(stream: SocketStream) -> bool:
    """Return True if nothing has come that was not received."""
    await settle()
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # a rule for Django
    with socket.fromfd(raw.fileno(), socket.AF_INET, socket.SOCK_STREAM) as end, suppress(BlockingIOError):
        end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return False
    return True


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_cut_and_reset(how: str) -> None:
    """Both reset the connections, and the next one works; a cut refuses connections until it ends."""
    async with echoed() as proxy, await connect(proxy) as stream:
        proxy.set("cut") if how == "cut" else proxy.reset()
        with pytest.raises((BrokenResourceError, anyio.EndOfStream)):
            await receive(stream, 1)
        if how == "cut":
            with pytest.raises(OSError):  # noqa: PT011  # refused, in the words of each system
                await connect(proxy)
            proxy.set("open")
            await settle()
        async with await connect(proxy):
            pass


@pytest.mark.parametrize(("how", "silent"), [("hang", True), ("delay", True), ("slice", False)])
async def test_hang_delay_and_slice(how: Mode, silent: bool) -> None:
    """Everything comes, in order: once the proxy is open again, later, or in slices."""
    sent = bytes(range(256)) * 4
    async with echoed() as proxy, await connect(proxy) as stream:
        proxy.set(how)
        await stream.send(sent)
        assert await is_silent(stream) or not silent
        if how == "hang":
            proxy.set("open")
        first = await stream.receive(len(sent))
        assert len(first) < len(sent) or how != "slice"
        assert first + await receive(stream, len(sent) - len(first)) == sent


async def test_lose_reply(redis_server: RedisServer) -> None:
    """One publish is executed without a reply; other calls and later publishes get theirs."""
    async with proxy_to(redis_server.port) as proxy, open_channel(proxy.url, history=10) as channel:
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
    async with proxy_to(redis_server.port) as proxy, open_channel(proxy.url, history=10) as channel:
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
