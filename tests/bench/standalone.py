"""The scenarios of hello alone: idle clients, a firehose, a stampede, a soak. Each returns its report and the runs."""

import random
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from tests.bench.load import HISTORY, Load, Run, open_channel
from tests.bench.machine import resident
from tests.bench.rounds import Size, started
from tests.bench.servers import hello

SETTLE_SECONDS = "2"  # from connecting to measuring
SAMPLE_SECONDS = 10.0  # between two measurements of the memory

STAMPEDE_BACK = 500  # messages; each client resumes at a random place among the newest of them
STAMPEDE_RATE = 10  # live messages a second
STAMPEDE_SECONDS = 10.0  # for each of three phases: before, during and after the stampede

Scenario = Callable[[Load, Size, Path], tuple[list[str], list[Run]]]


def idle(load: Load, size: Size, logs: Path) -> tuple[list[str], list[Run]]:
    """Many clients are connected and nothing is published: the relay sends beats only, some three of them."""
    phase = f"idle:idle={max(1.0, 30 * size.scale)}"
    return _measure(load, size.many_clients, logs, "--no-warmup", "--hold", SETTLE_SECONDS, "--phase", phase)


def firehose(load: Load, size: Size, logs: Path) -> tuple[list[str], list[Run]]:
    """A relay reads messages at a very high rate, and sends them to few clients."""
    return _measure(load, 100, logs, "--phase", f"firehose:rate=20000:count={round(200_000 * size.scale)}")


def soak(load: Load, size: Size, logs: Path) -> tuple[list[str], list[Run]]:
    """Memory over a long time at a high rate."""
    return _measure(load, 500, logs, "--phase", f"soak:rate=500:dur={60 * size.minutes}")


def _measure(load: Load, clients: int, logs: Path, *options: str) -> tuple[list[str], list[Run]]:
    """Return all that the load tool measured in one phase, and the relay's memory meanwhile."""
    with ExitStack() as stack:
        running, channel = stack.enter_context(started(hello(), logs))
        process = stack.enter_context(load.start(hello(), running, channel, clients, *options))
        mib = [resident(running.pids)]
        while not process.ended(SAMPLE_SECONDS):
            mib.append(resident(running.pids))
        run = process.result()
    (phase,) = run.phases
    quarter = -(-len(mib) // 4)
    first, last = (statistics.mean(part) for part in (mib[:quarter], mib[-quarter:]))
    lines = [
        f"{clients:,} clients, {run.server_rss_kib_per_conn:.2f} KiB per client",
        *(f"{name:<28}{value}" for name, value in asdict(phase).items()),
        f"memory: {first:.1f} MiB in the first quarter, {last:.1f} MiB in the last one ({last / first - 1:+.1%}),"
        f" {min(mib):.1f} to {max(mib):.1f} MiB in {len(mib)} samples",
    ]
    return lines, [run]


def stampede(load: Load, size: Size, logs: Path) -> tuple[list[str], list[Run]]:
    """Many clients resume at once, from a full log, while other clients receive live messages.

    The other clients receive through three phases: alone, during the stampede, and beside the resumed clients. The load
    tool prints each phase when it ends; then the next one begins.
    """
    count = max(3, round(STAMPEDE_RATE * STAMPEDE_SECONDS * size.scale))
    with open_channel() as channel, ExitStack() as stack:
        positions = channel.fill(HISTORY)
        calls = [channel.calls()]
        positions += channel.fill(1, first=HISTORY + 1)
        calls.append(channel.calls())
        per_message, _ = _calls(*calls)  # of the publisher and its script, once the log is full
        newest = len(positions)
        after = logs / "after"
        # Line i: the position at which client i resumes, and the number of the message there.
        starts = [random.randint(newest - STAMPEDE_BACK, newest - 1) for _ in range(size.many_clients)]
        after.write_text("".join(f"{positions[start - 1]} {start}\n" for start in starts))
        running = stack.enter_context(hello().start(channel.server, logs))
        watching = ["--no-warmup", "--first", str(newest + 1), "--hold", SETTLE_SECONDS]
        for name in ("alone", "stampede", "settled"):
            watching += ["--phase", f"{name}:rate={STAMPEDE_RATE}:count={count}"]
        resuming = ["--after-file", str(after), "--until", str(newest + 3 * count), "--tag", channel.tag]
        resuming += ["--inflight", str(size.many_clients)]
        others = stack.enter_context(load.start(hello(), running, channel, size.clients, *watching))
        others.read_to('"phases":[')
        calls[1:] = [channel.calls()]
        others.read_to('"name":"alone"')
        calls.append(channel.calls())
        many = stack.enter_context(load.start(hello(), running, None, size.many_clients, *resuming))
        others.read_to('"name":"stampede"')
        calls.append(channel.calls())
        live, resumed = others.result(), many.result()
    # A script calls PUBLISH once per message; the remaining commands are those of the relay.
    before, meanwhile = (
        total - published * per_message for total, published in (_calls(*pair) for pair in pairwise(calls[1:]))
    )
    lines = [
        f"{size.many_clients:,} clients resume at once among the last {STAMPEDE_BACK} of {HISTORY:,} messages:"
        f" connected in {resumed.connect_s:.2f} s, with {resumed.connect_server_cpu_s:.2f} s of CPU",
        f"live messages, {STAMPEDE_RATE}/s to {size.clients:,} other clients:",
        f"  {'':<24}{'p50':>9}{'p99':>9}{'max':>9}  ms",
    ]
    for title, phase in zip(("alone", "during the stampede", "beside all of them"), live.phases, strict=True):
        values = (phase.latency_p50_ms, phase.latency_p99_ms, phase.latency_max_ms)
        lines.append(f"  {title:<24}" + "".join(f"{value:>9.1f}" for value in values))
    lines.append(
        f"Redis commands of the relay during some {count} messages: {before} alone, {meanwhile} during the stampede"
    )
    return lines, [live, resumed]


def _calls(before: dict[str, int], after: dict[str, int]) -> tuple[int, int]:
    """Return how many commands Redis executed between the two counts, and how many of them were PUBLISH."""
    return sum(after.values()) - sum(before.values()), after["publish"] - before["publish"]
