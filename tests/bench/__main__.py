"""The command: `python -m tests.bench` measures the floor, hello and the installed peers, in turn.

The exit code is 1 if hello lost, repeated or reordered a message or closed a connection; the losses of a peer are only
reported. README.md in this folder has the method and the scenarios.
"""

# ruff: noqa: T201 # a command prints

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import report, rounds, standalone
from tests.bench.load import Load, Losses
from tests.bench.machine import Failed, build, cores, pinned, raise_file_limit
from tests.bench.peers import FOLDER
from tests.bench.rounds import SECONDS, Measure, Samples, Size
from tests.bench.servers import FLOOR, HELLO, NAMES, find
from tests.redis_server import NoRedisServer

Report = Callable[[Samples, Size], Iterable[str]]
# The rounds and the servers by default, what is measured, and its report.
COMPARISONS: dict[str, tuple[int, Sequence[str], Measure, Report]] = {
    "table": (5, NAMES, rounds.everything, report.overview),
    "pairs": (9, (FLOOR, HELLO), rounds.cpu_at_100, report.overview),
    "sizes": (1, NAMES, rounds.by_size, report.sizes),
}
QUICK = Size(rounds=1, clients=200, many_clients=1_000, seconds=1.0, minutes=1.0)
STANDALONE: dict[str, standalone.Scenario] = {
    "idle": standalone.idle,
    "firehose": standalone.firehose,
    "stampede": standalone.stampede,
    "soak": standalone.soak,
}


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.only and arguments.scenario in STANDALONE:
        parser.error(f"{arguments.scenario} measures hello alone: leave --only out")
    if not sys.platform.startswith("linux"):
        parser.error("the load tool needs Linux: it reads /proc and waits by epoll")
    size, most = _size(arguments), raise_file_limit()
    if max(size.clients, size.many_clients) > most:
        size = replace(size, clients=min(size.clients, most), many_clients=min(size.many_clients, most))
        print(f"`ulimit -Hn` allows {most:,} connections: the number of clients is reduced to that")
    server_core, load_core = cores()
    if server_core == load_core:
        print("server and load share the only core: the results mean little")
    measure = _compare if arguments.scenario in COMPARISONS else _alone
    try:
        with TemporaryDirectory(prefix="hello-bench-") as directory, pinned(load_core):
            results, losses = measure(arguments, Load(build("wsload", Path(directory))), size, Path(directory))
    except (Failed, NoRedisServer) as reason:
        sys.exit(f"failed: {reason}")
    if arguments.json:
        machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        document = {"scenario": arguments.scenario, "size": asdict(size), "machine": machine, **results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if losses else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure hello's fan-out beside the floor (one write() per delivery in C), and the peers in the"
        f" folder {FOLDER}.",
        epilog="table: all metrics of all servers. pairs: CPU per delivery of floor and hello, in short rounds. sizes:"
        " CPU and memory by the number of clients. Of hello alone: idle (many clients and no message), firehose (20,000"
        " msg/s), stampede (many clients resume at once), soak (memory over a long time).",
    )
    parser.add_argument(
        "--scenario", choices=[*COMPARISONS, *STANDALONE], default="table", help="what to measure (default: table)"
    )
    parser.add_argument("--rounds", type=int, help="number of rounds (default: table 5, pairs 9, sizes 1)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"of these: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="one short round with few clients")
    parser.add_argument("--clients", type=int, help="number of clients (default: 1000)")
    parser.add_argument("--many-clients", type=int, help="number of clients of tests with many (default: 10000)")
    parser.add_argument("--seconds", type=float, help=f"length of each phase (default: {SECONDS:g})")
    parser.add_argument("--minutes", type=float, help="length of a soak (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to this file")
    return parser


def _size(arguments: argparse.Namespace) -> Size:
    default_rounds = COMPARISONS[arguments.scenario][0] if arguments.scenario in COMPARISONS else 1
    usual = QUICK if arguments.quick else Size(default_rounds, 1_000, 10_000, SECONDS, minutes=60.0)
    return Size(**{name: getattr(arguments, name) or value for name, value in asdict(usual).items()})


def _compare(arguments: argparse.Namespace, load: Load, size: Size, logs: Path) -> tuple[dict[str, object], Losses]:
    _, names, measure, lines = COMPARISONS[arguments.scenario]
    samples = Samples()
    with suppress(KeyboardInterrupt):  # an interrupt ends the rounds, and the report follows
        rounds.compare(measure, load, find(logs, arguments.only or names), size, logs, samples)
    print(*lines(samples, size), sep="\n")
    losses = sum((row.losses for row in samples.rows if row.server == HELLO), Losses())
    return {"samples": [asdict(row) for row in samples.rows], "failures": samples.failures}, losses


def _alone(arguments: argparse.Namespace, load: Load, size: Size, logs: Path) -> tuple[dict[str, object], Losses]:
    lines, runs = STANDALONE[arguments.scenario](load, size, logs)
    losses = sum((run.losses for run in runs), Losses())
    print(*lines, f"{HELLO}: {losses}", sep="\n")
    return {"runs": [asdict(run) for run in runs]}, losses


if __name__ == "__main__":
    sys.exit(main())
