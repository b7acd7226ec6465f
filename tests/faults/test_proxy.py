"""What the proxy does to a connection, seen from both of its ends."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from redis import Redis

from hello.channel import ChannelLost
from hello.channel.urls import open_channel
from hello.testing.conformance import make_message
from tests.faults.proxy import Proxy, proxy_to
from tests.redis_server import RedisServer

LIMIT_SECONDS = 20.0


@pytest.fixture
def anyio_backend() -> str:
    """The proxy uses asyncio's own streams."""
    return "asyncio"


class Proxied:
    """A proxy, and the sockets at both of its ends; the server sends nothing by itself."""

    def __init__(self, proxy: Proxy, listener: socket.socket, stack: ExitStack) -> None:
        self.proxy = proxy
        self._listener = listener
        self._stack = stack

    def connect(self) -> socket.socket:
        """Return the client's end of a new connection."""
        address = ("127.0.0.1", self.proxy.port)
        return self._stack.enter_context(socket.create_connection(address, LIMIT_SECONDS))

    async def accept(self) -> socket.socket:
        """Return the server's end of the next connection."""
        connection, _ = await anyio.to_thread.run_sync(self._listener.accept)
        connection.settimeout(LIMIT_SECONDS)
        return self._stack.enter_context(connection)

    async def connect_through(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new connection, once the proxy has both."""
        client, server = self.connect(), await self.accept()
        client.sendall(b".")
        assert await receive(server, 1) == b"."
        return client, server


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxied]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(LIMIT_SECONDS)
        async with proxy_to(listener.getsockname()[1]) as proxy:
            yield Proxied(proxy, listener, stack)


@pytest.fixture(name="around")
async def _around() -> AsyncIterator[Proxied]:
    async with proxied() as around:
        yield around


async def receive(end: socket.socket, count: int) -> bytes:
    """Return so many bytes, or less before an end."""
    received = b""
    while len(received) < count and (data := await anyio.to_thread.run_sync(end.recv, count - len(received))):
        received += data
    return received


async def settle() -> None:
    """Let everything pass that would pass by now: bytes through another proxy there and back, twice."""
    async with proxied() as other:
        client, server = await other.connect_through()
        for _ in range(2):
            client.sendall(b"?")
            server.sendall(await receive(server, 1))
            await receive(client, 1)


async def is_silent(end: socket.socket) -> bool:
    """Return True if nothing has come that was not read, not even an end."""
    await settle()
    end.setblocking(False)
    with suppress(BlockingIOError):
        end.recv(1)
        return False
    end.settimeout(LIMIT_SECONDS)
    return True


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_cut_and_reset(around: Proxied, how: str) -> None:
    """Both reset the connections, and the next one works; a cut refuses connections until it ends."""
    ends = await around.connect_through()
    around.proxy.set("cut") if how == "cut" else around.proxy.reset()
    for end in ends:
        with pytest.raises(ConnectionResetError):
            await receive(end, 1)
    if how == "cut":
        with pytest.raises(ConnectionRefusedError):
            around.connect()
        around.proxy.set("open")
        await settle()
    client, server = await around.connect_through()
    client.sendall(b"again")
    assert await receive(server, 5) == b"again"


async def test_hang(around: Proxied) -> None:
    """A proxy that hangs accepts connections and passes nothing on, not even an end, until it is open again."""
    client, server = await around.connect_through()
    around.proxy.set("hang")
    client.sendall(b"late")
    client.close()
    later = around.connect()
    later.sendall(b"later")
    assert await is_silent(server)
    around.proxy.set("open")
    assert await receive(server, 5) == b"late"
    assert await receive(await around.accept(), 5) == b"later"


async def test_delay(around: Proxied) -> None:
    """Everything comes later, and in order."""
    client, server = await around.connect_through()
    around.proxy.set("delay")
    client.sendall(b"one")
    assert await is_silent(server)
    client.sendall(b"two")
    assert await receive(server, 6) == b"onetwo"


async def test_slice(around: Proxied) -> None:
    """Everything comes in slices, and in order."""
    client, server = await around.connect_through()
    around.proxy.set("slice")
    sent, received = bytes(range(256)) * 4, b""
    client.sendall(sent)
    while len(received) < len(sent):
        part = await anyio.to_thread.run_sync(server.recv, len(sent))
        assert len(part) < len(sent)
        received += part
    assert received == sent


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
