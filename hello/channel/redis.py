"""The channel in Redis: a stream that is trimmed exactly, and one script that publishes. No other file imports redis.

The stream `hello` holds the truth, the hash `hello:ids` the position of each message id in it, `hello:voice` says who
speaks, and `hello:mark` is the highest position that anybody knows. Every publish is also sent to the
Redis channel `hello`, for whoever listens with `redis-cli SUBSCRIBE hello`; nothing here depends on that.

Whatever the client library would retry or restore by itself is switched off: a command that is sent again in silence
duplicates or loses. The caller sees every loss, as ChannelLost.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import cast

import anyio
from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from hello.channel import BATCH, LEASE_SECONDS, WORD_SECONDS, Batch, ChannelLost, Fenced
from hello.message import ORIGIN, Entry, Malformed, Message, Position, told

XreadReply = list[tuple[str, list[tuple[str, list[str]]]]]  # stream, then its rows: a position, then names and values

log = logging.getLogger(__name__)

STREAM = "hello"
IDS = "hello:ids"
VOICE = "hello:voice"
MARK = "hello:mark"
SOCKET_SECONDS = 4.0  # without a byte of an answer the server counts as gone: browsers hear of it within 6 s
DISCONNECT_SECONDS = 1.0  # a connection that does not close in this time is dropped as it is

# A Redis that was wiped or restored has forgotten positions that its readers and speakers remember. Whoever comes tells
# it the highest that it knows, and is told the highest that anybody knows.
REMEMBER = """
if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: writes may follow TIME and PTTL

local function parts(position)
  local ms, seq = string.match(position, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

local function later(one, other)
  if one == other or one == '0-0' then return other end  -- as most of them are: nothing to take apart
  local ms, seq = parts(one)
  local other_ms, other_seq = parts(other)
  if ms > other_ms or (ms == other_ms and seq > other_seq) then return one end
  return other
end

local function remember(stream, mark, position)
  local known = redis.call('GET', mark) or '0-0'
  local foreign = redis.call('XREVRANGE', stream, '+', '(' .. known, 'COUNT', '1')[1]  -- not from our script
  local last = later(position, foreign and foreign[1] or known)
  if last ~= known then redis.call('SET', mark, last) end
  return last
end

local last = remember(KEYS[1], KEYS[2], ARGV[1])
"""

# A lease that lasts longer than it can was made before the clock was set back; nobody knows how long it would hold.
CLAIM = (
    REMEMBER
    + """
local voice = KEYS[3]
local speaker, lease = ARGV[2], tonumber(ARGV[3])

local left = redis.call('PTTL', voice)
local mine = 1
if left > 0 and left <= lease and redis.call('GET', voice) ~= speaker then
  mine = 0
else
  redis.call('SET', voice, speaker, 'PX', lease)
end
return {mine, last}
"""
)

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

# A position is raised above all that anybody remembers: a wiped or restored Redis goes on where the old one ended, and
# `prev` tells those who missed something. XADD is the first write that readers would see, and it may be refused (out of
# memory, read-only); from then on Redis lets the script finish.
PUBLISH = (
    REMEMBER
    + """
local stream, mark, ids, voice = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local history, speaker = tonumber(ARGV[2]), ARGV[3]
local id, text, broadcaster, sent_at, json = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local known = redis.call('HGET', ids, id)
if known then return known end
if speaker ~= '' and redis.call('GET', voice) ~= speaker then return false end

local prev_ms, prev_seq = parts(last)
local time = redis.call('TIME')
local ms, seq = time[1] * 1000 + math.floor(time[2] / 1000), 0
if ms <= prev_ms then ms, seq = prev_ms, prev_seq + 1 end
local position = string.format('%d-%d', ms, seq)

local length, forgotten = redis.call('XLEN', stream) + 1, {}
local excess = length - history
if excess > 0 then forgotten = redis.call('XRANGE', stream, '-', '+', 'COUNT', excess) end
local function add(at)
  return redis.pcall('XADD', stream, 'MAXLEN', '=', ARGV[2], at, 'id', id, 'text', text,
    'broadcaster', broadcaster, 'sent_at', sent_at, 'prev', last)
end
local added = add(position)
if type(added) == 'table' and string.find(added.err, 'equal or smaller') then
  added = add('*')  -- above a foreign entry that was deleted again, which only Redis knows of
end
if type(added) == 'table' then return added end
position = added
redis.call('SET', mark, position)
redis.call('HSET', ids, id, position)

local function each(entries, visit)
  for _, entry in ipairs(entries) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'id' then visit(entry[2][i + 1], entry[1]) end
    end
  end
end
each(forgotten, function(old) redis.call('HDEL', ids, old) end)
if redis.call('HLEN', ids) ~= math.min(length, history) then  -- one of the two was restored or deleted
  redis.call('DEL', ids)
  each(redis.call('XRANGE', stream, '-', '+'), function(kept, at) redis.call('HSET', ids, kept, at) end)
end
redis.call('PUBLISH', stream, json)
return position
"""
)

# Refusals that pass, by Redis's own words. Inside a script Redis 6 hides the word in the midst of its sentence, and
# Redis 7 has others for NOPERM; who has not logged in is refused a command of over ten words as "unauthenticated".
_REFUSED = re.compile(
    r"\b(BUSY|CLUSTERDOWN|MASTERDOWN|MISCONF|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN|unauthenticated|can't run)\b"
)


@asynccontextmanager
async def open_redis(url: str, *, history: int, password: str | None) -> AsyncIterator["RedisChannel"]:
    """A channel over the Redis that `url` names; connections are made as they are needed, and closed on leaving.

    Raises ValueError if the URL cannot be read.
    """
    async with _client(url, password) as client:
        yield RedisChannel(url, client, history=history, password=password)


class RedisChannel:
    """See `hello.channel` for what it promises. It runs on asyncio only, as the client library does.

    It is lost on: no connection, no answer within SOCKET_SECONDS, loading, out of memory, read-only, a refused log-in,
    and the like. What can only be a mistake in a program (a key of another type, a broken script) falls through.
    """

    def __init__(self, url: str, client: Redis, *, history: int, password: str | None) -> None:
        self._url = url
        self._client = client
        self._history = history
        self._password = password
        self._remember = client.register_script(f"{REMEMBER}\nreturn last")
        self._publish = client.register_script(PUBLISH)
        self._claim = client.register_script(CLAIM)
        self._release = client.register_script(RELEASE)
        self._mark = ORIGIN  # the highest position that this object has published or read

    async def publish(self, message: Message, speaker: str | None = None) -> Position:
        fields = (message.id, message.text, message.broadcaster, message.sent_at, message.to_json())
        args: list[str | int] = [str(self._mark), self._history, speaker or "", *fields]
        with _lost_for_refused():
            reply = await self._publish(keys=[STREAM, MARK, IDS, VOICE], args=args)
        if reply is None:
            raise Fenced
        position = Position.parse(str(reply))
        self._mark = max(self._mark, position)
        return position

    async def claim(self, speaker: str) -> bool:
        args: list[str | int] = [str(self._mark), speaker, int(LEASE_SECONDS * 1000)]
        with _lost_for_refused():
            mine, last = await self._claim(keys=[STREAM, MARK, VOICE], args=args)
        self._mark = max(self._mark, Position.parse(last))
        return bool(mine)

    async def release(self, speaker: str) -> None:
        with _lost_for_refused():
            await self._release(keys=[VOICE], args=[speaker])

    @asynccontextmanager
    async def subscribe(self, after: Position | None) -> AsyncIterator[AsyncIterator[Batch]]:
        # A connection of its own: a blocking read would hold up every other command on a shared one.
        async with _client(self._url, self._password) as client:
            with _lost_for_refused():
                await self._remember(keys=[STREAM, MARK], args=[str(self._mark)], client=client)
                start = await _start(client)  # asked in any case: to enter is to have reached the server
            async with aclosing(self._follow(client, start if after is None else after)) as batches:
                yield batches

    async def _follow(self, client: Redis, position: Position | None) -> AsyncGenerator[Batch, None]:
        cursor = str(position or ORIGIN)
        block: tuple[str, ...] = ()  # no waiting until the reader has caught up
        with _lost_for_refused():
            # By itself, and with a deadline of its own: the client's way through its pool, its encoder and its
            # time-outs takes longer than all that is done here.
            connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # redis's own lack
            connection.socket_timeout = None
            while True:
                words = ("XREAD", "COUNT", str(BATCH), *block, "STREAMS", STREAM, cursor)
                read = pack_command(words)  # type: ignore[arg-type]  # its stub speaks of tuples of one
                async with asyncio.timeout(SOCKET_SECONDS):
                    await connection.send_packed_command(read, check_health=False)
                    reply = cast(XreadReply | None, await connection.read_response())
                rows = [row for _, rows in reply or () for row in rows]
                entries = []
                for cursor, fields in rows:
                    try:
                        entries.append(_entry(cursor, dict(zip(fields[::2], fields[1::2], strict=True))))
                    except Malformed as error:
                        # Whoever comes next names it as predecessor, so that readers are told a gap.
                        log.warning("skipped the foreign entry %s in the stream %r: %s", cursor, STREAM, error)
                batch = list(told(entries, position))
                if entries:
                    position = entries[-1].position
                    self._mark = max(self._mark, position)
                if not rows:
                    block = ("BLOCK", str(int(WORD_SECONDS * 1000)))
                if batch or not rows:
                    yield batch


async def _start(client: Redis) -> Position | None:
    """The position just before the oldest kept entry; None where the stream has never had one."""
    try:
        info = await client.xinfo_stream(STREAM)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    if (oldest := info["first-entry"]) is None:
        return Position.parse(info["last-generated-id"])
    try:
        return _entry(*oldest).prev
    except Malformed:
        return None  # a foreign entry names no predecessor


def _entry(position: str, fields: dict[str, str]) -> Entry:
    try:
        message = Message(fields["id"], fields["text"], fields["broadcaster"], int(fields["sent_at"]))
        return Entry(Position.parse(position), Position.parse(fields["prev"]), message)
    except KeyError as error:
        raise Malformed(f"it has no field {error}") from error
    except ValueError as error:
        raise Malformed(str(error)) from error


@asynccontextmanager
async def _client(url: str, password: str | None) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(
        url,
        password=password,
        decode_responses=True,
        encoding_errors="replace",  # a foreign entry that is no text is refused by name, not by a crash
        protocol=2,  # with these two the shape of a reply is fixed, whatever the library's next default
        legacy_responses=True,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield client
    finally:
        with anyio.move_on_after(DISCONNECT_SECONDS, shield=True):
            await client.aclose()


@contextmanager
def _lost_for_refused() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        if not _REFUSED.search(f"{getattr(error, 'status_code', None)} {error}"):
            raise
        raise ChannelLost(f"{type(error).__name__}: {error}") from error
    except TimeoutError as error:
        raise ChannelLost(f"timed out: no answer within {SOCKET_SECONDS:.0f} s") from error
    except (RedisError, OSError) as error:
        raise ChannelLost(f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:
        # uvloop's word for a write to a connection that was reset while nobody read from it.
        if "the handler is closed" not in str(error):
            raise
        raise ChannelLost("connection reset") from error
