"""What the checker finds in records that were changed, and that it finds nothing in an honest one."""

import pytest

from hello.message import ORIGIN, Entry, Gap, Message, Position
from tests.histories import record as r
from tests.histories.checker import KINDS, check

HISTORY = 3


def at(number: int) -> Position:
    return Position(number, 0)


def entry(number: int, message_id: str | None = None, prev: int | None = None) -> Entry:
    message = Message(message_id or f"m{number}", "Hello", "b", 0)
    before = number - 1 if prev is None else prev
    return Entry(at(number), at(before) if before else ORIGIN, message)


def kinds(*events: r.Event, seconds: float = 0.0) -> list[str]:
    """Return the kinds of the findings in these events, which are so many seconds apart."""
    findings = check([(number * seconds, event) for number, event in enumerate(events)], HISTORY)
    return [finding.kind for finding in findings]


def delivered(*entries: Entry, relay: str = "a") -> list[r.Event]:
    return [r.Read(relay, [*entries]), r.Delivered(relay, [*entries])]


def relayed(*entries: Entry, relay: str = "a") -> list[r.Event]:
    """Each entry is accepted, and delivered to a relay."""
    return [event for item in entries for event in (r.Accepted(item, None), *delivered(item, relay=relay))]


def received(*entries: Entry, gap: Gap | None = None, shown: bool = True) -> list[r.Event]:
    """Each entry is received by client 0."""
    return [r.MessageReceived(0, item.position, item.message.id, gap, shown) for item in entries]


def connected(relay: str = "a", after: Position | None = None, head: Position | None = None) -> list[r.Event]:
    """Client 0 connects to a relay."""
    return [r.Connecting(0, relay), r.Connected(0, relay, after), r.Welcomed(0, head), r.StatusReceived(0, "up")]


BROKEN = r.Disconnected(0, 1006, ended=False)
SUBSCRIBED = r.Subscribed("a", None)
FIRST = [SUBSCRIBED, *relayed(entry(1)), *connected(), *received(entry(1))]  # a client and its relay have 1
LOSS = [*FIRST, r.Accepted(entry(2), None), r.Kept(frozenset()), r.Accepted(entry(3), None)]  # of 2
RELAYED_LOSS = [*LOSS, *delivered(entry(3))]
GAP = Gap(at(1), at(3))


def test_honest() -> None:
    """Messages, a gap where one was lost, and a message that was accepted again since the backend had lost it."""
    again = entry(4, "m3")
    events = [*RELAYED_LOSS, *received(entry(3), gap=GAP), r.AllHealed(), r.Kept(frozenset()), *relayed(again)]
    assert kinds(*events, r.Ended()) == []


def test_missing() -> None:
    """A relay or a client skips what is there, or resumes too late; a broadcaster gives a message up."""
    skipped = [SUBSCRIBED, *relayed(entry(1)), r.Accepted(entry(2), None), r.Accepted(entry(3), None)]
    assert kinds(*skipped, *delivered(entry(3, prev=1))) == ["missing"]
    assert kinds(*FIRST, *relayed(entry(2), entry(3)), *received(entry(3))) == ["missing"]
    assert kinds(*FIRST, *relayed(entry(2)), *received(entry(2), shown=False)) == ["missing"]
    assert kinds(*FIRST, *relayed(entry(2)), r.Subscribed("a", at(1))) == ["missing"]
    assert kinds(*FIRST, BROKEN, *connected(after=at(2))) == ["missing"]
    lost, other = r.Published("b", "m1", "lost"), r.Published("b", "m2", "accepted")
    assert kinds(lost, other) == ["missing"]
    assert kinds(r.Published("b", "m1", "fenced"), other) == []


def test_first_connection() -> None:
    """A new client must receive what its relay has; if the relay has nothing, any message may be the first."""
    had = [SUBSCRIBED, *relayed(*map(entry, range(1, 5))), *connected()]
    assert kinds(*had, *received(entry(2))) == []
    assert kinds(*had, *received(entry(3))) == ["missing"]
    had_nothing = [*connected(), SUBSCRIBED, *relayed(*map(entry, range(1, 6)))]
    assert kinds(*had_nothing, *received(entry(3))) == []
    without_a_message = [SUBSCRIBED, *relayed(entry(1)), *connected(head=at(1)), BROKEN]
    assert kinds(*without_a_message, *connected(after=at(1))) == []
    assert kinds(*without_a_message, *connected()) == ["missing"]


def test_repeated() -> None:
    """The backend accepts a message that it has; a relay or a client receives one again; a relay sends a copy."""
    assert kinds(r.Accepted(entry(1), None), r.Accepted(entry(2, "m1"), None)) == ["repeated"]
    assert kinds(SUBSCRIBED, *relayed(entry(1)), r.Read("a", [entry(1)])) == ["repeated"]
    assert kinds(*FIRST, *received(entry(1), shown=False)) == ["repeated"]
    copy = entry(2, "m1")
    copied = [*FIRST, r.Kept(frozenset()), *relayed(copy)]
    assert kinds(*copied) == []
    assert kinds(*copied, *received(copy, shown=False)) == ["repeated"]
    other = [*FIRST, BROKEN, r.Kept(frozenset()), r.Subscribed("b", None), *relayed(copy, relay="b")]
    other += connected("b", after=at(1))  # a relay that never had the first one sends the copy
    assert kinds(*other, *received(copy, shown=False)) == []
    assert kinds(*other, *received(copy)) == ["repeated"]


def test_out_of_order() -> None:
    """The backend accepts, or a client receives, an older message after a newer one."""
    assert kinds(r.Accepted(entry(2), None), r.Accepted(entry(1), None)) == ["out of order"]
    events = [*connected(), SUBSCRIBED, *relayed(entry(1), entry(2)), *received(entry(2), entry(1))]
    assert kinds(*events) == ["out of order"]


def test_invented() -> None:
    """A position, or a message at a position, that was never accepted."""
    assert kinds(SUBSCRIBED, *delivered(entry(1))) == ["invented"]
    assert kinds(*FIRST, *received(entry(2))) == ["invented"]
    assert kinds(*FIRST, *relayed(entry(2)), *received(entry(2, "other"))) == ["invented"]


def test_false_gap() -> None:
    """A gap where nothing is lost, beyond its message, or over what the client has."""
    whole = [*FIRST, *relayed(entry(2), entry(3))]
    assert kinds(*whole, *received(entry(3), gap=GAP)) == ["false gap", "missing"]
    assert kinds(*whole, *received(entry(2), gap=Gap(at(1), at(2)))) == ["false gap"]
    assert kinds(SUBSCRIBED, *relayed(entry(1)), *relayed(entry(3, prev=2))) == ["false gap"]
    assert kinds(*RELAYED_LOSS, *received(entry(3), gap=Gap(at(1), at(4)))) == ["false gap"]
    assert kinds(*RELAYED_LOSS, *received(entry(3), gap=Gap(ORIGIN, at(3)))) == ["false gap"]


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
    assert kinds(*connected(), r.AllHealed(), r.Ended()) == ["late"]
    published = [SUBSCRIBED, *connected(), r.AllHealed(), *relayed(entry(1))]
    assert kinds(*published, r.Ended()) == ["late"]
    assert kinds(*published, *received(entry(1)), r.Ended()) == []
    assert kinds(*published, *received(entry(1)), BROKEN, r.Ended()) == ["late"]


@pytest.mark.parametrize(("code", "ended"), [(1012, False), (None, True)], ids=["ws", "events"])
def test_pending(code: int | None, ended: bool) -> None:
    """A relay that drains closes a client only after it has sent what it had."""
    stops = [SUBSCRIBED, *relayed(entry(1)), *connected(), r.Stopping("a")]
    closed = r.Disconnected(0, code, ended)
    assert kinds(*stops, closed) == ["pending"]
    assert kinds(*stops, *received(entry(1)), closed) == []
    assert kinds(*stops, BROKEN) == [], "the relay was killed before"


def test_status() -> None:
    """A connected client that reads soon knows of a cut; at the end every client knows that the channel is up."""
    cut = [*connected(), r.Cut("a")]
    later = r.Acquired("b", granted=True)
    assert kinds(*cut, later, seconds=3) == ["status"]
    down = r.StatusReceived(0, "down")
    for excuse in (down, BROKEN, r.Reads(0, reads=False), r.Hung("a"), r.Healed("a")):
        assert kinds(*cut, excuse, later, seconds=2) == []
    assert kinds(*connected(), r.Hung("a"), r.Cut("a"), later, seconds=3) == []
    assert kinds(*cut, r.Cut("b"), later, seconds=2) == ["status"]
    assert "status" in kinds(*cut, down, r.Healed("a"), r.AllHealed(), r.Accepted(entry(1), None), r.Ended())


def test_leader() -> None:
    """One holder at a time has the lease, until it releases the lease, the lease expires, or the backend loses it."""
    acquired, other = r.Acquired("b", granted=True), r.Acquired("c", granted=True)
    assert kinds(acquired, r.Accepted(entry(1), "b")) == []
    assert kinds(acquired, r.Accepted(entry(1), "c")) == ["leader"]
    assert kinds(acquired, r.Accepted(entry(1), "b"), seconds=3) == ["leader"], "the lease has expired"
    assert kinds(acquired, r.Kept(frozenset()), r.Accepted(entry(1), "b")) == ["leader"]
    assert kinds(acquired, other) == ["leader"]
    assert kinds(acquired, r.Released("b"), other) == []
    assert kinds(acquired, r.Released("c"), other) == ["leader"]
    assert kinds(r.Acquired("b", granted=False)) == ["leader"], "the lease was free"
    assert kinds(acquired, r.Acquired("c", granted=False)) == []
    assert kinds(acquired, r.Released("b"), other, r.Accepted(entry(1), "c"), r.Accepted(entry(2), "b")) == ["leader"]


def test_each_kind_has_a_test() -> None:
    for kind in KINDS:
        assert f"test_{kind.replace(' ', '_')}" in globals()
