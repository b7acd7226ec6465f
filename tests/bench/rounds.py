"""The comparisons: several rounds, in each of which every server is started and measured. `report.py` prints them."""

# ruff: noqa: T201 # a command prints

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Channel, Load, Losses, Phase, open_channel
from tests.bench.machine import Failed, cores, raise_file_limit
from tests.bench.servers import HELLO, Running, Server

FULL = 0.95  # share of the time from which on a core counts as full
GIVE_UP_SECONDS = 10  # after the last publishing; messages that arrive later count as missing
GIVE_UP = ("--drain-max", str(GIVE_UP_SECONDS))

SECONDS = 4.0  # for each phase, by default

SIZES = (10, 100, 1_000, 5_000, 10_000, 20_000)  # clients
SIZES_DELIVERIES = 20_000  # a second, at each size, ..
SIZES_RATE = 100.0  # .. at no more messages a second than this ..
SIZES_MESSAGES = 10  # .. and for no fewer messages than this
LEAD = 10  # clients that connect before the measurement, so that one-time costs of the first ones are not counted


@dataclass(frozen=True)
class Size:
    """The size of a measurement."""

    rounds: int
    clients: int
    many_clients: int  # in the measurements of connecting, memory and the slowest client
    seconds: float  # for each phase
    minutes: float  # for a soak

    @property
    def scale(self) -> float:
        """The factor for scenarios whose phases have lengths of their own."""
        return self.seconds / SECONDS


@dataclass(frozen=True)
class Metric:
    """One quantity that is measured for every server."""

    key: str
    title: str
    unit: str
    to_floor: bool = False  # True if the ratio to the floor is shown


METRICS = (
    Metric("cpu_20", "CPU per delivery, 20 msg/s x {clients:,}", "us", to_floor=True),
    Metric("cpu_100", "CPU per delivery, 100 msg/s x {clients:,}", "us", to_floor=True),
    Metric("window_8", "8 messages in flight x {clients:,}", "deliveries/s", to_floor=True),
    Metric("open_1000", "1,000 msg/s x {clients:,}, open loop", "deliveries/s"),
    Metric("open_1000_p99", "1,000 msg/s x {clients:,}: latency, 99th percentile", "ms"),
    Metric("connect_cpu", "{many_clients:,} clients connect: CPU of the server", "s"),
    Metric("connect_wall", "{many_clients:,} clients connect: time", "s"),
    Metric("memory", "memory per client at {many_clients:,}", "KiB"),
    Metric("slowest", "until the slowest of {many_clients:,} has a message", "ms", to_floor=True),
)


@dataclass(frozen=True)
class Sample:
    """One server in one round; `bound` names the metrics that the load tool limited, not the server."""

    server: str
    language: str
    round: int
    clients: int
    metrics: dict[str, float]
    losses: Losses
    bound: list[str] = field(default_factory=list)


@dataclass
class Samples:
    """The samples so far, and the servers that failed, with the reason."""

    rows: list[Sample] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


Measure = Callable[[Load, Server, Size, Path, int], Iterator[Sample]]


def compare(measure: Measure, load: Load, servers: Sequence[Server], size: Size, logs: Path, samples: Samples) -> None:
    """Measure each server in each round, and add the samples to `samples`. A server that fails is then left out.

    Raises Failed if hello fails.
    """
    for number in range(1, size.rounds + 1):
        for server in servers[:: 1 if number % 2 else -1]:  # forth and back, so that a drift affects all servers alike
            if server.name in samples.failures:
                continue
            print(f"round {number} of {size.rounds}: {server.name}", file=sys.stderr)
            try:
                samples.rows.extend(measure(load, server, size, logs, number))
            except Failed as reason:
                if server.name == HELLO:
                    raise
                samples.failures[server.name] = str(reason)


@contextmanager
def started(server: Server, logs: Path) -> Iterator[tuple[Running, Channel]]:
    """Start the server, over a Redis of its own."""
    with open_channel() as channel, server.start(channel.server, logs) as running:
        yield running, channel


def everything(load: Load, server: Server, size: Size, logs: Path, number: int) -> Iterator[Sample]:
    """Measure all metrics of the table in two starts: one with `size.clients`, one with `size.many_clients`."""
    phases = [*_open_loop(20, size.seconds), *_open_loop(100, size.seconds)]
    phases += ["--phase", f"window_8:window=8:dur={size.seconds}", *_open_loop(1000, size.seconds)]
    with started(server, logs) as (running, channel):
        run = load.run(server, running, channel, size.clients, *phases, *GIVE_UP)
    at_20, at_100, window, at_1000 = run.phases
    phases = ["--phase", f"slowest:rate=1:count={max(1, round(size.seconds))}"]
    with started(server, logs) as (running, channel):
        many = load.run(server, running, channel, size.many_clients, *phases, *GIVE_UP)
    metrics = {
        "cpu_20": at_20.server_cpu_us_per_delivery,
        "cpu_100": at_100.server_cpu_us_per_delivery,
        "window_8": window.deliveries_per_s,
        "open_1000": at_1000.deliveries_per_s,
        "open_1000_p99": at_1000.latency_p99_ms,
        "connect_cpu": many.connect_server_cpu_s,
        "connect_wall": many.connect_s,
        "memory": many.server_rss_kib_per_conn,
        "slowest": many.phases[0].slowest_p50_ms,
    }
    bound = [key for key, phase in (("window_8", window), ("open_1000", at_1000)) if _bound(phase)]
    yield Sample(server.name, server.language, number, size.clients, metrics, run.losses + many.losses, bound)


def cpu_at_100(load: Load, server: Server, size: Size, logs: Path, number: int) -> Iterator[Sample]:
    """Measure CPU per delivery at 100 msg/s only: in such short rounds two servers meet the same machine."""
    with started(server, logs) as (running, channel):
        run = load.run(server, running, channel, size.clients, *_open_loop(100, size.seconds), *GIVE_UP)
    metrics = {"cpu_100": run.phases[0].server_cpu_us_per_delivery}
    yield Sample(server.name, server.language, number, size.clients, metrics, run.losses)


def by_size(load: Load, server: Server, size: Size, logs: Path, number: int) -> Iterator[Sample]:
    """Measure CPU per delivery and memory per client at each size that this machine allows, in one start each."""
    for clients in sorted({min(clients, raise_file_limit()) for clients in SIZES}):
        print(f"  {clients:,} clients", file=sys.stderr)
        rate = min(SIZES_RATE, SIZES_DELIVERIES / clients)
        phase = _open_loop(rate, max(size.seconds, SIZES_MESSAGES / rate))
        with started(server, logs) as (running, channel):
            load.run(server, running, channel, LEAD)
            run = load.run(server, running, channel, clients, *phase, *GIVE_UP)
        metrics = {"cpu": run.phases[0].server_cpu_us_per_delivery, "memory": run.server_rss_kib_per_conn}
        yield Sample(server.name, server.language, number, clients, metrics, run.losses)


def _open_loop(rate: float, seconds: float) -> tuple[str, str]:
    return "--phase", f"rate_{rate:g}:rate={rate:g}:dur={seconds}"


def _bound(phase: Phase) -> bool:
    server_core, load_core = cores()
    return phase.cpu_busy[load_core] > FULL > phase.cpu_busy[server_core]
