"""The command: `python -m tests.bench` measures the floor, hello and the installed peers, in turn.

The exit code is 1 if hello lost, repeated or reordered a message or closed a connection; the losses of a peer are only
reported. README.md in this folder has the method and the scenarios.
"""

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import plot, report, standalone
from tests.bench.load import Load, Losses
from tests.bench.machine import Unfit, build, cores, pinned, raise_file_limit
from tests.bench.rounds import SECONDS, Measure, Samples, Size, by_size, compare, cpu_at_100, everything, sizes_up_to
from tests.bench.servers import FLOOR, HELLO, Failed, find
from tests.redis_server import NoRedisServer

ROUNDS = {"table": 5, "pairs": 9, "sizes": 1}
STANDALONE: dict[str, Callable[[float], standalone.Scenario]] = {
    "idle": lambda _minutes: standalone.idle,
    "firehose": lambda _minutes: standalone.firehose,
    "stampede": lambda _minutes: standalone.stampede,
    "soak": standalone.soak,
}
QUICK = Size(rounds=1, clients=200, many_clients=1_000, seconds=1.0)


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.plot and arguments.scenario != "sizes":
        parser.error("--plot draws what `--scenario sizes` measures")
    if arguments.only and arguments.scenario in STANDALONE:
        parser.error(f"{arguments.scenario} measures hello alone: leave --only out")
    if not sys.platform.startswith("linux"):
        parser.error("the load tool needs Linux: it reads /proc and waits by epoll")
    most = raise_file_limit()
    size = _size(arguments)
    if max(size.clients, size.many_clients) > most:
        size = Size(size.rounds, min(size.clients, most), min(size.many_clients, most), size.seconds)
        _print(f"`ulimit -Hn` allows {most:,} connections: the number of clients is reduced to that")
    server_core, load_core = cores()
    if server_core == load_core:
        _print("server and load share the only core: the results mean little")
    try:
        with TemporaryDirectory(prefix="hello-bench-") as directory, pinned(load_core):
            return _run(arguments, size, most, Path(directory))
    except (Unfit, NoRedisServer) as reason:
        parser.error(str(reason))
    except Failed as reason:
        _print(f"failed: {reason}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure hello's fan-out beside the floor (one write() per delivery in C) and the installed peers.",
        epilog="table: all metrics of all servers. pairs: CPU per delivery of floor and hello, in short rounds. sizes:"
        " CPU and memory by the number of clients. Of hello alone: idle (many clients and no message), firehose (20,000"
        " msg/s), stampede (many clients resume at once), soak (memory over a long time).",
    )
    parser.add_argument(
        "--scenario", choices=[*ROUNDS, *STANDALONE], default="table", help="what to measure (default: table)"
    )
    parser.add_argument("--rounds", type=_count, help="number of rounds (default: table 5, pairs 9, sizes 1)")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,...", help="only these servers")
    parser.add_argument("--quick", action="store_true", help="one short round with few clients")
    parser.add_argument("--clients", type=_count, help="number of clients (default: 1000)")
    parser.add_argument("--many-clients", type=_count, help="number of clients of tests with many (default: 10000)")
    parser.add_argument("--seconds", type=_length, help=f"length of each phase (default: {SECONDS:g})")
    parser.add_argument("--minutes", type=_length, default=60.0, help="length of a soak (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the samples of `--scenario sizes`")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _length(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: give a number above 0")
    return value


def _size(arguments: argparse.Namespace) -> Size:
    usual = QUICK if arguments.quick else Size(ROUNDS.get(arguments.scenario, 1), 1_000, 10_000, SECONDS)
    return Size(
        arguments.rounds or usual.rounds,
        arguments.clients or usual.clients,
        arguments.many_clients or usual.many_clients,
        arguments.seconds or usual.seconds,
    )


def _run(arguments: argparse.Namespace, size: Size, most: int, directory: Path) -> int:
    load = Load(build("wsload", directory))
    if scenario := STANDALONE.get(arguments.scenario):
        outcome = scenario(arguments.minutes)(load, size, directory)
        _print(*outcome.lines, f"{HELLO}: {outcome.losses}")
        _write(arguments, size, outcome.results)
        return 1 if outcome.losses else 0
    default = (FLOOR, HELLO) if arguments.scenario == "pairs" else None
    servers, absent = find(directory, arguments.only, default)
    _print(*(f"not installed: {line}" for line in absent))
    measure, lines = _comparison(arguments.scenario, size, most)
    samples = Samples()
    with suppress(KeyboardInterrupt):  # an interrupt ends the rounds, and the report follows
        compare(measure, load, servers, size, directory, samples)
    _print(*lines(samples))
    results: dict[str, object] = {"samples": [asdict(row) for row in samples.rows], "failures": samples.failures}
    _write(arguments, size, results)
    if arguments.plot:
        arguments.plot.write_text(plot.draw(plot.points(results)))
    lost = sum((row.losses for row in samples.rows if row.server == HELLO), Losses())
    return 1 if lost else 0


def _comparison(scenario: str, size: Size, most: int) -> tuple[Measure, Callable[[Samples], Iterable[str]]]:
    match scenario:
        case "pairs":
            return cpu_at_100, report.pairs
        case "sizes":
            return by_size(sizes_up_to(most)), report.sizes
        case _:
            return everything, lambda samples: report.overview(samples, size)


def _write(arguments: argparse.Namespace, size: Size, results: dict[str, object]) -> None:
    if arguments.json:
        machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
        document = {"scenario": arguments.scenario, "size": asdict(size), "machine": machine, **results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def _print(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201  a command's output


if __name__ == "__main__":
    sys.exit(main())
