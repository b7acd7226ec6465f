"""The public app in this event loop: which origins may open a stream, where it starts, and caching."""

from collections.abc import AsyncIterator

import pytest

from hello.channel.memory import MemoryChannel
from hello.message import Message
from hello.testing import Closed, Process, Refused, running
from hello.web.origin import may_open

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@pytest.fixture
async def relay() -> AsyncIterator[Process]:
    """A relay with one message, whose broadcaster publishes no other."""
    channel = MemoryChannel(1000)
    await channel.publish(Message.new("Hello world", broadcaster="test"))
    async with running("combined", channel, interval_min=1000, interval_max=1000) as system:
        yield system.relays[0]


# Pairs of Origin and Host.
ADMITTED = [
    *((None, "hello.test"), ("http://hello.test", "hello.test:80"), ("https://hello.test", "hello.test:443")),
    *(("http://HELLO.test", "hello.TEST"), ("http://hello.test:8000", "hello.test:8000")),
    *(("http://[::1]:8000", "[::1]:8000"), ("https://friend.example", "hello.test")),
    *((origin, "hello.test") for origin in ("http://hello.test", "https://hello.test", "http://hello.test:80")),
    ("HTTPS://Friend.Example", "hello.test"),
    ("https://friend.example.:443", "hello.test"),
    ("http://hello.test:8000", "hello.test"),  # nginx drops the port: `proxy_set_header Host $host`
    ("https://hello.test:8443", "HELLO.test."),
    ("http://[::1]:8000", "[::1]"),
    ("http://hello.test.", "hello.test"),
    ("http://localhost.:8000", "localhost:8000"),
    ("http://localhost:8000", "localhost.:8000"),
]
STRANGERS = [
    *("http://friend.example", "https://friend.example:444", "https://www.friend.example", "http://www.hello.test"),
    *("http://test", "http://hello.test..", "http://evilhello.test", "http://hello.test.evil.example"),
    *("http://evil.example/hello.test", "http://hello.test@evil.example", "http://hello.test:80@evil.example"),
    *("http://hello.test/", "http://hello.test, http://evil.example", "http://hello.test http://evil.example"),
    *("http://h\u0435llo.test", "null", "", "file://", "ws://hello.test"),  # the first one has a Cyrillic letter
]
FOREIGN = [
    *((origin, "hello.test") for origin in STRANGERS),
    *(("http://hello.test:8001", "hello.test:8000"), ("http://hello.test", "hello.test:8000")),
    *(("https://hello.test", "hello.test:80"), ("http://hello.test", None), ("http://", ""), ("http://.", ".")),
    *(("http://[::1].", "[::1]"), ("http://hello.test.:8001", "hello.test:8000")),
    *(("http://hello.test:1", "hello.test:"), ("http://www.hello.test:8000", "hello.test")),
    ("https://friend.example.:8443", "hello.test"),
]


@pytest.mark.parametrize(("pairs", "may"), [(ADMITTED, True), (FOREIGN, False)], ids=["admitted", "foreign"])
def test_origins(pairs: list[tuple[str | None, str | None]], may: bool) -> None:
    """A page may open a stream at its own host and port, in any spelling, or if its origin is allowed."""
    assert [pair for pair in pairs if may_open(*pair, ["https://friend.example"]) is not may] == []


@on_asyncio
async def test_last_event_id_overrides_the_query(relay: Process) -> None:
    """An EventSource that reconnects repeats its first query, and has its position in the header."""
    async with relay.open("/events?last=10") as stream:
        assert (await stream.receive())["type"] == "welcome"
        message = await stream.receive()
        assert stream.last_event_id == message["position"]
    with pytest.raises(Refused, match="position"):
        async with relay.open("/events", {"last-event-id": "x"}):
            pass
    resumed = {"last-event-id": message["position"]}
    async with relay.open("/events?after=1-0", resumed) as one, relay.open("/events?last=10", resumed) as other:
        relay.terminate()  # what is pending comes first
        for stream in (one, other):
            assert (await stream.receive())["type"] == "welcome"
            with pytest.raises(Closed):
                await stream.receive()


@on_asyncio
@pytest.mark.parametrize("path", ["/", "/page/main.js"])
async def test_files(relay: Process, path: str) -> None:
    """An unchanged file is answered 304; a request for a hundred parts of a file gets the whole file."""
    whole = await relay.get(path, app="public")
    assert whole.status == 200
    unchanged = await relay.get(path, app="public", headers={"if-none-match": whole.headers["etag"]})
    assert (unchanged.status, unchanged.body) == (304, "")
    ranges = ",".join(f"{start}-{start}" for start in range(0, 200, 2))
    for value in (f"bytes={ranges}", "bytes=0-0", "bytes=9999999-", "x"):
        answer = await relay.get(path, app="public", headers={"range": value})
        assert (answer.status, answer.body) == (200, whole.body)
        assert answer.headers["accept-ranges"] == "none"
