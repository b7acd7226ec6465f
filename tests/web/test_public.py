"""The public app in this event loop: which origins may open a stream, where it starts, and caching."""

import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from hello.channel.memory import MemoryChannel
from hello.feed import Feed
from hello.message import MAX_TIME, Message
from hello.testing import Closed, Process, Refused, running
from hello.web.document import PAGE, read_document
from hello.web.origin import may_open
from hello.web.plain import plain_page

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@pytest.fixture
def channel() -> MemoryChannel:
    return MemoryChannel(1000)


@pytest.fixture
async def relay(channel: MemoryChannel) -> AsyncIterator[Process]:
    """A relay with one message, whose broadcaster publishes no other."""
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
async def test_page(relay: Process) -> None:
    """The page is one answer: compressed for those who accept that, 304 if it is unchanged, and never a part of it."""
    get = partial(relay.get, "/", app="public")
    whole = await get()
    assert (whole.status, whole.headers["vary"]) == (200, "Accept-Encoding")
    assert "src=" not in whole.body, "the page needs another file"
    for accepted, encoding in [("br, gzip;q=0.5", "gzip"), ("GZIP", "gzip"), ("gzip;q=0, br", None), ("gzipped", None)]:
        answer = await get(headers={"accept-encoding": accepted})
        assert (answer.headers.get("content-encoding"), answer.body) == (encoding, whole.body)
    unchanged = await get(headers={"if-none-match": f'"x", {whole.headers["etag"]}'})
    assert (unchanged.status, unchanged.body) == (304, "")
    assert (await get(headers={"range": "bytes=0-0"})).body == whole.body


@on_asyncio
async def test_plain_page(relay: Process, channel: MemoryChannel) -> None:
    """Without JavaScript there are the recent messages, newest first, whatever their texts are."""
    await channel.publish(Message("late", "<b>&", "test", sent_at=MAX_TIME))
    async with relay.open("/events?last=2") as stream:
        assert [(await stream.receive())["type"] for _ in range(3)] == ["welcome", "message", "message"]
    body = (await relay.get("/?plain", app="public")).body
    texts = re.findall(r'<li><time datetime="[0-9TZ:-]{20}">[0-9:]{8} UTC</time> (.*) <small>test</small></li>', body)
    assert texts == ["&lt;b&gt;&amp;", "Hello world"]
    assert f"The relay is {relay.instance}, and its channel is up." in body
    assert "The relay is r, and has not read its channel yet." in plain_page(Feed(history=1, instance="r"))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ('import a from "./a.js";', "import a from"),
        ('import * as a from "./a.js";', "import"),
        ("export default 1;", "export default 1;"),
        ("export let a = 1;", "export let a"),
        ('await import("./a.js");', "import("),
        ("const a = import.meta.url;", "import.meta"),
        ('const a = "<!--";', "<!--"),
        ('const a = "</script>";', "</script>"),
        ('import { a } from "./main.js";', "each other: main -> main"),
    ],
)
def test_bundle_refuses(tmp_path: Path, source: str, error: str) -> None:
    """A module that the bundle would get wrong ends the start, and is named."""
    for name in ("index.html", "style.css", "guard.js"):
        (tmp_path / name).write_text((PAGE / name).read_text())
    (tmp_path / "main.js").write_text(source + "\n")
    with pytest.raises(ValueError, match=re.escape(error)):
        read_document(tmp_path)


def test_bundle_renames(tmp_path: Path) -> None:
    """An import by another name is one in the bundle, too."""
    for name in ("index.html", "style.css", "guard.js"):
        (tmp_path / name).write_text((PAGE / name).read_text())
    (tmp_path / "a.js").write_text("export const a = 1;\n")
    (tmp_path / "main.js").write_text('import { a as b } from "./a.js";\n')
    assert b"const { a: b } = $a;" in read_document(tmp_path).html
