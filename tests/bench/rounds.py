"""The comparisons: servers in turn, in several rounds, each started anew. What came of it is said in `report.py`."""

import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Channel, Load, Losses, Phase, Run, open_channel
from tests.bench.machine import cores
from tests.bench.servers import HELLO, Failed, Running, Server

FULL = 0.95  # a core that is busy for so much of the time has nothing left
GIVE_UP_SECONDS = 10  # after the last publishing: who cannot keep up is not waited for
GIVE_UP = ("--drain-max", str(GIVE_UP_SECONDS))

SECONDS = 4.0  # for each phase, unless told otherwise

SIZES = (10, 100, 1_000, 5_000, 10_000, 20_000)  # browsers
SIZES_DELIVERIES = 20_000  # a second, for all sizes alike ..
SIZES_RATE = 100.0  # .. but no more messages a second than this ..
SIZES_MESSAGES = 10  # .. and no fewer messages
LEAD = 10  # browsers that come and go first: what a server sets up for its first ones is not counted as theirs


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    browsers: int
    crowd: int
    seconds: float  # for each phase

    @property
    def scale(self) -> float:
        """How long a scenario with lengths of its own is to take, compared to them."""
        return self.seconds / SECONDS


@dataclass(frozen=True)
class Figure:
    """One thing that is measured of every server."""

    key: str
    title: str
    unit: str
    to_floor: bool = False  # whether the ratio to the floor's says something


FIGURES = (
    Figure("cpu_20", "CPU per delivery, 20 msg/s x {browsers:,}", "us", to_floor=True),
    Figure("cpu_100", "CPU per delivery, 100 msg/s x {browsers:,}", "us", to_floor=True),
    Figure("window_8", "8 messages in flight x {browsers:,}", "deliveries/s", to_floor=True),
    Figure("open_1000", "1,000 msg/s x {browsers:,}, open loop", "deliveries/s"),
    Figure("open_1000_p99", "the same: latency, 99th percentile", "ms"),
    Figure("connect_cpu", "{crowd:,} browsers connect: server's CPU", "s"),
    Figure("connect_wall", "the same: time", "s"),
    Figure("memory", "memory per browser at {crowd:,}", "KiB"),
    Figure("slowest", "until the slowest of {crowd:,} has a message", "ms", to_floor=True),
)


@dataclass(frozen=True)
class Sample:
    """One server in one round; `bound` names the figures in which the load tool was at its end, not the server."""

    server: str
    language: str
    round: int
    browsers: int
    figures: dict[str, float]
    losses: Losses
    bound: list[str] = field(default_factory=list)


@dataclass
class Samples:
    """What has been measured so far, and which servers failed and why."""

    rows: list[Sample] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


Measure = Callable[[Load, Server, Size, Path, int], Iterator[Sample]]


def compare(measure: Measure, load: Load, servers: list[Server], size: Size, logs: Path, samples: Samples) -> None:
    """Measure each server in each round. One that fails once is left out from then on.

    Raises Failed if hello fails.
    """
    for number in range(1, size.rounds + 1):
        for server in servers[:: 1 if number % 2 else -1]:  # there and back: a drift hits none of them more
            if server.name in samples.failures:
                continue
            _progress(f"round {number} of {size.rounds}: {server.name}")
            try:
                samples.rows.extend(measure(load, server, size, logs, number))
            except Failed as reason:
                if server.name == HELLO:
                    raise
                samples.failures[server.name] = str(reason)


@contextmanager
def started(server: Server, logs: Path) -> Iterator[tuple[Running, Channel]]:
    """The server, over a Redis of its own."""
    with open_channel() as channel, server.start(channel.server, logs) as running:
        yield running, channel


def everything(load: Load, server: Server, size: Size, logs: Path, number: int) -> Iterator[Sample]:
    """All figures of the table, of two starts: one for the browsers, one for the crowd."""
    rates = [_open_loop(20, size.seconds), _open_loop(100, size.seconds)]
    phases = [*rates, f"window_8:window=8:dur={size.seconds}", _open_loop(1000, size.seconds)]
    with started(server, logs) as (running, channel):
        run = load.run(server, running, channel, size.browsers, phases, *GIVE_UP, seconds=4 * size.seconds)
    at_20, at_100, window, at_1000 = run.phases
    messages = max(1, round(size.seconds))
    with started(server, logs) as (running, channel):
        phases = [f"slowest:rate=1:count={messages}"]
        crowd = load.run(server, running, channel, size.crowd, phases, *GIVE_UP, seconds=messages)
    figures = {
        "cpu_20": at_20.server_cpu_us_per_delivery,
        "cpu_100": at_100.server_cpu_us_per_delivery,
        "window_8": window.deliveries_per_s,
        "open_1000": at_1000.deliveries_per_s,
        "open_1000_p99": at_1000.latency_p99_ms,
        "connect_cpu": crowd.connect_server_cpu_s,
        "connect_wall": crowd.connect_s,
        "memory": crowd.server_rss_kib_per_conn,
        "slowest": crowd.phases[0].slowest_p50_ms,
    }
    bound = [key for key, phase in (("window_8", window), ("open_1000", at_1000)) if _bound(phase)]
    yield Sample(server.name, server.language, number, size.browsers, figures, run.losses + crowd.losses, bound)


def cpu_at_100(load: Load, server: Server, size: Size, logs: Path, number: int) -> Iterator[Sample]:
    """CPU per delivery at 100 msg/s, and nothing else: rounds are so short that they are a pair."""
    with started(server, logs) as (running, channel):
        phases = [_open_loop(100, size.seconds)]
        run = load.run(server, running, channel, size.browsers, phases, *GIVE_UP, seconds=size.seconds)
    figures = {"cpu_100": run.phases[0].server_cpu_us_per_delivery}
    yield Sample(server.name, server.language, number, size.browsers, figures, run.losses)


def sizes_up_to(most: int) -> list[int]:
    """The sizes to measure where a process can open so many connections; the last one is the most that it can."""
    return sorted({min(browsers, most) for browsers in SIZES})


def by_size(sizes: list[int]) -> Measure:
    """CPU per delivery and memory per browser at each of these sizes, of one start each."""

    def measure(load: Load, server: Server, size: Size, logs: Path, number: int) -> Iterator[Sample]:
        for browsers in sizes:
            _progress(f"  {browsers:,} browsers")
            rate = min(SIZES_RATE, SIZES_DELIVERIES / browsers)
            with started(server, logs) as (running, channel):
                load.run(server, running, channel, LEAD)
                seconds = max(size.seconds, SIZES_MESSAGES / rate)
                phases = [_open_loop(rate, seconds)]
                run = load.run(server, running, channel, browsers, phases, *GIVE_UP, seconds=seconds)
            yield Sample(server.name, server.language, number, browsers, _size_figures(run), run.losses)

    return measure


def median(rows: list[Sample], key: str) -> float:
    """Of one server's figure over the rounds."""
    return statistics.median(row.figures[key] for row in rows)


def _size_figures(run: Run) -> dict[str, float]:
    return {"cpu": run.phases[0].server_cpu_us_per_delivery, "memory": run.server_rss_kib_per_conn}


def _open_loop(rate: float, seconds: float) -> str:
    return f"rate_{rate:g}:rate={rate:g}:dur={seconds}"


def _bound(phase: Phase) -> bool:
    server_core, load_core = cores()
    return phase.cpu_busy[load_core] > FULL > phase.cpu_busy[server_core]


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a command that takes its time
