"""The channel in Redis: a stream that is trimmed exactly, and a script that publishes.

The keys of the stream `hello`, all in one hash slot of a Redis Cluster:

    hello                     the stream: one entry per message, the source of truth
    {hello}:ids               a hash: the position of each message id in the stream
    {hello}:leader            the holder of the lease, with an expiry
    {hello}:high_watermark    the highest position that any process has published or read

Each publish is also sent to the Redis channel `hello`, for `redis-cli SUBSCRIBE hello`; nothing here depends on that.
A stream of another name has that name in all of these, so that channels with different streams do not share anything.

Where the servers are, and how to connect to them, is in topology.py.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple, cast

import anyio
from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import DataError, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hello.channel import (
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    MAX_BATCH,
    Batch,
    ChannelLost,
    Fenced,
    Subscription,
    Unsupported,
)
from hello.channel.address import Access
from hello.channel.topology import REPLY_SECONDS, Server
from hello.message import MAX_SAFE_INTEGER, ORIGIN, Entry, Message, Position

XreadReply = list[tuple[str, list[tuple[str, list[str]]]]]  # stream, then its rows: a position, then names and values

log = logging.getLogger(__name__)

LOWEST_VERSION = (6, 2)  # of Redis: 6.0 does not know ( in XREVRANGE. Every Valkey says that it is Redis 7.2.
ACKNOWLEDGE_SECONDS = 1.0  # for replicas to acknowledge a message, before it is published again
DISCONNECT_SECONDS = 1.0  # for the orderly end of a connection; after that it is dropped

# Replies that only a programming error causes: a retry cannot help. Every other error of Redis may pass by itself, and
# each new version of Redis, Valkey or a provider has words of its own for it. A script puts the words in the middle.
_PROGRAMMING_ERROR = re.compile(
    r"\bWRONGTYPE\b|compiling script|unknown (redis )?command|wrong number of arg|\bsyntax error\b", re.IGNORECASE
)


def _script(*names: str) -> str:
    return "\n".join((Path(__file__).parent / f"{name}.lua").read_text() for name in names)


# Their keys and arguments are named at the top of each file.
RAISE_HIGH_WATERMARK = _script("high_watermark") + "return last"
PUBLISH = _script("high_watermark", "publish")
ACQUIRE = _script("high_watermark", "acquire")
RELEASE = _script("release")


class Keys(NamedTuple):
    """The keys of one stream."""

    stream: str
    high_watermark: str
    ids: str
    leader: str

    @classmethod
    def of(cls, stream: str) -> "Keys":
        return cls(stream, f"{{{stream}}}:high_watermark", f"{{{stream}}}:ids", f"{{{stream}}}:leader")


@asynccontextmanager
async def open_redis(
    url: str, access: Access, *, history: int, stream: str, replicas_ack: int = 0
) -> AsyncIterator["RedisChannel"]:
    """Open the channel in the Redis of this URL; it connects when it is used, and disconnects on leaving.

    Raises ValueError if the URL cannot be parsed.
    """
    server = Server(url, access)
    async with _client(server) as client:
        yield RedisChannel(server, client, history=history, stream=stream, replicas_ack=replicas_ack)


class RedisChannel:
    """A channel with the promises of `hello.channel`. It runs on asyncio only, as the client library does.

    The channel is lost on no connection, on no reply within REPLY_SECONDS, and on every error that Redis replies, such
    as loading, out of memory, read-only or a missing permission. Errors that only a programming error causes (a key of
    another type, a broken script) are raised as they are.

    The version is looked up only if the server refuses a script: a server that works is never refused by its number,
    and INFO need not be permitted.
    """

    def __init__(self, server: Server, client: Redis, *, history: int, stream: str, replicas_ack: int) -> None:
        self._server = server
        self._client = client
        self._history = history
        self._replicas_ack = replicas_ack
        self._keys = Keys.of(stream)
        self._high_watermark = ORIGIN  # the highest position that this object has published or read
        self._worked = False  # True once any server has executed a script

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        fields = (message.id, message.text, message.broadcaster, message.sent_at, message.to_json())
        args: list[str | int] = [str(self._high_watermark), self._history, holder or "", *fields]
        reply = await self._run(PUBLISH, self._keys, args, self._replicas_ack)
        if reply is None:
            raise Fenced
        position = Position.parse(str(reply))
        self._high_watermark = max(self._high_watermark, position)
        return position

    async def acquire(self, holder: str) -> bool:
        keys = self._keys
        args: list[str | int] = [str(self._high_watermark), holder, int(LEASE_SECONDS * 1000)]
        acquired, last = await self._run(ACQUIRE, [keys.stream, keys.high_watermark, keys.leader], args)
        self._high_watermark = max(self._high_watermark, Position.parse(last))
        return bool(acquired)

    async def release(self, holder: str) -> None:
        await self._run(RELEASE, [self._keys.leader], [holder])

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[Subscription]:
        # A subscription has a connection of its own: on a shared one its blocking read would delay every other command.
        async with _client(self._server) as client:
            async with _losses_raised(self._server):
                keys, args = [self._keys.stream, self._keys.high_watermark], [str(self._high_watermark)]
                last = Position.parse(await self._evaluate(client, RAISE_HIGH_WATERMARK, keys, args))
            async with aclosing(self._follow(client, after or ORIGIN)) as batches:
                yield Subscription(last, batches)

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[str | int], replicas: int = 0) -> Any:
        try:
            async with _losses_raised(self._server):
                primary = await self._server.settled_primary() if replicas else None
                if await self._server.has_moved(self._client.connection_pool):
                    await self._replace_pool()
                reply = await self._evaluate(self._client, script, keys, args, replicas)
                if replicas and await self._server.settled_primary() != primary:
                    raise ChannelLost("another primary has taken over meanwhile")
                return reply
        except ChannelLost:
            await self._replace_pool()
            raise

    async def _evaluate(
        self, client: Redis, script: str, keys: Sequence[str], args: Sequence[str | int], replicas: int = 0
    ) -> Any:
        """Run the script and return its reply, once so many replicas have what it wrote.

        EVAL follows EVALSHA where Redis does not know the script. SCRIPT LOAD in its place would need one more
        permission, and Redis may forget the script again before it is called.
        """
        words = (len(keys), *keys, *args)
        try:
            try:
                reply = await _execute(client, replicas, "EVALSHA", _sha1(script), *words)
            except NoScriptError:
                reply = await _execute(client, replicas, "EVAL", script, *words)
        except ResponseError as error:
            if (version := await _version_if_too_old(client)) is None:
                raise
            lowest = ".".join(map(str, LOWEST_VERSION))
            reason = f"Redis {version} is too old, upgrade it to {lowest} or newer (it replied: {error})"
            raise (ChannelLost if self._worked else Unsupported)(reason) from error
        self._worked = True
        return reply

    async def _replace_pool(self) -> None:
        """Let the next command connect and resolve the name anew: the old connections may lead to a demoted primary.

        A command of another task may use one of the old connections at this moment: it ends undisturbed.
        """
        old = self._client.connection_pool
        self._client.connection_pool = self._server.pool()
        with anyio.move_on_after(DISCONNECT_SECONDS, shield=True):
            # Their release to the old pool disconnects them.
            await old.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]  # redis has no types for it
            await old.disconnect(inuse_connections=False)

    async def _follow(self, client: Redis, after: Position) -> AsyncGenerator[Batch, None]:
        stream = self._keys.stream
        cursor = str(after)  # the last position that XREAD has returned, of whatever entry
        block: tuple[str, ...] = ()  # XREAD does not block until the reader has caught up
        skipped = ""  # the newest entry that no message can follow
        async with _losses_raised(self._server):
            # This connection bypasses the client's pool, encoder and time-outs, which cost more than all the rest here.
            connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # redis has no types for it
            connection.socket_timeout = None
            while True:
                if await self._server.has_moved(client.connection_pool):
                    raise ChannelLost("the sentinels name another primary")
                command = ("XREAD", "COUNT", str(MAX_BATCH), *block, "STREAMS", stream, cursor)
                packed = pack_command(command)  # type: ignore[arg-type]  # its stub knows tuples of one string only
                async with asyncio.timeout(REPLY_SECONDS):
                    await connection.send_packed_command(packed, check_health=False)
                    reply = cast(XreadReply | None, await connection.read_response())
                rows = [row for _, rows in reply or () for row in rows]
                if rows and _is_beyond_all(rows[-1][0]):
                    # The cursor stays before such an entry: once the stream is renamed, lower positions follow.
                    if skipped != (skipped := rows[-1][0]):
                        log.warning("skipped the foreign entry %s: no message can follow it in %r", skipped, stream)
                    rows = [row for row in rows if not _is_beyond_all(row[0])]
                    if not rows and block:
                        await anyio.sleep(HEARTBEAT_SECONDS)  # XREAD does not block before an entry
                batch = [entry for row in rows if (entry := _entry_or_none(stream, *row)) is not None]
                if rows:
                    cursor = rows[-1][0]
                else:
                    block = ("BLOCK", str(int(HEARTBEAT_SECONDS * 1000)))
                if batch:
                    self._high_watermark = max(self._high_watermark, batch[-1].position)
                if batch or not rows:
                    yield batch


async def _execute(client: Redis, replicas: int, *words: str | int) -> Any:
    """Run a command and return its reply, once so many replicas have acknowledged what it wrote.

    WAIT counts the replicas that have received the last write of its own connection, so both share one.
    """
    if not replicas:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis has no types for it
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command(*words)
        pipeline.wait(replicas, int(ACKNOWLEDGE_SECONDS * 1000))
        reply, acknowledged = await pipeline.execute(raise_on_error=False)
    for each in (reply, acknowledged):
        if isinstance(each, Exception):
            raise each
    if acknowledged < replicas:
        raise ChannelLost(f"{acknowledged} of {replicas} replicas acknowledged the message")
    return reply


async def _version_if_too_old(client: Redis) -> str | None:
    """Return the version of the server if it is below LOWEST_VERSION; None too where the server does not reply with it.

    A user may lack the permission for INFO, and a proxy may answer in place of the server.
    """
    try:
        version = str((await client.info("server")).get("redis_version"))
    except RedisError:
        return None
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return version if numbers and tuple(map(int, numbers.groups())) < LOWEST_VERSION else None


@cache
def _sha1(script: str) -> str:
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def _is_beyond_all(position: str) -> bool:
    """Return True if every position that Position.parse accepts is lower."""
    return int(position.partition("-")[0]) > MAX_SAFE_INTEGER


def _entry_or_none(stream: str, position: str, fields: list[str]) -> Entry | None:
    """Read an entry of the stream; None, and a line in the log, if another program has added it.

    The next entry of ours names the foreign entry as its predecessor, so that readers see a gap there.
    """
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        message = Message(values["id"], values["text"], values["broadcaster"], int(values["sent_at"]))
        return Entry(Position.parse(position), Position.parse(values["prev"]), message)
    except KeyError as error:
        reason = f"it has no field {error}"
    except ValueError as error:  # Malformed is one
        reason = str(error)
    log.warning("skipped the foreign entry %s in the stream %r: %s", position, stream, reason)
    return None


@asynccontextmanager
async def _client(server: Server) -> AsyncIterator[Redis]:
    client = Redis.from_pool(server.pool())
    try:
        yield client
    finally:
        with anyio.move_on_after(DISCONNECT_SECONDS, shield=True):
            await client.aclose()


@asynccontextmanager
async def _losses_raised(server: Server) -> AsyncIterator[None]:
    """Raise ChannelLost in place of each error that a retry may overcome."""
    try:
        yield
    except DataError:  # the client library cannot send a value of this type
        raise
    except TimeoutError as error:
        raise ChannelLost(f"timed out: no reply within {REPLY_SECONDS:.0f} s", unreachable=True) from error
    except (RedisError, OSError) as error:
        if isinstance(error, ResponseError) and _PROGRAMMING_ERROR.search(str(error)):
            raise
        unreachable = _nothing_replies(error, server) and await server.resolves()
        raise ChannelLost(f"{type(error).__name__}: {error}", unreachable=unreachable) from error
    except RuntimeError as error:
        # uvloop raises this for a write to a connection that the server reset while no read was pending.
        if "the handler is closed" not in str(error):
            raise
        raise ChannelLost("connection reset") from error


def _nothing_replies(error: Exception, server: Server) -> bool:
    """Return True if nothing replied to a connect or a command; the name of the server may not have been resolved."""
    if isinstance(error, RedisTimeoutError):
        return not server.tls  # a server that knows no TLS may wait for the rest of a command
    cause = error.__context__  # of the client library's ConnectionError
    # The last one is of a file of ours, or of a socket of this machine.
    replies = (ssl.SSLError, ConnectionResetError, BrokenPipeError, FileNotFoundError)
    return isinstance(cause, OSError) and not isinstance(cause, replies)
