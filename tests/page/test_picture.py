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
DRAWN = 120  # ms of the page's clock, after which everything has been drawn


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
    open_page(noon, [{**WELCOME, "relay": names["relay"]}, sent(NOON - 10, "a", **names)])

    expect(noon.locator("#picture .box")).to_have_text(
        [
            f"Broadcaster{names['broadcaster']}sent at 11:59:59",
            "Channelup",
            f"Relay{names['relay']}",
            "This pageconnectedsince 12:00:00",
        ]
    )
    expect(noon.locator("#picture .hop")).to_have_text(["3 ms", "5 ms", "2 ms"])
    expect(noon.locator("#one-process")).to_be_visible(visible=shape == "combined")
    expect(noon.locator("#path")).to_contain_text("One process" if shape == "combined" else "Separate processes")
    expect(noon.locator("#path")).to_contain_text("3 ms to the channel, 5 ms to the relay and 2 ms to this page")


def test_picture_clock_skew(noon: Page) -> None:
    """The picture reports by how much the clocks differ, where a message seems to come before it was sent."""
    open_page(noon, [RELAY, sent(NOON + 5000, "a")])
    expect(noon.locator("#picture .hop").nth(2)).to_have_text("-5 s")
    expect(noon.locator("#path")).to_contain_text("differ by 5 s at least")


def test_picture_instances(noon: Page) -> None:
    """The picture has the newest instance first, then the one before, and the number of the others."""
    frames = [sent(NOON - 40 + 10 * n, f"m{n}", broadcaster=f"b-{n}") for n in range(4)]
    open_page(noon, [RELAY, *frames])
    expect(noon.locator("#picture .box").first).to_have_text("Broadcasterb-3b-2 and 2 moresent at 11:59:59")


def expect_broken_hop(page: Page, at: int | None, label: str = "", unknown: tuple[int, ...] = ()) -> None:
    """Wait until the picture has the path broken at this hop and nowhere else, and these boxes as unknown."""
    for n in range(3):
        hop = page.locator("#picture .hop").nth(n)
        expect(hop.locator(".hop-cross")).to_be_visible(visible=n == at)
    if at is not None:
        expect(page.locator("#picture .hop").nth(at)).to_have_text(label)
    expect(page.locator("#picture .box-unknown")).to_have_count(len(unknown))
    dashes = page.locator("#picture .box-outline").evaluate_all(
        "boxes => boxes.map((box) => getComputedStyle(box).strokeDasharray)"
    )
    assert tuple(n for n in range(4) if dashes[n] != "none") == unknown


STARTED: list[object] = [RELAY, sent(NOON - 10, "a")]
CHANNEL_UNKNOWN = {"unknown": (0,)}  # the relay reports that the channel is down: so much is known
ALL_UNKNOWN = {"unknown": (0, 1, 2)}


@pytest.mark.parametrize(
    ("frames", "condition", "status", "broken"),
    [
        ([], "connecting", "Connecting…", {"at": None, **ALL_UNKNOWN}),
        (STARTED, "connected", "Connected to relay-1.", {"at": None}),
        ([*STARTED, DOWN], "channel-down", "down since 11:59:00.", {"at": 1, "label": "down", **CHANNEL_UNKNOWN}),
        ([{**RELAY, "channel": "down"}], "channel-down", "is down.", {"at": 1, "label": "down", **CHANNEL_UNKNOWN}),
        ([*STARTED, DOWN, {**DOWN, "channel": "up"}], "connected", "Connected to relay-1.", {"at": None}),
        ([*STARTED, 1012], "moved", "stopped at 12:00:00", {"at": 2, "label": "relay stopped", **ALL_UNKNOWN}),
        ([1012], "moved", "stopped at 12:00:00", {"at": 2, "label": "relay stopped", **ALL_UNKNOWN}),
        ([*STARTED, 1013], "slow", "too slowly", {"at": 2, "label": "too slow", **ALL_UNKNOWN}),
        ([*STARTED, 1008], "lost", "lost at 12:00:00", {"at": 2, "label": "lost", **ALL_UNKNOWN}),
        ([1011], "unreachable", "since 12:00:00", {"at": 2, "label": "unreachable", **ALL_UNKNOWN}),
        ([*STARTED, "{"], "garbled", "cannot read", {"at": 2, "label": "invalid data", **ALL_UNKNOWN}),
    ],
)
def test_condition(noon: Page, frames: list[object], condition: str, status: str, broken: dict[str, object]) -> None:
    """The status, the picture, the title and the icon show whether the path is broken, and where."""
    open_page(noon, frames, [])  # a second connection gets no frame

    expect(noon.locator("html")).to_have_class(condition)
    expect(noon.locator("#state")).to_contain_text(status)
    expect_broken_hop(noon, **broken)  # type: ignore[arg-type]
    titles = {"connected": "connected", "channel-down": "channel down", "connecting": "connecting"}
    expect(noon).to_have_title(f"Hello: {titles.get(condition, 'reconnecting')}")
    icon = noon.locator("#icon").get_attribute("href")
    assert icon is not None
    assert ("red" in icon) == (condition not in ("connected", "connecting"))
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
    expect_broken_hop(paused, 2, "no data", (0, 1, 2))
    expect(paused.locator("#picture .box").nth(1)).to_have_text("Channelstate unknown")
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
    """A live message is one pulse along the path, which does not move if the reader prefers reduced motion."""
    with blank_page(browser, reduced_motion=motion) as page:
        page.add_init_script(HOLD_ANIMATIONS)
        opened = open_page(page, [{**RELAY, "head": "1-0"}, message("1-0", "old")])
        expect(page.locator("#messages > li")).to_have_count(2)
        pulses = "document.querySelector('.pulse').getAnimations()"
        assert page.evaluate(f"{pulses}.length") == 0, "a message that is not live has no pulse"

        send(opened[0], *(message(f"{n}-0", f"m{n}") for n in range(2, 30)))
        expect(page.locator("#messages > li")).to_have_count(30)

        [frames] = page.evaluate(f"{pulses}.map(({{ effect }}) => effect.getKeyframes())")
        assert (frames[0]["transform"] == frames[-1]["transform"]) == (motion == "reduce")


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
    expect(noon.locator("#messages > li")).to_have_count(6)

    assert [x for x, _ in bars(noon, "history")] == [1, 4, 4.1]
    (soon, quick), (late, slow) = bars(noon, "live")
    assert (soon, late) == (10, 9.5)
    assert quick < slow, "ten milliseconds are less than thirty seconds"
    assert [x for x, _ in bars(noon, "interval")] == [4, 4.1, 10, 9.5]
    expect(noon.get_by_role("img", name=re.compile(r"^5 messages, .* 5\.9 min, 1 "))).to_be_visible()


def test_plot_window(paused: Page) -> None:
    """A message leaves the plot after ten minutes, even if no other comes."""
    opened = open_page(paused, [RELAY, sent(NOON - 10, "a")])
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(DRAWN)
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
    expect(noon.locator("#messages > li")).to_have_count(6)

    assert [x for x, _ in bars(noon, "recovered")] == [9]
    titles = noon.locator("#plot .plot-event title").all_text_contents()
    assert [title.split()[0] for title in titles] == ["Connected", "The", "Messages", "Resumed"]
    box, plot = boxes(noon, "#plot .gap-area", "#plot .grid")
    assert (box["x"] - plot["x"]) / plot["width"] == pytest.approx(0.7, abs=0.02)
    assert box["width"] / plot["width"] == pytest.approx(0.2, abs=0.02)
    expect(noon.locator("#statistics .error")).to_have_text("Lost (gaps)1")
    states = noon.locator("#plot .connection").evaluate_all("lines => lines.map(({ classList }) => classList[1])")
    assert states == ["connecting", "connected", "lost", "resumed"]


def test_plot_gap_of_wrong_clock(noon: Page) -> None:
    """A gap between positions that are years off stays within the plot."""
    ahead = message("9007199254740991-0", "a", **SPLIT)
    open_page(noon, [RELAY, gap("1-0", "9007199254740991-0"), ahead])
    expect(noon.locator("#messages > li.gap")).to_have_count(1)
    band, plot = boxes(noon, "#plot .gap-area", "#plot")
    assert plot["x"] <= band["x"] < band["x"] + band["width"] <= plot["x"] + plot["width"]


@pytest.mark.parametrize("width", [320, 3840])
def test_plot_width(paused: Page, width: int) -> None:
    """The plot fills its width at once after the window's width has changed."""
    open_page(paused, [RELAY, sent(NOON - 10, "a")])
    expect(paused.locator("html")).to_have_class("connected")
    paused.clock.run_for(DRAWN)
    expect(paused.locator("#plot .grid")).to_have_count(5)

    paused.set_viewport_size({"width": width, "height": 800})
    paused.wait_for_function("width => innerWidth === width", arg=width)
    paused.clock.run_for(DRAWN)

    plot, line = paused.locator("#plot").bounding_box(), paused.locator("#plot .grid").first.bounding_box()
    assert plot is not None
    assert line is not None
    assert 0 <= plot["x"] + plot["width"] - line["x"] - line["width"] < 12
    _, _, *size = (paused.locator("#plot").get_attribute("viewBox") or "").split()
    assert float(size[0]) / float(size[1]) == pytest.approx(plot["width"] / plot["height"], rel=0.01)


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
    """A gap is announced, also before a message that is not live."""
    frames = [sent(NOON - 10, "a"), gap(f"{NOON - 7}-0", f"{NOON}-0"), message(f"{NOON}-0", "b", **SPLIT)]
    open_page(noon, [{**RELAY, "head": f"{NOON}-0"}, *frames])
    expect(noon.get_by_role("log")).to_have_text(re.compile("^Messages .* are lost"))


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

        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Copy as text")).to_be_focused()
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
                "Connected to relay-1.",
                "Broadcasters: broadcaster-1",
                f"Relays: relay-1, {escaped}",
                "Shown: 2",
                "Repeated: 0",
            ),
            *("Reconnects: 1", "2023-11-15T12:00:00.000Z The connection was lost at 12:00:00."),
        ]:
            assert line in lines
        assert f"2023-11-15T12:00:00.000Z Connected to {escaped}." in lines


# The log.


def test_log_scrolling(page: Page) -> None:
    """The end of the log stays in view unless the reader has scrolled back; then nothing moves."""
    page.set_viewport_size({"width": 1100, "height": 1200})
    opened = open_page(page, [RELAY])
    log = page.get_by_role("list", name="Log")
    numbering = itertools.count()

    def add(count: int) -> None:
        """Send so many more messages, and wait until they are drawn."""
        numbers = list(itertools.islice(numbering, count))
        send(opened[0], *(sent(NOON + n, f"m{n}") for n in numbers))
        expect(log.locator("li").last).to_have_attribute("data-id", f"m{numbers[-1]}")
        page.evaluate(f"new Promise((drawn) => setTimeout(requestAnimationFrame, {DRAWN}, drawn))")

    left = "log => log.scrollHeight - log.clientHeight - log.scrollTop"  # pixels to its end
    expect(log.locator("li")).to_have_count(1)
    for count in [1, 5, 100, 300, 1, 80, 20, 1]:  # more than the log keeps
        add(count)
        assert log.evaluate(left) < 2
    expect(log.locator("li")).to_have_count(KEPT)

    read = log.locator("[data-id=m480]")
    log.evaluate("log => log.scrollTop -= 500")
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
    expect(paused).to_have_title("Hello: connected")


# The layout.

NOTE_SHIFTS = """
  window.shifts = [];
  new PerformanceObserver((list) => {
    const describe = ({ node, previousRect: { x, y }, currentRect }) =>
      `${(node?.parentElement ?? node)?.outerHTML.slice(0, 60)} from ${x} ${y} to ${currentRect.x} ${currentRect.y}`;
    for (const { value, sources } of list.getEntries()) window.shifts.push([value, ...sources.map(describe)]);
  }).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("width", [320, 520, 740, 800, 1000, 1280, 1400])
def test_no_layout_shift(page: Page, width: int) -> None:
    """Nothing moves and nothing is wider than the window, whatever the page shows."""
    # RFC 1123 allows a host name, and so the name of a pod, 63 characters.
    pod = {name: f"{name}-of-a-very-long-release-in-a-long-namespace-7c6d5f9b88-bbbbb"[:63] for name in SPLIT}
    welcome = {**WELCOME, "relay": pod["relay"]}
    page.set_viewport_size({"width": width, "height": 2400})  # everything is in view
    page.add_init_script(NOTE_SHIFTS)
    opened = open_page(page, [welcome], [welcome], [1013], [])
    now: int = page.evaluate("Date.now()")

    def expect_state(state: str) -> None:
        expect(page.locator("html")).to_have_class(state)
        page.evaluate("new Promise((drawn) => setTimeout(requestAnimationFrame, 150, drawn))")
        assert page.evaluate(FITS)

    expect_state("connected")
    for first, after in itertools.pairwise([0, 1, 30, KEPT, KEPT + 1, KEPT + 20]):
        send(opened[0], *(sent(now + n, f"m{n}", **pod) for n in range(first, after)))
        expect(page.locator("#messages > li").last).to_have_attribute("data-id", f"m{after - 1}")
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


@pytest.mark.parametrize(("width", "height"), [(1280, 600), (1366, 650), (1440, 790), (1920, 950), (3840, 1900)])
def test_in_view(page: Page, width: int, height: int) -> None:
    """The status, the picture, the plot and the newest message are in view, from a laptop to 4K."""
    page.set_viewport_size({"width": width, "height": height})
    open_page(page, [RELAY, *(sent(NOON + n, f"m{n}") for n in range(20))])
    expect(page.locator("#messages > li")).to_have_count(21)
    for part in ["#state", "#path", "#picture .box >> nth=2", "#plot", "#messages > li >> nth=-1"]:
        expect(page.locator(part)).to_be_in_viewport(ratio=1)


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


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 320), ("dark", 320)])
def test_axe(browser: Browser, scheme: str, width: int) -> None:
    """axe-core finds no violation in any state."""
    package = find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        missing("no axe-core: `pip install axe-playwright-python` brings it")
        raise AssertionError
    axe = Path(package.origin).parent / "axe.min.js"
    # Motion is reduced, since axe would measure the contrast of a colour that is still changing.
    with blank_page(browser, color_scheme=scheme, reduced_motion="reduce") as page:
        page.set_viewport_size({"width": width, "height": 1000})
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
        expect(page.locator("#picture .box").last).to_be_visible()
        line, background = page.evaluate(
            """["#picture .hop-arrow", "body"].map((one) => getComputedStyle(document.querySelector(one)))
                .map(({ stroke, backgroundColor }, i) => i ? backgroundColor : stroke)"""
        )
        assert line != background
        swatches = page.locator(".swatch")
        colours = swatches.evaluate_all("found => found.map((each) => getComputedStyle(each).color)")
        assert len(set(colours)) == len(colours)
