"""The checker finds what it should in records of a clean run, changed in one place each, and nothing else."""

from typing import Any, Self

from hello.message import Gap, Position
from tests.faults.checker import ClientLog, Healing, Injected, check
from tests.promises import Accepted, Received, State

COUNT = 20  # messages, one a second; message n is accepted and received at second n


class Records:
    """A clean run: two clients that received everything, a from relay-1 and b from relay-2.

    Each method but `kinds` changes one thing, for client a where it is about a client, and returns the records.
    """

    def __init__(self) -> None:
        self.accepted = [Accepted(n, at(n), f"m{n}", "broadcaster-1") for n in range(1, COUNT + 1)]
        self.a, self.b = ClientLog("a"), ClientLog("b")
        self.healings = [Healing(5, at(5))]
        self.injected: list[Injected] = []
        for client, relay in ((self.a, "relay-1"), (self.b, "relay-2")):
            client.received = [Received(n, at(n), f"m{n}") for n in range(1, COUNT + 1)]
            client.states = [State(0, "up", relay)]

    def skip(self, *numbers: int) -> Self:
        """These messages are not received."""
        self.a.received = [each for each in self.a.received if each.position.milliseconds not in numbers]
        return self

    def remove(self, *numbers: int, at: float) -> Self:
        """These messages are lost at that time."""
        for number in numbers:
            self.accepted[number - 1].removed_at = at
        return self

    def lose(self, *numbers: int, at: float) -> Self:
        """These messages are lost at that time, and not received."""
        return self.skip(*numbers).remove(*numbers, at=at)

    def change(self, number: int, **fields: Any) -> Self:
        """Message n is received with these fields."""
        place = next(place for place, each in enumerate(self.a.received) if each.position == at(number))
        self.a.received[place] = self.a.received[place]._replace(**fields)
        return self

    def report(self, after: int, before: int) -> Self:
        """A gap is received, with the message that follows the gap."""
        return self.change(before, gap=Gap(at(after), at(before)))

    def insert(self, message: Received) -> Self:
        """This message is received after message 7."""
        self.a.received.insert(7, message)
        return self

    def accept_again(self, *, lost_at: float | None = None) -> Self:
        """Message 9 is accepted again, in the place of message 10, and no client shows it again."""
        self.accepted[9] = Accepted(10, at(10), "m9", "broadcaster-1")
        self.accepted[8].removed_at = lost_at
        for client in (self.a, self.b):
            client.received[9] = Received(10, at(10), "m9", shown=False)
        return self

    def know(self, *states: State) -> Self:
        self.a.states += states
        return self

    def inject(self, *faults: tuple[str, str, float, float]) -> Self:
        """These are all the faults."""
        self.injected = [Injected(*fault) for fault in faults]
        return self

    def hand_over(self, to: str = "broadcaster-2") -> Self:
        """From message 10 on another broadcaster publishes."""
        for entry in self.accepted[9:]:
            entry.broadcaster = to
        return self

    def kinds(self) -> list[str]:
        """Return the kinds of the findings."""
        findings, _ = check(self.accepted, [self.a, self.b], self.healings, self.injected, longest_interval=1)
        return sorted({finding.kind for finding in findings})


def at(number: int) -> Position:
    return Position(number, 0)


def test_honest() -> None:
    """A clean run, also for a client that came later, has no finding."""
    assert Records().kinds() == []
    assert Records().skip(1, 2, 3, 4).kinds() == []


def test_honest_gap() -> None:
    """A gap over lost messages, also over a lost copy, of which no relay knows whether the client has the first one."""
    assert Records().lose(7, 8, at=8.5).report(6, 9).kinds() == []
    assert Records().accept_again(lost_at=9.5).kinds() == []
    assert Records().accept_again(lost_at=9.5).lose(10, at=11).report(9, 11).kinds() == []


def test_missing() -> None:
    """A message is not received, or not shown, or reported as lost, while Redis has it."""
    assert Records().skip(7).kinds() == ["missing"]
    assert Records().lose(7, at=15).kinds() == ["missing"], "lost after the client received the next message"
    assert Records().change(7, shown=False).kinds() == ["missing"]
    assert Records().lose(7, at=5).lose(8, at=12).report(6, 9).kinds() == ["missing"]


def test_repeated() -> None:
    """A message is accepted again while Redis has it, received again, or shown again."""
    assert Records().accept_again().kinds() == ["repeated"]
    assert Records().insert(Received(8, at(7), "m7", shown=False)).kinds() == ["repeated"]
    assert Records().accept_again(lost_at=9.5).change(10, shown=True).kinds() == ["repeated"]


def test_out_of_order() -> None:
    """Message 7 is received after message 8, and is missing until then."""
    late = Received(8, at(7), "m7")
    assert Records().skip(7).insert(late).kinds() == ["missing", "out of order"]


def test_invented() -> None:
    """A position, or a message at a position, that was never accepted."""
    assert Records().insert(Received(8, Position(7, 1), "x")).kinds() == ["invented"]
    assert Records().change(7, id="another").kinds() == ["invented", "missing"]


def test_false_gap() -> None:
    """A gap where nothing is lost, over what the client has, beyond its message, or over a copy that Redis has."""
    assert Records().report(8, 9).kinds() == ["false gap"]
    assert Records().remove(8, at=8.5).report(7, 9).kinds() == ["false gap"]
    assert Records().remove(9, at=8.5).change(8, gap=Gap(at(7), at(10))).kinds() == ["false gap"]
    assert Records().accept_again(lost_at=9.5).lose(10, at=15).report(9, 11).kinds() == ["false gap"]


def test_unreported_gap() -> None:
    """A loss without a gap, or beside a gap."""
    assert Records().lose(7, 8, at=7.5).kinds() == ["unreported gap"]
    assert Records().lose(7, 8, at=7.5).report(7, 9).kinds() == ["unreported gap"]


def test_late() -> None:
    """A client that is not away has not received the head after a healing, or does not know that the channel is up."""
    slow = Records()
    slow.a.received = [each._replace(at=each.at + 12) for each in slow.a.received]
    assert slow.kinds() == ["late"]
    assert Records().know(State(3, "down", "relay-1")).kinds() == ["late"]
    away = Records().lose(*range(3, 17), at=16).report(2, 17)
    assert away.kinds() == ["late"]
    away.a.away.append((3, 16.5))
    assert away.kinds() == []


def test_status() -> None:
    """A client does not know of a long outage, unless a fault between the client and its relay hides the outage."""
    cut, hang = ("cut", "relay-1>redis", 8, 18), ("hang", "relay-1>redis", 8, 18)
    assert Records().inject(("redis pause", "redis", 8, 18)).kinds() == ["status"]
    assert Records().inject(("cut", "relay-1>redis", 8, 13)).kinds() == [], "it was short"
    known = State(13.9, "down", "relay-1"), State(18, "up", "relay-1")
    assert Records().inject(cut).know(*known).kinds() == []
    assert Records().inject(hang, ("pause", "relay-1", 9, 12)).kinds() == []
    delayed = Records().inject(("hang", "relay-1>redis", 7, 11), ("redis pause", "redis", 8, 16))
    delayed.b.states.append(State(12, "down", "relay-2"))
    assert delayed.kinds() == [], "a connection that hung brings a delayed reply"


def test_leader() -> None:
    """The leader changes without a fault that reaches it."""
    assert Records().hand_over().kinds() == ["leader"]
    others = ("kill", "broadcaster-2", 8, 15), ("hang", "broadcaster-2>redis", 8, 15)
    assert Records().hand_over().inject(*others).kinds() == ["leader"]
    assert Records().hand_over().inject(*others, ("kill", "broadcaster-1", 8, 15)).kinds() == []


def test_leader_in_a_rollout() -> None:
    """The leader changes once the rollout terminates it, not before, and it never publishes again."""
    rolled = Records().hand_over("broadcaster-relay-3")
    assert rolled.inject(("terminate", "broadcaster-1", 8, 9.5)).kinds() == []
    early = ("terminate", "broadcaster-2", 8, 9), ("terminate", "broadcaster-1", 10.5, 11.5)
    assert rolled.inject(*early).kinds() == ["leader"]
    rolled.accepted[18].broadcaster = "broadcaster-1"
    assert rolled.inject(("terminate", "broadcaster-1", 3, 4)).kinds() == ["leader"]


def test_no_new_leader() -> None:
    """Nothing is accepted for long after the leader was killed, and no other fault is the reason."""
    kill = ("kill", "broadcaster-1", 10.5, 19)
    leaderless = Records().inject(kill)
    for entries in (leaderless.accepted, leaderless.a.received, leaderless.b.received):
        del entries[10:19]
    assert leaderless.kinds() == ["leader"]
    for client in (leaderless.a, leaderless.b):
        client.states += [State(12, "down", client.states[0].relay), State(18, "up", client.states[0].relay)]
    assert leaderless.inject(kill, ("redis kill", "redis", 12, 18)).kinds() == [], "Redis delays the new leader"
