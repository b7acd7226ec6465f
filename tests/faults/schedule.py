"""Which faults come when: a pure function of a seed. It knows no process, and nothing of how a fault is made."""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

# A process is named by its role as the round begins.
RELAYS = ("first relay", "second relay")  # relays that are no broadcasters
BROADCASTERS = ("leader", "standby")  # in the shape `combined` they are the relays too
PROCESSES = RELAYS + BROADCASTERS
CONNECTIONS = tuple(f"{process}>redis" for process in PROCESSES) + tuple(f"clients>{process}" for process in PROCESSES)
ALL_CONNECTIONS = "every connection"

# What is replaced at once, and the processes that it consists of: the Deployments of each shape, and a whole shape by
# another one, which names the target.
REPLACED: dict[str, tuple[str, ...]] = {
    "relays": RELAYS,
    "broadcasters": BROADCASTERS,
    "combined relays": BROADCASTERS,
    "combined": PROCESSES,
    "split": BROADCASTERS,
}

# The targets that a shape does not have.
FIRST_SHAPE = "split"
ABSENT: dict[str, Collection[str]] = {
    "split": {*(f"clients>{broadcaster}" for broadcaster in BROADCASTERS), "combined relays", "split"},
    "combined": {
        *RELAYS,
        *(f"{relay}>redis" for relay in RELAYS),
        *(f"clients>{relay}" for relay in RELAYS),
        *("relays", "broadcasters", "combined"),
    },
}

CLOCK_BACK = "redis clock back"
LOSE_REPLY: Final = "lose reply"

# Each kind of fault, with its targets. The order is part of what a seed means.
KINDS: dict[str, tuple[str, ...]] = {
    "cut": CONNECTIONS,
    "cut all": (ALL_CONNECTIONS,),
    "delay": CONNECTIONS,
    "hang": CONNECTIONS,
    "kill": PROCESSES,  # SIGKILL, started again afterwards
    CLOCK_BACK: ("redis",),
    "redis kill": ("redis",),  # SIGKILL, started again afterwards with its volume
    "redis loading": ("redis",),  # killed, and then loading for so long
    "redis out of memory": ("redis",),
    "redis restore": ("redis",),  # killed, started again with an older snapshot of its volume
    "redis pause": ("redis",),  # SIGSTOP, SIGCONT
    "redis terminate": ("redis",),  # SIGTERM, started again afterwards with its volume
    "redis wipe": ("redis",),  # killed, started again with an empty volume
    "reset": CONNECTIONS,
    "rollout": ("relays", "broadcasters", "combined relays"),  # a new process is ready before an old one ends
    "slice": CONNECTIONS,
    "pause": PROCESSES,  # SIGSTOP, SIGCONT
    LOSE_REPLY: ("leader>redis",),  # to one publish
    "switch": ("combined", "split"),  # to the other shape, by such a rollout
    "terminate": PROCESSES,  # SIGTERM, started again afterwards
}
LOSSES = ("redis wipe", "redis restore")

INSTANT = ("reset", *LOSSES, "rollout", "switch")  # or as long as it takes

LATEST_START = 2.0  # seconds into the round
LONGEST = 10.0  # seconds that a fault lasts
USUAL = 5.0
BLIND_SECONDS = (4.0, 8.0)  # for which a relay is cut off around a loss, so that there are entries that it never read


@dataclass(frozen=True)
class Fault:
    """One fault: `start` seconds into its round, for `seconds`."""

    kind: str
    target: str
    start: float
    seconds: float

    def __str__(self) -> str:
        length = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} ({self.target}) at {self.start:.1f} s{length}"


@dataclass(frozen=True)
class Round:
    """Faults that overlap. All are healed before the next round."""

    number: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return f"round {self.number}: " + "; ".join(map(str, self.faults))


def rounds(seed: int, kinds: Collection[str] = tuple(KINDS), *, singly_first: bool) -> Iterator[Round]:
    """Yield rounds without end: every kind comes once, or twice if it has many targets, and then every kind again.

    With `singly_first` each kind comes by itself at first; all other rounds have one to three faults.
    """
    rng = random.Random(seed)
    shape = FIRST_SHAPE
    waiting: list[str] = []
    cycle = [kind for kind in KINDS if kind in kinds for _ in range(2 if len(KINDS[kind]) > 1 else 1)]
    singles = len(cycle) if singly_first else 0
    number = 0
    while True:
        number += 1
        size = 1 if number <= singles else rng.choices((1, 2, 3), (1, 2, 3))[0]
        faults: list[Fault] = []
        postponed: list[str] = []
        while len(faults) < size:
            if not waiting:
                if postponed:
                    break  # no kind that is left can be mixed with the faults of this round
                waiting = rng.sample(cycle, len(cycle))
            kind = waiting.pop(0)
            if fault := _fitting(kind, shape, faults, rng):
                faults.append(fault)
            else:
                postponed.append(kind)
        waiting = postponed + waiting
        if number > singles and any(fault.kind in LOSSES for fault in faults):
            faults += _blinded(shape, faults, rng)
        yield Round(number, tuple(faults))
        shape = next((fault.target for fault in faults if fault.kind == "switch"), shape)


def consists_of(target: str) -> set[str]:
    """Return the target and what is replaced with it: two faults must not have any of it in common."""
    return {target, *REPLACED.get(target, ())}


def _fitting(kind: str, shape: str, faults: list[Fault], rng: random.Random) -> Fault | None:
    """Return a fault of this kind at a target where it can be mixed with these; None if there is no such target."""
    targets = [
        target
        for target in KINDS[kind]
        if target not in ABSENT[shape]
        and not any(
            consists_of(target) & consists_of(f.target) or _excludes(kind, f.target) or _excludes(f.kind, target)
            for f in faults
        )
    ]
    if not targets:
        return None
    start = rng.uniform(LATEST_START / 2, LATEST_START) if kind in LOSSES else rng.uniform(0, LATEST_START)
    seconds = 0.0 if kind in INSTANT else rng.triangular(0.5, LONGEST, USUAL)
    return Fault(kind, rng.choice(targets), round(start, 2), round(seconds, 2))


def _excludes(kind: str, target: str) -> bool:
    """True if this kind of fault cannot be mixed with a fault at that target."""
    if kind in LOSSES:
        # No reader can detect a loss if the next publisher, or every relay, has not seen the lost entries.
        return target == ALL_CONNECTIONS or target.startswith(BROADCASTERS) or target in REPLACED
    if kind == LOSE_REPLY:
        return target in ("redis", ALL_CONNECTIONS) or "leader" in consists_of(target)  # there would be no publish
    return kind == "cut all" and ">" in target


def _blinded(shape: str, faults: list[Fault], rng: random.Random) -> list[Fault]:
    """Return cuts of none, one or both of the relays from Redis around a loss; relays that publish are not cut off."""
    taken = {fault.target for fault in faults} | {*ABSENT[shape]}
    blind = rng.sample(RELAYS, rng.randint(0, len(RELAYS)))
    connections = [f"{relay}>redis" for relay in blind if not {relay, f"{relay}>redis"} & taken]
    return [Fault("cut", each, 0.0, round(rng.uniform(*BLIND_SECONDS), 2)) for each in connections]
