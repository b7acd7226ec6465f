"""What the checker finds in records that were changed, and that it finds nothing in an honest one.

tests/faults/test_checker.py has the rules of tests/promises.py, which this checker has too.
"""

from collections.abc import Callable
from operator import methodcaller
from typing import TypeAlias

import pytest

from hello.message import ORIGIN, Entry, Gap, Message, Position
from tests.histories.checker import Checker

HISTORY = 3

Event: TypeAlias = Callable[[Checker], None]


def at(number: int) -> Position:
    return Position(number, 0)


def entry(number: int, message_id: str | None = None, prev: int | None = None) -> Entry:
    message = Message(message_id or f"m{number}", "Hello", "b", 0)
    before = number - 1 if prev is None else prev
    return Entry(at(number), at(before) if before else ORIGIN, message)


def event(name: str, *arguments: object, **named: object) -> Event:
    """Return an event: a call of this method of the checker."""
    return methodcaller(name, *arguments, **named)


def kinds(*events: Event, seconds: float = 0.0) -> list[str]:
    """Return the kinds of the findings in these events, which are so many seconds apart."""
    now = 0.0
    checker = Checker(HISTORY, lambda: now)
    for happens in events:
        happens(checker)
        now += seconds
    return [finding.kind for finding in checker.findings]


def accepted(item: Entry, holder: str | None = None) -> Event:
    return event("accepted", item, holder)


def delivered(*entries: Entry, relay: str = "a") -> list[Event]:
    return [event("read", relay, [*entries]), event("delivered", relay, [*entries])]


def relayed(*entries: Entry, relay: str = "a") -> list[Event]:
    """Each entry is accepted, and delivered to a relay."""
    return [each for item in entries for each in (accepted(item), *delivered(item, relay=relay))]


def received(*entries: Entry, gap: Gap | None = None, shown: bool = True) -> list[Event]:
    """Each entry is received by client 0."""
    return [event("message_received", 0, item.position, item.message.id, gap, shown=shown) for item in entries]


def connected(relay: str = "a", after: Position | None = None, start: int = 0) -> list[Event]:
    """Client 0 connects to a relay."""
    welcome = [event("started", 0, at(start)), event("status_received", 0, "up")]
    return [event("connected", 0, relay, after), *welcome]


WIPED, ALL_HEALED, END = event("replaced", frozenset()), event("all_healed"), event("end")
BROKEN = event("disconnected", 0, 1006, ended=False)
SUBSCRIBED = event("subscribed", "a", None)
FIRST = [SUBSCRIBED, *relayed(entry(1)), *connected(), *received(entry(1))]  # a client and its relay have 1
LOSS = [*FIRST, accepted(entry(2)), WIPED, accepted(entry(3))]  # of 2
RELAYED_LOSS = [*LOSS, *delivered(entry(3))]
GAP = Gap(at(1), at(3))


def test_honest() -> None:
    """Messages, a gap where one was lost, and a message that was accepted again since the backend had lost it."""
    assert kinds(*RELAYED_LOSS, *received(entry(3), gap=GAP), ALL_HEALED, WIPED, *relayed(entry(4, "m3")), END) == []


def test_missing() -> None:
    """A relay or a client skips what is there, or resumes too late; a broadcaster gives a message up."""
    skipped = [SUBSCRIBED, *relayed(entry(1)), accepted(entry(2)), accepted(entry(3))]
    assert kinds(*skipped, *delivered(entry(3, prev=1))) == ["missing"]
    assert kinds(SUBSCRIBED, accepted(entry(1)), accepted(entry(2)), *delivered(entry(2))) == ["missing"]
    assert kinds(*FIRST, *relayed(entry(2), entry(3)), *received(entry(3))) == ["missing"]
    assert kinds(*FIRST, *relayed(entry(2)), event("subscribed", "a", at(1))) == ["missing"]
    assert kinds(*FIRST, BROKEN, *connected(after=at(2))) == ["missing"]
    lost, other = event("published", "b", "m1", "lost"), event("published", "b", "m2", "accepted")
    assert kinds(lost, other) == ["missing"]
    assert kinds(event("published", "b", "m1", "fenced"), other) == []


def test_first_connection() -> None:
    """A new client must receive what its relay has, and whatever comes after the start that it was sent."""
    has = [SUBSCRIBED, *relayed(*map(entry, range(1, 5)))]  # 2 to 4
    assert kinds(*has, *connected(start=1), *received(entry(2))) == []
    assert kinds(*has, *connected(start=1), *received(entry(3))) == ["missing"]
    assert kinds(*has, *connected(start=2)) == ["missing"]
    assert kinds(*connected(), SUBSCRIBED, *relayed(entry(1), entry(2)), *received(entry(2))) == ["missing"]
    without_a_message = [SUBSCRIBED, *relayed(entry(1)), *connected(), BROKEN]
    assert kinds(*without_a_message, *connected(after=at(0))) == []
    assert kinds(*without_a_message, *connected()) == ["missing"]
    assert kinds(*without_a_message, event("position_refused", 0), *connected()) == []


def test_repeated() -> None:
    """The backend accepts a message that it has; a relay receives one again; a relay sends a copy."""
    assert kinds(accepted(entry(1)), accepted(entry(2, "m1"))) == ["repeated"]
    assert kinds(SUBSCRIBED, *relayed(entry(1)), event("read", "a", [entry(1)])) == ["repeated"]
    copy = entry(2, "m1")
    copied = [*FIRST, WIPED, *relayed(copy)]
    assert kinds(*copied) == []
    assert kinds(*copied, *received(copy, shown=False)) == ["repeated"]
    other = [*FIRST, BROKEN, WIPED, event("subscribed", "b", None), *relayed(copy, relay="b")]
    other += connected("b", after=at(1))  # a relay that never had the first one sends the copy
    assert kinds(*other, *received(copy, shown=False)) == []
    assert kinds(*other, *received(copy)) == ["repeated"]


def test_out_of_order() -> None:
    """The backend accepts an older message after a newer one."""
    assert kinds(accepted(entry(2)), accepted(entry(1))) == ["out of order"]


def test_false_gap() -> None:
    """A gap, to the relay or to the client, where nothing is lost."""
    assert kinds(*FIRST, *relayed(entry(2), entry(3)), *received(entry(3), gap=GAP)) == ["false gap", "missing"]
    assert kinds(SUBSCRIBED, *relayed(entry(1)), *relayed(entry(3, prev=2))) == ["false gap"]
    dropped = [*FIRST, WIPED, *relayed(entry(2, "m1"), entry(3))]  # a copy, instead of which the relay has the first
    assert kinds(*dropped, *received(entry(3))) == []
    assert kinds(*dropped, *received(entry(3), gap=GAP)) == ["false gap"]


def test_unreported_gap() -> None:
    """A loss without a gap, to the relay or to the client."""
    assert kinds(*LOSS, *delivered(entry(3, prev=1))) == ["unreported gap"]
    assert kinds(*RELAYED_LOSS, *received(entry(3))) == ["unreported gap"]


def test_trimmed() -> None:
    """What the log of the relay has trimmed is a gap, and nothing else is."""
    lags = [*FIRST, *relayed(*map(entry, range(2, 6)))]
    assert kinds(*lags, *received(entry(3), gap=GAP)) == []
    assert kinds(*lags, *received(entry(3))) == ["unreported gap"]
    assert kinds(*lags, *received(entry(4), gap=Gap(at(1), at(4)))) == ["missing"]


def test_late() -> None:
    """At the end no message was accepted, or a client has no relay, or has not received the newest message."""
    assert kinds(*connected(), ALL_HEALED, END) == ["late"]
    published = [SUBSCRIBED, *connected(), ALL_HEALED, *relayed(entry(1))]
    assert kinds(*published, END) == ["late"]
    assert kinds(*published, *received(entry(1)), END) == []
    assert kinds(*published, *received(entry(1)), BROKEN, END) == ["late"]


@pytest.mark.parametrize(("code", "ended"), [(1012, False), (None, True)], ids=["ws", "events"])
def test_pending(code: int | None, ended: bool) -> None:
    """A relay that drains closes a client only after it has sent what it had."""
    stops = [SUBSCRIBED, *relayed(entry(1)), *connected(), event("stopping", "a")]
    closed = event("disconnected", 0, code, ended=ended)
    assert kinds(*stops, closed) == ["pending"]
    assert kinds(*stops, *received(entry(1)), closed) == []
    assert kinds(*stops, BROKEN) == [], "the relay was killed before"


def test_status() -> None:
    """A connected client that reads soon knows of a cut; at the end every client knows that the channel is up."""
    cut = [*connected(), event("cut", "a")]
    later = event("healed", "a")
    assert kinds(*cut, later, seconds=3) == ["status"]
    down = event("status_received", 0, "down")
    for excuse in (down, BROKEN, event("reads", 0, reads=False), event("hung", "a"), event("healed", "a")):
        assert kinds(*cut, excuse, later, seconds=2) == []
    assert kinds(*connected(), event("hung", "a"), event("cut", "a"), later, seconds=3) == []
    stalled = [*connected(), event("reads", 0, reads=False), event("status_received", 0, "up"), event("cut", "a")]
    assert kinds(*stalled, later, seconds=3) == [], "the client received one frame more, and then none"
    assert kinds(*cut, event("cut", "b"), later, seconds=2) == ["status"]
    assert "status" in kinds(*cut, down, event("healed", "a"), ALL_HEALED, accepted(entry(1)), END)


def test_leader() -> None:
    """One holder at a time has the lease, until it releases the lease, the lease expires, or the backend loses it."""
    acquired, other = event("acquired", "b", granted=True), event("acquired", "c", granted=True)
    assert kinds(acquired, accepted(entry(1), "b")) == []
    assert kinds(acquired, accepted(entry(1), "c")) == ["leader"]
    assert kinds(acquired, accepted(entry(1), "b"), seconds=3) == ["leader"], "the lease has expired"
    assert kinds(acquired, WIPED, accepted(entry(1), "b")) == ["leader"]
    assert kinds(acquired, other) == ["leader"]
    assert kinds(acquired, event("released", "b"), other) == []
    assert kinds(acquired, event("released", "c"), other) == ["leader"]
    assert kinds(event("acquired", "b", granted=False)) == ["leader"], "the lease was free"
    assert kinds(acquired, event("acquired", "c", granted=False)) == []
    taken_over = [acquired, event("released", "b"), other, accepted(entry(1), "c")]
    assert kinds(*taken_over, accepted(entry(2), "b")) == ["leader"]
