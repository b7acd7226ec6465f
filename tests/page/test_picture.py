"""What a person sees of the system: the picture, the plot, the tally, the copy, the log, in a real Chromium.

The relays are the test's own words, so that each state can be had at a moment; real ones are in test_page.py.
"""

import itertools
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.conftest import missing
from tests.page.alone import KEPT, NO_EDGE, NOON, ORIGIN, WELCOME, blank_page, gap, message, serve_stream

SPLIT = {"broadcaster": "speaker-1", "relay": "relay-1"}
RELAY: dict[str, object] = {**WELCOME, "relay": "relay-1"}
DOWN = {"type": "status", "channel": "down", "since": NOON - 60_000}
SILENCE_MS = 25_000  # after so long without a word the page takes the line for dead
SPOKEN_MS = 5000  # between two announcements
DAY_MS = 86_400_000  # of a day before today the date is told too
EVERYTHING = 120  # ms of the page's own clock; whatever is to be drawn has been by then


def said(at: int, message_id: str, **fields: object) -> dict[str, object]:
    """A message that was said at this moment and took 3 ms to the channel and 5 ms to the relay."""
    return message(f"{at + 3}-0", message_id, **{**SPLIT, "sent_at": at, "relayed_at": at + 8, **fields})


def send(socket: WebSocketRoute, *frames: object) -> None:
    for frame in frames:
        socket.send(json.dumps(frame))


@pytest.fixture
def noon(page: Page) -> Page:
    """The page at noon: its timers run, and its clock stands still."""
    page.clock.set_fixed_time(NOON / 1000)
    return page


@pytest.fixture
def paused(page: Page) -> Page:
    """The page at noon: its clock and its timers go on when the test says so."""
    page.clock.install(time=NOON / 1000 - 1)
    page.clock.pause_at(NOON / 1000)
    return page


# The picture.


@pytest.mark.parametrize(
    ("names", "relay", "shape", "words"),
    [
        (SPLIT, "relay-1", "split", "The actors run apart: speaker-1 speaks, relay-1 relays."),
        (
            {"broadcaster": "hello-0", "relay": "hello-0"},
            "hello-0",
            "combined",
            "One process runs both actors: hello-0 speaks and relays.",
        ),
    ],
)
def test_the_picture_has_the_shape_that_runs_with_its_names_and_how_long_each_hop_took(
    noon: Page, names: dict[str, str], relay: str, shape: str, words: str
) -> None:
    serve_stream(noon, [{**WELCOME, "relay": relay}, said(NOON - 10, "a", **names)])
    noon.goto(ORIGIN)

    expect(noon.locator("#picture .box")).to_have_text(
        [
            f"Broadcaster{names['broadcaster']}spoke at 11:59:59",
            "Channelup",
            f"Relay{names['relay']}",
            "This pageconnectedsince 12:00:00",
        ]
    )
    expect(noon.locator("#picture .hop")).to_have_text(["3 ms", "5 ms", "2 ms"])
    expect(noon.locator("#picture .both")).to_be_visible(visible=shape == "combined")
    expect(noon.locator("#path")).to_have_text(
        f"{words} The last message took 3 ms to the channel, 5 ms to the relay and 2 ms to this page,"
        " by the clocks of their machines."
    )


def test_the_picture_says_that_clocks_differ_where_a_message_seems_to_come_before_it_was_said(noon: Page) -> None:
    serve_stream(noon, [RELAY, said(NOON + 5000, "a")])
    noon.goto(ORIGIN)
    expect(noon.locator("#picture .hop").nth(2)).to_have_text("-5 s")
    expect(noon.locator("#path")).to_contain_text("by the clocks of their machines, which differ by 5 s at least.")


def test_instances_that_were_there_lately_are_named_after_the_newest(noon: Page) -> None:
    frames = [said(NOON - 40 + 10 * n, f"m{n}", broadcaster=f"speaker-{n}") for n in range(4)]
    serve_stream(noon, [RELAY, *frames])
    noon.goto(ORIGIN)
    expect(noon.locator("#picture .box").first).to_have_text(
        "Broadcasterspeaker-3speaker-2 and 2 morespoke at 11:59:59"
    )


def expect_cut(page: Page, at: int | None, words: str = "") -> None:
    """Wait until the picture shows the path cut there and nowhere else, and what lies behind it as not known."""
    for n in range(3):
        hop = page.locator("#picture .hop").nth(n)
        expect(hop.locator(".cross")).to_be_visible(visible=n == at)
    if at is not None:
        expect(page.locator("#picture .hop").nth(at)).to_have_text(words)
    behind: list[int] = {None: [], 1: [0], 2: [0, 1, 2]}[at]  # a channel that is lost is known to be so
    expect(page.locator("#picture .box.unknown")).to_have_count(len(behind))
    dashes = page.locator("#picture .box rect").evaluate_all(
        "boxes => boxes.map((box) => getComputedStyle(box).strokeDasharray)"
    )
    assert [n for n in range(4) if dashes[n] != "none"] == behind


@pytest.mark.parametrize(
    ("frames", "condition", "cut", "words"),
    [
        ([], "connected", None, ""),
        ([DOWN], "channel-down", 1, "down"),
        ([1012], "moved", 2, "moved"),
        ([1013], "slow", 2, "slow"),
        ([1011], "lost", 2, "lost"),
        (["{"], "garbled", 2, "garbled"),
    ],
)
def test_the_picture_the_title_and_the_icon_show_where_it_is_broken(
    noon: Page, frames: list[object], condition: str, cut: int | None, words: str
) -> None:
    serve_stream(noon, [RELAY, said(NOON - 10, "a"), *frames], [])  # a second connection brings nothing
    noon.goto(ORIGIN)

    expect(noon.locator("html")).to_have_class(condition)
    expect_cut(noon, cut, words)
    titles = {"connected": "Hello: connected", "channel-down": "Hello: channel down"}
    expect(noon).to_have_title(titles.get(condition, "Hello: reconnecting"))
    icon = noon.locator("#icon").get_attribute("href")
    assert icon is not None
    assert ("red" in icon) == (condition != "connected")
    assert icon.startswith("data:image/svg+xml,<svg "), "an icon that is fetched fails with the relay"


def test_the_picture_shows_a_relay_that_cannot_be_reached_and_a_line_that_is_dead(paused: Page) -> None:
    opened = serve_stream(paused, [1011], [RELAY, said(NOON - 10, "a")])
    paused.goto(ORIGIN)
    paused.clock.run_for(EVERYTHING)
    expect_cut(paused, 2, "unreachable")

    paused.clock.run_for(2000)
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(EVERYTHING)
    expect_cut(paused, None)

    paused.clock.run_for(SILENCE_MS)
    paused.clock.run_for(EVERYTHING)
    expect_cut(paused, 2, "dead")
    expect(paused.locator("#picture .box").nth(1)).to_have_text("Channelnot known from here")
    assert len(opened) >= 2


# Pulses.


# An animation stays where it begins, so that a slow machine sees it too.
HOLD_ANIMATIONS = """
  const { animate } = Element.prototype;
  Element.prototype.animate = function (...how) {
    const animation = animate.apply(this, how);
    animation.pause();
    return animation;
  };
"""


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_pulse_runs_along_the_path_for_a_message_but_stands_still_where_motion_is_reduced(
    browser: Browser, motion: str
) -> None:
    with blank_page(browser, reduced_motion=motion) as page:
        page.add_init_script(HOLD_ANIMATIONS)
        opened = serve_stream(page, [{**RELAY, "head": "1-0"}, message("1-0", "old")])
        page.goto(ORIGIN)
        expect(page.locator("#messages > li")).to_have_count(2)
        pulses = "document.querySelector('.pulse').getAnimations()"
        assert page.evaluate(f"{pulses}.length") == 0, "nobody said it just now"

        send(opened[0], *(message(f"{n}-0", f"m{n}") for n in range(2, 30)))
        expect(page.locator("#messages > li")).to_have_count(30)

        [frames] = page.evaluate(f"{pulses}.map(({{ effect }}) => effect.getKeyframes())")
        assert (frames[0]["transform"] == frames[-1]["transform"]) == (motion == "reduce")


# The plot.


def marks(page: Page, kind: str) -> list[tuple[float, float]]:
    """The marks of this kind in the plot: from the left, in tenths of the ten minutes, and how high."""
    path = page.locator(f"#plot > path.{kind}").get_attribute("d") or ""
    line = page.locator("#plot .grid").first.get_attribute("d") or ""
    left, _, right = (float(number) for number in re.findall("[0-9.]+", line))
    found = re.findall(r"M([0-9.]+) ([0-9.]+)V([0-9.]+)", path)
    return [(round((float(x) - left) / (right - left) * 10, 1), float(base) - float(top)) for x, base, top in found]


def boxes(page: Page, *selectors: str) -> list[dict[str, float]]:
    """Where the first of each is, at one moment: the plot is drawn anew each second."""
    look = "selectors => selectors.map((one) => document.querySelector(one).getBoundingClientRect().toJSON())"
    found: list[dict[str, float]] = page.evaluate(look, selectors)
    return found


def test_the_plot_shows_each_message_at_its_moment_with_its_delay_and_the_pause_before_it(noon: Page) -> None:
    minutes = [9, 6, 5.9]
    before = [said(int(NOON - minute * 60_000), f"m{minute}") for minute in minutes]
    head = before[-1]["position"]
    serve_stream(
        noon,
        [
            {**RELAY, "head": head},
            *before,
            said(NOON - 10, "live"),
            said(NOON - 30_000, "late") | {"position": f"{NOON}-0"},
        ],
    )
    noon.goto(ORIGIN)
    expect(noon.locator("#messages > li")).to_have_count(6)

    assert [x for x, _ in marks(noon, "before")] == [1, 4, 4.1]
    (soon, quick), (late, slow) = marks(noon, "live")
    assert (soon, late) == (10, 9.5)
    assert quick < slow, "ten milliseconds are less than thirty seconds"
    assert [x for x, _ in marks(noon, "pauses")] == [4, 4.1, 10, 9.5]
    expect(
        noon.get_by_role(
            "img", name=re.compile(r"^5 messages, with pauses of up to 5\.9 min, and 1 event of the line\.$")
        )
    ).to_be_visible()


def test_the_plot_lets_go_of_what_is_over_ten_minutes_old_when_nothing_comes_either(paused: Page) -> None:
    opened = serve_stream(paused, [RELAY, said(NOON - 10, "a")])
    paused.goto(ORIGIN)
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(EVERYTHING)
    shown = []
    for _ in range(63):  # each 10 s
        shown.append(len(marks(paused, "live")))
        send(opened[0], {"type": "beat"})
        paused.clock.run_for(10_000)
    assert shown[:59] == [1] * 59
    assert shown[-1] == 0


def test_the_plot_shows_what_became_of_the_connection_and_what_was_lost(noon: Page) -> None:
    lost = NOON - 120_000
    missed = said(NOON - 60_000, "b")
    serve_stream(
        noon,
        [RELAY, said(NOON - 180_000, "a"), 1011],
        [{**RELAY, "head": missed["position"]}, gap(f"{lost - 59_997}-0", str(missed["position"])), missed],
        [],
    )
    noon.goto(ORIGIN)
    expect(noon.locator("#messages > li")).to_have_count(6)

    assert [x for x, _ in marks(noon, "missed")] == [9]
    titles = noon.locator("#plot .event title").all_text_contents()
    assert titles == [
        "Connected to relay-1.",
        "The connection was lost at 12:00:00.",
        "Messages between 11:57:00 and 11:59:00 are lost: they are no longer kept.",
        "Resumed at relay-1: 1 missed message recovered.",
    ]
    expect(noon.locator("#plot .event.gap")).to_be_visible()
    box, plot = boxes(noon, "#plot .event.gap", "#plot .grid")
    assert (box["x"] - plot["x"]) / plot["width"] == pytest.approx(0.7, abs=0.02)
    assert box["width"] / plot["width"] == pytest.approx(0.2, abs=0.02)
    expect(noon.locator("#tally .lost")).to_have_text("Lost (gaps)1")
    spans = noon.locator("#plot .span").evaluate_all("spans => spans.map(({ classList }) => classList[1])")
    assert spans == ["connecting", "connected", "lost", "resumed"]


def test_a_gap_between_clocks_that_are_years_off_stays_within_the_plot(noon: Page) -> None:
    ahead = message("9007199254740991-0", "a", **SPLIT)
    serve_stream(noon, [RELAY, gap("1-0", "9007199254740991-0"), ahead])
    noon.goto(ORIGIN)
    expect(noon.locator("#messages > li.gap")).to_have_count(1)
    band, plot = boxes(noon, "#plot .event.gap", "#plot")
    assert plot["x"] <= band["x"] < band["x"] + band["width"] <= plot["x"] + plot["width"]


@pytest.mark.parametrize("width", [320, 1100, 3840])
def test_the_plot_fills_the_width_that_there_is_at_once_after_a_change(paused: Page, width: int) -> None:
    serve_stream(paused, [RELAY, said(NOON - 10, "a")])
    paused.goto(ORIGIN)
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(EVERYTHING)
    expect(paused.locator("#plot .grid")).to_have_count(5)

    paused.set_viewport_size({"width": width, "height": 800})
    paused.wait_for_function("width => innerWidth === width", arg=width)
    paused.clock.run_for(EVERYTHING)

    plot, line = paused.locator("#plot").bounding_box(), paused.locator("#plot .grid").first.bounding_box()
    assert plot is not None
    assert line is not None
    assert 0 <= plot["x"] + plot["width"] - line["x"] - line["width"] < 12
    _, _, *size = (paused.locator("#plot").get_attribute("viewBox") or "").split()
    assert float(size[0]) / float(size[1]) == pytest.approx(plot["width"] / plot["height"], rel=0.01)


# What is read aloud.


def test_a_flood_is_read_aloud_as_a_number_at_most_every_five_seconds(paused: Page) -> None:
    opened = serve_stream(paused, [RELAY, said(NOON - 10, "first", text="One")])
    paused.goto(ORIGIN)
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(EVERYTHING)
    news = paused.get_by_role("log")
    expect(news).to_have_text("One")

    send(opened[0], *(said(NOON + n, f"m{n}", text=f"Number {n}") for n in range(99)))
    paused.clock.run_for(SPOKEN_MS - 2 * EVERYTHING)
    expect(news).to_have_text("One")
    paused.clock.run_for(1000 + 2 * EVERYTHING)  # the page looks once in a second
    expect(news).to_have_text("99 messages, the last one: Number 98")


def test_a_loss_is_read_aloud(noon: Page) -> None:
    frames = [said(NOON - 10, "a"), gap(f"{NOON - 7}-0", f"{NOON}-0"), message(f"{NOON}-0", "b", **SPLIT)]
    serve_stream(noon, [{**RELAY, "head": f"{NOON}-0"}, *frames])
    noon.goto(ORIGIN)
    expect(noon.get_by_role("log")).to_have_text(re.compile("^Messages .* are lost"))


# The copy.


@pytest.mark.parametrize("scheme", ["https", "http"], ids=["clipboard", "without a secure context"])
def test_the_button_copies_all_that_the_page_has_seen_as_text(browser: Browser, scheme: str) -> None:
    with blank_page(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.clock.set_fixed_time(NOON / 1000)
        serve_stream(page, [RELAY, said(NOON - 10, "a"), 1011], [RELAY, said(NOON - 5, "b")])
        page.goto(f"{scheme}://hello.test/")
        expect(page.locator("#messages > li")).to_have_count(5)
        assert page.evaluate("isSecureContext") == (scheme == "https")

        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Copy as text")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Copied")).to_be_focused()

        page.evaluate("document.body.append(document.createElement('textarea'))")
        page.locator("textarea").focus()
        page.keyboard.press("ControlOrMeta+V")
        text = page.locator("textarea").input_value()
        assert text.startswith(f"hello at {scheme}://hello.test/, 2023-11-15T12:00:00.000Z to 2023-11-15T12:00:00.000Z")
        lines = text.splitlines()
        for line in [
            *("Connected to relay-1.", "Broadcasters: speaker-1", "Relays: relay-1", "Shown: 2", "Repeated: 0"),
            *("Reconnects: 1", "2023-11-15T12:00:00.000Z The connection was lost at 12:00:00."),
        ]:
            assert line in lines


# The log.


def test_the_log_stays_at_its_end_unless_someone_has_gone_back_in_it_to_read(page: Page) -> None:
    page.set_viewport_size({"width": 1100, "height": 1200})
    opened = serve_stream(page, [RELAY])
    page.goto(ORIGIN)
    log = page.get_by_role("list", name="Log")
    spoken = itertools.count()

    def say(count: int) -> None:
        """Wait until so many more messages are drawn."""
        numbers = list(itertools.islice(spoken, count))
        send(opened[0], *(said(NOON + n, f"m{n}") for n in numbers))
        expect(log.locator("li").last).to_have_attribute("data-id", f"m{numbers[-1]}")
        settle()

    def settle() -> None:
        page.evaluate(f"new Promise((drawn) => setTimeout(requestAnimationFrame, {EVERYTHING}, drawn))")

    def expect_end() -> None:
        settle()
        assert log.evaluate(left) < 2

    left = "log => log.scrollHeight - log.clientHeight - log.scrollTop"  # pixels to its end
    expect(log.locator("li")).to_have_count(1)
    for count in [1, 5, 100, 300, 1, 80, 20, 1]:  # past what it keeps
        say(count)
        expect_end()

    read = log.locator("[data-id=m480]")
    log.evaluate("log => log.scrollTop -= 500")
    say(1)
    before = read.bounding_box()
    for count in [1, 30, 100, 400, 1, 200]:  # past twice what it keeps otherwise
        say(count)
        assert read.bounding_box() == before
    expect(log.locator("li")).to_have_count(2 * KEPT)

    expect(log).to_have_attribute("tabindex", "0")  # for Safari; other browsers reach all that scrolls
    log.focus()
    page.keyboard.press("End")  # and there is one more before the end is reached
    send(opened[0], said(NOON + (number := next(spoken)), f"m{number}"))
    page.wait_for_function(f"log => ({left})(log) < 2", arg=log.element_handle())
    expect(log.locator("li").last).to_have_attribute("data-id", f"m{number}")
    say(30)
    expect_end()
    expect(log.locator("li")).to_have_count(KEPT)

    for width, height in [(1100, 900), (1100, 1200), (1400, 900), (700, 800), (1000, 1000)] * 3:
        page.set_viewport_size({"width": width, "height": height})  # as when an edge of the window is dragged
        page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    expect_end()
    say(1)
    expect_end()


# Tabs in the background, and several of them.


def test_nothing_is_drawn_where_nobody_looks_but_the_title_tells_and_a_look_shows_all(noon: Page) -> None:
    noon.add_init_script("Object.defineProperty(document, 'hidden', { get: () => !window.looking });")
    opened = serve_stream(noon, [RELAY], [])
    noon.goto(ORIGIN)
    expect(noon).to_have_title("Hello: connected")
    send(opened[0], *(said(NOON - 2000 + n, f"m{n}") for n in range(3 * KEPT)))
    opened[0].close(code=1012)
    expect(noon).to_have_title("Hello: reconnecting")
    expect(noon.locator("#messages > li")).to_have_count(0)

    noon.evaluate("window.looking = true; document.dispatchEvent(new Event('visibilitychange'))")

    expect(noon.locator("#messages > li")).to_have_count(KEPT)
    expect(noon.locator("#messages > li[data-id]").last).to_have_attribute("data-id", f"m{3 * KEPT - 1}")


def test_a_look_draws_and_connects_at_once(paused: Page) -> None:
    paused.add_init_script("Object.defineProperty(document, 'hidden', { get: () => !window.looking });")
    paused.add_init_script("Math.random = () => 0.9;")  # so long a pause that it does not end by itself here
    opened = serve_stream(paused, [RELAY, said(NOON - 10, "a"), DOWN], [RELAY])
    entries = paused.locator("#messages > li[data-id]")

    def turn(*, looking: bool) -> None:
        change = "document.dispatchEvent(new Event('visibilitychange'))"
        paused.evaluate(f"looking => {{ window.looking = looking; {change}; }}", looking)
        paused.clock.run_for(EVERYTHING)

    paused.goto(ORIGIN)
    expect(paused).to_have_title("Hello: channel down")  # which the title tells at once, and after the message
    turn(looking=False)
    expect(entries).to_have_count(0)
    turn(looking=True)
    expect(entries).to_have_count(1)

    opened[0].close(code=1011)
    expect(paused).to_have_title("Hello: reconnecting")
    turn(looking=False)
    assert len(opened) == 1
    turn(looking=True)
    expect(paused).to_have_title("Hello: connected")


def test_two_tabs_do_not_disturb_each_other(noon: Page) -> None:
    other = noon.context.new_page()
    serve_stream(noon, [RELAY, 1012], [])
    serve_stream(other, [RELAY, said(NOON, "a")])
    noon.goto(ORIGIN)
    other.goto(ORIGIN)
    expect(noon).to_have_title("Hello: reconnecting")
    expect(other).to_have_title("Hello: connected")
    expect(noon.locator("#messages > li[data-id]")).to_have_count(0)
    expect(other.locator("#messages > li[data-id]")).to_have_count(1)


# The room that things take.

NOTE_SHIFTS = """
  window.shifts = [];
  new PerformanceObserver((list) => {
    const tell = ({ node, previousRect: { x, y }, currentRect }) =>
      `${(node?.parentElement ?? node)?.outerHTML.slice(0, 60)} from ${x} ${y} to ${currentRect.x} ${currentRect.y}`;
    for (const { value, sources } of list.getEntries()) window.shifts.push([value, ...sources.map(tell)]);
  }).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("width", [320, 520, 740, 800, 1000, 1280, 1400])
def test_nothing_moves_and_nothing_runs_over_the_edge_whatever_is_told(page: Page, width: int) -> None:
    # As long as a host's name, and so a pod's there, may be: RFC 1123 has 63 characters.
    pod = {name: f"{name}-of-a-very-long-release-in-a-long-namespace-7c6d5f9b88-bbbbb"[:63] for name in SPLIT}
    welcome = {**WELCOME, "relay": pod["relay"]}
    page.set_viewport_size({"width": width, "height": 2400})  # all is in view
    page.add_init_script(NOTE_SHIFTS)
    opened = serve_stream(page, [welcome], [welcome], [1013], [])
    page.goto(ORIGIN)
    now: int = page.evaluate("Date.now()")

    def expect_state(state: str) -> None:
        expect(page.locator("html")).to_have_class(state)
        page.evaluate("new Promise((drawn) => setTimeout(requestAnimationFrame, 150, drawn))")
        assert page.evaluate(NO_EDGE)

    expect_state("connected")
    for first, after in itertools.pairwise([0, 1, 30, KEPT, KEPT + 1, KEPT + 20]):
        send(opened[0], *(said(now + n, f"m{n}", **pod) for n in range(first, after)))
        expect(page.locator("#messages > li").last).to_have_attribute("data-id", f"m{after - 1}")
    send(opened[0], said(now + 5000, "ahead", **pod), {**DOWN, "since": now - DAY_MS})
    expect_state("channel-down")
    opened[0].close(code=1012)
    expect_state("moved")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect_state("connected")
    opened[1].send("{")
    expect_state("garbled")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect_state("slow")
    assert page.evaluate("window.shifts") == []


@pytest.mark.parametrize(("width", "height"), [(1280, 600), (1366, 650), (1440, 790), (1920, 950), (3840, 1900)])
def test_what_runs_and_what_happens_is_in_view_from_a_laptop_to_4k(page: Page, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    serve_stream(page, [RELAY, *(said(NOON + n, f"m{n}") for n in range(20))])
    page.goto(ORIGIN)
    expect(page.locator("#messages > li")).to_have_count(21)
    for part in ["#state", "#path", "#picture .box >> nth=2", "#plot", "#messages > li >> nth=-1"]:
        expect(page.locator(part)).to_be_in_viewport(ratio=1)


def test_letters_of_twice_the_size_run_over_no_edge(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.add_init_script("addEventListener('DOMContentLoaded', () => document.documentElement.style.fontSize = '32px')")
    serve_stream(page, [RELAY, said(NOON, "a")])
    page.goto(ORIGIN)
    expect(page.locator("#messages > li")).to_have_count(2)
    assert page.evaluate(NO_EDGE)


# For everyone.


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 320), ("dark", 320)])
def test_axe_finds_nothing_in_any_state(browser: Browser, scheme: str, width: int) -> None:
    package = find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        missing("no axe-core: `pip install axe-playwright-python` brings it")
        raise AssertionError
    axe = Path(package.origin).parent / "axe.min.js"
    # Motion is reduced, since a colour on its way to another is neither.
    with blank_page(browser, color_scheme=scheme, reduced_motion="reduce") as page:
        page.set_viewport_size({"width": width, "height": 1000})
        lost = [gap(f"{NOON}-0", f"{NOON + 10}-0"), said(NOON + 7, "b")]
        opened = serve_stream(page, [RELAY, said(NOON - 10, "a"), *lost], [])
        page.goto(ORIGIN)
        expect(page.locator("#messages > li")).to_have_count(4)
        page.add_script_tag(path=axe)

        def expect_no_finding(state: str) -> None:
            expect(page.locator("html")).to_have_class(state)
            found = page.evaluate("axe.run()")
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
            assert len(found["passes"]) > 10

        expect_no_finding("connected")
        send(opened[0], DOWN)
        expect_no_finding("channel-down")
        opened[0].close(code=1012)
        expect_no_finding("moved")
        page.evaluate("dispatchEvent(new Event('online'))")
        opened[-1].close(code=1011)
        expect_no_finding("unreachable")


def test_without_a_relay_and_with_colours_of_the_readers_own_the_page_is_complete(browser: Browser) -> None:
    """In forced colours the drawing still has lines, and the key still says which colour is what."""
    with blank_page(browser, forced_colors="active") as page:
        serve_stream(page, [])
        page.goto(ORIGIN)
        expect(page.locator("#state")).to_have_text("Connecting…")
        expect(page.locator("#picture .box").last).to_be_visible()
        line, paper = page.evaluate(
            """["#picture path", "body"].map((one) => getComputedStyle(document.querySelector(one)))
                .map(({ stroke, backgroundColor }, i) => i ? backgroundColor : stroke)"""
        )
        assert line != paper
        colours = page.locator(".key [class]").evaluate_all(
            "words => words.map((word) => getComputedStyle(word).color)"
        )
        assert len(set(colours)) == len(colours)
