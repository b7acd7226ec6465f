"""What a person sees of the system: status, picture, plot, statistics, report and log, in a real Chromium.

The test plays the relay, so that it can have any state at any time; real relays are in test_page.py.
"""

import itertools
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import missing
from tests.page.standalone import FITS, KEPT, NOON, WELCOME, blank_page, gap, message, open_page, send

pytestmark = pytest.mark.browser

SPLIT = {"broadcaster": "broadcaster-1", "relay": "relay-1"}
RELAY: dict[str, object] = {**WELCOME, "relay": "relay-1"}
DOWN = {"type": "status", "channel": "down", "since": NOON - 60_000}
IDLE_TIMEOUT_MS = 25_000  # without a frame, until the page takes the connection for dead
ANNOUNCE_INTERVAL_MS = 5000
DAY_MS = 86_400_000  # a time before today has its date, too
DRAWN = 120  # ms of the page's clock, after which everything but the plot and the statistics has been drawn
SUMMED = 1100  # ms of the page's clock, after which these have been drawn, too


def sent(at: int, message_id: str, **fields: object) -> dict[str, object]:
    """A message that was sent at this time and took 3 ms to the channel and 5 ms to the relay."""
    return message(f"{at + 3}-0", message_id, **{**SPLIT, "sent_at": at, "relayed_at": at + 8, **fields})


@pytest.fixture
def noon(page: Page) -> Page:
    """The page at noon: its timers run, but its clock stands still."""
    page.clock.set_fixed_time(NOON / 1000)
    return page


@pytest.fixture
def paused(page: Page) -> Page:
    """The page at noon: its clock and its timers advance only when the test advances them."""
    page.clock.install(time=NOON / 1000 - 1)
    page.clock.pause_at(NOON / 1000)
    return page


# The picture and the status.


@pytest.mark.parametrize(
    ("names", "shape"),
    [(SPLIT, "split"), ({"broadcaster": "hello-0", "relay": "hello-0"}, "combined")],
    ids=["split", "combined"],
)
def test_picture_shape(noon: Page, names: dict[str, str], shape: str) -> None:
    """The picture has the names and the shape that runs, and how long each hop took."""
    backend = "redis" if shape == "split" else "memory"
    open_page(noon, [{**WELCOME, "relay": names["relay"], "backend": backend}, sent(NOON - 10, "a", **names)])

    processes = noon.locator("#picture .process")
    if shape == "split":
        expect(processes).to_have_text(["broadcaster-1broadcaster, leader", "relay-1relay, serving"])
    else:
        expect(processes).to_have_text(["hello-0broadcaster, leaderrelay, serving"])
    expect(noon.locator("#picture .place")).to_have_text(
        ["channelRedis" if shape == "split" else "channelmemory", "this page"]
    )
    expect(noon.locator("#picture .hop")).to_have_text(["3 ms", "5 ms", "2 ms"])
    box, channel, picture = boxes(noon, "#picture .process", "#picture .place", "#picture")
    is_within = box["x"] < channel["x"] < channel["x"] + channel["width"] < box["x"] + box["width"]
    assert is_within == (shape == "combined"), "only a channel in memory is a part of the process"
    assert channel["height"] <= box["height"] + 1, "as high as the only row"
    assert picture["y"] + picture["bottom"] == pytest.approx(box["y"] + box["bottom"], abs=1), "in the middle"
    words = re.compile("One process" if shape == "combined" else "publishes and")
    expect(noon.get_by_role("img", name=words)).to_be_visible()
    delays = "3 ms to the channel, 5 ms to the relay and 2 ms to this page."
    expect(noon.get_by_role("img", name=delays)).to_be_visible()
    expect(noon.locator("#path")).to_contain_text("several machines' clocks")
    noon.set_viewport_size({"width": 320, "height": 640})  # there is no room for the delays beside the arrows
    expect(noon.locator("#path")).to_contain_text(delays)
    expect(noon.locator("#newest")).to_have_text(f"Hello world sent 11:59:59by {names['broadcaster']}took 10 ms")


def test_picture_clock_skew(noon: Page) -> None:
    """The picture reports by how much the clocks differ, where a message seems to come before it was sent."""
    open_page(noon, [RELAY, sent(NOON + 5000, "a")])
    expect(noon.locator("#picture .hop").nth(2)).to_have_text("-5 s")
    expect(noon.locator("#path")).to_contain_text("differ by 5 s at least")


def test_picture_processes(noon: Page) -> None:
    """The picture has every process of the last ten minutes with all its actors, first those that are active."""
    standby = {**WELCOME, "relay": "hello-1", "actors": ["broadcaster", "relay"], "backend": "redis"}
    frames = [sent(NOON - 40 + 10 * n, f"m{n}", broadcaster=f"b-{n}", relay="hello-1") for n in range(2)]
    opened = open_page(noon, [standby, *frames])
    processes = noon.locator("#picture .process")
    expect(processes).to_have_text(
        ["hello-1broadcaster, standbyrelay, serving", "b-1broadcaster, leader", "b-0broadcaster, until 11:59"]
    )
    send(opened[0], *(sent(NOON + n, f"n{n}", broadcaster=f"c-{n}", relay="hello-1") for n in range(3)))
    expect(processes).to_have_text([re.compile("hello-1"), "c-2broadcaster, leader"])
    expect(noon.locator("#picture")).to_contain_text("and 4 more")


# A text that ends beyond the box that is drawn before it.
CUT = """all => all.map((one) => [one, one.getBBox(), one.parentNode.querySelector("rect").getBBox()])
    .filter(([, text, box]) => text.x + text.width > box.x + box.width).map(([one]) => one.textContent)"""


@pytest.mark.parametrize("width", [320, 1366])
def test_picture_of_the_past(noon: Page, width: int) -> None:
    """What a process did is told from what it does, on a phone too, where its column alone tells its actor."""
    noon.set_viewport_size({"width": width, "height": 800})
    frames = [sent(NOON - 90_000, "a", broadcaster="broadcaster-0"), sent(NOON - 10, "b")]
    opened = open_page(noon, [], [RELAY, *frames])
    leader, relay = ("", "") if width == 320 else ("broadcaster, ", "relay, ")

    def expect_actors(*texts: str) -> None:
        expect(noon.locator("#picture .actor-name")).to_have_text(list(texts))
        assert noon.locator("#picture .process text").evaluate_all(CUT) == []

    expect_actors("broadcaster", "relay")
    expect(noon.locator("#picture .process .name")).to_have_text(["unknown", "unknown"])
    opened[0].close(code=1011)
    expect(noon.locator("html")).to_have_class("connected", timeout=9000)
    expect_actors(f"{leader}leader", f"{relay}serving", f"{leader}until 11:58")
    send(opened[1], DOWN)
    expect_actors(f"{leader}was leader", f"{relay}serving", f"{leader}until 11:58")
    opened[1].close(code=1011)
    expect_actors(f"{leader}was leader", f"{relay}was serving", f"{leader}until 11:58")


def expect_broken_hop(page: Page, at: int | None, label: str = "", unknown: int = 0) -> None:
    """Wait until the picture has the path broken at this hop and nowhere else, and so many boxes as unknown."""
    for n in range(3):
        expect(page.locator("#picture .hop").nth(n).locator(".hop-cross")).to_be_visible(visible=n == at)
    if at is not None:
        expect(page.locator("#picture .place.broken")).to_contain_text(label)
        strokes = "all => all.map((one) => getComputedStyle(one).stroke)"
        trouble = page.locator(".swatch.trouble").evaluate("one => getComputedStyle(one).color")
        assert set(page.locator("#picture .broken > *:not(text)").evaluate_all(strokes)) == {trouble}
        expect(page.locator("#route .broken")).to_have_count(1)
    expect(page.locator("#picture .unknown .box")).to_have_count(unknown)


STARTED: list[object] = [RELAY, sent(NOON - 10, "a")]
TAKEN_OVER = {"at": 2, "unknown": 3}  # all that lies before the broken hop is unknown


@pytest.mark.parametrize(
    ("frames", "condition", "pill", "status", "broken"),
    [
        ([], "connecting", "connecting", "Connecting…", {"at": None, "unknown": 3}),
        (STARTED, "connected", "live", "relay-1 over WebSocket", {"at": None}),
        ([*STARTED, gap("1-0", "2-0"), sent(NOON, "b")], "connected", "live", "over WebSocket", {"at": None}),
        # The relay reports that the channel is down: so much is known.
        ([*STARTED, DOWN], "channel-down", "channel down", "since 11:59:00.", {"at": 1, "label": "down", "unknown": 1}),
        ([{**RELAY, "channel": "down"}], "channel-down", "channel down", "no contact", {"at": 1, "unknown": 1}),
        ([*STARTED, DOWN, {**DOWN, "channel": "up"}], "connected", "live", "relay-1 over WebSocket", {"at": None}),
        ([*STARTED, 1012], "moved", "reconnecting", "stopped at 12:00:00", {"label": "relay stopped", **TAKEN_OVER}),
        ([1012], "moved", "reconnecting", "stopped at 12:00:00", {"label": "relay stopped", **TAKEN_OVER}),
        ([*STARTED, 1013], "slow", "reconnecting", "too slowly", {"label": "too slow", **TAKEN_OVER}),
        ([*STARTED, 1008], "lost", "reconnecting", "broke at 12:00:00", {"label": "cut off", **TAKEN_OVER}),
        ([1011], "unreachable", "reconnecting", "since 12:00:00", {"label": "no relay", **TAKEN_OVER}),
        ([*STARTED, "{"], "garbled", "reconnecting", "cannot read", {"label": "invalid data", **TAKEN_OVER}),
    ],
)
def test_condition(
    noon: Page, frames: list[object], condition: str, pill: str, status: str, broken: dict[str, object]
) -> None:
    """The pill, the sentence, the picture, the title and the icon show whether the path is broken, and where."""
    open_page(noon, frames, [])  # a second connection gets no frame

    expect(noon.locator("html")).to_have_class(condition)
    expect(noon.locator("#state")).to_contain_text(status)
    expect_broken_hop(noon, **broken)  # type: ignore[arg-type]
    is_trouble = condition not in ("connected", "connecting")
    assert (noon.locator("#advice").text_content() != "") == is_trouble, "what to do"
    expect(noon.locator("#pill")).to_have_text(pill)
    expect(noon.locator("#losses")).to_have_text("1 gap" if "'gap'" in str(frames) else "")
    expect(noon).to_have_title(f"Hello: {pill}")
    icon = noon.locator("#icon").get_attribute("href")
    assert icon is not None
    assert ("orange" in icon) == is_trouble
    assert icon.startswith("data:image/svg+xml,<svg "), "an icon that is fetched fails with the relay"


def test_dead_connection(paused: Page) -> None:
    """A connection without a frame for 25 seconds is dead, and the page reconnects."""
    opened = open_page(paused, STARTED, [])
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(DRAWN)
    expect_broken_hop(paused, None)

    paused.clock.run_for(IDLE_TIMEOUT_MS - 2 * DRAWN)
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(2 * DRAWN)
    expect_broken_hop(paused, 2, "no data", 3)
    expect(paused.locator("#picture .place").first).to_have_text("channelunknown")
    paused.clock.run_for(1000)
    assert len(opened) == 2


# Pulses.


# An animation stays at its beginning, so that a slow machine sees it, too.
HOLD_ANIMATIONS = """
  const { animate } = Element.prototype;
  Element.prototype.animate = function (...how) {
    const animation = animate.apply(this, how);
    animation.pause();
    return animation;
  };
"""


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_pulse(browser: Browser, motion: str) -> None:
    """A live message is one pulse along the path and one emphasis, and neither if the reader prefers reduced motion."""
    with blank_page(browser, reduced_motion=motion) as page:
        page.add_init_script(HOLD_ANIMATIONS)
        opened = open_page(page, [{**RELAY, "head": "1-0"}, message("1-0", "old")])
        expect(page.locator("#messages > li")).to_have_count(2)
        count = "[...document.querySelectorAll('.pulse, #newest')].map((each) => each.getAnimations().length)"
        assert page.evaluate(count) == [0, 0], "a message that is not live has none"

        send(opened[0], *(message(f"{n}-0", f"m{n}") for n in range(2, 30)))
        expect(page.locator("#messages > li")).to_have_count(30)
        assert page.evaluate(count) == ([1, 1] if motion == "no-preference" else [0, 0])

        send(opened[0], DOWN)
        expect_broken_hop(page, 1, "down", 1)
        pulses = page.locator(".pulse").evaluate("one => one.getAnimations().length")
        assert pulses == 0, "a pulse runs over a broken hop"


# The plot.


def bars(page: Page, kind: str) -> list[tuple[float, float]]:
    """Return the bars of this kind in the plot: minutes from the left, and height."""
    path = page.locator(f"#plot > path.{kind}").get_attribute("d") or ""
    line = page.locator("#plot .grid").first.get_attribute("d") or ""
    left, _, right = (float(number) for number in re.findall("[0-9.]+", line))
    found = re.findall(r"M([0-9.]+) ([0-9.]+)V([0-9.]+)", path)
    return [(round((float(x) - left) / (right - left) * 10, 1), float(base) - float(top)) for x, base, top in found]


def boxes(page: Page, *selectors: str) -> list[dict[str, float]]:
    """Return the box of the first element of each selector, all at one time: the plot is drawn anew each second."""
    look = "selectors => selectors.map((one) => document.querySelector(one).getBoundingClientRect().toJSON())"
    found: list[dict[str, float]] = page.evaluate(look, selectors)
    return found


def test_plot_bars(noon: Page) -> None:
    """The plot has each message at its time, with its delay and the interval before it."""
    history = [sent(int(NOON - minutes * 60_000), f"m{minutes}") for minutes in (9, 6, 5.9)]
    live = [sent(NOON - 10, "live"), sent(NOON - 30_000, "late") | {"position": f"{NOON}-0"}]
    open_page(noon, [{**RELAY, "head": history[-1]["position"]}, *history, *live])
    expect(noon.locator("#plot-description")).to_have_text(re.compile(r"^5 messages, .* 5\.9 min between two, 1 "))

    assert [x for x, _ in bars(noon, "history")] == [1, 4, 4.1]
    assert len({height for _, height in bars(noon, "history")}) == 1, "they have no delay"
    delays, ticks = boxes(noon, "#plot > path.live", "#plot > path.history")
    assert ticks["y"] > delays["bottom"], "no bars of the plot of delays"
    (soon, quick), (late, slow) = bars(noon, "live")
    assert (soon, late) == (10, 9.5)
    assert quick < slow, "ten milliseconds are less than thirty seconds"
    assert [x for x, _ in bars(noon, "pause")] == [4, 4.1, 10, 9.5]
    paths = [noon.locator(f"#plot > path.{kind}").get_attribute("d") or "" for kind in ("live", "pause")]
    assert [path.count("l") for path in paths] == [2, 6], "an arrow for one delay over 10 s, and three pauses over 15 s"


def test_plot_marks(noon: Page) -> None:
    """A mark is told in words where a pointer is, and by the arrow keys to a screen reader, too."""
    open_page(noon, [RELAY, sent(NOON - 300_000, "a"), sent(NOON - 240_000, "b"), 1011], [])
    plot, mark = noon.get_by_role("slider"), noon.locator("#mark")
    expect(mark).to_contain_text("press")
    line = boxes(noon, "#plot .grid")[0]
    noon.mouse.move(line["x"] + line["width"] * 0.6, line["y"])
    expect(mark).to_have_text("11:56:00: 1 message, 4 min from broadcaster to page, 1 min after the one before.")
    noon.mouse.move(line["x"] + line["width"] * 0.1, line["y"])
    expect(mark).to_contain_text("press")
    plot.focus()
    for key, text in [
        ("ArrowLeft", "The connection broke."),
        ("Home", "11:55:00: 1 message"),
        ("ArrowRight", "11:56:00"),
    ]:
        noon.keyboard.press(key)
        expect(mark).to_contain_text(text)
        expect(plot).to_have_attribute("aria-valuetext", mark.text_content() or "")


def test_plot_window(paused: Page) -> None:
    """A message leaves the plot after ten minutes, even if no other comes."""
    opened = open_page(paused, [RELAY, sent(NOON - 10, "a")])
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(SUMMED)
    shown = []
    for _ in range(63):  # each 10 s
        shown.append(len(bars(paused, "live")))
        send(opened[0], {"type": "beat"})
        paused.clock.run_for(10_000)
    assert shown[:59] == [1] * 59
    assert shown[-1] == 0


def test_plot_events(noon: Page) -> None:
    """The plot has the states of the connection, its events, and the gaps."""
    before, missed = sent(NOON - 180_000, "a"), sent(NOON - 60_000, "b")
    lost = gap(str(before["position"]), str(missed["position"]))
    open_page(noon, [RELAY, before, 1011], [{**RELAY, "head": missed["position"]}, lost, missed], [])
    expect(noon.locator("#plot .triangle")).to_have_count(3)

    assert [x for x, _ in bars(noon, "recovered")] == [9]
    box, plot, usual = boxes(noon, "#plot .gap-area", "#plot .grid", "#plot .band")
    assert box["y"] <= plot["y"] < usual["bottom"] <= box["bottom"], "over both plots"
    assert (box["x"] - plot["x"]) / plot["width"] == pytest.approx(0.7, abs=0.02)
    assert box["width"] / plot["width"] == pytest.approx(0.2, abs=0.02)
    expect(noon.locator("#statistics .error")).to_have_text("Lost (gaps)1")
    styles = [("#statistics .error dd", "color"), ("#plot .gap-area", "fill"), (".swatch.loss", "color")]
    style = "(one, name) => getComputedStyle(one)[name]"
    assert len({noon.locator(selector).evaluate(style, name) for selector, name in styles}) == 1, "the colour of loss"
    states = noon.locator("#plot .connection").evaluate_all("lines => lines.map(({ classList }) => classList[1])")
    assert states == ["connecting", "connected", "lost", "resumed"]


def test_plot_gap_of_wrong_clock(noon: Page) -> None:
    """A gap between positions that are years off stays within the plot."""
    ahead = message("9007199254740991-0", "a", **SPLIT)
    open_page(noon, [RELAY, gap("1-0", "9007199254740991-0"), ahead])
    expect(noon.locator("#plot .gap-area")).to_have_count(1)
    band, plot = boxes(noon, "#plot .gap-area", "#plot")
    assert plot["x"] <= band["x"] < band["x"] + band["width"] <= plot["x"] + plot["width"]


@pytest.mark.parametrize("width", [320, 3840])
def test_plot_width(paused: Page, width: int) -> None:
    """The plot fills its width at once after the window's width has changed, with letters of the page's size."""
    open_page(paused, [RELAY, sent(NOON - 10, "a")])
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(DRAWN)
    expect(paused.locator("#plot .grid")).to_have_count(5)
    before = paused.locator("#plot").get_attribute("viewBox") or ""

    paused.set_viewport_size({"width": width, "height": 800})
    expect(paused.locator("#plot")).not_to_have_attribute("viewBox", before)

    plot, line = paused.locator("#plot").bounding_box(), paused.locator("#plot .grid").first.bounding_box()
    assert plot is not None
    assert line is not None
    assert 0 <= plot["x"] + plot["width"] - line["x"] - line["width"] < 12
    _, _, *size = (paused.locator("#plot").get_attribute("viewBox") or "").split()
    assert float(size[0]) / float(size[1]) == pytest.approx(plot["width"] / plot["height"], rel=0.01)
    root = paused.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)")
    for drawing in ["#picture", "#plot"]:
        scale = paused.locator(drawing).evaluate("one => one.getScreenCTM().a")
        assert 12 * scale == pytest.approx(0.75 * root, rel=0.06), "a phone has 288 pixels for the plot's 280 units"


def test_drawing_is_rare(paused: Page) -> None:
    """At any rate of messages the plot is drawn once in a second, only if it is in view, and the picture is kept."""
    count = """() => {
      window.drawings = { picture: 0, plot: 0 };
      const note = (id, options) => new MutationObserver(() => { window.drawings[id] += 1; })
          .observe(document.querySelector(`#${id}`), options);
      note("picture", { childList: true });
      note("plot", { attributes: true, attributeFilter: ["d"], subtree: true });
      const { getBoundingClientRect } = Element.prototype;
      Element.prototype.getBoundingClientRect = function () {
        if (this.id in window.drawings) throw new Error("a drawing reads the layout");
        return getBoundingClientRect.call(this);
      };
    }"""
    opened = open_page(paused, [RELAY])
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(SUMMED)
    paused.evaluate(count)

    def drawings() -> dict[str, int]:
        """Return how often each was drawn in five seconds with fifty messages."""
        paused.evaluate("Object.assign(window.drawings, { picture: 0, plot: 0 })")
        for _ in range(50):
            n = next(numbers)
            send(opened[0], sent(NOON + n, f"m{n}"))
            paused.clock.run_for(100)
        expect(paused.locator("#messages > li").first).to_have_attribute("data-id", f"m{n}")
        found: dict[str, int] = paused.evaluate("window.drawings")
        return found

    numbers = itertools.count()
    first = drawings()
    assert first["picture"] <= 2, "as often as its boxes change"
    assert 4 <= first["plot"] <= 6
    paused.set_viewport_size({"width": 320, "height": 640})
    paused.evaluate("new Promise((drawn) => new IntersectionObserver(drawn).observe(document.body))")
    assert drawings()["plot"] == 0
    before = bars(paused, "live")
    paused.locator("#plot").scroll_into_view_if_needed()
    paused.wait_for_function("count => window.drawings.plot >= count", arg=1)
    assert bars(paused, "live") != before


def test_tally_in_view(page: Page) -> None:
    """A laptop's first screen has the statistics, too."""
    page.set_viewport_size({"width": 1366, "height": 768})
    open_page(page, [RELAY, sent(NOON, "a")])
    expect(page.locator("#statistics > div")).to_have_count(8)
    expect(page.locator("#statistics")).to_be_in_viewport(ratio=1)


# Announcements to screen readers.


def test_announcement_of_flood(paused: Page) -> None:
    """A flood is announced as a number, every five seconds at most."""
    opened = open_page(paused, [RELAY, sent(NOON - 10, "first", text="One")])
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(DRAWN)
    announcement = paused.get_by_role("log")
    expect(announcement).to_have_text("One")

    send(opened[0], *(sent(NOON + n, f"m{n}", text=f"Number {n}") for n in range(99)))
    paused.clock.run_for(ANNOUNCE_INTERVAL_MS - 2 * DRAWN)
    expect(announcement).to_have_text("One")
    paused.clock.run_for(1000 + 2 * DRAWN)  # the page draws once in a second
    expect(announcement).to_have_text(re.compile("^99 .* Number 98$"))


def test_announcement_of_gap(noon: Page) -> None:
    """Every gap is announced: before a message that is not live, and together with later messages, too."""
    frames = [sent(NOON - 10, "a"), gap(f"{NOON - 7}-0", f"{NOON}-0"), message(f"{NOON}-0", "b", **SPLIT)]
    opened = open_page(noon, [{**RELAY, "head": f"{NOON}-0"}, *frames])
    expect(noon.get_by_role("log")).to_have_text(re.compile("^Messages .* are lost"))
    positions = [f"{NOON + n}-0" for n in (1, 10, 20)]
    lost = [gap(positions[0], positions[1]), message(positions[1], "c", **SPLIT)]
    lost += [gap(positions[1], positions[2]), message(positions[2], "d", text="Later", **SPLIT)]
    send(opened[0], *lost)
    expect(noon.get_by_role("log")).to_have_text(
        re.compile(
            r"^Some messages .* are lost.*1 more gap, the last one: Some .*2 new messages, the last one: Later$"
        ),
        timeout=9000,
    )


# The report.


@pytest.mark.parametrize("scheme", ["https", "http"], ids=["clipboard", "no-secure-context"])
def test_copy_report(browser: Browser, scheme: str) -> None:
    """The button copies a report of what the page has seen, also without TLS."""
    with blank_page(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.clock.set_fixed_time(NOON / 1000)
        url = f"{scheme}://hello.test/"
        evil, escaped = "x\nShown: 9\x1b]0;x\x07\u2028", r"x\nShown: 9\x1b]0;x\x07\u2028"
        open_page(page, [{**RELAY, "relay": evil}, sent(NOON - 10, "a"), 1011], [RELAY, sent(NOON - 5, "b")], url=url)
        expect(page.locator("#messages > li")).to_have_count(5)
        assert page.evaluate("isSecureContext") == (scheme == "https")

        page.get_by_role("button", name="Copy as text").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Copied")).to_be_focused()

        page.evaluate("document.body.append(document.createElement('textarea'))")
        page.locator("textarea").focus()
        page.keyboard.press("ControlOrMeta+V")
        text = page.locator("textarea").input_value()
        assert text.startswith(f"hello at {url}, 2023-11-15T12:00:00.000Z to 2023-11-15T12:00:00.000Z")
        lines = text.splitlines()
        for line in [
            *(
                "relay-1 over WebSocket",
                "Broadcasters: broadcaster-1",
                f"Relays: relay-1, {escaped}",
                "Shown: 2",
                "Repeated, not shown: 0",
            ),
            *("Reconnects: 1", "2023-11-15T12:00:00.000Z The connection broke."),
        ]:
            assert line in lines
        assert f"2023-11-15T12:00:00.000Z Connected to {escaped}." in lines
        assert "2023-11-15T11:59:59.990Z  Hello world  10 ms  broadcaster-1 → relay-1" in lines


# The log.


def test_log_scrolling(page: Page) -> None:
    """The newest entry stays in view unless the reader has scrolled back; then nothing moves."""
    page.set_viewport_size({"width": 1100, "height": 1200})
    opened = open_page(page, [RELAY])
    log = page.get_by_role("list", name="Log")
    numbering = itertools.count()

    def add(count: int) -> None:
        """Send so many more messages, and wait until they are drawn."""
        numbers = list(itertools.islice(numbering, count))
        send(opened[0], *(sent(NOON + n, f"m{n}") for n in numbers))
        expect(log.locator("li").first).to_have_attribute("data-id", f"m{numbers[-1]}")
        page.evaluate(f"new Promise((drawn) => setTimeout(requestAnimationFrame, {DRAWN}, drawn))")

    expect(log.locator("li")).to_have_count(1)
    for count in [1, 5, 100, 300, 1, 80, 20, 1]:  # more than the log keeps
        add(count)
        assert log.evaluate("log => log.scrollTop") == 0
    expect(log.locator("li")).to_have_count(KEPT)

    read = log.locator("[data-id=m480]")
    log.evaluate("log => log.scrollTop = 500")
    add(1)
    before = read.bounding_box()
    for count in [1, 30, 100, 400, 1, 200]:  # more than twice as many
        add(count)
        assert read.bounding_box() == before
    expect(log.locator("li")).to_have_count(2 * KEPT)


# Hidden tabs.


def test_hidden_tab(paused: Page) -> None:
    """A hidden tab changes its title only; it draws and reconnects as soon as it becomes visible."""
    paused.add_init_script("Object.defineProperty(document, 'hidden', { get: () => !window.isVisible });")
    paused.add_init_script("Math.random = () => 0.9;")  # a delay that does not end by itself in this test
    entries = paused.locator("#messages > li[data-id]")

    def set_visible(visible: bool) -> None:
        change = "document.dispatchEvent(new Event('visibilitychange'))"
        paused.evaluate(f"visible => {{ window.isVisible = visible; {change}; }}", visible)
        paused.clock.run_for(DRAWN)

    opened = open_page(paused, [RELAY, sent(NOON - 10, "a"), DOWN], [RELAY])
    expect(paused).to_have_title("Hello: channel down")  # after the message
    set_visible(False)
    expect(entries).to_have_count(0)
    set_visible(True)
    expect(entries).to_have_count(1)

    opened[0].close(code=1011)
    expect(paused).to_have_title("Hello: reconnecting")
    set_visible(False)
    assert len(opened) == 1
    set_visible(True)
    expect(paused).to_have_title("Hello: live")


# The layout.

NOTE_SHIFTS = """
  window.shifts = [];
  new PerformanceObserver((list) => {
    const describe = ({ node, previousRect: { x, y }, currentRect }) =>
      `${(node?.parentElement ?? node)?.outerHTML.slice(0, 60)} from ${x} ${y} to ${currentRect.x} ${currentRect.y}`;
    for (const { value, sources } of list.getEntries()) window.shifts.push([value, ...sources.map(describe)]);
  }).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("width", [320, 740, 1000, 1400])
def test_no_layout_shift(page: Page, width: int) -> None:
    """Nothing but the log's entries moves, and nothing is wider than the window, whatever the page shows."""
    # RFC 1123 allows a host name, and so the name of a pod, 63 characters.
    pod = {name: f"{name}-of-a-very-long-release-in-a-long-namespace-7c6d5f9b88-bbbbb"[:63] for name in SPLIT}
    welcome = {**WELCOME, "relay": pod["relay"]}
    page.set_viewport_size({"width": width, "height": 2400})  # everything is in view
    page.add_init_script(NOTE_SHIFTS)
    opened = open_page(page, [welcome], [welcome], [1013], [])
    page.add_style_tag(content="#messages > li { display: none }")  # newer entries move the older ones, rightly
    now: int = page.evaluate("Date.now()")

    def expect_state(state: str) -> None:
        expect(page.locator("html")).to_have_class(state)
        page.evaluate("new Promise((drawn) => setTimeout(requestAnimationFrame, 150, drawn))")
        assert page.evaluate(FITS)

    expect_state("connected")
    for first, after in itertools.pairwise([0, 1, 30, KEPT, KEPT + 1, KEPT + 20]):
        send(opened[0], *(sent(now + n, f"m{n}", **pod) for n in range(first, after)))
        expect(page.locator("#messages > li").first).to_have_attribute("data-id", f"m{after - 1}")
    send(opened[0], sent(now + 5000, "ahead", **pod), {**DOWN, "since": now - DAY_MS})
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


@pytest.mark.parametrize(
    ("width", "height"), [(320, 640), (375, 812), (768, 1024), (1024, 768), (1366, 768), (3840, 2160)]
)
def test_in_view(page: Page, width: int, height: int) -> None:
    """The newest message, and on a laptop all that runs, is on the first screen, and nothing covers it."""
    page.set_viewport_size({"width": width, "height": height})
    opened = open_page(page, [RELAY, *(sent(NOON + n, f"m{n}") for n in range(20))])
    expect(page.locator("#messages > li")).to_have_count(21)
    at_middle = "one => { const { x, y, width, height } = one.getBoundingClientRect();"
    at_middle += " return one.contains(document.elementFromPoint(x + width / 2, y + height / 2)); }"
    for _ in range(2):
        for part in ["#pill", "#text", "#about", "#picture" if width >= 1024 else "#route"]:
            expect(page.locator(part)).to_be_in_viewport(ratio=1)
            assert page.locator(part).evaluate(at_middle)
        for part in ("#pill", "#text", "#about time", "#about .delay"):  # no letter is cut
            assert page.locator(part).evaluate("one => one.scrollWidth <= one.clientWidth"), part
        opened[0].close(code=1011)
        expect(page.locator("#advice")).to_be_in_viewport(ratio=1)


def test_text_spacing(page: Page) -> None:
    """Nothing is cut where a reader has spaced letters, words and lines out (WCAG 2.2, 1.4.12)."""
    page.set_viewport_size({"width": 320, "height": 640})
    open_page(page, [RELAY, sent(NOON, "a")])
    expect(page.locator("#messages > li")).to_have_count(2)
    page.evaluate(
        """() => { for (const each of document.querySelectorAll("body *"))
            each.style = "letter-spacing: 0.12em; word-spacing: 0.16em; line-height: 1.5"; }"""
    )
    assert page.evaluate(FITS)
    left = page.locator("#plot text").evaluate_all(
        "all => Math.min(...all.map((one) => one.getBoundingClientRect().x))"
    )
    assert left >= 0, "a label of the plot is cut"


def test_print(page: Page) -> None:
    """A print has every entry of the log."""
    open_page(page, [RELAY, *(sent(NOON + n, f"m{n}") for n in range(60))])
    expect(page.locator("#messages > li")).to_have_count(61)
    page.emulate_media(media="print")
    assert page.locator("#messages").evaluate("log => log.clientHeight >= log.scrollHeight")


@pytest.mark.parametrize(("width", "font_size"), [(320, 16), (320, 32), (3840, 16)])
def test_long_texts_fit(page: Page, width: int, font_size: int) -> None:
    """The longest texts and names are not wider than the window, even with letters of twice the size."""
    page.set_viewport_size({"width": width, "height": 640})
    style = f"document.documentElement.style.fontSize = '{font_size}px'"
    page.add_init_script(f"addEventListener('DOMContentLoaded', () => {{ {style} }})")
    long = message("1-0", "a", text="W" * 4096, broadcaster="b" * 253, relay="r" * 253)
    open_page(page, [{**WELCOME, "relay": "r" * 253}, long, gap("1-0", "3-0"), message("3-0", "b")])
    expect(page.locator("#messages > li")).to_have_count(4)
    assert page.evaluate(FITS)


# Accessibility.


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1100), ("light", 320)])
def test_axe(browser: Browser, scheme: str, width: int) -> None:
    """axe-core finds no violation in any state."""
    package = find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        missing("no axe-core: `pip install axe-playwright-python` brings it")
        raise AssertionError
    axe = Path(package.origin).parent / "axe.min.js"
    # Motion is reduced, since axe would measure the contrast of a colour that is still changing.
    with blank_page(browser, color_scheme=scheme, reduced_motion="reduce") as page:
        page.set_viewport_size({"width": width, "height": 640})  # on a phone the plot is not in view
        lost = [gap(f"{NOON}-0", f"{NOON + 10}-0"), sent(NOON + 7, "b")]
        opened = open_page(page, [RELAY, sent(NOON - 10, "a"), *lost], [])
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


def test_forced_colors(browser: Browser) -> None:
    """With the reader's own colours the picture has visible lines, and the key still has the colours of the plot."""
    with blank_page(browser, forced_colors="active") as page:
        open_page(page, [])
        expect(page.locator("#state")).to_have_text("Connecting…")
        expect(page.locator("#picture .box").first).to_be_visible()
        line, background = page.evaluate(
            """["#picture .hop-arrow", "body"].map((one) => getComputedStyle(document.querySelector(one)))
                .map(({ stroke, backgroundColor }, i) => i ? backgroundColor : stroke)"""
        )
        assert line != background
        swatches = page.locator(".swatch")
        colours = swatches.evaluate_all("found => found.map((each) => getComputedStyle(each).color)")
        assert len(set(colours)) == len(colours)
