"""The checker finds what it should in records of a clean run, changed in one place each, and nothing else."""

from hello.message import Gap, Position
from tests.faults.checker import ERROR, KINDS, ClientLog, Healing, Injected, check
from tests.promises import Accepted, Received, State

COUNT = 20  # messages, one a second; message n is accepted and received at second n


class Records:
    """A clean run: two clients that received everything, a from relay-1 and b from relay-2."""

    def __init__(self) -> None:
        self.accepted = [Accepted(n, at(n), f"m{n}", "broadcaster-1") for n in range(1, COUNT + 1)]
        self.a, self.b = ClientLog("a"), ClientLog("b")
        self.healings = [Healing(5, at(5))]
        self.injected: list[Injected] = []
        for client, relay in ((self.a, "relay-1"), (self.b, "relay-2")):
            client.received = [Received(n, at(n), f"m{n}") for n in range(1, COUNT + 1)]
            client.states = [State(0, "up", relay)]

    def lose(self, *numbers: int, removed_at: float) -> None:
        """Client a does not receive these messages, which were removed at that time."""
        for number in numbers:
            self.accepted[number - 1].removed_at = removed_at
        self.a.received = [each for each in self.a.received if each.position.milliseconds not in numbers]

    def report(self, after: int, before: int) -> None:
        """Client a receives a gap, with the message that follows the gap."""
        number = next(number for number, each in enumerate(self.a.received) if each.position == at(before))
        self.a.received[number] = self.a.received[number]._replace(gap=Gap(at(after), at(before)))

    def accept_again(self) -> None:
        """Message 9 is accepted again, in the place of message 10, and no client shows it again."""
        self.accepted[9] = Accepted(10, at(10), "m9", "broadcaster-1")
        for client in (self.a, self.b):
            client.received[9] = Received(10, at(10), "m9", shown=False)

    def hand_over(self, to: str = "broadcaster-2") -> None:
        """From message 10 on another broadcaster publishes."""
        for entry in self.accepted[9:]:
            entry.broadcaster = to

    def kinds(self) -> list[str]:
        """Return the kinds of the findings."""
        findings, _ = check(self.accepted, [self.a, self.b], self.healings, self.injected, longest_interval=1)
        return sorted({finding.kind for finding in findings})


def at(number: int) -> Position:
    return Position(number, 0)


def test_honest() -> None:
    """A clean run, also for a client that came later, has no finding."""
    r = Records()
    assert r.kinds() == []
    del r.a.received[:4]
    assert r.kinds() == []


def test_honest_gap() -> None:
    """A gap over lost messages, also over a lost copy, of which no relay knows whether the client has the first one."""
    r = Records()
    r.lose(7, 8, removed_at=8.5)
    r.report(6, 9)
    assert r.kinds() == []
    r = Records()
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    assert r.kinds() == []
    r.lose(10, removed_at=11)
    r.report(9, 11)
    assert r.kinds() == []


def test_missing() -> None:
    """A message is not received, or not shown, or reported as lost, while Redis has it."""
    r = Records()
    del r.a.received[6]
    assert r.kinds() == ["missing"]
    r = Records()
    r.lose(7, removed_at=15)  # later than the client received the next message
    assert r.kinds() == ["missing"]
    r = Records()
    r.a.received[6] = Received(7, at(7), "m7", shown=False)
    assert r.kinds() == ["missing"]
    r = Records()
    r.lose(7, removed_at=5)
    r.lose(8, removed_at=12)
    r.report(6, 9)
    assert r.kinds() == ["missing"]


def test_repeated() -> None:
    """A message is accepted again while Redis has it, received again, or shown again."""
    r = Records()
    r.accept_again()
    assert r.kinds() == ["repeated"]
    r = Records()
    r.a.received.insert(7, Received(8, at(7), "m7", shown=False))
    assert r.kinds() == ["repeated"]
    r = Records()
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    r.a.received[9] = Received(10, at(10), "m9")
    assert r.kinds() == ["repeated"]


def test_out_of_order() -> None:
    """Message 8 is received before message 7, which is missing at that moment."""
    r = Records()
    r.a.received[6:8] = r.a.received[7], r.a.received[6]
    assert r.kinds() == ["missing", "out of order"]


def test_invented() -> None:
    """A position, or a message at a position, that was never accepted."""
    r = Records()
    r.a.received.insert(7, Received(8, Position(7, 1), "x"))
    assert r.kinds() == ["invented"]
    r = Records()
    r.accepted[6].id = "another"
    assert r.kinds() == ["invented", "missing"]


def test_false_gap() -> None:
    """A gap where nothing is lost, over what the client has, beyond its message, or over a copy that Redis has."""
    r = Records()
    r.report(8, 9)
    assert r.kinds() == ["false gap"]
    r = Records()
    r.accepted[7].removed_at = 8.5
    r.report(7, 9)
    assert r.kinds() == ["false gap"]
    r = Records()
    r.accepted[8].removed_at = 8.5
    r.a.received[7] = r.a.received[7]._replace(gap=Gap(at(7), at(10)))
    assert r.kinds() == ["false gap"]
    r = Records()
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    r.lose(10, removed_at=15)
    r.report(9, 11)
    assert r.kinds() == ["false gap"]


def test_unreported_gap() -> None:
    """A loss without a gap, or beside a gap."""
    r = Records()
    r.lose(7, 8, removed_at=7.5)
    assert r.kinds() == ["unreported gap"]
    r.report(7, 9)
    assert r.kinds() == ["unreported gap"]


def test_late() -> None:
    """A client that is not away has not received the head after a healing, or does not know that the channel is up."""
    r = Records()
    r.a.received = [each._replace(at=each.at + 12) for each in r.a.received]
    assert r.kinds() == ["late"]
    r = Records()
    r.a.states.append(State(3, "down", "relay-1"))
    assert r.kinds() == ["late"]
    r = Records()
    r.lose(*range(3, 17), removed_at=16)
    r.report(2, 17)
    assert r.kinds() == ["late"]
    r.a.away.append((3, 16.5))
    assert r.kinds() == []


def test_status() -> None:
    """A client does not know of a long outage, unless a fault between the client and its relay hides the outage."""
    r = Records()
    r.injected.append(Injected("redis pause", "redis", 8, 18))
    assert r.kinds() == ["status"]
    r = Records()
    r.injected.append(Injected("cut", "relay-1>redis", 8, 13))
    assert r.kinds() == []
    r = Records()
    r.injected.append(Injected("cut", "relay-1>redis", 8, 18))
    r.a.states += [State(13.9, "down", "relay-1"), State(18, "up", "relay-1")]
    assert r.kinds() == []
    r = Records()
    r.injected += [Injected("hang", "relay-1>redis", 8, 18), Injected("pause", "relay-1", 9, 12)]
    assert r.kinds() == []
    r = Records()  # a connection that hung brings a delayed reply
    r.injected += [Injected("hang", "relay-1>redis", 7, 11), Injected("redis pause", "redis", 8, 16)]
    r.b.states.append(State(12, "down", "relay-2"))
    assert r.kinds() == []


def test_leader() -> None:
    """The leader changes without a fault that reaches it."""
    r = Records()
    r.hand_over()
    assert r.kinds() == ["leader"]
    r.injected += [Injected("kill", "broadcaster-2", 8, 15), Injected("hang", "broadcaster-2>redis", 8, 15)]
    assert r.kinds() == ["leader"]
    r.injected.append(Injected("kill", "broadcaster-1", 8, 15))
    assert r.kinds() == []


def test_leader_in_a_rollout() -> None:
    """The leader changes once the rollout terminates it, not before, and it never publishes again."""
    r = Records()
    r.injected.append(Injected("terminate", "broadcaster-1", 8, 9.5))
    r.hand_over("broadcaster-relay-3")
    assert r.kinds() == []
    r.injected = [Injected("terminate", "broadcaster-2", 8, 9), Injected("terminate", "broadcaster-1", 10.5, 11.5)]
    assert r.kinds() == ["leader"]
    r.injected = [Injected("terminate", "broadcaster-1", 3, 4)]
    r.accepted[18].broadcaster = "broadcaster-1"
    assert r.kinds() == ["leader"]


def test_no_new_leader() -> None:
    """Nothing is accepted for long after the leader was killed, and no other fault is the reason."""
    r = Records()
    r.injected.append(Injected("kill", "broadcaster-1", 10.5, 19))
    for entries in (r.accepted, r.a.received, r.b.received):
        del entries[10:19]
    assert r.kinds() == ["leader"]
    r.injected.append(Injected("redis kill", "redis", 12, 18))  # which delays the new leader
    for client in (r.a, r.b):
        client.states += [State(12, "down", client.states[0].relay), State(18, "up", client.states[0].relay)]
    assert r.kinds() == []


def test_each_kind_has_a_test() -> None:
    for kind in KINDS:
        assert kind == ERROR or f"test_{kind.replace(' ', '_')}" in globals()
