"""What the channel accepted, read from Redis directly. It knows neither relays nor clients."""

import sys
import time
from typing import cast

import anyio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from hello.message import ORIGIN, Position
from tests.promises import Accepted
from tests.redis_server import RedisServer
from tests.web.measurements import POLL_SECONDS, eventually

STREAM = "hello"
BLOCK_MS = 500


class Recorder:
    """Records every entry, and when it was first gone: lost, or followed by `history` newer ones.

    A relay's log counts entries that Redis lost among its own, so that a relay trims an entry before Redis does.
    """

    def __init__(self, server: RedisServer, history: int) -> None:
        self.entries: list[Accepted] = []
        self._server = server
        self._history = history

    @property
    def head(self) -> Position:
        return self.entries[-1].position if self.entries else ORIGIN

    async def run(self) -> None:
        """Follow the stream without end, through every outage."""
        while True:
            try:
                async with self._client() as client:
                    while True:
                        await self._read(client)
            except (RedisError, OSError):
                await anyio.sleep(POLL_SECONDS)

    async def catch_up(self) -> None:
        """Return once everything that is in the stream now has been recorded. Redis must run."""
        kept = await self._positions(count=1)
        await eventually(lambda: not kept or self.head >= kept[0], f"everything up to {kept} is recorded")

    async def _positions(self, count: int | None = None) -> list[Position]:
        """Return what Redis keeps now, the newest position first."""
        async with self._client() as client:
            rows = cast("list[tuple[str, dict[str, str]]]", await client.xrevrange(STREAM, count=count))
        return [Position.parse(position) for position, _ in rows]

    async def note_loss(self) -> None:
        """Mark what Redis has lost as removed. No process may publish meanwhile."""
        kept = set(await self._positions())
        now = time.time()
        for entry in self.entries:
            if entry.removed_at is None and entry.position not in kept:
                entry.removed_at = now

    async def next_entry(self, seconds: float) -> None:
        """Return once one more entry has been accepted."""
        count = len(self.entries)
        await eventually(lambda: len(self.entries) > count, "the next message is accepted", seconds)

    def _client(self) -> Redis:
        return Redis.from_url(
            self._server.url, decode_responses=True, socket_timeout=2, protocol=2, legacy_responses=True
        )

    async def _read(self, client: Redis) -> None:
        reply = await client.xread({STREAM: str(self.head)}, block=BLOCK_MS, count=1000)
        for _, rows in cast("list[tuple[str, list[tuple[str, dict[str, str]]]]]", reply):
            now = time.time()
            for position, fields in rows:
                entry = Accepted(now, Position.parse(position), sys.intern(fields["id"]), fields["broadcaster"])
                self.entries.append(entry)
                if len(self.entries) > self._history:
                    trimmed = self.entries[-1 - self._history]
                    trimmed.removed_at = trimmed.removed_at or now
