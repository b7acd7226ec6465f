"""The command: `python -m tests.faults --seed 1 --minutes 20` runs faults for so long, and reports."""

import argparse
import random
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import anyio

from tests.faults.run import Run
from tests.faults.schedule import CLOCK_BACK, KINDS, rounds
from tests.page.chromium import NoChromiumError
from tests.redis_server import NoRedisServer, can_move_clocks


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Kill, pause, cut off, restart, roll out and switch the processes of the system for as long as you"
        " like, and check what every client receives.",
    )
    parser.add_argument("--seed", type=int, default=None, help="repeats a schedule (default: a new seed, printed)")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (default: 20)")
    parser.add_argument("--clients", type=int, default=50, help="clients beside the page (default: 50)")
    parser.add_argument("--history", type=int, default=400, help="entries that are kept (default: 400, over a minute)")
    parser.add_argument("--mixed", action="store_true", help="do not begin with each kind of fault by itself")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    kinds = set(KINDS)
    if not can_move_clocks():
        kinds.remove(CLOCK_BACK)
        _print("Redis's clock is not set back: that takes libfaketime, and Python 3.11 or 3.12")
    directory = Path(tempfile.mkdtemp(prefix="hello-faults-"))
    _print(f"seed {seed}, {arguments.minutes:g} minutes, {arguments.clients} clients and a page; logs in {directory}")
    try:
        drawn = rounds(seed, kinds, singly_first=not arguments.mixed)
        run = Run(drawn, seed, directory, clients=arguments.clients, history=arguments.history)
        with suppress(KeyboardInterrupt):  # which still prints the report of the rounds so far
            anyio.run(run.run, arguments.minutes)
    except (NoRedisServer, NoChromiumError) as reason:
        parser.error(str(reason))
    for line in run.report.lines():
        _print(line)
    if run.report.findings:
        _print(f"repeat with the same options and --seed {seed}; the logs are in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201  a command that reports


if __name__ == "__main__":
    sys.exit(main())
