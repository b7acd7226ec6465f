"""The public app in this event loop: which origins may open a stream, where it starts, and caching."""

from collections.abc import AsyncIterator

import pytest

from hello.channel.memory import MemoryChannel
from hello.message import Message
from hello.testing import Closed, Process, Refused, running
from hello.web.origin import may_open, stream_sources

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@pytest.fixture
async def relay() -> AsyncIterator[Process]:
    """A relay with one message, whose broadcaster publishes no other."""
    channel = MemoryChannel(1000)
    await channel.publish(Message.new("Hello world", broadcaster="test"))
    async with running("combined", channel, interval_min=1000, interval_max=1000) as system:
        yield system.relays[0]


ADMITTED = [
    (None, "hello.test"),
    ("http://hello.test", "hello.test"),
    ("https://hello.test", "hello.test"),
    ("http://hello.test:80", "hello.test"),
    ("http://hello.test", "hello.test:80"),
    ("https://hello.test", "hello.test:443"),
    ("http://HELLO.test", "hello.TEST"),
    ("http://hello.test:8000", "hello.test:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
    ("https://friend.example", "hello.test"),
    ("HTTPS://Friend.Example", "hello.test"),
    ("https://friend.example.:443", "hello.test"),
    ("http://hello.test:8000", "hello.test"),  # nginx drops the port: `proxy_set_header Host $host`
    ("https://hello.test:8443", "HELLO.test."),
    ("http://[::1]:8000", "[::1]"),
    ("http://hello.test.", "hello.test"),
    ("http://localhost.:8000", "localhost:8000"),
    ("http://localhost:8000", "localhost.:8000"),
]
FOREIGN = [
    ("http://friend.example", "hello.test"),
    ("https://friend.example:444", "hello.test"),
    ("https://www.friend.example", "hello.test"),
    ("http://hello.test:8001", "hello.test:8000"),
    ("http://hello.test", "hello.test:8000"),
    ("https://hello.test", "hello.test:80"),
    ("http://www.hello.test", "hello.test"),
    ("http://test", "hello.test"),
    ("http://hello.test..", "hello.test"),
    ("http://.", "."),
    ("http://[::1].", "[::1]"),
    ("http://hello.test.:8001", "hello.test:8000"),
    ("http://www.hello.test:8000", "hello.test"),
    ("http://hello.test:8000", "hello.test:"),
    ("https://friend.example.:8443", "hello.test"),
    ("http://evilhello.test", "hello.test"),
    ("http://hello.test.evil.example", "hello.test"),
    ("http://evil.example/hello.test", "hello.test"),
    ("http://hello.test@evil.example", "hello.test"),
    ("http://hello.test:80@evil.example", "hello.test"),
    ("http://hello.test/", "hello.test"),
    ("http://hello.test, http://evil.example", "hello.test"),
    ("http://hello.test http://evil.example", "hello.test"),
    ("http://h\u0435llo.test", "hello.test"),  # a Cyrillic letter
    ("null", "hello.test"),
    ("", "hello.test"),
    ("file://", "hello.test"),
    ("ws://hello.test", "hello.test"),
    ("http://hello.test", None),
    ("http://", ""),
]


@pytest.mark.parametrize(("pairs", "may"), [(ADMITTED, True), (FOREIGN, False)], ids=["admitted", "foreign"])
def test_origins(pairs: list[tuple[str | None, str | None]], may: bool) -> None:
    """A page may open a stream at its own host and port, in any spelling, or if its origin is allowed."""
    assert [pair for pair in pairs if may_open(*pair, ["https://friend.example"]) is not may] == []


def test_stream_sources_are_plain_hosts() -> None:
    """A Host that is not a plain host gets no place in the policy."""
    assert stream_sources("hello.test:8000") == "ws://hello.test:8000 wss://hello.test:8000"
    assert [host for host in (None, "", "x; script-src *", "a b", "x/y", "[::1", "u@h") if stream_sources(host)] == []


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
async def test_page_is_revalidated(relay: Process) -> None:
    """An unchanged file is answered 304."""
    for path in ("/", "/page/main.js"):
        first = await relay.get(path, app="public")
        assert first.status == 200
        second = await relay.get(path, app="public", headers={"if-none-match": first.headers["etag"]})
        assert (second.status, second.body) == (304, "")


@on_asyncio
async def test_ranges_are_ignored(relay: Process) -> None:
    """A request for a hundred parts of a file gets the whole file."""
    ranges = ",".join(f"{start}-{start}" for start in range(0, 200, 2))
    for path in ("/", "/page/main.js"):
        whole = await relay.get(path, app="public")
        for value in (f"bytes={ranges}", "bytes=0-0", "bytes=9999999-", "x"):
            answer = await relay.get(path, app="public", headers={"range": value})
            assert (answer.status, answer.body) == (200, whole.body)
            assert answer.headers["accept-ranges"] == "none"
