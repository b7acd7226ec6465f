"""The checker finds what it should in records of a clean run, changed in one place each, and nothing else."""

from collections.abc import Callable

import pytest

from hello.message import Gap, Position
from tests.faults.checker import ERROR, KINDS, ClientLog, Healing, Injected, check
from tests.promises import Accepted, Finding, Received, State

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

    def check(self) -> list[Finding]:
        findings, _ = check(self.accepted, [self.a, self.b], self.healings, self.injected, longest_interval=1)
        return findings


Change = Callable[[Records], None]
CASES: list[tuple[Change, set[str]]] = []


def finds(*kinds: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        CASES.append((change, set(kinds)))
        return change

    return add


def at(number: int) -> Position:
    return Position(number, 0)


@finds()
def honest(r: Records) -> None:
    pass


@finds()
def client_came_later(r: Records) -> None:
    del r.a.received[:4]


@finds()
def gap_over_lost_messages(r: Records) -> None:
    r.lose(7, 8, removed_at=8.5)
    r.report(6, 9)


@finds()
def accepted_again_after_a_loss(r: Records) -> None:
    r.accept_again()
    r.accepted[8].removed_at = 9.5


@finds()
def gap_over_a_lost_copy(r: Records) -> None:
    """Not even a relay can distinguish a client that has the first one from a client that has not."""
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    r.lose(10, removed_at=11)
    r.report(9, 11)


@finds()
def client_away_at_the_healing(r: Records) -> None:
    r.lose(*range(3, 17), removed_at=16)
    r.report(2, 17)
    r.a.away.append((3, 16.5))


@finds()
def short_outage_without_a_status(r: Records) -> None:
    r.injected.append(Injected("cut", "relay-1>redis", 8, 13))


@finds()
def long_outage_with_a_status(r: Records) -> None:
    r.injected.append(Injected("cut", "relay-1>redis", 8, 18))
    r.a.states += [State(13.9, "down", "relay-1"), State(18, "up", "relay-1")]


@finds()
def long_outage_of_a_paused_relay(r: Records) -> None:
    r.injected += [Injected("hang", "relay-1>redis", 8, 18), Injected("pause", "relay-1", 9, 12)]


@finds()
def outage_in_which_a_connection_that_hung_brings_a_delayed_reply(r: Records) -> None:
    r.injected += [Injected("hang", "relay-1>redis", 7, 11), Injected("redis pause", "redis", 8, 16)]
    r.b.states.append(State(12, "down", "relay-2"))


@finds()
def new_leader_after_a_kill(r: Records) -> None:
    r.injected.append(Injected("kill", "broadcaster-1", 8, 15))
    r.hand_over()


@finds()
def relay_becomes_leader_in_a_rollout(r: Records) -> None:
    r.injected.append(Injected("terminate", "broadcaster-1", 8, 9.5))
    r.hand_over("broadcaster-relay-3")


@finds("missing")
def not_received(r: Records) -> None:
    del r.a.received[6]


@finds("missing")
def not_received_and_removed_later(r: Records) -> None:
    r.lose(7, removed_at=15)


@finds("missing")
def received_and_not_shown(r: Records) -> None:
    r.a.received[6] = Received(7, at(7), "m7", shown=False)


@finds("missing")
def gap_over_a_kept_message(r: Records) -> None:
    r.lose(7, removed_at=5)
    r.lose(8, removed_at=12)
    r.report(6, 9)


@finds("repeated")
def shown_again(r: Records) -> None:
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    r.a.received[9] = Received(10, at(10), "m9")


@finds("repeated")
def received_again(r: Records) -> None:
    r.a.received.insert(7, Received(8, at(7), "m7", shown=False))


@finds("repeated")
def accepted_again_while_kept(r: Records) -> None:
    r.accept_again()


@finds("missing", "out of order")
def wrong_order(r: Records) -> None:
    r.a.received[6:8] = r.a.received[7], r.a.received[6]


@finds("invented")
def never_accepted(r: Records) -> None:
    r.a.received.insert(7, Received(8, Position(7, 1), "x"))


@finds("invented", "missing")
def another_message_at_the_position(r: Records) -> None:
    r.accepted[6].id = "another"


@finds("late")
def client_lags(r: Records) -> None:
    r.a.received = [each._replace(at=each.at + 12) for each in r.a.received]


@finds("late")
def client_does_not_know_that_the_channel_is_up(r: Records) -> None:
    r.a.states.append(State(3, "down", "relay-1"))


@finds("false gap")
def gap_without_a_loss(r: Records) -> None:
    r.report(8, 9)


@finds("false gap")
def gap_over_received_messages(r: Records) -> None:
    r.accepted[7].removed_at = 8.5
    r.report(7, 9)


@finds("false gap")
def gap_beyond_the_message(r: Records) -> None:
    r.accepted[8].removed_at = 8.5
    r.a.received[7] = r.a.received[7]._replace(gap=Gap(at(7), at(10)))


@finds("false gap")
def gap_over_a_kept_copy(r: Records) -> None:
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    r.lose(10, removed_at=15)
    r.report(9, 11)


@finds("unreported gap")
def loss_without_a_gap(r: Records) -> None:
    r.lose(7, removed_at=7.5)


@finds("unreported gap")
def loss_beside_a_gap(r: Records) -> None:
    r.lose(7, 8, removed_at=7.5)
    r.report(7, 9)


@finds("status")
def long_outage_without_a_status(r: Records) -> None:
    r.injected.append(Injected("redis pause", "redis", 8, 18))


@finds("leader")
def new_leader_without_a_reason(r: Records) -> None:
    r.hand_over()


@finds("leader")
def new_leader_after_faults_of_the_standby(r: Records) -> None:
    r.injected += [Injected("kill", "broadcaster-2", 8, 15), Injected("hang", "broadcaster-2>redis", 8, 15)]
    r.hand_over()


@finds("leader")
def new_leader_before_a_rollout_ends_the_old_one(r: Records) -> None:
    r.injected += [Injected("terminate", "broadcaster-2", 8, 9), Injected("terminate", "broadcaster-1", 10.5, 11.5)]
    r.hand_over("broadcaster-3")


@finds("leader")
def terminated_leader_publishes_again(r: Records) -> None:
    r.injected.append(Injected("terminate", "broadcaster-1", 3, 4))
    r.hand_over()
    r.accepted[18].broadcaster = "broadcaster-1"


@finds("leader")
def no_new_leader(r: Records) -> None:
    r.injected.append(Injected("kill", "broadcaster-1", 10.5, 19))
    for entries in (r.accepted, r.a.received, r.b.received):
        del entries[10:19]


@pytest.mark.parametrize(("change", "kinds"), [pytest.param(*case, id=case[0].__name__) for case in CASES])
def test_findings(change: Change, kinds: set[str]) -> None:
    """A record has exactly the findings of its change."""
    records = Records()
    change(records)
    assert {finding.kind for finding in records.check()} == kinds


def test_each_kind_has_a_record() -> None:
    assert {kind for _, kinds in CASES for kind in kinds} == {*KINDS} - {ERROR}
