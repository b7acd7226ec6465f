"""What Kubernetes does with our two Deployments when an overlay is applied: which process starts and stops when.

It knows no process: how one is started and ended it is told.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import anyio

DEPLOYMENTS = ("relay", "broadcaster")

Running = TypeVar("Running")


def deployment(actors: str) -> str:
    """The Deployment of the process that runs these; the one that serves browsers is `relay` in both shapes."""
    return "relay" if "relay" in actors.split(",") else "broadcaster"


async def roll_out(
    running: Mapping[Running, str],
    wanted: Sequence[str],
    *,
    start: Callable[[str], Awaitable[Running]],
    end: Callable[[Running], Coroutine[Any, Any, None]],
) -> None:
    """Replace all that is running by what is wanted, both given by their actors, and return once the old have ended.

    Both Deployments roll at once, with `maxSurge: 1` and `maxUnavailable: 0` as kustomize/base has it. `start` returns
    once the new process is ready; `end` tells one to stop, and returns once it has ended.
    """
    async with anyio.create_task_group() as group:
        for name in DEPLOYMENTS:
            old = {process: actors for process, actors in running.items() if deployment(actors) == name}
            new = [actors for actors in wanted if deployment(actors) == name]
            group.start_soon(_roll, old, new, start, end)


async def _roll(
    old: Mapping[Running, str],
    wanted: Sequence[str],
    start: Callable[[str], Awaitable[Running]],
    end: Callable[[Running], Coroutine[Any, Any, None]],
) -> None:
    left = list(old)
    async with anyio.create_task_group() as group:  # who was told to stop drains while the next one starts
        # Where their number changes too, the old ReplicaSet is scaled first: there may be more of the old for a while.
        while len(left) > len(wanted):
            group.start_soon(end, left.pop())
        while 0 < len(left) < len(wanted):
            left.append(await start(old[left[0]]))
        for actors in wanted:
            await start(actors)
            if left:
                group.start_soon(end, left.pop())
