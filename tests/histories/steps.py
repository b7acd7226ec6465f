"""The steps of a history: values that hypothesis draws, prints and shrinks, each with what it does to a world.

A number of a process counts the living ones, and wraps round; None is all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
import trio
import trio.testing
from hypothesis import strategies as st

from hello.testing import Process
from tests.histories.checker import Finding, check
from tests.histories.world import PAGES, World

MOST_PROCESSES = 6  # at once


class Step(Protocol):
    """Something that happens."""

    def apply(self, world: World) -> None: ...


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: float

    def apply(self, world: World) -> None:
        """See `run`: it alone takes time."""


@dataclass(frozen=True)
class Publish:
    """A broadcaster is given so many messages to say."""

    count: int = 1
    by: int = 0

    def apply(self, world: World) -> None:
        world.publish(self.count, self.by)


@dataclass(frozen=True)
class Cut:
    """The channel is away."""

    process: int | None = None

    def apply(self, world: World) -> None:
        world.away = world.away or self.process is None
        for line in world.lines(self.process):
            line.cut()


@dataclass(frozen=True)
class Hang:
    """A process is deaf."""

    process: int

    def apply(self, world: World) -> None:
        for line in world.lines(self.process):
            line.hang()


@dataclass(frozen=True)
class Heal:
    """The channel is back, and whoever was deaf hears."""

    process: int | None = None

    def apply(self, world: World) -> None:
        world.heal(self.process)


@dataclass(frozen=True)
class LoseReply:
    """The next `publish` or `claim` is accepted without an answer, whoever asks, and that link may stay cut then."""

    to: str = "publish"
    cut: bool = False

    def apply(self, world: World) -> None:
        world.backend.loses_reply_to, world.backend.and_cuts = self.to, self.cut


@dataclass(frozen=True)
class Break:
    """The subscription of a process ends after so many more batches."""

    process: int
    batches: int = 0

    def apply(self, world: World) -> None:
        for line in world.lines(self.process):
            line.breaks_after = self.batches


@dataclass(frozen=True)
class Wipe:
    """The backend loses everything."""

    def apply(self, world: World) -> None:
        world.backend.wipe()


@dataclass(frozen=True)
class Save:
    """A snapshot of the backend is taken."""

    def apply(self, world: World) -> None:
        world.backend.save()


@dataclass(frozen=True)
class Restore:
    """The backend goes back to its snapshot."""

    def apply(self, world: World) -> None:
        world.backend.restore()


@dataclass(frozen=True)
class Kill:
    """SIGKILL."""

    process: int

    def apply(self, world: World) -> None:
        for process in world.one(self.process):
            world.kill(process)


@dataclass(frozen=True)
class Stop:
    """SIGTERM."""

    process: int

    def apply(self, world: World) -> None:
        for process in world.one(self.process):
            world.stop(process)


@dataclass(frozen=True)
class Move:
    """SIGTERM for the relay that a page is connected to."""

    page: int

    def apply(self, world: World) -> None:
        for process, _ in world.living:
            if process.instance == world.pages[self.page].relay:
                world.stop(process)


@dataclass(frozen=True)
class Start:
    """One more process."""

    actors: str

    def apply(self, world: World) -> None:
        if len(world.living) < MOST_PROCESSES:
            world.start(self.actors)


@dataclass(frozen=True)
class Leave:
    """A page is closed, or its network is."""

    page: int

    def apply(self, world: World) -> None:
        world.pages[self.page].leave()


@dataclass(frozen=True)
class Resume:
    """It comes back, to whichever relay."""

    page: int
    relay: int = 0

    def apply(self, world: World) -> None:
        world.pages[self.page].come(self.relay)


@dataclass(frozen=True)
class Lag:
    """A page reads nothing for a while."""

    page: int

    def apply(self, world: World) -> None:
        world.pages[self.page].lag()


@dataclass(frozen=True)
class CatchUp:
    """It reads again."""

    page: int

    def apply(self, world: World) -> None:
        world.pages[self.page].read()


_PROCESSES = range(4)
_SOME_OR_ALL = (None, *_PROCESSES)

# What takes no time; what makes a failing history simpler stands first.
FAULTS: st.SearchStrategy[Step] = st.one_of(
    *(
        st.sampled_from(steps)
        for steps in (
            [Cut(process) for process in _SOME_OR_ALL],
            [Heal(process) for process in _SOME_OR_ALL],
            [Leave(page) for page in range(PAGES)],
            [Resume(page, relay) for page in range(PAGES) for relay in range(3)],
            [Lag(page) for page in range(PAGES)],
            [CatchUp(page) for page in range(PAGES)],
            [Kill(process) for process in _PROCESSES],
            [Stop(process) for process in _PROCESSES],
            [Move(page) for page in range(PAGES)],
            [Start("relay"), Start("broadcaster,relay")],
            [Start("broadcaster")],
            [LoseReply("publish", cut) for cut in (False, True)],
            [LoseReply("claim", cut) for cut in (False, True)],
            [Break(process, batches) for process in _PROCESSES for batches in (0, 1, 3)],
            [Hang(process) for process in _PROCESSES],
            [Wipe()],
            [Save()],
            [Restore()],
        )
    )
)


def histories(*progress: Sequence[Step]) -> st.SearchStrategy[Sequence[Step]]:
    """Histories of some twenty steps on average: every few faults something goes on, by one of these steps."""
    few_faults = st.lists(FAULTS, max_size=3)
    chapter = st.tuples(few_faults, st.one_of(*map(st.sampled_from, progress)))
    chapters = st.lists(st.lists(chapter, max_size=4), max_size=10)
    return chapters.map(lambda drawn: [step for some in drawn for faults, last in some for step in (*faults, last)])


def run(
    kind: type[Process], shape: str, steps: Sequence[Step], *, history: int, hurry: bool, **flags: object
) -> list[Finding]:
    """Everything that was wrong in a history, over processes of a kind, on virtual time.

    Each step is taken once nothing moves any more or, in a hurry, in the same turn of the event loop as the one before.
    """
    world: World

    async def live() -> None:
        nonlocal world
        async with anyio.create_task_group() as group:
            world = World(kind, history, group, flags)
            await world.begin(shape)
            for step in steps:
                step.apply(world)
                if isinstance(step, Wait):
                    await anyio.sleep(step.seconds)
                elif not hurry:
                    await anyio.wait_all_tasks_blocked()
            await world.end()
            group.cancel_scope.cancel()

    trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))
    return check(world.record.events, history)
