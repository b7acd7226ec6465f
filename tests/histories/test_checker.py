"""What the checker finds in records that were doctored, and that it finds nothing in an honest one."""

import pytest

from hello.message import ORIGIN, Entry, Gap, Message, Position
from tests.histories import record as r
from tests.histories.checker import KINDS, Finding, check

HISTORY = 3


def at(number: int) -> Position:
    return Position(number, 0)


def entry(number: int, message_id: str | None = None, prev: int | None = None) -> Entry:
    message = Message(message_id or f"m{number}", "Hello", "b", 0)
    before = number - 1 if prev is None else prev
    return Entry(at(number), at(before) if before else ORIGIN, message)


def found(*events: r.Event, seconds: float = 0.0) -> list[Finding]:
    """The findings where these events lie so many seconds apart."""
    return check([(number * seconds, event) for number, event in enumerate(events)], HISTORY)


def kinds(*events: r.Event, seconds: float = 0.0) -> list[str]:
    return [finding.kind for finding in found(*events, seconds=seconds)]


def relayed(*entries: Entry, relay: str = "a") -> list[r.Event]:
    """Each entry is accepted, and reaches a relay that follows from where it is."""
    events: list[r.Event] = []
    for item in entries:
        events += [r.Accepted(item, None), *got(item, relay=relay)]
    return events


def got(*items: Entry, relay: str = "a") -> list[r.Event]:
    return [r.Read(relay, [*items]), r.Delivered(relay, [*items])]


def took(*entries: Entry, page: int = 0) -> list[r.Event]:
    return [r.Took(page, item.position, item.message.id) for item in entries]


def opened(page: int = 0, relay: str = "a") -> list[r.Event]:
    return [r.Opening(page, relay), r.Opened(page, relay), r.Heard(page, "up")]


FOLLOWS = r.Subscribed("a", None)
LOSS = [  # a relay that has 1, and 2 is lost before it is back for 3
    *(FOLLOWS, *relayed(entry(1)), *opened(), *took(entry(1)), r.Accepted(entry(2), None), r.Kept(frozenset())),
    *(r.Accepted(entry(3), None), r.Subscribed("a", at(1))),
]
TOLD = [*LOSS, *got(entry(3))]


def test_an_honest_record_has_no_finding() -> None:
    """Messages, a gap where one was lost, and a message that was accepted twice since the backend had lost it."""
    again = entry(4, "m3")
    gap = r.Told(0, Gap(at(1), at(3)))
    events = [*TOLD, gap, *took(entry(3)), r.Healed(), r.Kept(frozenset()), *relayed(again), r.Ended()]
    assert found(*events) == []


def test_missing() -> None:
    """A relay, or a page, that is not given what is there; and a message that its broadcaster gave up."""
    skipped = [FOLLOWS, r.Accepted(entry(1), None), *got(entry(1)), r.Accepted(entry(2), None), *relayed(entry(3))]
    assert kinds(*skipped) == ["missing"]
    assert kinds(FOLLOWS, *relayed(entry(1)), *opened(), *relayed(entry(2)), *took(entry(2))) == ["missing"]
    assert kinds(FOLLOWS, *relayed(entry(1), entry(2)), r.Subscribed("a", at(1))) == ["missing"]
    lost, other = r.Tried("b", "m1", "lost"), r.Tried("b", "m2", "accepted")
    assert kinds(lost, other) == ["missing"]
    assert kinds(r.Tried("b", "m1", "fenced"), other) == []


def test_twice() -> None:
    """The backend takes a message that it has; a relay gets an entry again; a page gets one, or a copy of one."""
    assert kinds(r.Accepted(entry(1), None), r.Accepted(entry(2, "m1"), None)) == ["twice"]
    assert kinds(FOLLOWS, *relayed(entry(1)), r.Read("a", [entry(1)])) == ["twice"]
    shown = [FOLLOWS, *relayed(entry(1)), *opened(), *took(entry(1))]
    assert kinds(*shown, *took(entry(1))) == ["twice"]
    copy = entry(2, "m1")
    assert kinds(*shown, r.Kept(frozenset()), *relayed(copy)) == []
    assert kinds(*shown, r.Kept(frozenset()), *relayed(copy), *took(copy)) == ["twice"]


def test_a_copy_may_come_from_a_relay_that_never_had_the_first() -> None:
    copy = entry(2, "m1")
    events = [
        FOLLOWS,
        *relayed(entry(1)),
        *opened(),
        *took(entry(1)),
        r.Gone(0, 1006, ended=False),
        r.Kept(frozenset()),
    ]
    events += [r.Subscribed("b", None), *relayed(copy, relay="b"), *opened(relay="b"), *took(copy)]
    assert found(*events) == []


def test_out_of_order() -> None:
    assert kinds(r.Accepted(entry(2), None), r.Accepted(entry(1), None)) == ["out of order"]
    events = [*opened(), FOLLOWS, *relayed(entry(1), entry(2)), *took(entry(2), entry(1))]
    assert kinds(*events) == ["out of order"]


def test_invented() -> None:
    """A position, or a message at a position, that never was."""
    assert kinds(FOLLOWS, *got(entry(1))) == ["invented"]
    known = [*opened(), FOLLOWS, *relayed(entry(1))]
    assert kinds(*known, *took(entry(2))) == ["invented"]
    assert kinds(*known, *took(entry(1, "other"))) == ["invented"]


def test_a_false_gap() -> None:
    """Where nothing is lost, where something is there, with an end that is not its own, and to the wrong reader."""
    gap = Gap(at(1), at(3))
    whole = [*opened(), FOLLOWS, *relayed(entry(1)), *took(entry(1)), *relayed(entry(2), entry(3))]
    assert kinds(*whole, r.Told(0, gap)) == ["false gap", "false gap"]
    nothing = [*opened(), FOLLOWS, *relayed(entry(1)), *took(entry(1)), *relayed(entry(2))]
    assert kinds(*nothing, r.Told(0, Gap(at(1), at(2)))) == ["false gap"]
    assert kinds(FOLLOWS, *relayed(entry(1)), *relayed(entry(3, prev=2))) == ["false gap"]
    more = [*TOLD, *relayed(entry(4)), r.Told(0, gap)]
    assert set(kinds(*more, *took(entry(4)))) == {"missing", "false gap"}
    assert kinds(*TOLD, r.Told(0, Gap(ORIGIN, at(3)))) == ["false gap", "false gap"]


def test_an_untold_gap() -> None:
    """To the relay, or to the page; a gap that was told before the page connected anew is not told."""
    assert kinds(*LOSS, *got(entry(3, prev=1))) == ["untold gap"]
    assert kinds(*TOLD, *took(entry(3))) == ["untold gap"]
    told = r.Told(0, Gap(at(1), at(3)))
    assert kinds(*TOLD, told, r.Gone(0, 1006, ended=False), *opened(), *took(entry(3))) == ["untold gap"]


def test_a_page_that_comes_for_the_first_time_is_owed_what_its_relay_has() -> None:
    """And nothing before; one that finds nothing has no start."""
    had = [FOLLOWS, *relayed(entry(1), entry(2), entry(3), entry(4)), *opened()]
    assert kinds(*had, *took(entry(2))) == []
    assert kinds(*had, *took(entry(3))) == ["missing"]
    late = [*opened(), FOLLOWS, *relayed(entry(1), entry(2), entry(3), entry(4), entry(5))]
    assert kinds(*late, *took(entry(3))) == []


def test_what_the_relays_log_has_forgotten_is_a_gap() -> None:
    shown = [*opened(), FOLLOWS, *relayed(entry(1)), *took(entry(1)), *relayed(*map(entry, range(2, 6)))]
    assert kinds(*shown, r.Told(0, Gap(at(1), at(3))), *took(entry(3))) == []
    assert kinds(*shown, *took(entry(3))) == ["untold gap"]
    assert "missing" in kinds(*shown, r.Told(0, Gap(at(1), at(4))), *took(entry(4)))


def test_late() -> None:
    """At the end nobody has spoken; a page has no relay; or it has not seen the newest."""
    assert kinds(*opened(), r.Healed(), r.Ended()) == ["late"]
    spoken = [FOLLOWS, *opened(), r.Healed(), *relayed(entry(1))]
    assert kinds(*spoken, r.Ended()) == ["late"]
    assert kinds(*spoken, *took(entry(1)), r.Ended()) == []
    assert kinds(*spoken, *took(entry(1)), r.Gone(0, 1006, ended=False), r.Ended()) == ["late"]


@pytest.mark.parametrize(("code", "ended"), [(1012, False), (None, True)], ids=["ws", "events"])
def test_owed(code: int | None, ended: bool) -> None:
    """A relay that stops closes only who has what it had by then."""
    stops = [FOLLOWS, *relayed(entry(1)), *opened(), r.Stopping("a")]
    gone = r.Gone(0, code, ended)
    assert kinds(*stops, gone) == ["owed"]
    assert kinds(*stops, *took(entry(1)), gone) == []
    assert kinds(*stops, r.Gone(0, 1006, ended=False)) == [], "it died before"


def test_status() -> None:
    """A cut is told soon to who is connected and reads; at the end everybody knows that the channel is up."""
    cut = [*opened(), r.Away("a")]
    later = r.Claimed("b", granted=True)
    assert kinds(*cut, later, seconds=3) == ["status"]
    for excuse in (r.Heard(0, "down"), r.Gone(0, 1006, ended=False), r.Reads(0, reads=False), r.Hung("a"), r.Back("a")):
        assert kinds(*cut, excuse, later, seconds=2) == []
    assert kinds(*cut, r.Away("b"), later, seconds=2) == ["status"]
    end: list[r.Event] = [r.Healed(), r.Accepted(entry(1), None)]
    assert "status" in kinds(*cut, r.Heard(0, "down"), r.Back("a"), *end, r.Ended())


def test_voice() -> None:
    """One holder at a time, until it releases, lapses, or the backend forgets."""
    claimed, other = r.Claimed("b", granted=True), r.Claimed("c", granted=True)
    assert kinds(claimed, r.Accepted(entry(1), "b")) == []
    assert kinds(claimed, r.Accepted(entry(1), "c")) == ["voice"]
    assert kinds(claimed, r.Accepted(entry(1), "b"), seconds=3) == ["voice"], "it has lapsed"
    assert kinds(claimed, r.Kept(frozenset()), r.Accepted(entry(1), "b")) == ["voice"]
    assert kinds(claimed, other) == ["voice"]
    assert kinds(claimed, r.Released("b"), other) == []
    assert kinds(claimed, r.Released("c"), other) == ["voice"]
    assert kinds(r.Claimed("b", granted=False)) == ["voice"], "it was free"
    assert kinds(claimed, r.Claimed("c", granted=False)) == []
    assert kinds(claimed, r.Released("b"), other, r.Accepted(entry(1), "c"), r.Accepted(entry(2), "b")) == ["voice"]


def test_every_kind_has_a_test() -> None:
    for kind in KINDS:
        assert any(name.endswith(kind.replace(" ", "_")) for name in globals()), kind
