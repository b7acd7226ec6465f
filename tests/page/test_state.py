"""What the page makes of what it hears, before anything is drawn (state.js): in a real Chromium, at moments we name."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.page.alone import WELCOME, gap, message, run

T = 1_700_000_000_000  # when the page is opened, UNIX milliseconds
MINUTE = 60_000
LATELY = 10 * MINUTE

# Each step is [moment, frame] or [moment, state of the link]. The answer is the body's, which has the state at its end.
PLAY = """
    const state = new m.State(a[0]);
    const items = a[1].map(([at, what]) => typeof what === "string"
        ? state.turn({ state: what, since: at, attempt: 0, retryAt: null }, at) : state.take(what, at));
    const now = Math.max(a[0], ...a[1].map(([at]) => at)) + (a[2] ?? 0);
    const x = a[3];
    const kinds = (some) => some.map(({ type, kind, id }) => kind ?? id ?? type);
    const events = () => state.events.map(({ kind, missed }) => missed === undefined ? kind : `${kind} ${missed}`);
"""

Play = Callable[..., Any]
Step = list[object]


@pytest.fixture
def play(blank: Page) -> Play:
    """Play these steps to a new State, and answer what JavaScript says of it and of `x`, `later` milliseconds on."""

    def play(steps: list[Step], answer: str, later: int = 0, extra: object = None) -> Any:
        return run(blank, "state", f"{PLAY} return {answer};", [T, steps, later, extra])

    return play


def said(n: int, *, sent: int | None = None, **fields: object) -> dict[str, object]:
    """Message n, at the position of its second, 3 ms to the channel and 5 ms to the relay."""
    at = T + 1000 * n
    named = {"sent_at": at - 8 if sent is None else sent, "relayed_at": at, **fields}
    return message(f"{at - 5}-0", f"m{n}", **named)


def heard(*numbers: int) -> list[Step]:
    """Each message as it comes live, 2 ms after it was relayed."""
    return [[T + 1000 * n + 2, said(n)] for n in numbers]


def welcome(head: int | None = None, **fields: object) -> dict[str, object]:
    return {**WELCOME, "head": None if head is None else said(head)["position"], **fields}


# The tally, and what was recovered.


def test_messages_that_come_live_are_shown_and_not_recovered(play: Play) -> None:
    tally = play([[T, welcome()], [T, "open"], *heard(1, 2, 4)], "state.tally(now)")
    named = {"shown": 3, "recovered": 0, "gaps": 0, "repeated": 0, "reconnects": 0}
    assert tally == named | {"silence": 2000, "median": 10, "worst": 10}


def test_what_was_said_before_the_page_was_opened_is_not_recovered_however_it_comes(play: Play) -> None:
    # The first connection ends in the middle of the recent messages; the next brings their rest, and what came since.
    steps: list[Step] = [
        *([T, welcome(-1)], [T, "open"], [T, said(-3)], [T, "lost"]),
        *([T, welcome(1)], [T, "open"], [T, said(-2)], [T, said(-1)], [T + 1100, said(1)]),
    ]
    assert play(steps, "[state.shown, state.recovered, events()]") == [
        4,
        1,
        ["connected 0", "lost", "resumed 1"],
    ]


def test_what_was_missed_while_away_is_recovered_and_what_follows_is_live(play: Play) -> None:
    steps: list[Step] = [
        *([T, welcome()], [T, "open"], *heard(1)),
        *([T + 1500, "lost"], [T + 4000, welcome(3)], [T + 4000, "open"]),
        *([T + 4001, said(2)], [T + 4001, said(3)], *heard(5)),
    ]
    assert play(steps, "items.map(kinds)") == [
        *(["connected"], [], ["m1"], ["lost"], [], []),
        *(["m2"], ["m3", "resumed"], ["m5"]),
    ]
    assert play(steps, "[state.tally(now).recovered, state.tally(now).reconnects, events()]") == [
        2,
        1,
        ["connected 0", "lost", "resumed 2"],
    ]


def test_a_page_whose_position_was_refused_counts_what_it_did_not_know_as_recovered(play: Play) -> None:
    steps: list[Step] = [[T, welcome(1)], [T, "open"], [T, said(1)]]
    answer = "state.forgetPosition() ?? [...x.map((frame) => state.take(frame, now)), state.recovered]"
    assert play(steps, answer, extra=[welcome(0), said(0)])[-1] == 1


def test_repeats_are_counted_and_never_shown(play: Play) -> None:
    steps: list[Step] = [[T, welcome()], [T, "open"], *heard(1, 2, 2, 1)]
    assert play(steps, "[items.flatMap(kinds), state.tally(now).repeated]") == [["connected", "m1", "m2"], 2]


def test_the_median_is_of_the_newest_thousand_delays_and_the_worst_of_all(play: Play) -> None:
    slow = [[T + 5000, said(n, sent=T + 1000 * n - 8)] for n in (1, 2)]
    many: list[Step] = [[T + 1000 * n + n % 2, said(n)] for n in range(6, 1006)]
    assert play([[T, welcome()], *slow], "state.tally(now).median") == 3508
    tally = play([[T, welcome()], *slow, *many], "state.tally(now)")
    assert (tally["median"], tally["worst"]) == (9, 4008)


# The silence.


def test_the_longest_silence_is_between_messages_or_since_the_first_welcome_or_still_lasts(play: Play) -> None:
    steps: list[Step] = [[T + 500, welcome(-1)], [T + 500, said(-1)], [T + 500, "open"]]
    assert play([], "state.tally(now).silence", later=9000) == 0
    assert play(steps, "state.tally(now).silence", later=700) == 700
    assert play([*steps, *heard(3, 4)], "state.tally(now).silence") == 2502
    assert play([*steps, *heard(3, 4)], "state.tally(now).silence", later=7000) == 7000


# Events.


def test_a_move_a_refusal_and_the_return_are_each_told_once(play: Play) -> None:
    states = ["moved", "moved", "unreachable", "unreachable", "unreachable"]
    steps: list[Step] = [[T, welcome()], [T, "open"], *([T + 1, state] for state in states)]
    steps += [[T + 2, welcome()], [T + 2, "open"]]
    assert play(steps, "events()") == ["connected 0", "moved", "unreachable", "resumed 0"]


def test_a_page_that_never_connected_says_so_and_is_connected_later(play: Play) -> None:
    steps: list[Step] = [[T, "connecting"], [T, "unreachable"], [T, "unreachable"], [T, welcome()], [T, "open"]]
    assert play(steps, "events()") == ["unreachable", "connected 0"]
    assert play(steps, "state.tally(now).reconnects") == 0


def test_a_connection_that_ends_while_it_catches_up_tells_what_it_brought(play: Play) -> None:
    away: list[Step] = [[T + 1, "lost"], [T + 9000, welcome(4)], [T + 9000, "open"]]
    steps: list[Step] = [[T, welcome()], [T, "open"], *heard(1), *away, [T + 9000, said(2)], *away]
    steps += [[T + 9000, said(3)], [T + 9000, said(4)]]
    assert play(steps, "events()") == ["connected 0", "lost", "resumed 1", "lost", "resumed 2"]


def test_a_channel_that_goes_and_comes_is_told_once_each_whoever_tells_it(play: Play) -> None:
    down, up = ({"type": "status", "channel": channel, "since": T} for channel in ("down", "up"))
    steps: list[Step] = [[T, welcome()], [T, "open"], [T, down], [T, down], [T, up], [T, up]]
    assert play(steps, "events()") == ["connected 0", "channel-down", "channel-up"]
    moved: list[Step] = [[T, welcome(channel="down")], [T, "open"], [T, "moved"], [T, welcome()]]
    assert play(moved, "events()") == ["connected 0", "channel-down", "moved", "resumed 0"]
    again: list[Step] = [*moved[:3], [T, welcome(channel="down")], [T, up]]
    assert play(again, "events()")[2:] == ["moved", "resumed 0", "channel-down", "channel-up"]


def test_a_gap_is_listed_as_it_is_and_among_the_events(play: Play) -> None:
    before = {"type": "gap", "after": said(1)["position"], "before": said(5)["position"]}
    steps: list[Step] = [[T, welcome()], *heard(1), [T + 5000, before], *heard(5)]
    assert play(steps, "[items.map(({ type }) => type), items.flatMap(kinds), events()]")[1:] == [
        ["connected", "m1", "gap", "m5"],
        ["connected 0", "gap"],
    ]
    assert play(steps, "state.moments.map(({ pause }) => pause)") == [None, None], "a pause over lost messages is none"


def test_a_malformed_frame_changes_nothing_at_all(play: Play) -> None:
    steps: list[Step] = [[T, welcome()], [T, "open"], *heard(1)]
    broken = [said(2, sent_at="noon"), {**said(2), "position": "soon"}, {**WELCOME, "relay": 7}, gap("x", "y")]
    look = "JSON.stringify([state, state.tally(now), state.moments, state.names('relay', now)])"
    answer = f"""x.map((frame) => {{
        const before = {look};
        try {{ state.take(frame, now) }} catch {{ return {look} === before }}
    }})"""
    assert play(steps, answer, extra=broken) == [True] * 4


# Who speaks and relays.


def test_the_shape_is_combined_where_one_instance_runs_both_actors(play: Play) -> None:
    assert play([], "state.shape") is None
    assert play([[T, said(1)]], "state.shape") == "split"
    assert play([[T, said(1)], [T, said(2, broadcaster="one", relay="one")]], "state.shape") == "combined"


def test_names_are_those_of_the_last_ten_minutes_newest_first_and_bounded(play: Play) -> None:
    steps: list[Step] = [[T, said(1, relay="old")], [T + LATELY, said(601)], [T + LATELY, said(602, relay="new")]]
    assert play(steps, "state.names('relay', now)") == ["new", "r", "old"]
    assert play(steps, "state.names('relay', now)", later=1) == ["new", "r"]
    many: list[Step] = [[T, said(n, broadcaster=f"b{n}")] for n in range(100)]
    assert play(many, "state.names('broadcaster', now)") == [f"b{n}" for n in range(99, 79, -1)]


def test_a_broadcaster_whose_clock_is_far_ahead_is_forgotten_like_any_other(play: Play) -> None:
    steps: list[Step] = [[T, welcome(1)], [T, said(1, sent=T + 10**12, broadcaster="ahead")]]
    assert play(steps, "state.names('broadcaster', now)") == ["ahead"]
    assert play(steps, "state.names('broadcaster', now)", later=LATELY + 1) == []


@pytest.mark.parametrize("skew", [0, -3_600_000, 3_600_000])
def test_each_hop_takes_as_long_as_the_clocks_of_its_ends_say(play: Play, skew: int) -> None:
    steps: list[Step] = [[T + 1002 + skew, said(1)]]
    assert play(steps, "state.hops") == [3, 5, 2 + skew]


# The plot's moments, and where the path is cut.


def test_what_comes_within_half_a_second_is_one_moment_with_the_worst_delay_and_pause(play: Play) -> None:
    steps: list[Step] = [[T + 1500 + late, said(1, sent=T + 1000 + n)] for n, late in ((0, 0), (100, 900), (300, 300))]
    for n, step in enumerate(steps):
        step[1] = {**said(1), **step[1], "position": f"{T}-{n}", "id": f"{n}"}  # type: ignore[dict-item]
    moments = play(steps, "state.moments")
    assert moments == [{"at": T + 1000, "count": 3, "came": "live", "delay": 1300, "pause": 200}]


@pytest.mark.parametrize(("sent", "at"), [(-(10**12), 1000), (-LATELY - 1, 1000), (-5000, -5000), (10**12, 1000)])
def test_a_live_message_is_in_the_plot_however_wrong_its_clock(play: Play, sent: int, at: int) -> None:
    moments = play([[T + 1000, said(1, sent=T + sent)]], "(state.prune(now), state.moments)")
    assert [moment["at"] - T for moment in moments] == [at]


def test_ten_minutes_later_the_plot_is_empty(play: Play) -> None:
    steps: list[Step] = [[T, welcome()], [T, "open"], *heard(1)]
    assert len(play(steps, "(state.prune(now), state.moments)", later=LATELY - 1010)) == 1
    assert play(steps, "(state.prune(now), state.moments)", later=LATELY) == []


@pytest.mark.parametrize(
    ("condition", "steps", "cut"),
    [
        ("connecting", [], 2),
        ("connected", [[T, WELCOME], [T, "open"]], -1),
        ("channel-down", [[T, {**WELCOME, "channel": "down"}], [T, "open"]], 1),
        *((state, [[T, WELCOME], [T, "open"], [T, state]], 2) for state in ("moved", "lost", "dead", "unreachable")),
    ],
)
def test_it_says_where_the_path_is_cut(play: Play, condition: str, steps: list[Step], cut: int) -> None:
    assert play(steps, "[state.condition, state.cut]") == [condition, cut]


# Bounds.


def test_a_flood_an_hour_undrawn_and_a_week_of_flapping_leave_no_more_behind_than_their_newest(blank: Page) -> None:
    """A thousand messages a second over a minute, by two clocks a minute apart, and 10,000 lost connections."""
    body = """
        const { Position } = await import("/page/stream.js");
        const state = new m.State(a);
        const began = performance.now();
        for (let n = 0; n < 60_000; n += 1) {
            const position = `${a + n}-0`;
            state.take({ type: "message", id: position, position, text: "x", broadcaster: `b${n % 50}`,
                relay: "r", sent_at: a + n - (n % 2) * 60_000, relayed_at: a + n }, a + n);
        }
        const perMessage = (performance.now() - began) / 60_000;
        const moments = state.moments.length;
        for (let n = 60_000; n < 3_660_000; n += 1000) {
            const position = `${a + n}-0`;
            state.take({ type: "message", id: position, position, text: "x", broadcaster: "b", relay: "r",
                sent_at: a + n, relayed_at: a + n }, a + n);
        }
        const hour = state.moments.length;
        for (let n = 0; n < 20_000; n += 1) {
            state.turn({ state: n % 2 ? "open" : "lost", since: 0, attempt: 0, retryAt: null }, a + n * 30_000);
        }
        return [state.tally(a).shown, moments, hour, state.events.length, perMessage];
    """
    shown, moments, hour, events, per_message = run(blank, "state", body, T)
    assert shown == 63_600
    assert moments <= 2 * (MINUTE / 500 + 1)
    assert hour <= LATELY / 500 + 1, "marks of an hour in which nothing was drawn"
    assert events <= 200
    assert per_message < 0.5, "a thousand a second take half of the time that there is"
