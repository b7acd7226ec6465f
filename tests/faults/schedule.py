"""Which faults come when: a pure function of a seed. It knows no process, and nothing of how a fault is made."""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

# A process is named by the part that it plays as the round begins.
RELAYS = ("first relay", "second relay")  # those that do nothing else
VOICES = ("speaker", "standby")  # who has the voice, and who waits for it; where combined, they are the relays too
PROCESSES = RELAYS + VOICES
LINKS = tuple(f"{process}>redis" for process in PROCESSES) + tuple(f"clients>{process}" for process in PROCESSES)
ALL_LINKS = "every link"

# What is replaced at once, and the processes that it consists of: the Deployments of each shape, and a whole shape by
# another one, which names the target.
REPLACED: dict[str, tuple[str, ...]] = {
    "relays": RELAYS,
    "broadcasters": VOICES,
    "combined relays": VOICES,
    "combined": PROCESSES,
    "split": VOICES,
}

# What a fault can be done to in one of the shapes only: it is not there in the other one.
FIRST_SHAPE = "split"
ABSENT: dict[str, Collection[str]] = {
    "split": {*(f"clients>{voice}" for voice in VOICES), "combined relays", "split"},
    "combined": {
        *RELAYS,
        *(f"{relay}>redis" for relay in RELAYS),
        *(f"clients>{relay}" for relay in RELAYS),
        *("relays", "broadcasters", "combined"),
    },
}

MOVED_CLOCK = "redis clock"

# Each kind of fault, and what it can be done to.
KINDS: dict[str, tuple[str, ...]] = {
    "kill": PROCESSES,  # kill -9, started again afterwards
    "stop": PROCESSES,  # SIGSTOP, SIGCONT
    "term": PROCESSES,  # SIGTERM, started again afterwards
    "cut": LINKS,
    "hang": LINKS,
    "delay": LINKS,
    "slice": LINKS,
    "reset": LINKS,
    "swallow": ("speaker>redis",),  # the reply to one publish
    "cut all": (ALL_LINKS,),
    "redis kill": ("redis",),  # kill -9, started again afterwards with its volume
    "redis term": ("redis",),  # the same with SIGTERM
    "redis stop": ("redis",),
    "redis loading": ("redis",),  # killed, and busy loading for so long when it starts again
    "redis memory": ("redis",),  # out of memory
    MOVED_CLOCK: ("redis",),  # set back
    "redis wipe": ("redis",),  # killed, started again with an empty volume
    "redis restore": ("redis",),  # killed, started again with an older snapshot of its volume
    "rollout": (
        "relays",
        "broadcasters",
        "combined relays",
    ),  # each replaced: the new one ready before the old one goes
    "switch": ("combined", "split"),  # to the other shape, by such a rollout
}
LOSSES = ("redis wipe", "redis restore")

INSTANT = ("reset", *LOSSES, "rollout", "switch")  # or as long as it takes

LATEST_START = 2.0  # seconds into the round
LONGEST = 10.0  # seconds that a fault lasts
USUAL = 5.0
BLIND_SECONDS = (4.0, 8.0)  # how long a relay is cut off around a loss, so that there is something that it never read


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
    """Faults that overlap. All is healed before the next round."""

    number: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return f"round {self.number}: " + "; ".join(map(str, self.faults))


def schedule(seed: int, kinds: Collection[str] = KINDS, *, singly_first: bool) -> Iterator[Round]:
    """Rounds without an end, dealt as from packs of cards: one card for each kind, two where it has many targets.

    With `singly_first` the first pack is dealt one fault a round; all else is mixed, one to three a round.
    """
    luck = random.Random(seed)
    shape = FIRST_SHAPE
    pack: list[str] = []
    cards = [kind for kind in sorted(kinds) for _ in range(2 if len(KINDS[kind]) > 1 else 1)]
    singles = len(cards) if singly_first else 0
    number = 0
    while True:
        number += 1
        size = 1 if number <= singles else luck.choices((1, 2, 3), (1, 2, 3))[0]
        faults: list[Fault] = []
        postponed: list[str] = []
        while len(faults) < size:
            if not pack:
                if postponed:
                    break  # nothing that is left goes with what this round has
                pack = luck.sample(cards, len(cards))
            kind = pack.pop(0)
            if fault := _fitting(kind, shape, faults, luck):
                faults.append(fault)
            else:
                postponed.append(kind)
        pack = postponed + pack
        if number > singles and any(fault.kind in LOSSES for fault in faults):
            faults += _blinded(shape, faults, luck)
        yield Round(number, tuple(faults))
        shape = next((fault.target for fault in faults if fault.kind == "switch"), shape)


def consists_of(target: str) -> set[str]:
    """The target, and what is replaced with it: two faults must not have any of it in common."""
    return {target, *REPLACED.get(target, ())}


def _fitting(kind: str, shape: str, faults: list[Fault], luck: random.Random) -> Fault | None:
    """A fault of this kind, at a target where it can be mixed with these; None if there is none."""
    targets = [
        target
        for target in KINDS[kind]
        if target not in ABSENT[shape]
        and not any(
            consists_of(target) & consists_of(f.target) or _spoils(kind, f.target) or _spoils(f.kind, target)
            for f in faults
        )
    ]
    if not targets:
        return None
    start = luck.uniform(LATEST_START / 2, LATEST_START) if kind in LOSSES else luck.uniform(0, LATEST_START)
    seconds = 0.0 if kind in INSTANT else luck.triangular(0.5, LONGEST, USUAL)
    return Fault(kind, luck.choice(targets), round(start, 2), round(seconds, 2))


def _spoils(kind: str, target: str) -> bool:
    """Whether this kind of fault cannot be mixed with one at that target."""
    if kind in LOSSES:
        # What cannot be told: a loss of which the process that publishes next, or all that read, know nothing.
        return target == ALL_LINKS or target.startswith(VOICES) or target in REPLACED
    if kind == "swallow":
        return target in ("redis", ALL_LINKS) or "speaker" in consists_of(target)  # nothing would be published
    return kind == "cut all" and ">" in target


def _blinded(shape: str, faults: list[Fault], luck: random.Random) -> list[Fault]:
    """Relays that are cut off from Redis while it loses something, often: none, one or both; none that speaks."""
    taken = {fault.target for fault in faults} | {*ABSENT[shape]}
    blind = luck.sample(RELAYS, luck.randint(0, len(RELAYS)))
    links = [f"{relay}>redis" for relay in blind if not {relay, f"{relay}>redis"} & taken]
    return [Fault("cut", link, 0.0, round(luck.uniform(*BLIND_SECONDS), 2)) for link in links]
