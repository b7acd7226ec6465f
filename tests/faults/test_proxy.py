"""What the proxy does to a line, seen from both of its ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import pytest
from redis import Redis

from hello.channel import ChannelLost, open_channel
from hello.message import Message
from tests.faults.proxy import Link
from tests.faults.recorder import until
from tests.redis_server import RedisServer

LIMIT_SECONDS = 20.0


@pytest.fixture
def anyio_backend() -> str:
    """The proxy uses asyncio's own streams."""
    return "asyncio"


class End(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Line:
    """A link, before it clients, and behind it a server that accepts and says nothing by itself."""

    def __init__(self) -> None:
        self.link: Link
        self.clients: list[End] = []
        self.servers: list[End] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.servers.append(End(reader, writer))

    async def connect(self) -> End:
        self.clients.append(End(*await asyncio.open_connection("127.0.0.1", self.link.port)))
        return self.clients[-1]

    async def connect_through(self) -> tuple[End, End]:
        """Both ends of a new connection."""
        count = len(self.servers)
        client = await self.connect()
        await until(lambda: len(self.servers) > count, LIMIT_SECONDS, "the server has accepted")
        return client, self.servers[-1]

    async def is_refused(self) -> bool:
        try:
            await self.connect()
        except ConnectionRefusedError:
            return True
        return False


@asynccontextmanager
async def a_line() -> AsyncIterator[Line]:
    line = Line()
    server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
    line.link = Link("test", server.sockets[0].getsockname()[1])
    async with anyio.create_task_group() as group:
        await group.start(line.link.run)
        with anyio.fail_after(LIMIT_SECONDS):
            yield line
        group.cancel_scope.cancel()
    server.close()
    for end in line.clients + line.servers:
        end.writer.transport.abort()


async def settle() -> None:
    """Let everything pass that would pass by now: words on another line there and back, twice."""
    async with a_line() as other:
        client, server = await other.connect_through()
        for _ in range(2):
            client.writer.write(b"?")
            server.writer.write(await server.reader.readexactly(1))
            await client.reader.readexactly(1)


async def is_silent(end: End) -> bool:
    """Whether nothing has come that was not read, not even an end."""
    with anyio.move_on_after(0) as nothing:
        await end.reader.read(1)
    return nothing.cancelled_caught


async def test_an_open_line_passes_everything_on_and_its_end() -> None:
    async with a_line() as line:
        client, server = await line.connect_through()
        client.writer.write(b"a question" * 20_000)
        assert await server.reader.readexactly(200_000) == b"a question" * 20_000
        server.writer.write(b"an answer")
        server.writer.close()
        assert await client.reader.read() == b"an answer"


async def test_a_line_that_is_cut_ends_what_it_had_and_refuses_until_it_is_healed() -> None:
    async with a_line() as line:
        ends = await line.connect_through()
        line.link.set("cut")
        for end in ends:
            with pytest.raises(ConnectionResetError):
                await end.reader.read()
        assert await line.is_refused()
        line.link.set("open")
        while await line.is_refused():
            await anyio.lowlevel.checkpoint()
        await until(lambda: len(line.servers) == 2, LIMIT_SECONDS, "the server has accepted the newcomer")
        line.clients[-1].writer.write(b"again")
        assert await line.servers[-1].reader.readexactly(5) == b"again"


async def test_a_line_that_hangs_accepts_and_passes_nothing_on_until_it_is_healed() -> None:
    async with a_line() as line:
        client, server = await line.connect_through()
        line.link.set("hang")
        client.writer.write(b"late")
        client.writer.close()
        newcomer = await line.connect()
        newcomer.writer.write(b"later")
        await settle()
        assert await is_silent(server)
        assert len(line.servers) == 1
        line.link.set("open")
        assert await server.reader.read() == b"late"
        await until(lambda: len(line.servers) == 2, LIMIT_SECONDS, "the server has accepted the newcomer")
        assert await line.servers[1].reader.readexactly(5) == b"later"


async def test_a_line_that_delays_passes_everything_on_later_and_in_order() -> None:
    async with a_line() as line:
        client, server = await line.connect_through()
        line.link.set("delay")
        client.writer.write(b"one")
        await settle()
        assert await is_silent(server)
        client.writer.write(b"two")
        assert await server.reader.readexactly(6) == b"onetwo"


async def test_a_line_that_slices_passes_everything_on_in_pieces_and_in_order() -> None:
    async with a_line() as line:
        client, server = await line.connect_through()
        line.link.set("slice")
        sent = bytes(range(256)) * 4
        client.writer.write(sent)
        pieces = b""
        while len(pieces) < len(sent):
            piece = await server.reader.read(len(sent))
            assert len(piece) < len(sent)
            pieces += piece
        assert pieces == sent


async def test_a_reset_ends_connections_and_welcomes_the_next() -> None:
    async with a_line() as line:
        ends = await line.connect_through()
        line.link.reset()
        for end in ends:
            with pytest.raises(ConnectionResetError):
                await end.reader.read()
        client, server = await line.connect_through()
        client.writer.write(b"again")
        assert await server.reader.readexactly(5) == b"again"


async def test_one_publish_whose_reply_is_swallowed_was_executed(redis_server: RedisServer) -> None:
    """It is the publish alone that is robbed, and only once."""
    link = Link("test", redis_server.port)
    async with anyio.create_task_group() as group:
        await group.start(link.run)
        async with open_channel(f"redis://127.0.0.1:{link.port}", history=10) as channel:
            with Redis.from_url(redis_server.url) as direct:
                link.set("swallow")
                assert await channel.acquire("test")
                with pytest.raises(ChannelLost):
                    await channel.publish(message(1))
                assert direct.xlen("hello") == 1
                await channel.publish(message(1))
                await channel.publish(message(2))
                assert (direct.xlen("hello"), link.swallowed) == (2, 1)
        group.cancel_scope.cancel()


async def test_a_publish_that_is_held_is_never_executed_while_a_claim_passes(redis_server: RedisServer) -> None:
    link = Link("test", redis_server.port)
    async with anyio.create_task_group() as group:
        await group.start(link.run)
        async with open_channel(f"redis://127.0.0.1:{link.port}", history=10) as channel:
            await channel.publish(message(1))
            link.set("hold")

            async def publish() -> None:
                with pytest.raises(ChannelLost):
                    await channel.publish(message(2))

            async with anyio.create_task_group() as publishing:
                publishing.start_soon(publish)
                await settle()
                assert await channel.acquire("test")
                link.set("open")
            await channel.publish(message(3))
        with Redis.from_url(redis_server.url, decode_responses=True) as direct:
            assert list(direct.hgetall("{hello}:ids")) == ["test-1", "test-3"]
        group.cancel_scope.cancel()


def message(number: int) -> Message:
    return Message(f"test-{number}", "Hello", "test", number)
