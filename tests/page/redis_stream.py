"""The stream in Redis, read and written past `hello`: what has really been published. It knows nothing of pages."""

import time
from typing import Any, NamedTuple, cast

import redis

ENTRY_SECONDS = 20.0  # to the next entry; the tests' broadcasters publish several in a second


class Entry(NamedTuple):
    """One entry of the stream, as the page lists it."""

    position: str
    id: str


class RedisStream:
    """The stream `hello` in the Redis at this URL."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=2 * ENTRY_SECONDS)

    def close(self) -> None:
        self._client.close()

    def entries(self) -> list[Entry]:
        """Return every entry that is kept, oldest first."""
        found = cast("list[tuple[str, dict[str, str]]]", self._client.xrange("hello"))
        return [Entry(position, fields["id"]) for position, fields in found]

    def wait_for(self, more: int) -> None:
        """Return when at least `more` entries have been added from now on."""
        for _ in range(more):
            kept = self.entries()
            after = kept[-1].position if kept else "0-0"
            found = self._client.xread({"hello": after}, block=int(ENTRY_SECONDS * 1000))
            assert found, f"no entry was added for {ENTRY_SECONDS} s"

    def clear(self) -> None:
        """Delete all data, as if Redis had a new volume."""
        self._client.flushall()

    def flood(self, count: int) -> None:
        """Add `count` entries at once, after all others."""
        kept = self.entries()
        prev = kept[-1].position if kept else "0-0"
        now = max(int(time.time() * 1000), int(prev.partition("-")[0]) + 1)
        pipeline = self._client.pipeline(transaction=False)
        for n in range(count):
            position = f"{now + n // 10}-{n % 10}"
            fields = {"id": position, "text": "Hello", "broadcaster": "flood", "sent_at": str(now), "prev": prev}
            pipeline.xadd("hello", cast("Any", fields), id=position)
            prev = position
        pipeline.execute()

    def add_first(self, entry: Entry, text: str) -> None:
        """Add the stream's first entry at this position, as if Redis had another clock."""
        sent_at, _, _ = entry.position.partition("-")
        self._client.xadd(
            "hello",
            {"id": entry.id, "text": text, "broadcaster": "test", "sent_at": sent_at, "prev": "0-0"},
            id=entry.position,
        )
