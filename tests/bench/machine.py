"""What a measurement needs from the machine: cores, file descriptors, a C compiler, processes and their memory.

It must not know servers or metrics.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SPARE_FILES = 200  # descriptors that a server or the load tool needs beside its connections

HERE = Path(__file__).parent


class Failed(Exception):
    """A measurement is impossible here, or a server or the load tool failed; the text of the error says how."""


@cache
def cores() -> tuple[int, int]:
    """Return the core for the server, and the core for the load tool and Redis; on one core both are the same.

    The first call decides, so it has to come before this process is `pinned` itself.
    """
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1 % len(usable)]


@contextmanager
def pinned(*some: int) -> Iterator[None]:
    """Run processes that are started inside, with their threads and children, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(some))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raise the limit of open files for this process and its children; return how many connections it allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - SPARE_FILES


def build(name: str, directory: Path) -> Path:
    """Compile the C program of this name, and return its path.

    Raises Failed if there is no gcc.
    """
    if shutil.which("gcc") is None:
        raise Failed("no gcc to build the load tool and the floor: install Debian's `gcc` and `libc6-dev`")
    program = directory / name
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(HERE / f"{name}.c"), "-lm"]
    subprocess.run(command, check=True)
    return program


def family(pid: int) -> list[int]:
    """Return the ids of the process and of all its descendants."""
    pids = [pid]
    for each in pids:  # the list grows meanwhile
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return pids


def resident(pids: list[int]) -> float:
    """Return the resident memory of these processes, in MiB."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids) / 2**20
