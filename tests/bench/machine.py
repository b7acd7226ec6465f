"""What a measurement needs of the machine: cores, file descriptors, a C compiler, and what Linux tells of processes.

It knows neither servers nor figures.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SPARE_FILES = 200  # descriptors that a server and the load tool need beside their connections

HERE = Path(__file__).parent


class Unfit(Exception):
    """Something that a measurement needs is missing here; the text says what to do."""


@cache
def cores() -> tuple[int, int]:
    """The core for the server, and the one for everything else: the load, the publisher and Redis.

    With one core both are the same: it works, but the figures mean little. It is decided once, by what this process
    may use then: before it is `pinned` itself.
    """
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1 % len(usable)]


@contextmanager
def pinned(*some: int) -> Iterator[None]:
    """Processes that are started inside run on these cores, and so do their threads and children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(some))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Let this process and its children open as many files as may be; how many connections that makes possible."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - SPARE_FILES


def build(name: str, directory: Path) -> Path:
    """Compile the C program of this name, and return where it is.

    Raises Unfit if there is no gcc.
    """
    if shutil.which("gcc") is None:
        raise Unfit("no gcc, which builds the load tool and the floor: install Debian's `gcc` and `libc6-dev`")
    program = directory / name
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(HERE / f"{name}.c"), "-lm"]
    subprocess.run(command, check=True)
    return program


def family(pid: int) -> list[int]:
    """The process, and all that descend from it."""
    pids = [pid]
    for each in pids:  # it grows meanwhile
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return pids


def resident(pids: list[int]) -> float:
    """The memory of these processes now, in MiB."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids) / 2**20
