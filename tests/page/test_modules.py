"""The page's modules one by one, in a real Chromium: protocol, back-off, texts, list, and the connection."""

import json

import pytest
from playwright.sync_api import Page, expect

from hello.printable import printable
from hello.web.document import read_document
from tests.page.standalone import KEPT, NOON, ORIGIN, PREFIX, WELCOME, gap, message, open_page, run, serve_stream

pytestmark = pytest.mark.browser

MAX_BYTES = 30_000  # of the compressed page, with all that it needs: they take 0.6 s at 400 kbit/s


def test_page_size() -> None:
    """The page is small enough for a slow line."""
    assert len(read_document().gzipped) < MAX_BYTES


# Positions.


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "1", "1-", "-1", "1-2-3", "01-0", "1-00", "+1-0", "1.5-0", "1e3-0", " 1-0", "1-0\n", "\u0661-0"),
        *("9007199254740992-0", "0-9007199254740992", "12345678901234567-0", 1, None, ["1-0"]),
    ],
)
def test_position_malformed(blank: Page, text: object) -> None:
    """Anything else raises an error that shows it."""
    body = "try { return String(m.Position.parse(a)) } catch (error) { return error.message }"
    assert run(blank, "client-protocol", body, text).endswith(f"not {json.dumps(text, ensure_ascii=False)}")


# The protocol: tests/client_histories.json has its rules.


def test_protocol_ids_bounded(blank: Page) -> None:
    """As many ids are remembered as the list has messages."""
    body = """
        const protocol = new m.ClientProtocol();
        for (let n = 0; n <= m.KEPT_IDS; n += 1) protocol.receive({ ...a, position: `${n}-0`, id: `id-${n}` });
        const again = (n, position) => protocol.receive({ ...a, position, id: `id-${n}` }).length;
        return [m.KEPT_IDS, again(1, "1000-0"), again(0, "1001-0")];
    """
    assert run(blank, "client-protocol", body, message("0-0", "")) == [KEPT, 0, 1]


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (message("1", "a"), 'not "1"'),
        (message("1-0", "a", text=None, relay=7), "malformed message frame: invalid text, relay"),
        (message("1-0", "a", sent_at="noon"), "malformed message frame: invalid sent_at"),
        (message("1-0", "a", sent_at=2**53 - 1), "malformed message frame: invalid sent_at"),  # no Date holds it
        (message("1-0", "a", sent_at=None, relayed_at="5"), "malformed message frame: invalid sent_at, relayed_at"),
        (gap("1-0", "soon"), 'not "soon"'),
        ({**WELCOME, "relay": None}, "malformed welcome frame: invalid relay"),
        ({**WELCOME, "head": "soon"}, 'not "soon"'),
        ({"type": "status", "channel": "sideways"}, "malformed status frame: invalid channel"),
        ({"type": "status", "channel": "down", "since": 1e300}, "malformed status frame: invalid since"),
    ],
)
def test_protocol_malformed_frame(blank: Page, frame: object, error: str) -> None:
    """A malformed frame raises an error, and changes neither the protocol nor the state around it."""
    body = """
        const state = new m.State(0);
        const look = () => JSON.stringify([state, state.statistics(1), state.buckets, state.instances("relay", 1)]);
        const before = look();
        try { state.receive(a, 1) } catch (error) { return [error.message, look() === before] }
    """
    [found, is_unchanged] = run(blank, "state", body, frame)
    assert found.endswith(error)
    assert is_unchanged


# Back-off.


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 0.5), (3, 1), (4, 2), (5, 4), (6, 5), (7, 5), (10**6, 5)])
def test_backoff_delay(blank: Page, attempt: int, seconds: float) -> None:
    """A delay is random, from zero to a limit that doubles up to five seconds."""
    body = "return [0, 0.5, 0.999].map((random) => m.backoffDelay(a, () => random))"
    assert run(blank, "connection", body, attempt) == [0, 500 * seconds, 999 * seconds]


# Texts.


def test_format_time(blank: Page) -> None:
    """A time has its date if it is not today's, and may be later than any Date."""
    body = "return [m.formatTime(a, a + 1000), m.formatTime(a, a + 86400000), m.formatTime(2 ** 53 - 2, a)]"
    noon, yesterday, late = run(blank, "text", body, NOON)
    assert (noon, yesterday) == ("12:00:00", "15 Nov 2023, 12:00:00")
    assert "275760" in late


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        *((None, "\u2013"), (0, "0 ms"), (-3, "-3 ms"), (999, "999 ms"), (1000, "1 s"), (-7_250, "-7.3 s")),
        *((59_000, "59 s"), (90_000, "1.5 min"), (3_600_000, "1 h"), (10**15, "277,777,777.8 h")),
    ],
)
def test_format_duration(blank: Page, milliseconds: int | None, text: str) -> None:
    """A duration has the largest unit of which there is at least one."""
    assert run(blank, "text", "return m.formatDuration(a)", milliseconds) == text


def test_printable(blank: Page) -> None:
    """The same characters are escaped as in logs and in `hello watch`, in the same way."""
    codes = [*range(0x3000), 0xD800, 0xDFFF, 0x1F469]
    body = "return m.printable(a.map((code) => String.fromCodePoint(code)).join(' '))"
    assert run(blank, "text", body, codes) == printable(" ".join(map(chr, codes)))


# The list.


def test_list_reader_stays(page: Page) -> None:
    """A reader who has scrolled back is not moved, sees how many entries came, and gets to them by a button."""
    body = """
        const [log, jump] = [document.querySelector("#messages"), document.querySelector("#jump")];
        log.style = "height: 100px; overflow: scroll; overflow-anchor: none";
        const draw = async (count) => {
            m.addToList(Array(count).fill({ type: "event", kind: "connected", relay: "r", at: 0 }));
            m.drawList();
            for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame);
        };
        await draw(50);
        await draw(1);
        const atTop = log.scrollTop;
        log.scrollTop = 200;
        const left = () => log.scrollHeight - log.scrollTop; // pixels to the oldest entry
        const before = left();
        for (const count of [9, 300, 2]) await draw(count);
        const found = [atTop, left() === before, jump.textContent];
        jump.click();
        for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame);
        return [...found, log.scrollTop, jump.className];
    """
    assert run(page, "list", body) == [0, True, "\u2191 311 new", 0, "hidden"]


def test_list_pending_bounded(page: Page) -> None:
    """Entries that a hidden tab has not drawn are bounded, too."""
    body = """
        const { Position } = await import("/page/client-protocol.js");
        const changes = new MutationObserver(() => {});
        changes.observe(document.querySelector("ol"), { childList: true });
        for (let n = 0; n < 10_000; n += 1) m.addToList([{ ...a, id: `id-${n}`, position: new Position(n, 0) }]);
        m.drawList();
        const drawn = changes.takeRecords().flatMap(({ addedNodes }) => [...addedNodes]);
        return drawn.map(({ dataset }) => dataset.id);
    """
    assert run(page, "list", body, message("", "")) == [f"id-{n}" for n in range(9_999, 9_999 - KEPT, -1)]


# The connection, to a relay that the test plays.


def open_paused(page: Page) -> None:
    """Open the page with a clock that stands still, and with random numbers of 0.9."""
    page.clock.install(time=NOON / 1000)
    page.clock.pause_at(NOON / 1000 + 1)
    page.add_init_script("Math.random = () => 0.9;")
    page.goto(ORIGIN)


def test_retry_countdown(page: Page) -> None:
    """The page shows when it reconnects; the delays start anew only after 10 seconds of being connected."""
    opened = serve_stream(page, [1011], [1011], [1011], [WELCOME, 1011], [WELCOME], [])
    retry = page.locator("#retry")
    open_paused(page)

    expect(retry).to_have_text("Reconnecting in 1 s.")
    page.clock.run_for(900)
    expect(retry).to_have_text("Reconnecting in 1 s, attempt 2.")
    page.clock.run_for(450)
    expect(retry).to_have_text("Reconnecting in 1 s, attempt 3.")
    expect(page.locator("#state")).to_contain_text("since 12:00:01")  # and not since the last attempt
    page.clock.run_for(900)
    expect(retry).to_have_text("Reconnecting in 2 s, attempt 4.")  # connected, but not for long
    expect(page.locator("#state")).to_contain_text("broke at 12:00:03")
    page.clock.run_for(1000)
    expect(retry).to_have_text("Reconnecting in 1 s, attempt 4.")
    page.clock.run_for(800)
    expect(retry).to_have_text("")
    page.clock.run_for(10_000)
    opened[-1].close(code=1012)
    expect(retry).to_have_text("Reconnecting in 1 s.")
    page.clock.run_for(900)
    expect(retry).to_have_text("Reconnecting now.")
    page.clock.run_for(10_000)  # without a frame on the new connection
    expect(retry).to_have_text("Reconnecting in 1 s, attempt 2.")


def test_retry_of_slow_page(page: Page) -> None:
    """A page that was too slow waits for the longest delay."""
    serve_stream(page, [WELCOME, 1013])
    open_paused(page)
    expect(page.locator("#retry")).to_have_text("Reconnecting in 5 s.")


@pytest.mark.parametrize(
    ("address", "stream"),
    [
        (f"{ORIGIN}/", "ws://hello.test/ws?last=50"),
        (f"{ORIGIN}{PREFIX}/?of=old#top", f"ws://hello.test{PREFIX}/ws?last=50"),
        (f"https://hello.test{PREFIX}/", f"wss://hello.test{PREFIX}/ws?last=50"),
    ],
)
def test_stream_url(page: Page, address: str, stream: str) -> None:
    """The stream's address is beside the page's, below any prefix."""
    opened = open_page(page, [WELCOME], url=address)
    expect(page.locator("html")).to_have_class("connected")
    assert [socket.url for socket in opened] == [stream]
