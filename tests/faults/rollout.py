"""The order in which Kubernetes starts and ends our processes when an overlay is applied.

It knows no process: the caller starts and ends them.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import anyio

ALL = 1_000  # as `maxSurge: 100%`: more processes than any test replaces
DEPLOYMENTS = ("relay", "broadcaster")

Running = TypeVar("Running")


def deployment(actors: str) -> str:
    """Return the Deployment of a process with these actors; in both shapes `relay` is the one that serves clients."""
    return "relay" if "relay" in actors.split(",") else "broadcaster"


async def roll_out(
    running: Mapping[Running, str],
    wanted: Sequence[str],
    *,
    start: Callable[[str], Awaitable[Running]],
    end: Callable[[Running], Coroutine[Any, Any, None]],
    surge: int = ALL,
) -> None:
    """Replace the running processes by the wanted ones, both given by their actors; return once the old have ended.

    Both Deployments roll at once, with `maxSurge: 100%` (or `surge`) and `maxUnavailable: 0` as in kustomize/base.
    `start` returns once the new process is available; `end` terminates a process, and returns once it has ended.
    """
    async with anyio.create_task_group() as group:
        for name in DEPLOYMENTS:
            old = {process: actors for process, actors in running.items() if deployment(actors) == name}
            new = [actors for actors in wanted if deployment(actors) == name]
            group.start_soon(_roll, old, new, start, end, surge)


async def _roll(
    old: Mapping[Running, str],
    wanted: Sequence[str],
    start: Callable[[str], Awaitable[Running]],
    end: Callable[[Running], Coroutine[Any, Any, None]],
    surge: int,
) -> None:
    left, starting = list(old), anyio.Semaphore(surge)

    async def replace(actors: str) -> None:
        async with starting:
            await start(actors)
        if left:  # one old process for each new one that is available
            group.start_soon(end, left.pop())

    async with anyio.create_task_group() as group:  # a terminated process drains while the next one starts
        # If the number of replicas changes too, the old ReplicaSet is scaled first: it may grow before it is replaced.
        while len(left) > len(wanted):
            group.start_soon(end, left.pop())
        while 0 < len(left) < len(wanted):
            left.append(await start(old[left[0]]))
        for actors in wanted:
            group.start_soon(replace, actors)
