"""The page's modules by themselves, in a real Chromium: positions, what a stream gives to show, pauses, words, list.

The files are served as they are. Where a relay is needed that no real one would be, the test speaks its frames.
"""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.page.alone import KEPT, NO_EDGE, NOON, ORIGIN, PAGE, PREFIX, WELCOME, gap, message, run, serve_stream

MAX_BYTES = 40_000  # of all files; no build makes them smaller, and a telephone fetches them over a slow line
REFUSED: dict[str, object] = {"type": "our position is refused"}  # no frame: the connection's word to the stream


def test_the_whole_page_is_small() -> None:
    assert sum(file.stat().st_size for file in PAGE.iterdir()) < MAX_BYTES


# Positions.


@pytest.mark.parametrize("text", ["0-0", "1700000000000-0", "1700000000000-12", "9007199254740991-9007199254740991"])
def test_a_position_is_read_and_written_unchanged(blank: Page, text: str) -> None:
    assert run(blank, "stream", "return String(m.Position.parse(a))", text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "1", "1-", "-1", "1-2-3", "01-0", "1-00", "+1-0", "1.5-0", "1e3-0", " 1-0", "1-0\n", "\u0661-0"),
        *("9007199254740992-0", "0-9007199254740992", "12345678901234567-0", 1, None, ["1-0"]),
    ],
)
def test_what_is_no_position_is_refused_with_an_error_that_shows_it(blank: Page, text: object) -> None:
    body = "try { return String(m.Position.parse(a)) } catch (error) { return error.message }"
    refusal = run(blank, "stream", body, text)
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
    assert run(blank, "stream", body, [later, earlier]) == [True, False, False]


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


@pytest.mark.parametrize(
    ("frames", "repeated"),
    [
        pytest.param([WELCOME, message("1-0", "a"), message("1-0", "a")], 1, id="a position comes again"),
        pytest.param([WELCOME, message("1-0", "a"), message("2-0", "a")], 1, id="an id comes again"),
        pytest.param(
            [message("1-0", "a"), REFUSED, {**WELCOME, "head": "1-0"}, message("1-0", "a")],
            0,
            id="what comes again is asked for, since we begin anew",
        ),
        pytest.param(
            [
                *[message("1-0", "a"), REFUSED, {**WELCOME, "head": "1-0"}, message("1-0", "a")],
                *[message("2-0", "b"), message("3-0", "a")],
            ],
            1,
            id="but not what is said after that",
        ),
    ],
)
def test_a_stream_counts_what_comes_again_unasked(blank: Page, frames: list[object], repeated: int) -> None:
    body = """
        const stream = new m.Stream();
        for (const frame of a) frame.type === "our position is refused" ? stream.forgetPosition() : stream.take(frame);
        return stream.repeated;
    """
    assert run(blank, "stream", body, frames) == repeated


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
        (message("1-0", "a", sent_at=None, relayed_at="5"), "a message with a bad sent_at, relayed_at"),
        (gap("1-0", "soon"), 'a position is MILLISECONDS-SEQUENCE, not "soon"'),
        ({**WELCOME, "relay": None}, "a welcome with a bad relay"),
        ({**WELCOME, "head": "soon"}, 'a position is MILLISECONDS-SEQUENCE, not "soon"'),
        ({"type": "status", "channel": "sideways"}, "a status with a bad channel"),
        ({"type": "status", "channel": "down", "since": 1e300}, "a status with a bad since"),
    ],
)
def test_a_malformed_frame_is_refused_and_leaves_the_stream_as_it_was(blank: Page, frame: object, error: str) -> None:
    body = """
        const stream = new m.Stream();
        const before = JSON.stringify(stream);
        try { stream.take(a) } catch (error) { return [error.message, JSON.stringify(stream) === before] }
    """
    assert run(blank, "stream", body, frame) == [error, True]


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


def test_the_tally_names_every_figure_and_leaves_out_what_is_not_known(blank: Page) -> None:
    figures = {"shown": 12_345, "recovered": 7, "gaps": 2, "repeated": 0, "reconnects": 3}
    known = {"silence": 7_300, "median": 999, "worst": 1_000}
    named = {"Shown": "12,345", "Missed, recovered": "7", "Lost (gaps)": "2", "Repeated": "0", "Reconnects": "3"}
    body = "return Object.fromEntries(m.tallyWords(a))"
    assert run(blank, "words", body, figures | known) == named | {
        "Longest silence": "7.3 s",
        "Median delay": "999 ms",
        "Worst delay": "1 s",
    }
    assert run(blank, "words", body, figures | {"silence": 0, "median": None, "worst": None}) == named | {
        "Longest silence": "0 ms",
        "Median delay": "\u2013",
        "Worst delay": "\u2013",
    }


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        *((0, "0 ms"), (-3, "-3 ms"), (999, "999 ms"), (1000, "1 s"), (-7_250, "-7.3 s"), (59_000, "59 s")),
        *((90_000, "1.5 min"), (3_600_000, "1 h"), (27_000_000, "7.5 h"), (10**15, "277,777,777.8 h")),
    ],
)
def test_a_length_of_time_is_told_in_a_unit_that_suits_it(blank: Page, milliseconds: int, words: str) -> None:
    assert run(blank, "words", "return m.duration(a)", milliseconds) == words


def test_a_position_beyond_all_dates_is_still_told(blank: Page) -> None:
    body = "return m.gapWords({ after: { milliseconds: a }, before: { milliseconds: a + 1 }, certain: true })"
    assert "lost" in run(blank, "words", body, 2**53 - 2)


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


def test_the_list_has_the_newest_last_and_does_not_grow_beyond_its_bound(page: Page) -> None:
    body = """
        const { Position } = await import("/page/stream.js");
        for (let n = 0; n < 600; n += 1) {
            m.add([{ ...a, id: `id-${n}`, position: new Position(n, 0) }]);
            if (n % 7 === 0) m.drawList();
        }
        m.drawList();
        await new Promise(requestAnimationFrame);
        return [...document.querySelectorAll("li")].map((entry) => entry.dataset.id);
    """
    shown = run(page, "list", body, message("", ""))
    assert shown == [f"id-{n}" for n in range(600 - KEPT, 600)]


def test_the_list_stays_at_its_end_whatever_its_height_becomes_between_two_drawings(page: Page) -> None:
    body = """
        const { Position } = await import("/page/stream.js");
        const list = document.querySelector("ol");
        const ends = [];
        const resize = async (height) => {
            list.style = `height: ${height}px; overflow-y: scroll`;
            await new Promise(requestAnimationFrame);
            await new Promise(requestAnimationFrame);
            ends.push(list.scrollHeight - list.clientHeight - list.scrollTop < 2);
        };
        await resize(100);
        m.add(Array.from({ length: 400 }, (_, n) => ({ ...a, id: `id-${n}`, position: new Position(n, 0) })));
        m.drawList();
        for (const height of [100, 300, 100]) await resize(height);
        m.add(Array.from({ length: 400 }, (_, n) => ({ ...a, id: `new-${n}`, position: new Position(n, 1) })));
        m.drawList();
        for (const height of [100, 50, 300, 80]) await resize(height);
        return ends;
    """
    assert run(page, "list", body, message("", "")) == [True] * 8


SOMEONE_READS = """
    // At the beginning of fifty entries; then one more is drawn.
    const log = document.querySelector("#messages");
    log.style = "height: 100px; overflow: scroll; overflow-anchor: none";
    const end = () => log.scrollHeight - log.clientHeight;
    const draw = async (count) => {
        m.add(Array(count).fill({ type: "event", kind: "connected", relay: "r", at: 0 }));
        m.drawList();
        for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame);
    };
    await draw(50);
    log.scrollTop = 0;
    await draw(1);
    const pressed = end(); // where a browser scrolls to, as it was when the key was pressed
"""


def test_the_end_of_the_log_is_reached_however_much_is_said_on_the_way_to_it(page: Page) -> None:
    body = """
        for (const share of [0.2, 0.4, 0.6, 0.8, 1]) {
            log.scrollTop = share * pressed;
            await draw(3);
        }
        return end() - log.scrollTop;
    """
    assert run(page, "list", SOMEONE_READS + body) < 1


def test_who_reads_what_has_just_come_is_not_taken_to_the_end(page: Page) -> None:
    body = """
        await draw(9);
        await draw(9);
        log.scrollTop = pressed + 20;
        await draw(9);
        await draw(9);
        return log.scrollTop - pressed;
    """
    assert run(page, "list", SOMEONE_READS + body) == 20


def test_what_a_hidden_tab_does_not_draw_is_bounded_too(page: Page) -> None:
    body = """
        const { Position } = await import("/page/stream.js");
        const changes = new MutationObserver(() => {});
        changes.observe(document.querySelector("ol"), { childList: true });
        for (let n = 0; n < 10_000; n += 1) m.add([{ ...a, id: `id-${n}`, position: new Position(n, 0) }]);
        m.drawList();
        const drawn = changes.takeRecords().flatMap(({ addedNodes }) => [...addedNodes]);
        return drawn.map(({ dataset }) => dataset.id);
    """
    drawn = run(page, "list", body, message("", ""))
    assert drawn == [f"id-{n}" for n in range(10_000 - KEPT, 10_000)]


# The whole page before relays that no real one would be.


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

    expect(page.locator("html")).to_have_class(state)
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
    expect(page.locator("#state")).to_have_text("No relay can be reached, since 12:00:01.")
    page.clock.run_for(900)
    expect(following).to_have_text("Trying again in 2 s, attempt 4.")  # connected, but not for long
    expect(page.locator("#state")).to_have_text("The connection was lost at 12:00:03.")
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

    expect(page.locator("html")).to_have_class("connected")
    assert [socket.url for socket in opened] == [stream]


@pytest.mark.parametrize("width", [320, 768, 3840])
def test_nothing_runs_over_the_edge_even_with_the_longest_names(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    long = message("1-0", "a", text="W" * 4096, broadcaster="b" * 253, relay="r" * 253)
    serve_stream(page, [{**WELCOME, "relay": "r" * 253}, long, gap("1-0", "3-0"), message("3-0", "b")])

    page.goto(ORIGIN)

    expect(page.locator("#messages > li")).to_have_count(4)  # and that it is connected
    assert page.evaluate(NO_EDGE)
