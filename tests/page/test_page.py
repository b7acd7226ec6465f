"""The page in a real Chromium, before real `hello` processes and a real Redis: each message once, in order."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal
from playwright.sync_api import expect

from tests.faults.proxy import Link, Mode
from tests.page.conftest import StartHello
from tests.page.said import Said, Stream
from tests.page.tab import RECENT, START_MS, Tab
from tests.processes import HelloProcess
from tests.redis_server import RedisServer

SILENCE_MS = 25_000  # after so long without a word the page takes the line for dead
HOUR_MS = 3_600_000


def open_live(tab: Tab, start_hello: StartHello, **settings: str) -> tuple[HelloProcess, HelloProcess]:
    """Open the page before anything is said, and return broadcaster and relay once it shows some messages."""
    relay = start_hello("relay", instance="relay-1", **settings)
    tab.open(relay.url)
    broadcaster = start_hello("broadcaster", **settings)
    tab.expect_messages(5)
    return broadcaster, relay


@contextmanager
def line_to(port: int) -> Iterator[tuple[str, Callable[[Mode], None]]]:
    """A line to a relay: the page's address over it, and what cuts and heals it."""
    with start_blocking_portal() as portal:
        link = Link("page", port)
        running, _ = portal.start_task(link.run)
        yield f"http://127.0.0.1:{link.port}/", lambda mode: portal.call(link.set, mode)
        portal.call(link.end)
        running.result()


def expect_all_shown_once(tab: Tab, stream: Stream) -> None:
    """Let the page catch up, now that nobody speaks any more, and compare it with what was really said."""
    said = stream.entries()
    tab.expect_newest(said[-1])
    assert tab.shown() == said
    tab.expect_figures(shown=str(len(said)), lost="0", repeated="0")
    assert tab.documents == 1, "the page was loaded again"


def test_a_message_is_shown_with_its_time_its_broadcaster_and_its_relay(tab: Tab, start_hello: StartHello) -> None:
    relay = start_hello("relay", instance="relay-1")
    tab.open(relay.url)
    expect(tab.state).to_have_text("Connected to relay-1.")
    expect(tab.page).to_have_title("Hello: connected")

    start_hello("broadcaster", instance="broadcaster-1", text="Good <b>morning</b>")

    expect(tab.entries.last).to_be_visible(timeout=START_MS)
    newest = tab.entries.last
    expect(newest.locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(newest.locator("p").first).to_have_text("Good <b>morning</b>")
    expect(newest.locator(".path")).to_have_text("broadcaster-1 → relay-1")


def test_all_is_served_under_the_strict_policy_and_from_one_origin(tab: Tab, start_hello: StartHello) -> None:
    relay = start_hello("relay")

    response = tab.page.goto(relay.url)
    tab.expect_state("connected")

    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert any(address.startswith("ws://") for address in tab.addresses)


def test_a_page_open_while_the_relay_is_killed_and_started_again_shows_each_message_once_in_order(
    tab: Tab, start_hello: StartHello, stream: Stream
) -> None:
    broadcaster, relay = open_live(tab, start_hello)

    for _ in range(2):
        relay.kill()
        tab.expect_state("unreachable")
        tab.expect_cut(2, "unreachable")
        stream.wait_for(more=5)
        relay.start()
        tab.expect_state("connected")
        stream.wait_for(more=5)

    broadcaster.terminate()
    expect_all_shown_once(tab, stream)
    tab.expect_figures(reconnects="2")
    recovered = r"Resumed at relay-1: ([5-9]|\d\d+) missed messages recovered\."
    tab.expect_events(recovered, "No relay can be reached, since .*", "The connection was lost at .*", recovered)


def test_a_line_that_is_cut_is_told_and_what_was_missed_is_recovered_once_it_heals(
    tab: Tab, start_hello: StartHello, stream: Stream
) -> None:
    relay = start_hello("relay", instance="relay-1")
    with line_to(relay.port) as (address, set_line):
        tab.open(address)
        broadcaster = start_hello("broadcaster")
        tab.expect_messages(5)

        set_line("cut")
        tab.expect_state("unreachable")
        assert tab.told_states()[-2:] == ["lost", "unreachable"]
        tab.expect_cut(2, "unreachable")
        stream.wait_for(more=5)
        set_line("open")

        tab.expect_state("connected")
        broadcaster.terminate()
        expect_all_shown_once(tab, stream)
        tab.expect_figures(reconnects="1")
        tab.expect_events(r"Resumed at relay-1: ([5-9]|\d\d+) missed messages recovered\.")


def test_a_reload_shows_the_recent_messages(tab: Tab, start_hello: StartHello, stream: Stream) -> None:
    stream.flood(RECENT)
    broadcaster, relay = start_hello("broadcaster"), start_hello("relay")
    tab.open(relay.url)
    stream.wait_for(more=5)
    broadcaster.terminate()
    said = stream.entries()
    tab.expect_newest(said[-1])

    tab.page.reload()

    tab.expect_newest(said[-1])
    assert tab.shown() == said[-RECENT:]


def test_a_relay_that_is_told_to_stop_moves_the_page(tab: Tab, start_hello: StartHello, stream: Stream) -> None:
    broadcaster, relay = open_live(tab, start_hello, drain_seconds="0.5")

    assert relay.terminate() == 0
    tab.expect_state("unreachable")
    assert tab.told_states()[-2:] == ["moved", "unreachable"]
    stream.wait_for(more=5)
    relay.start()

    broadcaster.terminate()
    expect_all_shown_once(tab, stream)
    tab.expect_events(
        r"Resumed at relay-1: \d+ missed messages recovered\.",
        "No relay can be reached, since .*",
        "At .* the relay stopped and sent this page to another\\.",
        "Connected to relay-1\\.",
    )


def test_history_that_passed_while_the_page_was_away_is_told_as_a_gap(
    tab: Tab, start_hello: StartHello, stream: Stream
) -> None:
    history = 10
    broadcaster, relay = open_live(tab, start_hello, history=str(history))
    expect(tab.gaps).to_have_count(0)

    relay.kill()
    tab.expect_state("unreachable")
    before = tab.shown()
    stream.wait_for(more=2 * history)
    broadcaster.terminate()
    kept = stream.entries()
    relay.start()

    tab.expect_newest(kept[-1])
    assert len(kept) == history
    assert tab.shown() == before + kept
    expect(tab.gaps).to_have_count(1)
    expect(tab.entries.nth(-1 - history)).to_have_class("gap")
    expect(tab.gaps).to_have_attribute("data-after", before[-1].position)
    expect(tab.gaps).to_have_attribute("data-before", kept[0].position)
    expect(tab.gaps).to_contain_text("are lost")
    tab.expect_figures(shown=str(len(before) + history), lost="1", missed=str(history), repeated="0")
    expect(tab.page.locator("#plot .event.gap")).to_be_visible()


def test_a_channel_that_is_down_is_told_and_nothing_is_lost_or_repeated_by_it(
    tab: Tab, start_hello: StartHello, stream: Stream, redis_server: RedisServer
) -> None:
    broadcaster, _ = open_live(tab, start_hello)

    redis_server.kill()
    tab.expect_state("channel-down")
    expect(tab.state).to_contain_text("Connected to relay-1, but its channel has been down since ")
    tab.expect_cut(1, "down")
    redis_server.start()
    tab.expect_state("connected")
    stream.wait_for(more=5)

    broadcaster.terminate()
    expect_all_shown_once(tab, stream)
    tab.expect_figures(reconnects="0", missed="0")
    tab.expect_events("relay-1 has the channel again\\.", "relay-1 has lost the channel\\.", "Connected to relay-1\\.")


def test_a_line_without_a_word_for_25_seconds_is_told_as_dead_and_left(
    tab: Tab, start_hello: StartHello, stream: Stream
) -> None:
    tab.page.clock.install()
    broadcaster, relay = open_live(tab, start_hello)

    relay.signal(signal.SIGSTOP)
    tab.page.clock.fast_forward(SILENCE_MS + 1)
    tab.expect_state("dead")
    stream.wait_for(more=5)
    relay.signal(signal.SIGCONT)
    tab.expect_state("connected")
    stream.wait_for(more=5)

    broadcaster.terminate()
    expect_all_shown_once(tab, stream)


def test_a_page_that_waits_comes_back_at_once_when_the_network_does(tab: Tab, start_hello: StartHello) -> None:
    relay = start_hello("relay")
    tab.page.clock.install()
    tab.open(relay.url)
    relay.kill()
    tab.expect_state("unreachable")
    tab.page.clock.pause_at(time.time() + 3600)  # from here on no pause ends by itself
    expect(tab.page.locator("#next")).to_contain_text("Trying again in ")
    relay.start()

    tab.page.context.set_offline(True)
    tab.page.context.set_offline(False)

    tab.expect_state("connected")


def test_a_page_whose_position_is_refused_goes_on_with_the_recent_messages_and_repeats_none(
    tab: Tab, start_hello: StartHello, stream: Stream
) -> None:
    ahead = int(time.time() * 1000) + HOUR_MS
    stream.say(Said(f"{ahead}-0", "first"), "from a Redis whose clock is an hour ahead")
    broadcaster, relay = open_live(tab, start_hello)

    relay.kill()
    tab.expect_state("unreachable")
    broadcaster.terminate()
    before = tab.shown()
    stream.forget()
    broadcaster.start()
    stream.wait_for(more=5)
    broadcaster.terminate()
    relay.start()
    tab.hasten_until("connected")

    said = stream.entries()
    tab.expect_newest(said[-1])
    assert tab.shown() == before + said
    assert any("/events?after=" in address for address in tab.refused), "the position was not refused"


def test_a_page_goes_on_after_a_position_that_is_ahead_of_all_clocks_but_not_of_its_relay(
    tab: Tab, start_hello: StartHello, stream: Stream
) -> None:
    ahead = int(time.time() * 1000) + HOUR_MS
    stream.say(Said(f"{ahead}-0", "first"), "from a Redis whose clock was an hour ahead")
    broadcaster, relay = open_live(tab, start_hello)

    relay.kill()
    tab.expect_state("unreachable")
    stream.wait_for(more=5)
    broadcaster.terminate()
    relay.start()

    expect_all_shown_once(tab, stream)
    assert tab.refused == []


def test_memory_and_elements_do_not_grow_with_the_messages(tab: Tab, start_hello: StartHello, stream: Stream) -> None:
    """Between 5,000 and 10,000 messages, of which the list keeps 500."""
    relay = start_hello("relay")
    tab.open(relay.url)
    cdp = tab.page.context.new_cdp_session(tab.page)
    cdp.send("Performance.enable")

    def measure(shown: int) -> tuple[float, float]:
        for _ in range(5):
            stream.flood(1000)
        tab.expect_figures(shown=f"{shown:,}", lost="0", repeated="0")
        tab.expect_newest(stream.entries()[-1])
        cdp.send("HeapProfiler.collectGarbage")
        found = {metric["name"]: metric["value"] for metric in cdp.send("Performance.getMetrics")["metrics"]}
        return found["JSHeapUsedSize"], found["Nodes"]

    heap, nodes = measure(5000)
    grown_heap, grown_nodes = measure(10_000)

    assert grown_nodes <= nodes * 1.1
    assert grown_heap <= heap + 500_000, "bytes; ten messages' worth of them for each that the list keeps"
