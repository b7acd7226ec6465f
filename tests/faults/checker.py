"""Whether the promise held: a pure function from what was accepted, done and seen to findings.

It knows no process and no socket. All times are UNIX seconds by one clock.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from hello.message import Position

CATCH_UP_SECONDS = 10.0  # after healing everybody has everything, and knows that the channel is up
DOWN_SECONDS = 6.0  # after so much of an outage whoever is connected knows that the channel is down
TAKEOVER_SECONDS = 5.0  # after the death of the one that speaks the other one has the voice
SLACK_SECONDS = 1.0  # between the moment that something happens and the one when a busy observer notes it


# The six findings of the promise itself, and three of what else was promised.
SIX = ("missing", "twice", "out of order", "invented", "late", "gap")
FINDINGS = (*SIX, "status", "voice", "complaint")


class Finding(NamedTuple):
    """Something that should not have been: what kind of, when, and in words."""

    kind: str
    at: float
    text: str


@dataclass(slots=True)
class Accepted:
    """An entry that was in Redis's stream, and when it was first gone: lost by Redis, or passed by the history."""

    at: float
    position: Position
    id: str
    broadcaster: str
    removed_at: float | None = None

    def removed_by(self, at: float) -> bool:
        return self.removed_at is not None and self.removed_at <= at + SLACK_SECONDS


class Seen(NamedTuple):
    """A message that a relay gave; `shown` is False where the page's rules say that it was shown before."""

    at: float
    position: Position
    id: str
    shown: bool


class Told(NamedTuple):
    """A gap that was shown."""

    at: float
    after: Position
    before: Position


class State(NamedTuple):
    """What a client knew of the channel from then on: `up`, `down`, or `gone` while it is not connected."""

    at: float
    state: str
    relay: str


@dataclass
class ClientLog:
    """All that one client saw, in order. `away` has the times, from and to, when it did not want to be connected."""

    name: str
    seen: list[Seen] = field(default_factory=list)
    gaps: list[Told] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    connections: int = 0

    def copy(self) -> "ClientLog":
        lists = (list(self.seen), list(self.gaps), list(self.states), list(self.away))
        return ClientLog(self.name, *lists, self.connections)

    def is_away(self, since: float, until: float) -> bool:
        return any(gone <= until and back >= since for gone, back in self.away)


class Done(NamedTuple):
    """A fault that was made, and to what: a process, a link, `redis` or `every link`.

    Of a rollout each process that was told to stop is one, a `term` that ends as the process does.
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
class Figures:
    """The worst that was seen where it was still in order, in seconds."""

    catch_up: float = 0.0
    down: float = 0.0
    takeovers: list[float] = field(default_factory=list)


def check(
    accepted: Sequence[Accepted],
    clients: Iterable[ClientLog],
    healings: Sequence[Healing],
    done: Sequence[Done],
    *,
    longest_pause: float,
) -> tuple[list[Finding], Figures]:
    """All findings, and the figures. `longest_pause` is the broadcasters' own, in seconds."""
    figures = Figures()
    findings = accepted_twice(accepted)
    by_position = {entry.position: entry for entry in accepted}
    for client in clients:
        findings += check_seen(client, by_position)
        findings += check_gaps(client, accepted)
        findings += check_healings(client, healings, figures)
        findings += check_status(client, done, figures)
    findings += check_voice(accepted, done, longest_pause, figures)
    return sorted(findings, key=lambda finding: finding.at), figures


def accepted_twice(accepted: Sequence[Accepted]) -> list[Finding]:
    """A message may be accepted again only where Redis had lost it."""
    findings = []
    first: dict[str, Accepted] = {}
    for entry in accepted:
        if (before := first.get(entry.id)) is not None and not before.removed_by(entry.at):
            words = f"{entry.id} was accepted at {entry.position}, and still is at {before.position}"
            findings.append(Finding("twice", entry.at, words))
        first[entry.id] = entry
    return findings


def check_seen(client: ClientLog, by_position: Mapping[Position, Accepted]) -> list[Finding]:
    """Nothing twice, nothing out of order, nothing invented."""
    findings = []
    newest: Position | None = None
    positions: set[Position] = set()
    shown: set[str] = set()
    for seen in client.seen:
        entry = by_position.get(seen.position)
        wrong = []
        if entry is None or entry.id != seen.id:
            wrong.append(("invented", "it was never accepted"))
        if seen.position in positions or (seen.shown and seen.id in shown):
            wrong.append(("twice", "it was seen before"))
        elif newest is not None and seen.position < newest:
            wrong.append(("out of order", f"it came after {newest}"))
        if not seen.shown and seen.id not in shown:
            wrong.append(("missing", "it came, but was never shown"))
        findings += [
            Finding(kind, seen.at, f"{client.name}: {seen.id} at {seen.position}: {why}") for kind, why in wrong
        ]
        positions.add(seen.position)
        newest = max(newest, seen.position) if newest else seen.position
        if seen.shown:
            shown.add(seen.id)
    return findings


def check_gaps(client: ClientLog, accepted: Sequence[Accepted]) -> list[Finding]:
    """What a client did not see was lost, and the client was told; and what it was told is true.

    A message that was accepted again, after a loss, is another entry: one who has seen the first cannot be told apart
    from one who has not (`Entry.follows`) once the second is gone too.
    """
    if not client.seen:
        return []
    findings = []
    shown_at = {seen.id: seen.at for seen in client.seen if seen.shown}
    seen_at = {seen.position: seen.at for seen in client.seen}
    positions = [entry.position for entry in accepted]
    for gap in client.gaps:
        inside = accepted[bisect_left(positions, gap.after) : bisect_left(positions, gap.before)]
        if not any(
            entry.position > gap.after and entry.removed_by(gap.at) and seen_at.get(entry.position, gap.at) >= gap.at
            for entry in inside
        ):
            words = f"{client.name}: told that between {gap.after} and {gap.before} messages are lost, and none is"
            findings.append(Finding("gap", gap.at, words))
    seen_positions = [seen.position for seen in client.seen]
    first, last = seen_positions[0], seen_positions[-1]
    for entry in accepted[bisect_left(positions, first) : bisect_left(positions, last)]:
        if entry.id in shown_at:
            continue
        told = [gap for gap in client.gaps if gap.after < entry.position < gap.before]
        what = f"{client.name}: {entry.id} at {entry.position} of {entry.broadcaster}"
        passed_at = client.seen[bisect_left(seen_positions, entry.position)].at
        if not told and entry.removed_by(passed_at):
            findings.append(Finding("gap", entry.at, f"{what} is gone, and no gap was told"))
        elif not told:
            findings.append(Finding("missing", entry.at, f"{what} was not shown"))
        elif not any(entry.removed_by(gap.at) for gap in told):
            findings.append(Finding("missing", entry.at, f"{what} was told as lost, while Redis had it"))
    return findings


def check_healings(client: ClientLog, healings: Sequence[Healing], figures: Figures) -> list[Finding]:
    """Soon after each healing a client that is there has everything, and knows that the channel is up."""
    findings = []
    positions = [seen.position for seen in client.seen]
    for at, head in healings:
        if client.is_away(at - SLACK_SECONDS, at + CATCH_UP_SECONDS):
            continue
        number = bisect_left(positions, head)
        has_all = client.seen[number].at if number < len(positions) else float("inf")
        before = [state for state in client.states if state.at <= at][-1:]
        knows = next((max(s.at, at) for s in before + _after(client.states, at) if s.state == "up"), float("inf"))
        seconds = max(has_all, knows, at) - at
        if seconds > CATCH_UP_SECONDS:
            why = f"has not seen {head}" if has_all > knows else "does not know that the channel is up"
            findings.append(Finding("late", at, f"{client.name}: {why} {CATCH_UP_SECONDS:g} s after healing"))
        else:
            figures.catch_up = max(figures.catch_up, seconds)
    return findings


def check_status(client: ClientLog, done: Sequence[Done], figures: Figures) -> list[Finding]:
    """Who stays connected through an outage is told of it, unless something stands between it and its relay too."""
    findings = []
    for outage in done:
        start, known = outage.start, outage.start + DOWN_SECONDS
        number = bisect_right(client.states, start, key=lambda state: state.at)
        at_start = client.states[:number][-1:]
        if outage.end <= known or not at_start or not _takes_redis_from(relay := at_start[0].relay, outage):
            continue
        meanwhile = [s for s in _after(client.states, start) if s.at <= known]
        stayed = all(s.relay == relay and s.state != "gone" for s in at_start + meanwhile)
        if not stayed or any(_hides_outage(relay, start, known, d) for d in done):
            continue
        downs = [max(s.at, start) - start for s in at_start + meanwhile if s.state == "down"]
        if downs:
            figures.down = max(figures.down, downs[0])
        else:
            words = f"{client.name}: not told within {DOWN_SECONDS:g} s that the channel of {relay} is down"
            findings.append(Finding("status", start, words))
    return findings


def check_voice(
    accepted: Sequence[Accepted], done: Sequence[Done], longest_pause: float, figures: Figures
) -> list[Finding]:
    """The voice leaves a broadcaster with a reason of its own only, and soon after its death another one has it."""
    findings = []
    limit = TAKEOVER_SECONDS + longest_pause + SLACK_SECONDS
    reasons = [d for d in done if _moves_voice(d)]
    for a, b in pairwise(accepted):
        if a.broadcaster != b.broadcaster and not any(
            _takes_voice_from(a.broadcaster, d) and d.start <= b.at and d.end + limit >= a.at for d in reasons
        ):
            words = f"{b.broadcaster} spoke at {b.position} while {a.broadcaster} had the voice, without a reason"
            findings.append(Finding("voice", b.at, words))
    times = [entry.at for entry in accepted]
    for kill in (d for d in done if d.kind == "kill"):
        number = bisect_left(times, kill.start)
        last = accepted[number - 1] if number else None
        if last is None or last.broadcaster != kill.target or last.at < kill.start - longest_pause - SLACK_SECONDS:
            continue  # it was not the one that spoke
        follower = next((e for e in accepted[number:] if e.broadcaster != kill.target or e.at > kill.end), None)
        seconds = follower.at - kill.start if follower else float("inf")
        until = kill.start + min(seconds, limit)
        if any(d is not kill and d.start < until and d.end > kill.start for d in reasons):
            continue  # something else stood in the way
        if seconds > limit:
            words = f"nobody spoke for {seconds:.1f} s after {kill.target} was killed"
            findings.append(Finding("voice", kill.start, words))
        else:
            figures.takeovers.append(seconds)
    return findings


def _takes_redis_from(relay: str, done: Done) -> bool:
    if done.target == "redis":
        return done.kind not in ("redis memory", "redis clock")  # those are no outage for who only reads
    return done.kind in ("cut", "hang", "cut all") and done.target in (f"{relay}>redis", "every link")


def _hides_outage(relay: str, start: float, known: float, done: Done) -> bool:
    """Whether this keeps the relay's clients from being told, or brings the relay an old word from Redis meanwhile."""
    if done.kind == "hang" and done.target == f"{relay}>redis":
        return start < done.end < known
    between = done.target in (relay, f"clients>{relay}", "every link")
    return between and done.start < known and done.end > start - SLACK_SECONDS


def _moves_voice(done: Done) -> bool:
    """Whether this is done to any who may speak: their names begin with it, whether they are relays too or not."""
    return done.target in ("redis", "every link") or done.target.startswith("broadcaster")


def _takes_voice_from(speaker: str, done: Done) -> bool:
    return done.target in ("redis", "every link", "broadcasters", speaker, f"{speaker}>redis")


def _after(states: Sequence[State], at: float) -> list[State]:
    return [*states[bisect_left(states, at, key=lambda state: state.at) :]]
