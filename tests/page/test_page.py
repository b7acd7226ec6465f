"""The page in a real Chromium, with real `hello` processes and a real Redis: each message once, in order."""

import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from hello.web.listener import listen
from tests.conftest import missing
from tests.page.conftest import StartHello
from tests.page.proxies import plain, running
from tests.page.redis_stream import Entry, RedisStream
from tests.page.tab import START_MS, Tab
from tests.processes import HelloProcess
from tests.redis_server import RedisServer

pytestmark = pytest.mark.browser

HOUR_MS = 3_600_000


def open_live(tab: Tab, start_hello: StartHello, **settings: str) -> tuple[HelloProcess, HelloProcess]:
    """Open the page before the first message, and return broadcaster and relay once the page shows some messages."""
    relay = start_hello("relay", instance="relay-1", **settings)
    tab.open(relay.url)
    broadcaster = start_hello("broadcaster", **settings)
    tab.expect_messages(5)
    return broadcaster, relay


def expect_each_once(tab: Tab, stream: RedisStream) -> None:
    """Let the page catch up, after the broadcaster has ended, and compare it with the stream."""
    entries = stream.entries()
    tab.expect_newest(entries[-1])
    assert tab.listed() == entries
    tab.expect_statistics(shown=str(len(entries)), lost="0", repeated="0")
    assert tab.documents == 1, "the page was loaded again"


@pytest.mark.quick
def test_relay_restart(tab: Tab, start_hello: StartHello, stream: RedisStream) -> None:
    """The page shows each message once, in order, over a relay's restart by SIGTERM and one by SIGKILL."""
    broadcaster, relay = open_live(tab, start_hello, drain_seconds="0.5")

    for end in (relay.terminate, relay.kill):
        end()
        tab.expect_state("unreachable")
        tab.expect_broken_hop(2, "no relay")
        stream.wait_for(more=5)
        relay.start()
        tab.expect_state("connected")
        stream.wait_for(more=5)

    broadcaster.terminate()
    expect_each_once(tab, stream)
    tab.expect_statistics(reconnects="2")
    recovered = r"Resumed at relay-1: ([5-9]|\d\d+) missed messages recovered\."
    unreachable = r"No relay can be reached\."
    tab.expect_events(
        *(recovered, unreachable, r"The connection broke\."),
        *(recovered, unreachable, r"The relay stopped .*\.", r"Connected to relay-1\."),
        without="the channel",  # a relay serves from its start: a page may see that it has not reached the channel yet
    )


@pytest.mark.parametrize(
    ("name", "stage", "reason", "away"),
    [
        ("nginx", 1, r"a proxy on the way does not pass WebSocket on \(Upgrade\)", 502),
        ("apache2", 0, r"it received Host 127\.0\.0\.1:\d+; see HELLO_ALLOWED_ORIGINS", 503),
    ],
)
def test_plain_proxy(
    tab: Tab,
    start_hello: StartHello,
    stream: RedisStream,
    tmp_path: Path,
    name: str,
    stage: int,
    reason: str,
    away: int,
) -> None:
    """Behind a plain proxy the page uses events, shows why, and returns to WebSocket, with each message once."""
    relay = start_hello("relay", instance="relay-1", drain_seconds="0.5")
    status, advice = tab.page.locator("#state"), tab.page.locator("#advice")
    with running(name, plain(name, relay.port, stage), tmp_path) as (url, reload):
        tab.open(url)
        by_events = rf"The messages come over server-sent events: .*{reason}.*"
        tab.expect_events(rf"Connected to relay-1\. {by_events}", without="the channel")
        expect(status).to_contain_text(re.compile(reason))
        broadcaster = start_hello("broadcaster")
        tab.expect_messages(5)

        relay.terminate()
        expect(advice).to_contain_text(f"the answer has status {away}", timeout=START_MS)
        stream.wait_for(more=5)
        relay.start()
        reload(plain(name, relay.port, stage))  # Apache would ask a relay that was away after a minute only
        tab.expect_state("connected")
        recovered = rf"Resumed at relay-1: \d+ missed messages recovered\. {by_events}"
        tab.expect_events(recovered, r"No relay can be reached\.", r"The relay stopped .*\.", without="the channel")

        reload(plain(name, relay.port, 2))
        tab.reconnect_until("switched")
        tab.expect_state("connected")
        expect(status).to_have_text("relay-1 over WebSocket")
        broadcaster.terminate()
        expect_each_once(tab, stream)
        tab.expect_events(r"Resumed at relay-1: [^.]*\.", r"A WebSocket opens: .*\.", without="the channel")


def test_page_from_cache(tab: Tab, start_hello: StartHello, stream: RedisStream) -> None:
    """A page that was left and is restored from the back/forward cache shows so, and each message once."""
    broadcaster, _ = open_live(tab, start_hello)
    tab.page.goto("about:blank")
    stream.wait_for(more=5)
    tab.page.evaluate("setTimeout(() => history.back())")
    tab.expect_state("connected")
    recovered = r"Resumed at .*: \d+ missed messages recovered\."
    tab.expect_events(recovered, r"The reader came back, .*\.", r"The reader left this page\.")
    broadcaster.terminate()
    expect_each_once(tab, stream)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost.", "a_b.localhost", "[::1]", "hello.test"])
def test_every_address_is_served_alike(tab: Tab, host: str) -> None:
    """At each kind of address the page connects over WebSocket, and the browser has nothing to complain about."""
    address = "::1" if host == "[::1]" else "127.0.0.1"
    try:
        listen(address, 0).close()
    except OSError:
        missing(f"this machine has no {address}")
    with HelloProcess(host=address) as process:
        tab.open(f"http://{host}:{process.port}/")
        assert {urlsplit(each)[:2] for each in tab.addresses if "?last=" in each} == {("ws", f"{host}:{process.port}")}


def test_message_fields(tab: Tab, start_hello: StartHello) -> None:
    """An entry of the list has the message's time, text, broadcaster and relay; a text is never read as HTML."""
    tab.open(start_hello("relay", instance="relay-1").url)
    start_hello("broadcaster", instance="broadcaster-1", text="Good <b>morning</b>")

    newest = tab.entries.nth(1)
    expect(newest).to_be_visible(timeout=START_MS)
    expect(newest.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(newest.locator("p").first).to_have_text("Good <b>morning</b>")
    expect(newest.locator(".delay")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    expect(tab.entries.last.locator(".path")).to_have_text("broadcaster-1 → relay-1")


def test_history_exceeded(tab: Tab, start_hello: StartHello, stream: RedisStream) -> None:
    """A page that was away for more messages than the history shows a gap, and then the messages that are kept."""
    history = 10
    broadcaster, relay = open_live(tab, start_hello, history=str(history))
    expect(tab.gaps).to_have_count(0)

    relay.kill()
    tab.expect_state("unreachable")
    before = tab.listed()
    stream.wait_for(more=2 * history)
    broadcaster.terminate()
    kept = stream.entries()
    relay.start()

    tab.expect_newest(kept[-1])
    assert len(kept) == history
    assert tab.listed() == before + kept
    expect(tab.gaps).to_have_count(1)
    expect(tab.entries.nth(history)).to_have_class("gap")
    expect(tab.gaps).to_have_attribute("data-after", before[-1].position)
    expect(tab.gaps).to_have_attribute("data-before", kept[0].position)
    tab.expect_statistics(shown=str(len(before) + history), lost="1", recovered=str(history), repeated="0")


def test_channel_down(tab: Tab, start_hello: StartHello, stream: RedisStream, redis_server: RedisServer) -> None:
    """The page shows that the relay's channel is down, and loses and repeats nothing."""
    broadcaster, _ = open_live(tab, start_hello)

    redis_server.kill()
    tab.expect_state("channel-down")
    tab.expect_broken_hop(1, "down")
    redis_server.start()
    tab.expect_state("connected")
    stream.wait_for(more=5)

    broadcaster.terminate()
    expect_each_once(tab, stream)
    tab.expect_statistics(reconnects="0", recovered="0")
    tab.expect_events("relay-1 is connected .*", "relay-1 lost its connection .*", r"Connected to relay-1\.")


def test_network_back(tab: Tab, start_hello: StartHello) -> None:
    """A page that waits reconnects at once when the browser is online again."""
    relay = start_hello("relay")
    tab.page.clock.install()
    tab.open(relay.url)
    relay.kill()
    tab.expect_state("unreachable")
    tab.page.clock.pause_at(time.time() + 3600)  # from here on no delay ends by itself
    expect(tab.page.locator("#retry")).to_contain_text("Reconnecting in ")
    relay.start()

    tab.page.context.set_offline(True)
    tab.page.context.set_offline(False)

    tab.expect_state("connected")


def open_ahead(tab: Tab, start_hello: StartHello, stream: RedisStream) -> tuple[HelloProcess, HelloProcess]:
    """Open the page whose first message is an hour ahead of every clock, kill the relay, and return both processes."""
    ahead = int(time.time() * 1000) + HOUR_MS
    stream.add_first(Entry(f"{ahead}-0", "first"), "from a Redis whose clock is an hour ahead")
    broadcaster, relay = open_live(tab, start_hello)
    relay.kill()
    tab.expect_state("unreachable")
    return broadcaster, relay


def test_position_rejected(tab: Tab, start_hello: StartHello, stream: RedisStream) -> None:
    """A page whose position the relay rejects continues with the recent messages, and repeats none."""
    broadcaster, relay = open_ahead(tab, start_hello, stream)
    broadcaster.terminate()
    before = tab.listed()
    stream.clear()
    broadcaster.start()
    stream.wait_for(more=5)
    broadcaster.terminate()
    relay.start()
    tab.reconnect_until("connected")

    entries = stream.entries()
    tab.expect_newest(entries[-1])
    assert tab.listed() == before + entries
    assert any("/events?after=" in address for address in tab.rejected), "the position was not rejected"


def test_position_ahead_of_clock(tab: Tab, start_hello: StartHello, stream: RedisStream) -> None:
    """A page resumes from a position that is ahead of every clock, if the relay has it."""
    broadcaster, relay = open_ahead(tab, start_hello, stream)
    stream.wait_for(more=5)
    broadcaster.terminate()
    relay.start()

    expect_each_once(tab, stream)
    assert tab.rejected == []


def test_bounded_memory(tab: Tab, start_hello: StartHello, stream: RedisStream) -> None:
    """Memory and elements do not grow between 5,000 and 10,000 messages, of which the list keeps 500."""
    relay = start_hello("relay")
    tab.open(relay.url)
    cdp = tab.page.context.new_cdp_session(tab.page)
    cdp.send("Performance.enable")

    def measure(shown: int) -> tuple[float, float]:
        for _ in range(5):
            stream.flood(1000)
        tab.expect_statistics(shown=f"{shown:,}", lost="0", repeated="0")
        tab.expect_newest(stream.entries()[-1])
        cdp.send("HeapProfiler.collectGarbage")
        found = {metric["name"]: metric["value"] for metric in cdp.send("Performance.getMetrics")["metrics"]}
        return found["JSHeapUsedSize"], found["Nodes"]

    heap, nodes = measure(5000)
    grown_heap, grown_nodes = measure(10_000)

    assert grown_nodes <= nodes * 1.1
    assert grown_heap <= heap + 500_000, "bytes; ten messages' worth of them for each that the list keeps"
