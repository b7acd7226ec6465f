"""The checker finds what it should: records of a clean run, doctored in one place each."""

from collections.abc import Callable

import pytest

from hello.message import Position
from tests.faults.checker import Accepted, ClientLog, Done, Finding, Healing, Seen, State, Told, check

COUNT = 20  # messages, one a second; message n is accepted and seen at second n


class Records:
    """A clean run: two clients that saw everything, a at relay-1 and b at relay-2."""

    def __init__(self) -> None:
        self.accepted = [Accepted(n, at(n), f"m{n}", "broadcaster-1") for n in range(1, COUNT + 1)]
        self.a, self.b = ClientLog("a"), ClientLog("b")
        self.healings = [Healing(5, at(5))]
        self.done: list[Done] = []
        for client, relay in ((self.a, "relay-1"), (self.b, "relay-2")):
            client.seen = [Seen(n, at(n), f"m{n}", True) for n in range(1, COUNT + 1)]
            client.states = [State(0, "up", relay)]

    def lose(self, *numbers: int, removed_at: float) -> None:
        """Client a does not see these, which were gone at that time."""
        for number in numbers:
            self.accepted[number - 1].removed_at = removed_at
        self.a.seen = [seen for seen in self.a.seen if seen.position.milliseconds not in numbers]

    def tell(self, after: int, before: int) -> None:
        """Client a is told a gap, together with what follows it."""
        self.a.gaps.append(Told(before, at(after), at(before)))

    def accept_again(self) -> None:
        """Message 9 is accepted once more, in the place of message 10, and nobody shows it again."""
        self.accepted[9] = Accepted(10, at(10), "m9", "broadcaster-1")
        for client in (self.a, self.b):
            client.seen[9] = Seen(10, at(10), "m9", False)

    def hand_over(self, to: str = "broadcaster-2") -> None:
        """From message 10 on another broadcaster speaks."""
        for entry in self.accepted[9:]:
            entry.broadcaster = to

    def check(self) -> list[Finding]:
        findings, _ = check(self.accepted, [self.a, self.b], self.healings, self.done, longest_pause=1)
        return findings


Doctor = Callable[[Records], None]
CASES: list[tuple[Doctor, set[str]]] = []


def finds(*kinds: str) -> Callable[[Doctor], Doctor]:
    def add(doctor: Doctor) -> Doctor:
        CASES.append((doctor, set(kinds)))
        return doctor

    return add


def at(number: int) -> Position:
    return Position(number, 0)


@finds()
def nothing_at_all(r: Records) -> None:
    pass


@finds()
def a_client_that_came_later(r: Records) -> None:
    del r.a.seen[:4]


@finds()
def a_gap_that_was_told_where_messages_are_gone(r: Records) -> None:
    r.lose(7, 8, removed_at=8.5)
    r.tell(6, 9)


@finds()
def a_message_accepted_again_after_a_loss(r: Records) -> None:
    r.accept_again()
    r.accepted[8].removed_at = 9.5


@finds()
def a_gap_over_a_message_accepted_again_that_is_gone_too(r: Records) -> None:
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    r.lose(10, removed_at=11)
    r.tell(9, 11)


@finds()
def a_client_that_was_away_as_all_was_healed(r: Records) -> None:
    r.lose(*range(3, 17), removed_at=16)
    r.tell(2, 17)
    r.a.away.append((3, 16.5))


@finds()
def a_short_outage_that_nobody_needs_to_be_told(r: Records) -> None:
    r.done.append(Done("cut", "relay-1>redis", 8, 13))


@finds()
def a_long_outage_that_was_told(r: Records) -> None:
    r.done.append(Done("cut", "relay-1>redis", 8, 18))
    r.a.states += [State(13.9, "down", "relay-1"), State(18, "up", "relay-1")]


@finds()
def a_long_outage_of_a_relay_that_stood_still(r: Records) -> None:
    r.done += [Done("hang", "relay-1>redis", 8, 18), Done("stop", "relay-1", 9, 12)]


@finds()
def an_outage_in_which_a_line_that_hung_brings_an_old_word(r: Records) -> None:
    r.done += [Done("hang", "relay-1>redis", 7, 11), Done("redis stop", "redis", 8, 16)]
    r.b.states.append(State(12, "down", "relay-2"))


@finds()
def a_voice_that_went_over_from_one_that_was_killed(r: Records) -> None:
    r.done.append(Done("kill", "broadcaster-1", 8, 15))
    r.hand_over()


@finds()
def a_voice_that_a_relay_took_over_as_a_rollout_replaced_the_broadcaster(r: Records) -> None:
    r.done.append(Done("term", "broadcaster-1", 8, 9.5))
    r.hand_over("broadcaster-relay-3")


@finds("missing")
def a_message_that_was_not_shown(r: Records) -> None:
    del r.a.seen[6]


@finds("missing")
def a_message_that_was_not_shown_and_is_gone_by_now(r: Records) -> None:
    r.lose(7, removed_at=15)


@finds("missing")
def a_message_that_came_and_was_not_shown(r: Records) -> None:
    r.a.seen[6] = Seen(7, at(7), "m7", False)


@finds("missing")
def a_message_told_as_lost_that_was_still_there(r: Records) -> None:
    r.lose(7, removed_at=5)
    r.lose(8, removed_at=12)
    r.tell(6, 9)


@finds("twice")
def a_message_shown_again(r: Records) -> None:
    r.a.seen.insert(7, Seen(8, at(7), "m7", True))


@finds("twice")
def a_message_that_a_relay_gave_again(r: Records) -> None:
    r.a.seen.insert(7, Seen(8, at(7), "m7", False))


@finds("twice")
def a_message_accepted_again_that_was_still_there(r: Records) -> None:
    r.accept_again()


@finds("out of order")
def two_messages_the_wrong_way_round(r: Records) -> None:
    r.a.seen[6:8] = r.a.seen[7], r.a.seen[6]


@finds("invented")
def a_message_that_was_never_accepted(r: Records) -> None:
    r.a.seen.insert(7, Seen(8, Position(7, 1), "x", True))


@finds("invented", "missing")
def another_message_than_the_accepted_one(r: Records) -> None:
    r.accepted[6].id = "another"


@finds("late")
def a_client_that_lagged_behind(r: Records) -> None:
    r.a.seen = [seen._replace(at=seen.at + 12) for seen in r.a.seen]


@finds("late")
def a_client_that_never_heard_that_the_channel_is_up(r: Records) -> None:
    r.a.states.append(State(3, "down", "relay-1"))


@finds("gap")
def a_gap_where_nothing_is_gone(r: Records) -> None:
    r.tell(8, 9)


@finds("gap")
def a_gap_where_everything_had_been_shown(r: Records) -> None:
    r.accepted[7].removed_at = 8.5
    r.tell(7, 9)


@finds("gap")
def a_gap_over_a_message_accepted_again_that_is_there(r: Records) -> None:
    r.accept_again()
    r.accepted[8].removed_at = 9.5
    r.lose(10, removed_at=15)
    r.tell(9, 11)


@finds("gap")
def a_loss_that_was_not_told(r: Records) -> None:
    r.lose(7, removed_at=7.5)


@finds("status")
def an_outage_that_was_not_told(r: Records) -> None:
    r.done.append(Done("redis stop", "redis", 8, 18))


@finds("voice")
def a_voice_that_changed_without_a_reason(r: Records) -> None:
    r.hand_over()


@finds("voice")
def a_voice_that_changed_as_something_befell_the_one_that_waits(r: Records) -> None:
    r.done += [Done("kill", "broadcaster-2", 8, 15), Done("hang", "broadcaster-2>redis", 8, 15)]
    r.hand_over()


@finds("voice")
def a_new_broadcaster_that_speaks_before_a_rollout_ends_the_old_one(r: Records) -> None:
    r.done += [Done("term", "broadcaster-2", 8, 9), Done("term", "broadcaster-1", 10.5, 11.5)]
    r.hand_over("broadcaster-3")


@finds("voice")
def a_broadcaster_that_speaks_again_after_a_rollout_ended_it(r: Records) -> None:
    r.done.append(Done("term", "broadcaster-1", 3, 4))
    r.hand_over()
    r.accepted[18].broadcaster = "broadcaster-1"


@finds("voice")
def a_voice_that_nobody_took_over(r: Records) -> None:
    r.done.append(Done("kill", "broadcaster-1", 10.5, 19))
    for entries in (r.accepted, r.a.seen, r.b.seen):
        del entries[10:19]


@pytest.mark.parametrize(("doctor", "kinds"), [pytest.param(*case, id=case[0].__name__) for case in CASES])
def test_a_record_has_exactly_these_findings(doctor: Doctor, kinds: set[str]) -> None:
    records = Records()
    doctor(records)
    assert {finding.kind for finding in records.check()} == kinds
