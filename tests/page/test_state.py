"""What the page knows before anything is drawn (state.js), in a real Chromium, at times that a test names."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.page.standalone import WELCOME, message, run

pytestmark = pytest.mark.browser

T = 1_700_000_000_000  # when the page is opened, UNIX milliseconds
MINUTE = 60_000
WINDOW = 10 * MINUTE

# A step is [time, frame] or [time, state of the connection]. The body ends with the state and the items of each step.
PLAY = """
    const [openedAt, steps, later, extra] = a;
    const state = new m.State(openedAt);
    const items = steps.map(([at, step]) => typeof step === "string"
        ? state.setConnection({ state: step, since: at, attempt: 0, retryAt: null }, at) : state.receive(step, at));
    const now = Math.max(openedAt, ...steps.map(([at]) => at)) + later;
    const kinds = (some) => some.map(({ type, kind, id }) => kind ?? id ?? type);
    const events = () => state.events.map(({ kind, recovered }) => [kind, recovered].join(" ").trim());
"""

Play = Callable[..., Any]
Step = list[object]


@pytest.fixture
def play(blank: Page) -> Play:
    """Play these steps to a new State, and return the value of a JavaScript expression, `later` milliseconds on."""

    def play(steps: list[Step], expression: str, later: int = 0, extra: object = None) -> Any:
        return run(blank, "state", f"{PLAY} return {expression};", [T, steps, later, extra])

    return play


def numbered(n: int, *, sent: int | None = None, **fields: object) -> dict[str, object]:
    """Message n, relayed in second n, after 3 ms to the channel and 5 ms to the relay."""
    at = T + 1000 * n
    times = {"sent_at": at - 8 if sent is None else sent, "relayed_at": at}
    return message(f"{at - 5}-0", f"m{n}", **times | fields)


def live(*numbers: int) -> list[Step]:
    """Each message, 2 ms after it was relayed."""
    return [[T + 1000 * n + 2, numbered(n)] for n in numbers]


def welcome(head: int | None = None, **fields: object) -> dict[str, object]:
    return {**WELCOME, "head": None if head is None else numbered(head)["position"], **fields}


# The statistics.


def test_live_messages(play: Play) -> None:
    """Messages that come live are shown, and not recovered."""
    expected = {"shown": 3, "recovered": 0, "gaps": 0, "repeated": 0, "reconnects": 0}
    delays = {"longestSilence": 2000, "medianDelay": 10, "worstDelay": 10}
    assert play([[T, welcome()], [T, "open"], *live(1, 2, 4)], "state.statistics(now)") == expected | delays


def test_recovered_messages(play: Play) -> None:
    """Messages up to the head of a reconnection are recovered; the next are live."""
    steps: list[Step] = [
        *([T, welcome()], [T, "open"], *live(1)),
        *([T + 1500, "lost"], [T + 4000, welcome(3)], [T + 4000, "open"]),
        *([T + 4001, numbered(2)], [T + 4001, numbered(3)], *live(5)),
    ]
    assert play(steps, "items.map(kinds)") == [
        *(["connected"], [], ["m1"], ["lost"], [], []),
        *(["m2"], ["m3", "resumed"], ["m5"]),
    ]
    assert play(steps, "[state.statistics(now).recovered, state.statistics(now).reconnects, events()]") == [
        *(2, 1),
        ["connected 0", "lost", "resumed 2"],
    ]


def test_delays(play: Play) -> None:
    """The median is that of the newest thousand delays, the worst that of all."""
    slow = [[T + 5000, numbered(n, sent=T + 1000 * n - 8)] for n in (1, 2)]
    many: list[Step] = [[T + 1000 * n + n % 2, numbered(n)] for n in range(6, 1006)]
    assert play([[T, welcome()], *slow], "state.statistics(now).medianDelay") == 3508
    statistics = play([[T, welcome()], *slow, *many], "state.statistics(now)")
    assert (statistics["medianDelay"], statistics["worstDelay"]) == (9, 4008)


def test_longest_silence(play: Play) -> None:
    """The longest silence is between two messages, or after the first welcome, or still lasts."""
    steps: list[Step] = [[T + 500, welcome(-1)], [T + 500, numbered(-1)], [T + 500, "open"]]
    assert play([], "state.statistics(now).longestSilence", later=9000) == 0
    assert play(steps, "state.statistics(now).longestSilence", later=700) == 700
    assert play([*steps, *live(3, 4)], "state.statistics(now).longestSilence") == 2502
    assert play([*steps, *live(3, 4)], "state.statistics(now).longestSilence", later=7000) == 7000


# Events.


def test_connection_events(play: Play) -> None:
    """Each change of the connection's state is one event, however many attempts it takes."""
    states = ["moved", "moved", "unreachable", "unreachable", "unreachable"]
    steps: list[Step] = [[T, welcome()], [T, "open"], *([T + 1, state] for state in states)]
    steps += [[T + 2, welcome()], [T + 2, "open"]]
    assert play(steps, "events()") == ["connected 0", "moved", "unreachable", "resumed 0"]


def test_lost_while_resuming(play: Play) -> None:
    """A connection that ends before the page has caught up has an event with what it recovered."""
    away: list[Step] = [[T + 1, "lost"], [T + 9000, welcome(4)], [T + 9000, "open"]]
    steps: list[Step] = [[T, welcome()], [T, "open"], *live(1), *away, [T + 9000, numbered(2)], *away]
    steps += [[T + 9000, numbered(3)], [T + 9000, numbered(4)]]
    assert play(steps, "events()") == ["connected 0", "lost", "resumed 1", "lost", "resumed 2"]


def test_channel_events(play: Play) -> None:
    """A channel that goes down and up again is one event each, whether a status or a welcome reports it."""
    down, up = ({"type": "status", "channel": channel, "since": T} for channel in ("down", "up"))
    steps: list[Step] = [[T, welcome()], [T, "open"], [T, down], [T, down], [T, up], [T, up]]
    assert play(steps, "events()") == ["connected 0", "channel-down", "channel-up"]
    moved: list[Step] = [[T, welcome(channel="down")], [T, "open"], [T, "moved"], [T, welcome()]]
    assert play(moved, "events()") == ["connected 0", "channel-down", "moved", "resumed 0"]
    again: list[Step] = [*moved[:3], [T, welcome(channel="down")], [T, up]]
    assert play(again, "events()")[2:] == ["moved", "resumed 0", "channel-down", "channel-up"]


def test_gap_event(play: Play) -> None:
    """A gap is listed, and is an event; there is no interval over it."""
    gap = {"type": "gap", "after": numbered(1)["position"], "before": numbered(5)["position"]}
    steps: list[Step] = [[T, welcome()], *live(1), [T + 5000, gap], *live(5)]
    assert play(steps, "[items.flatMap(kinds), events()]") == [
        ["connected", "m1", "gap", "m5"],
        ["connected 0", "gap"],
    ]
    assert play(steps, "state.buckets.map(({ interval }) => interval)") == [None, None]


# The instances.


def test_instances(play: Play) -> None:
    """The instances are those of the last ten minutes, newest first, and bounded."""
    steps: list[Step] = [[T, numbered(1, relay="old")], [T + WINDOW, numbered(601)]]
    steps += [[T + WINDOW, numbered(602, relay="new")]]
    assert play(steps, "[...state.instances('relay', now).keys()]") == ["new", "r", "old"]
    assert play(steps, "[...state.instances('relay', now).keys()]", later=1) == ["new", "r"]
    many: list[Step] = [[T, numbered(n, broadcaster=f"b{n}")] for n in range(100)]
    assert play(many, "[...state.instances('broadcaster', now).keys()]") == [f"b{n}" for n in range(99, 79, -1)]


# The buckets.


def test_bucket(play: Play) -> None:
    """The messages of half a second are one bucket, with their longest delay and interval."""
    steps: list[Step] = []
    for n, (sent, received) in enumerate([(1000, 1500), (1100, 2400), (1300, 1800)]):
        fields = {"position": f"{T}-{n}", "id": f"{n}"}
        steps.append([T + received, numbered(1, sent=T + sent) | fields])
    expected = {"at": T + 1000, "count": 3, "delivery": "live", "delay": 1300, "interval": 200}
    assert play(steps, "state.buckets") == [expected]


@pytest.mark.parametrize(("sent", "at"), [(-(10**12), 1000), (-WINDOW - 1, 1000), (-5000, -5000), (10**12, 1000)])
def test_bucket_of_wrong_clock(play: Play, sent: int, at: int) -> None:
    """A live message is in the plot, however wrong its broadcaster's clock is."""
    buckets = play([[T + 1000, numbered(1, sent=T + sent)]], "(state.prune(now), state.buckets)")
    assert [bucket["at"] - T for bucket in buckets] == [at]


def test_state_bounded(blank: Page) -> None:
    """A flood by two clocks, an hour without drawing and 10,000 lost connections leave a bounded state, quickly."""
    body = """
        const state = new m.State(a);
        const receive = (n, broadcaster, sentAt) => {
            const id = `${a + n}-0`;
            const frame = { type: "message", id, position: id, text: "x", broadcaster, relay: "r" };
            state.receive({ ...frame, sent_at: sentAt, relayed_at: a + n }, a + n);
        };
        const startedAt = performance.now();
        for (let n = 0; n < 60_000; n += 1) receive(n, `b${n % 50}`, a + n - (n % 2) * 60_000);
        const perMessage = (performance.now() - startedAt) / 60_000;
        const flood = state.buckets.length;
        for (let n = 60_000; n < 3_660_000; n += 1000) receive(n, "b", a + n);
        const hour = state.buckets.length;
        for (let n = 0; n < 20_000; n += 1) {
            const connection = { state: n % 2 ? "open" : "lost", since: 0, attempt: 0, retryAt: null };
            state.setConnection(connection, a + n * 30_000);
        }
        return [state.statistics(a).shown, flood, hour, state.events.length, perMessage];
    """
    shown, flood, hour, events, per_message = run(blank, "state", body, T)
    assert shown == 63_600
    assert flood <= 2 * (MINUTE / 500 + 1)
    assert hour <= WINDOW / 500 + 1, "buckets of an hour in which nothing was drawn"
    assert events <= 200
    assert per_message < 0.5, "ms; a thousand messages a second take half of the time"
