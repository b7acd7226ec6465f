"""What has really been said, whatever the page shows: the stream in Redis. It knows nothing of pages."""

import time
from typing import Any, NamedTuple, cast

import redis

ENTRY_SECONDS = 20.0  # for the next entry; the tests' broadcasters speak several times in a second


class Said(NamedTuple):
    """One entry of the Redis stream `hello`, as the page names it."""

    position: str
    id: str


class Stream:
    """The stream `hello` in this Redis."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=2 * ENTRY_SECONDS)

    def close(self) -> None:
        self._client.close()

    def entries(self) -> list[Said]:
        """All that is kept, oldest first."""
        found = cast("list[tuple[str, dict[str, str]]]", self._client.xrange("hello"))
        return [Said(position, fields["id"]) for position, fields in found]

    def wait_for(self, more: int) -> None:
        """Return when at least so many more messages have been said from now on."""
        for _ in range(more):
            kept = self.entries()
            after = kept[-1].position if kept else "0-0"
            said = self._client.xread({"hello": after}, block=int(ENTRY_SECONDS * 1000))
            assert said, f"nothing was said for {ENTRY_SECONDS} s"

    def forget(self) -> None:
        """Lose all data, as if Redis had a new volume."""
        self._client.flushall()

    def flood(self, count: int) -> None:
        """Say so many messages at once, after all that has been said."""
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

    def say(self, said: Said, text: str) -> None:
        """Add the first entry of all at this very position, as if Redis had another clock."""
        sent_at, _, _ = said.position.partition("-")
        self._client.xadd(
            "hello",
            {"id": said.id, "text": text, "broadcaster": "test", "sent_at": sent_at, "prev": "0-0"},
            id=said.position,
        )
