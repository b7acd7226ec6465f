"""The page's modules by themselves, in a real Chromium: positions, what a stream gives to show, pauses, words, list.

The files are served as they are. Where a relay is needed that no real one would be, the test speaks its frames.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

PAGE = Path(__file__).parents[2] / "hello" / "web" / "page"
ORIGIN = "http://hello.test"
PREFIX = "/some/where"  # of an ingress; the same files are there too
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MAX_BYTES = 20_000  # of all files; no build makes them smaller, and a telephone fetches them over a slow line
KEPT = 500  # entries in the list (stream.js)
NOON = 1_700_049_600_000  # 15 November 2023, 12:00:00 UTC


@contextmanager
def blank_page(browser: Browser) -> Iterator[Page]:
    """A blank page of an origin that serves the page's folder as `hello` does; no request leaves the browser."""

    def serve(route: Route) -> None:
        path = urlsplit(route.request.url).path.removeprefix(PREFIX)
        if path == "/blank":
            route.fulfill(body="<!doctype html><title>blank</title><ol></ol>", content_type="text/html")
        else:
            file = PAGE / ("index.html" if path == "/" else path.removeprefix("/page/"))
            route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])

    # A zone and a language that the page must not depend on.
    with browser.new_context(timezone_id="UTC", locale="ar-EG") as context:
        context.route("**/*", serve)
        page = context.new_page()
        page.goto(f"{ORIGIN}/blank")
        yield page


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Iterator[Page]:
    """One blank page for all tests that leave nothing behind in it."""
    with blank_page(browser) as page:
        yield page


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A blank page of this test's own."""
    with blank_page(browser) as page:
        yield page


def run(page: Page, module: str, body: str, argument: object = None) -> Any:
    """What `body` (JavaScript) returns, with the module's exports as `m` and the argument as `a`."""
    return page.evaluate(f"async (a) => {{ const m = await import('/page/{module}.js'); {body} }}", argument)


# Frames, as a relay sends them.


def message(position: str, message_id: str, **fields: object) -> dict[str, object]:
    named = {"text": "Hello world", "broadcaster": "b", "relay": "r", "sent_at": NOON, "relayed_at": NOON}
    return {"type": "message", "position": position, "id": message_id, **named, **fields}


def gap(after: str, before: str) -> dict[str, object]:
    return {"type": "gap", "after": after, "before": before}


WELCOME: dict[str, object] = {"type": "welcome", "relay": "r", "head": None, "channel": "up"}
REFUSED: dict[str, object] = {"type": "our position is refused"}  # no frame: the connection's word to the stream


def test_the_whole_page_is_small() -> None:
    assert sum(file.stat().st_size for file in PAGE.iterdir()) < MAX_BYTES


# Positions.


@pytest.mark.parametrize("text", ["0-0", "1700000000000-0", "1700000000000-12", "9007199254740991-9007199254740991"])
def test_a_position_is_read_and_written_unchanged(blank: Page, text: str) -> None:
    assert run(blank, "position", "return String(m.Position.parse(a))", text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "1", "1-", "-1", "1-2-3", "01-0", "1-00", "+1-0", "1.5-0", "1e3-0", " 1-0", "1-0\n", "\u0661-0"),
        *("9007199254740992-0", "0-9007199254740992", "12345678901234567-0", 1, None, ["1-0"]),
    ],
)
def test_what_is_no_position_is_refused_with_an_error_that_shows_it(blank: Page, text: object) -> None:
    body = "try { return String(m.Position.parse(a)) } catch (error) { return error.message }"
    refusal = run(blank, "position", body, text)
    assert refusal == f"a position is MILLISECONDS-SEQUENCE, not {json.dumps(text, ensure_ascii=False)}"


@pytest.mark.parametrize(
    ("later", "earlier"),
    [
        ("10-0", "9-0"),
        ("10-0", "9-9007199254740991"),
        ("5-10", "5-9"),
        ("1700000000000-1", "1700000000000-0"),
        ("9007199254740991-0", "9007199254740990-0"),
        ("1-9007199254740991", "1-9007199254740990"),
    ],
)
def test_positions_compare_as_pairs_of_integers(blank: Page, later: str, earlier: str) -> None:
    body = """
        const [x, y] = a.map(m.Position.parse);
        return [x.isAfter(y), y.isAfter(x), x.isAfter(x)];
    """
    assert run(blank, "position", body, [later, earlier]) == [True, False, False]


# The stream: frames in, what there is to show out.


@pytest.mark.parametrize(
    ("frames", "shown"),
    [
        pytest.param([message("1-0", "a"), message("2-0", "b")], ["a", "b"], id="in the order of arrival"),
        pytest.param([message("9-0", "a"), message("10-0", "b")], ["a", "b"], id="positions are not text"),
        pytest.param([message("1-0", "a"), message("2-0", "a")], ["a"], id="a known id is dropped"),
        pytest.param(
            [message("1-0", "a"), message("2-0", "a"), message("2-0", "b"), message("3-0", "c")],
            ["a", "c"],
            id="and its position counts as seen",
        ),
        pytest.param([message("2-0", "a"), message("2-0", "b"), message("1-0", "c")], ["a"], id="nothing goes back"),
        pytest.param([WELCOME, {"type": "beat"}, {"type": "tomorrow's"}], [], id="other frames show nothing"),
        pytest.param(
            [message("1-0", "a"), gap("1-0", "4-0"), message("4-0", "b")],
            ["a", "lost 1-0 4-0", "b"],
            id="a gap is told before the message that ends it",
        ),
        pytest.param(
            [message("1-0", "a"), gap("1-0", "4-0"), WELCOME, gap("1-0", "5-0"), message("5-0", "b")],
            ["a", "lost 1-0 5-0", "b"],
            id="a gap that a broken connection told is told once",
        ),
        pytest.param(
            [message("1-0", "a"), gap("1-0", "4-0"), WELCOME, message("2-0", "b")],
            ["a", "b"],
            id="and not at all if another relay has the messages",
        ),
        pytest.param(
            [message("1-0", "a"), gap("1-0", "4-0"), message("4-0", "a"), message("5-0", "b")],
            ["a", "lost 1-0 4-0", "b"],
            id="a gap before a known message is told too",
        ),
        pytest.param(
            [message("8-0", "a"), message("9-0", "b"), REFUSED, WELCOME, message("9-0", "b"), message("10-0", "c")],
            ["a", "b", "c"],
            id="refused, and the recent messages reach back: nothing is missing",
        ),
        pytest.param(
            [message("8-0", "a"), message("9-0", "b"), REFUSED, WELCOME, message("11-0", "c"), message("12-0", "d")],
            ["a", "b", "in doubt 9-0 11-0", "c", "d"],
            id="refused, and they do not: something may be missing",
        ),
        pytest.param(
            [message("8-0", "a"), REFUSED, WELCOME, message("3-0", "b"), message("4-0", "c")],
            ["a", "in doubt 8-0 3-0", "b", "c"],
            id="refused by a channel that began anew with an earlier clock",
        ),
    ],
)
def test_a_stream_answers_what_there_is_to_show(blank: Page, frames: list[object], shown: list[str]) -> None:
    body = """
        const stream = new m.Stream();
        const items = a.flatMap((frame) => frame.type === "our position is refused"
            ? stream.forgetPosition() ?? [] : stream.take(frame));
        return [items.map((item) => item.type === "message" ? item.id
            : `${item.certain ? "lost" : "in doubt"} ${item.after} ${item.before}`), stream.shown, stream.gaps];
    """
    gaps = sum(" " in item for item in shown)
    assert run(blank, "stream", body, frames) == [shown, len(shown) - gaps, gaps]


def test_a_stream_remembers_as_many_ids_as_the_list_keeps_and_no_more(blank: Page) -> None:
    body = """
        const stream = new m.Stream();
        for (let n = 0; n <= m.KEPT; n += 1) stream.take({ ...a, position: `${n}-0`, id: `id-${n}` });
        const again = (n, position) => stream.take({ ...a, position, id: `id-${n}` }).length;
        return [m.KEPT, again(1, "1000-0"), again(0, "1001-0")];
    """
    assert run(blank, "stream", body, message("0-0", "")) == [KEPT, 0, 1]


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (message("1", "a"), 'a position is MILLISECONDS-SEQUENCE, not "1"'),
        (message("1-0", "a", text=None, relay=7), "a message with a bad text, relay"),
        (message("1-0", "a", sent_at="noon"), "a message with a bad sent_at"),
        (message("1-0", "a", sent_at=2**53 - 1), "a message with a bad sent_at"),  # no Date holds it
        (gap("1-0", "soon"), 'a position is MILLISECONDS-SEQUENCE, not "soon"'),
    ],
)
def test_a_malformed_frame_is_refused_and_leaves_the_stream_as_it_was(blank: Page, frame: object, error: str) -> None:
    body = """
        const stream = new m.Stream();
        try { stream.take(a) } catch (error) { return [error.message, stream.position, stream.shown] }
    """
    assert run(blank, "stream", body, frame) == [error, None, 0]


# Pauses.


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1), (2, 0.5), (3, 1), (4, 2), (5, 4), (6, 5), (7, 5), (1000, 5), (10**6, 5)]
)
def test_a_pause_is_drawn_from_nothing_up_to_a_limit_that_doubles_to_five_seconds(
    blank: Page, attempt: int, seconds: float
) -> None:
    body = "return [0, 0.5, 0.999].map((luck) => m.pauseBefore(a, () => luck))"
    assert run(blank, "connection", body, attempt) == [0, 500 * seconds, 999 * seconds]


# Words.


def test_times_are_told_with_the_date_only_where_it_is_not_today(blank: Page) -> None:
    body = "return [m.clock(a, a + 1000), m.clock(a, a + 86400000)]"
    assert run(blank, "words", body, NOON) == ["12:00:00", "15 Nov 2023, 12:00:00"]


@pytest.mark.parametrize(
    ("shown", "gaps", "words"),
    [
        (0, 0, "No message yet."),
        (1, 0, "1 message shown."),
        (KEPT, 1, "500 messages shown, 1 gap."),
        (12_345, 2, "12,345 messages shown, the newest 500 are kept below, 2 gaps."),
    ],
)
def test_the_tally_says_how_many_were_shown(blank: Page, shown: int, gaps: int, words: str) -> None:
    assert run(blank, "words", "return m.tallyWords(a)", {"shown": shown, "gaps": gaps}) == words


def test_a_gap_says_between_which_times_something_is_missing(page: Page) -> None:
    page.clock.set_fixed_time(NOON / 1000)
    body = """
        const [after, before] = a.map((milliseconds) => ({ milliseconds }));
        return [m.gapWords({ after, before, certain: true }), m.gapWords({ after, before: after, certain: true }),
            m.gapWords({ after, before, certain: false })];
    """
    assert run(page, "words", body, [NOON, NOON + 65_000]) == [
        "Messages between 12:00:00 and 12:01:05 are lost: they are no longer kept.",
        "Messages at 12:00:00 are lost: they are no longer kept.",
        "Messages after 12:00:00 may be missing: the relay could not go on from there.",
    ]


# The list.


def test_the_list_has_the_newest_first_and_does_not_grow_beyond_its_bound(page: Page) -> None:
    body = """
        const { Position } = await import("/page/position.js");
        const list = new m.List(document.querySelector("ol"));
        for (let n = 0; n < 600; n += 1) list.add([{ ...a, id: `id-${n}`, position: new Position(n, 0) }]);
        return [...document.querySelectorAll("li")].map((entry) => entry.dataset.id);
    """
    shown = run(page, "list", body, message("", ""))
    assert shown == [f"id-{n}" for n in reversed(range(600 - KEPT, 600))]


# The whole page before relays that no real one would be.


def serve_stream(page: Page, *connections: list[object]) -> list[WebSocketRoute]:
    """Let the page's connections bring these frames, one list each; an integer closes with that code.

    Returns the connections, a list that grows as they are opened.
    """
    opened: list[WebSocketRoute] = []

    def bring(socket: WebSocketRoute) -> None:
        opened.append(socket)
        for frame in connections[len(opened) - 1]:
            if isinstance(frame, int):
                socket.close(code=frame)
            else:
                socket.send(frame if isinstance(frame, str) else json.dumps(frame))

    page.route_web_socket(re.compile("/ws"), bring)
    return opened


@pytest.mark.parametrize(
    ("frames", "state", "words"),
    [
        ([WELCOME, 1012], "moved", "At 12:00:00 the relay stopped and sent this page to another."),
        ([WELCOME, 1013], "slow", "At 12:00:00 the relay cut this page off: it read too slowly."),
        ([WELCOME, 1008], "lost", "The connection was lost at 12:00:00."),
        ([1012], "moved", "At 12:00:00 the relay stopped and sent this page to another."),
        ([1011], "unreachable", "No relay can be reached, since 12:00:00."),
        (
            [WELCOME, "{"],
            "garbled",
            "At 12:00:00 the relay said what this page does not understand. Reloading it may help.",
        ),
        ([WELCOME], "connected", "Connected to r."),
        ([{**WELCOME, "channel": "down"}], "channel-down", "Connected to r, but its channel is down."),
        (
            [WELCOME, {"type": "status", "channel": "down", "since": NOON - 60_000}],
            "channel-down",
            "Connected to r, but its channel has been down since 11:59:00.",
        ),
        ([{**WELCOME, "channel": "down"}, {"type": "status", "channel": "up"}], "connected", "Connected to r."),
    ],
)
def test_the_page_tells_the_state_of_the_connection_in_words(
    page: Page, frames: list[object], state: str, words: str
) -> None:
    page.clock.set_fixed_time(NOON / 1000)
    serve_stream(page, frames, [])  # a second connection brings nothing: the state stays

    page.goto(ORIGIN)

    expect(page.locator("#state")).to_have_attribute("data-state", state)
    expect(page.locator("#state")).to_have_text(words)


def test_the_page_tells_how_long_it_waits_and_begins_anew_only_after_10_seconds_of_being_connected(
    page: Page,
) -> None:
    page.clock.install(time=NOON / 1000)
    page.clock.pause_at(NOON / 1000 + 1)
    page.add_init_script("Math.random = () => 0.9;")
    opened = serve_stream(page, [1011], [1011], [1011], [WELCOME, 1011], [WELCOME], [])
    following = page.locator("#next")
    page.goto(ORIGIN)

    expect(following).to_have_text("Trying again in 1 s.")
    page.clock.run_for(900)
    expect(following).to_have_text("Trying again in 1 s, attempt 2.")
    page.clock.run_for(450)
    expect(following).to_have_text("Trying again in 1 s, attempt 3.")
    page.clock.run_for(900)
    expect(following).to_have_text("Trying again in 2 s, attempt 4.")  # connected, but not for long
    page.clock.run_for(1000)
    expect(following).to_have_text("Trying again in 1 s, attempt 4.")
    page.clock.run_for(800)
    expect(following).to_have_text("")
    page.clock.run_for(10_000)
    opened[-1].close(code=1012)
    expect(following).to_have_text("Trying again in 1 s.")
    page.clock.run_for(900)
    expect(following).to_have_text("Trying again now.")
    page.clock.run_for(10_000)  # without a frame on the new connection
    expect(following).to_have_text("Trying again in 1 s, attempt 2.")


def test_a_page_that_was_too_slow_comes_back_later_than_one_that_was_moved(page: Page) -> None:
    page.clock.install(time=NOON / 1000)
    page.clock.pause_at(NOON / 1000 + 1)
    page.add_init_script("Math.random = () => 0.9;")
    serve_stream(page, [WELCOME, 1013])

    page.goto(ORIGIN)

    expect(page.locator("#next")).to_have_text("Trying again in 5 s.")


@pytest.mark.parametrize(
    ("address", "stream"),
    [
        (f"{ORIGIN}/", "ws://hello.test/ws?last=50"),
        (f"{ORIGIN}{PREFIX}/?of=old#top", f"ws://hello.test{PREFIX}/ws?last=50"),
        (f"https://hello.test{PREFIX}/", f"wss://hello.test{PREFIX}/ws?last=50"),
    ],
)
def test_the_stream_is_asked_for_beside_the_page_wherever_that_is(page: Page, address: str, stream: str) -> None:
    opened = serve_stream(page, [WELCOME])

    page.goto(address)

    expect(page.locator("#state")).to_have_attribute("data-state", "connected")
    assert [socket.url for socket in opened] == [stream]


@pytest.mark.parametrize("width", [320, 768, 2560])
def test_nothing_runs_over_the_edge_even_with_the_longest_names(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    long = message("1-0", "a", text="W" * 4096, broadcaster="b" * 253, relay="r" * 253)
    serve_stream(page, [{**WELCOME, "relay": "r" * 253}, long, gap("1-0", "3-0"), message("3-0", "b")])

    page.goto(ORIGIN)

    expect(page.locator("#messages > li")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == width
