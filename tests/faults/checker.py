"""What was wrong in a run: a pure function from what was accepted, injected and received to findings.

It knows no process and no socket. All times are UNIX seconds by one clock.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from operator import attrgetter
from typing import NamedTuple

from hello.message import Position
from tests import promises
from tests.promises import Accepted, AcceptedLog, Finding, Reader, Received, State, seconds_to_down

CATCH_UP_SECONDS = 10.0  # after healing until every client has every message, and knows that the channel is up
DOWN_SECONDS = 6.0  # of an outage until a connected client knows that the channel is down
TAKEOVER_SECONDS = 5.0  # after the death of the leader until another broadcaster is the leader
SLACK_SECONDS = 1.0  # between an event and the moment when a busy observer notes it

ERROR = "error"  # a process ended by itself, did not end, or logged an error; a page reported one
KINDS = (*promises.KINDS, ERROR)


@dataclass
class ClientLog:
    """All that one client received, in order. `away` has the times, from and to, when it meant to be disconnected."""

    name: str
    received: list[Received] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    connections: int = 0
    start: Position | None = None  # of its stream, if it is known: it must receive all messages after it

    def copy(self) -> "ClientLog":
        received, states, away = list(self.received), list(self.states), list(self.away)
        return ClientLog(self.name, received, states, away, self.connections, self.start)

    def is_away(self, since: float, until: float) -> bool:
        return any(left <= until and back >= since for left, back in self.away)


class Injected(NamedTuple):
    """A fault as it was made, and its target: a process, a connection, `redis` or `every connection`.

    In a rollout each process that is terminated is one such fault, until it has ended.
    """

    kind: str
    target: str
    start: float
    end: float


class Healing(NamedTuple):
    """When all faults of a round had been healed, and the newest position then."""

    at: float
    head: Position


@dataclass
class Measurements:
    """The longest times, in seconds, of what was within its limit."""

    catch_up: float = 0.0
    down: float = 0.0
    takeovers: list[float] = field(default_factory=list)


def check(
    accepted: Sequence[Accepted],
    clients: Iterable[ClientLog],
    healings: Sequence[Healing],
    injected: Sequence[Injected],
    *,
    longest_interval: float,
) -> tuple[list[Finding], Measurements]:
    """Return all findings, and the measurements. `longest_interval` is that of the broadcasters, in seconds."""
    measured = Measurements()
    findings = check_accepted(accepted)
    log = AcceptedLog(accepted)
    for client in clients:
        reader = Reader(client.name, log, _is_lost, client.start)
        for message in client.received:
            findings += reader.receive(message)
        findings += check_healings(client, healings, measured)
        findings += check_status(client, injected, measured)
    findings += check_leader(accepted, injected, longest_interval, measured)
    return sorted(findings, key=attrgetter("at")), measured


def check_accepted(accepted: Sequence[Accepted]) -> list[Finding]:
    """A message is accepted again only after Redis lost it."""
    findings = []
    first: dict[str, Accepted] = {}
    for entry in accepted:
        if (before := first.get(entry.id)) is not None and not _is_lost(before, entry.at):
            text = f"{entry.id} was accepted at {entry.position}, and still is at {before.position}"
            findings.append(Finding("repeated", entry.at, text))
        first[entry.id] = entry
    return findings


def check_healings(client: ClientLog, healings: Sequence[Healing], measured: Measurements) -> list[Finding]:
    """Soon after each healing a connected client has every message, and knows that the channel is up."""
    findings = []
    for at, head in healings:
        if client.is_away(at - SLACK_SECONDS, at + CATCH_UP_SECONDS):
            continue
        number = bisect_left(client.received, head, key=attrgetter("position"))
        has_all = client.received[number].at if number < len(client.received) else inf
        number = bisect_left(client.states, at, key=attrgetter("at"))
        states = client.states[max(number - 1, 0) :]
        knows = next((max(state.at, at) for state in states if state.state == "up"), inf)
        seconds = max(has_all, knows, at) - at
        if seconds > CATCH_UP_SECONDS:
            what = f"has not received {head}" if has_all > knows else "does not know that the channel is up"
            findings.append(Finding("late", at, f"{client.name}: {what} {CATCH_UP_SECONDS:g} s after healing"))
        else:
            measured.catch_up = max(measured.catch_up, seconds)
    return findings


def check_status(client: ClientLog, injected: Sequence[Injected], measured: Measurements) -> list[Finding]:
    """A client that stays connected through an outage knows of it, unless its connection to the relay fails too."""
    findings = []
    for outage in injected:
        start, known = outage.start, outage.start + DOWN_SECONDS
        number = bisect_right(client.states, start, key=attrgetter("at"))
        if outage.end <= known or number == 0 or not _cuts_off(relay := client.states[number - 1].relay, outage):
            continue
        seconds = seconds_to_down(client.states, relay, start, DOWN_SECONDS)
        if seconds is None or any(_hides_outage(relay, start, known, each) for each in injected):
            continue
        if seconds == inf:
            text = f"{client.name}: does not know within {DOWN_SECONDS:g} s that the channel of {relay} is down"
            findings.append(Finding("status", start, text))
        else:
            measured.down = max(measured.down, seconds)
    return findings


def check_leader(
    accepted: Sequence[Accepted], injected: Sequence[Injected], longest_interval: float, measured: Measurements
) -> list[Finding]:
    """The leader changes only after a fault that reached the leader, and soon after the leader was killed."""
    findings = []
    limit = TAKEOVER_SECONDS + longest_interval + SLACK_SECONDS
    reasons = [each for each in injected if _may_reach_a_broadcaster(each)]
    for a, b in pairwise(accepted):
        if a.broadcaster != b.broadcaster and not any(
            _reaches_broadcaster(a.broadcaster, each) and each.start <= b.at and each.end + limit >= a.at
            for each in reasons
        ):
            text = f"{b.broadcaster} published {b.position} while {a.broadcaster} was the leader, without a reason"
            findings.append(Finding("leader", b.at, text))
    times = [entry.at for entry in accepted]
    for kill in (each for each in injected if each.kind == "kill"):
        number = bisect_left(times, kill.start)
        last = accepted[number - 1] if number else None
        if last is None or last.broadcaster != kill.target or last.at < kill.start - longest_interval - SLACK_SECONDS:
            continue  # the process was not the leader
        follower = next((e for e in accepted[number:] if e.broadcaster != kill.target or e.at > kill.end), None)
        seconds = follower.at - kill.start if follower else inf
        until = kill.start + min(seconds, limit)
        if any(each is not kill and each.start < until and each.end > kill.start for each in reasons):
            continue  # another fault delays the new leader
        if seconds > limit:
            findings.append(
                Finding("leader", kill.start, f"no new leader {seconds:.1f} s after {kill.target} was killed")
            )
        else:
            measured.takeovers.append(seconds)
    return findings


def _is_lost(entry: Accepted, at: float) -> bool:
    return entry.removed_at is not None and entry.removed_at <= at + SLACK_SECONDS


def _cuts_off(relay: str, fault: Injected) -> bool:
    """True if the fault is an outage of the channel for this relay."""
    if fault.target == "redis":
        return fault.kind not in ("redis out of memory", "redis clock back")  # reads go on
    return fault.kind in ("cut", "hang", "cut all") and fault.target in (f"{relay}>redis", "every connection")


def _hides_outage(relay: str, start: float, known: float, fault: Injected) -> bool:
    """True if the fault keeps `down` from the relay's clients, or brings the relay a delayed reply from Redis."""
    if fault.kind == "hang" and fault.target == f"{relay}>redis":
        return start < fault.end < known
    reaches_clients = fault.target in (relay, f"clients>{relay}", "every connection")
    return reaches_clients and fault.start < known and fault.end > start - SLACK_SECONDS


def _may_reach_a_broadcaster(fault: Injected) -> bool:
    """True for any process that may publish: its name begins with `broadcaster`, whether it is a relay too or not."""
    return fault.target in ("redis", "every connection") or fault.target.startswith("broadcaster")


def _reaches_broadcaster(name: str | None, fault: Injected) -> bool:
    return fault.target in ("redis", "every connection", "broadcasters", name, f"{name}>redis")
