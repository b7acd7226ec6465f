"""The scenarios of hello alone: idle clients, a firehose, a stampede, a soak. Each one makes its own report."""

import os
import random
import statistics
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.bench.load import HISTORY, Load, Losses, Run, open_channel
from tests.bench.machine import resident
from tests.bench.rounds import Size, started
from tests.bench.servers import Failed, Running, hello

IDLE_SECONDS = 30.0  # three beats
SETTLE_SECONDS = "2"  # from connecting to measuring

FIREHOSE_RATE = 20_000  # messages a second
FIREHOSE_CLIENTS = 100
FIREHOSE_SECONDS = 10.0

STAMPEDE_BACK = 500  # messages; each client resumes at a random place among the newest of them
STAMPEDE_RATE = 10  # live messages a second
STAMPEDE_SECONDS = 10.0  # for each of three phases: before, during and after the stampede

SOAK_RATE = 500  # messages a second
SOAK_CLIENTS = 500
SOAK_SAMPLE_SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """The result of a scenario."""

    lines: list[str]
    results: dict[str, object]
    losses: Losses


Scenario = Callable[[Load, Size, Path], Outcome]


def idle(load: Load, size: Size, logs: Path) -> Outcome:
    """Many clients are connected and nothing is published: the relay sends beats only."""
    seconds = max(1.0, IDLE_SECONDS * size.scale)
    with started(hello(), logs) as (running, channel):
        options, phases = ("--no-warmup", "--hold", SETTLE_SECONDS), [f"idle:idle={seconds}"]
        run = load.run(hello(), running, channel, size.many_clients, phases, *options, seconds=seconds)
    (phase,) = run.phases
    line = (
        f"{size.many_clients:,} clients, idle for {seconds:g} s: {phase.server_cpu_share:.2%} of a core,"
        f" {phase.other_frames:,} frames (beats), {run.server_rss_kib_per_conn:.2f} KiB per client"
    )
    return Outcome([line], {"share": phase.server_cpu_share, "frames": phase.other_frames}, run.losses)


def firehose(load: Load, size: Size, logs: Path) -> Outcome:
    """A relay reads messages at a very high rate, and sends them to few clients."""
    seconds = FIREHOSE_SECONDS * size.scale
    with started(hello(), logs) as (running, channel):
        phases = [f"firehose:rate={FIREHOSE_RATE}:count={round(FIREHOSE_RATE * seconds)}"]
        run = load.run(hello(), running, channel, FIREHOSE_CLIENTS, phases, seconds=seconds)
    (phase,) = run.phases
    lines = [
        f"{phase.published:,} messages to {FIREHOSE_CLIENTS} clients in {phase.wall_s:.2f} s:"
        f" {phase.published / phase.wall_s:,.0f} messages/s, {phase.deliveries_per_s:,.0f} deliveries/s",
        f"the last message arrived {phase.lag_at_end_ms:,.0f} ms after it was published;"
        f" p99 {phase.latency_p99_ms:,.0f} ms; publishing was at most {phase.publish_late_max_ms:,.0f} ms late",
        f"busy: server {phase.server_cpu_share:.0%}, load tool {phase.client_cpu_share:.0%} of a core",
    ]
    results = {"wall_s": phase.wall_s, "lag_at_end_ms": phase.lag_at_end_ms, "p99_ms": phase.latency_p99_ms}
    return Outcome(lines, {**results, "published": phase.published}, run.losses)


def stampede(load: Load, size: Size, logs: Path) -> Outcome:
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
        until = newest + 3 * count
        after = logs / "after"
        # Line i: the position at which client i resumes, and the number of the message there.
        starts = [random.randint(newest - STAMPEDE_BACK, newest - 1) for _ in range(size.many_clients)]
        after.write_text("".join(f"{positions[start - 1]} {start}\n" for start in starts))
        running = stack.enter_context(hello().start(channel.server, logs))
        phases = [f"{name}:rate={STAMPEDE_RATE}:count={count}" for name in ("alone", "stampede", "settled")]
        watching = [argument for phase in phases for argument in ("--phase", phase)]
        watching += ["--no-warmup", "--first", str(newest + 1), "--hold", SETTLE_SECONDS]
        resuming = ["--after-file", str(after), "--until", str(until), "--inflight", str(size.many_clients)]
        resuming += ["--tag", channel.tag]
        with _LoadProcess(load.command(hello(), running, channel, size.clients, *watching)) as others:
            others.read_to('"phases":[')
            calls[1:] = [channel.calls()]
            others.read_to('"name":"alone"')
            calls.append(channel.calls())
            with _LoadProcess(load.command(hello(), running, None, size.many_clients, *resuming)) as many:
                others.read_to('"name":"stampede"')
                calls.append(channel.calls())
                live, resumed = others.result(), many.result()
    assert resumed.resume is not None
    alone, during, settled = live.phases
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
    for title, phase in (("alone", alone), ("during the stampede", during), ("beside all of them", settled)):
        values = (phase.latency_p50_ms, phase.latency_p99_ms, phase.latency_max_ms)
        lines.append(f"  {title:<24}" + "".join(f"{value:>9.1f}" for value in values))
    lines.append(
        f"Redis commands of the relay during some {count} messages: {before} alone, {meanwhile} during the stampede"
    )
    results = {
        "connect_s": resumed.connect_s,
        "p99_ms": {phase.name: phase.latency_p99_ms for phase in live.phases},
        "redis_commands": {"alone": before, "stampede": meanwhile},
    }
    return Outcome(lines, results, live.losses + resumed.losses)


def soak(minutes: float) -> Scenario:
    """Return the scenario that measures memory over a long time at a high rate."""

    def scenario(load: Load, _size: Size, logs: Path) -> Outcome:
        with started(hello(), logs) as (running, channel):
            phase = f"soak:rate={SOAK_RATE}:dur={60 * minutes}"
            with _LoadProcess(load.command(hello(), running, channel, SOAK_CLIENTS, "--phase", phase)) as clients:
                samples = _memory(clients, running)
                run = clients.result()
        quarter = max(1, len(samples) // 4)
        first, last = (statistics.mean(part) for part in (samples[:quarter], samples[-quarter:]))
        lines = [
            f"{run.phases[0].published:,} messages to {SOAK_CLIENTS} clients in {minutes:g} minutes:"
            f" p99 {run.phases[0].latency_p99_ms:.1f} ms",
            f"memory: {first:.1f} MiB in the first quarter, {last:.1f} MiB in the last one ({last / first - 1:+.1%}),"
            f" {min(samples):.1f} to {max(samples):.1f} MiB in {len(samples)} samples",
        ]
        return Outcome(lines, {"mib": samples}, run.losses)

    return scenario


class _LoadProcess:
    """A running load tool, whose output is read meanwhile. Leaving its `with` kills it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._output = b""

    def __enter__(self) -> "_LoadProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def read_to(self, text: str) -> None:
        """Return once the output contains this text.

        Raises Failed if the load tool ends before.
        """
        assert self._process.stdout is not None
        while text.encode() not in self._output:
            more = os.read(self._process.stdout.fileno(), 65536)
            if not more:
                self.result()
                raise Failed(f"the load tool ended before it printed {text}")
            self._output += more

    def ended(self, seconds: float) -> bool:
        """Wait for up to `seconds`; return True if the load tool has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def result(self) -> Run:
        """Return the result once the load tool has ended."""
        output, errors = self._process.communicate()
        return Load.result((self._output + output).decode(), errors.decode(), self._process.returncode)


def _memory(clients: _LoadProcess, running: Running) -> list[float]:
    samples = []
    while not clients.ended(SOAK_SAMPLE_SECONDS):
        samples.append(resident(running.pids))
    if not samples:
        samples.append(resident(running.pids))
    return samples


def _calls(before: dict[str, int], after: dict[str, int]) -> tuple[int, int]:
    """Return how many commands Redis executed between the two counts, and how many of them were PUBLISH."""
    return sum(after.values()) - sum(before.values()), after["publish"] - before["publish"]
