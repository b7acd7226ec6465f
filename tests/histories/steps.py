"""The steps of a history: values that hypothesis draws, prints and shrinks, each of them a call of the harness."""

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import anyio
import trio
import trio.testing
from hypothesis import strategies as st

from tests.histories.harness import CLIENTS, Harness
from tests.promises import Finding


class Step(NamedTuple):
    """A method of the harness, or of its backend, and its arguments; `wait` alone takes time."""

    action: str
    arguments: tuple[object, ...] = ()


def wait(seconds: float) -> Step:
    return Step("wait", (seconds,))


_PROCESSES = range(4)
_ONE_OR_ALL = (None, *_PROCESSES)

# What makes a failing history simpler comes first.
_FAULTS = [
    [Step("cut", (process,)) for process in _ONE_OR_ALL],
    [Step("heal", (process,)) for process in _ONE_OR_ALL],
    [Step("client", (client, "leave")) for client in range(CLIENTS)],
    [Step("client", (client, "resume", relay)) for client in range(CLIENTS) for relay in range(3)],
    [Step("client", (client, "lag")) for client in range(CLIENTS)],
    [Step("client", (client, "catch_up")) for client in range(CLIENTS)],
    [Step("kill", (process,)) for process in _PROCESSES],
    [Step("stop", (process,)) for process in _PROCESSES],
    [Step("stop_relay_of", (client,)) for client in range(CLIENTS)],
    [Step("start", ("relay",)), Step("start", ("broadcaster,relay",))],
    [Step("start", ("broadcaster",))],
    [Step("lose_reply", ("publish", cut)) for cut in (False, True)],
    [Step("lose_reply", ("acquire", cut)) for cut in (False, True)],
    [Step("break_subscription", (process, batches)) for process in _PROCESSES for batches in (0, 1, 3)],
    [Step("hang", (process,)) for process in _PROCESSES],
    [Step("backend.wipe")],
    [Step("backend.save")],
    [Step("backend.restore"), Step("restore_unknown")],
    [Step("client", (client, name)) for name in ("reload", "refuse_position") for client in range(CLIENTS)],
    [Step("client", (client, "cut_after_welcome")) for client in range(CLIENTS)],
]
FAULTS = st.one_of(*map(st.sampled_from, _FAULTS))


def histories(*progress: Sequence[Step]) -> st.SearchStrategy[Sequence[Step]]:
    """Histories of some twenty steps on average: one of the steps `progress` follows every few faults."""
    few_faults = st.lists(FAULTS, max_size=3)
    chapter = st.tuples(few_faults, st.one_of(*map(st.sampled_from, progress)))
    chapters = st.lists(st.lists(chapter, max_size=4), max_size=10)
    return chapters.map(lambda drawn: [step for some in drawn for faults, last in some for step in (*faults, last)])


def run(shape: str, steps: Sequence[Step], *, history: int, hurry: bool, **flags: object) -> list[Finding]:
    """Return the findings of a history, over processes with these settings, in virtual time.

    Each step is taken once no task can run any more or, in a hurry, immediately after the step before.
    """
    harness: Harness

    async def live() -> None:
        nonlocal harness
        async with anyio.create_task_group() as group:
            harness = Harness(history, group, flags)
            await harness.begin(shape)
            for action, arguments in steps:
                if action == "wait":
                    await anyio.sleep(*arguments)  # type: ignore[arg-type]  # see `wait`
                    continue
                attrgetter(action)(harness)(*arguments)
                if not hurry:
                    await anyio.wait_all_tasks_blocked()
            await harness.end()
            group.cancel_scope.cancel()

    trio.run(live, clock=trio.testing.MockClock(autojump_threshold=0))
    return harness.checker.findings
