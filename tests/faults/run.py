"""One run: the system and its nemesis, the clients and the page, a check after every round, and the report."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from hello.message import Malformed
from tests.faults.checker import CATCH_UP_SECONDS, ERROR, KINDS, SLACK_SECONDS, ClientLog, Healing, Measurements, check
from tests.faults.clients import Behaviour, Client, PositionRejected
from tests.faults.nemesis import Nemesis, in_thread
from tests.faults.page import PageClient, chromium, open_page
from tests.faults.schedule import Round
from tests.promises import Finding
from tests.redis_server import RedisServer, can_move_clocks

INTERVALS = (0.05, 0.3)  # seconds between two messages
PER_SECOND = 5.0  # messages, about, without a fault
PRINTED_FINDINGS = 8  # the first ones
BEHAVIOURS: tuple[Behaviour, ...] = ("stays", "stays", "stays", "moves", "leaves")
SSE_EVERY = 6  # clients


@dataclass
class Report:
    """The result of a run."""

    seed: int
    rounds: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    measured: Measurements = field(default_factory=Measurements)
    counts: dict[str, int] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield the report, line by line."""
        kinds = Counter(finding.kind for finding in self.findings)
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        yield f"seed {self.seed}: {self.rounds} rounds in {self.seconds:.0f} s, {self.faults.total()} faults: {faults}"
        for kind in KINDS:
            yield f"  {kind:<28}{kinds[kind] or 'none':>8}"
        for name, count in self.counts.items():
            yield f"  {name:<28}{count:>8}"
        yield f"  {'slowest catch-up':<28}{self.measured.catch_up:>8.1f} s"
        yield f"  {'slowest status: down':<28}{self.measured.down:>8.1f} s"
        if takeovers := self.measured.takeovers:
            mean = sum(takeovers) / len(takeovers)
            yield f"  new leaders after a kill: {len(takeovers)}, mean {mean:.1f} s, slowest {max(takeovers):.1f} s"
        for finding in self.findings[:PRINTED_FINDINGS]:
            yield f"  {_clock(finding.at)} {finding.kind}: {finding.text}"
        if len(self.findings) > PRINTED_FINDINGS:
            yield f"  … and {len(self.findings) - PRINTED_FINDINGS} more"


class Run:
    """Goes through rounds until they end, the time is over, or there is a finding."""

    def __init__(self, rounds: Iterator[Round], seed: int, directory: Path, *, clients: int, history: int) -> None:
        (directory / "redis").mkdir(parents=True)
        server = RedisServer(directory / "redis", movable_clock=can_move_clocks())
        self.report = Report(seed)
        self._rounds = rounds
        self._nemesis = Nemesis(directory, server, history, INTERVALS)
        self._healings: list[Healing] = []
        self._errors: list[Finding] = []
        self._last_round = anyio.Event()
        self._clients = [
            Client(
                f"client-{number}",
                self._nemesis.service.port,
                sse=number % SSE_EVERY == 0,
                behaviour=BEHAVIOURS[number % len(BEHAVIOURS)],
                history_seconds=history / PER_SECOND,
                seed=seed,
            )
            for number in range(clients)
        ]

    async def run(self, minutes: float | None) -> Report:
        """Run for so long, or to the end of the rounds; a round that has begun is ended.

        Raises NoChromiumError if there is none.
        """
        program = await chromium()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._nemesis.running())
            page = await stack.enter_async_context(open_page(program, self._nemesis.service.port))
            group = await stack.enter_async_context(anyio.create_task_group())
            for client in self._clients:
                group.start_soon(self._run_client, client)
            await self._check_after_healing(page)
            try:
                for this_round in self._rounds:
                    if self.report.findings or (minutes is not None and self.report.seconds > minutes * 60):
                        break
                    await self._go_through(this_round, page)
                self._last_round.set()
                await self._check_after_healing(page)
            except* (TimeoutError, AssertionError) as errors:  # a fault could not be injected or healed in time
                for error in (*_texts(errors), *self._nemesis.take_errors()):
                    self._add_error(error)
            group.cancel_scope.cancel()
        return self.report

    async def _go_through(self, this_round: Round, page: PageClient) -> None:
        print(_clock(time.time()), this_round, flush=True)  # noqa: T201  so that a failure can be read
        self.report.rounds += 1
        self.report.faults.update(fault.kind for fault in this_round.faults)
        await self._nemesis.take_snapshot()
        await self._nemesis.inject(this_round)
        await self._nemesis.ready()
        await self._check_after_healing(page)

    async def _run_client(self, client: Client) -> None:
        try:
            await client.run(self._last_round)
        except (PositionRejected, Malformed) as error:
            self._add_error(f"{client.log.name}: {type(error).__name__}: {error}")

    async def _check_after_healing(self, page: PageClient) -> None:
        """Wait until every client has caught up, or the time for it is over, and check everything so far."""
        await self._nemesis.recorder.catch_up()
        healing = Healing(time.time(), self._nemesis.recorder.head)
        self._healings.append(healing)
        while time.time() < healing.at + CATCH_UP_SECONDS + SLACK_SECONDS:
            await page.collect()
            if all(_has_caught_up(log, healing) for log in self._logs(page)):
                break
            await anyio.sleep(0.1)  # between two checks of other tasks
        await page.collect()
        for error in self._nemesis.take_errors() + page.errors:
            self._add_error(error)
        page.errors.clear()
        # The logs are copied first: no client has received more than what the recorder reads afterwards.
        logs = [log.copy() for log in self._logs(page)]
        await self._nemesis.recorder.catch_up()
        accepted = list(self._nemesis.recorder.entries)
        injected = [*self._nemesis.injected]
        findings, self.report.measured = await in_thread(
            lambda: check(accepted, logs, list(self._healings), injected, longest_interval=INTERVALS[1])
        )
        self.report.findings = self._errors + findings
        if findings:
            (self._nemesis.directory / "records.txt").write_text("\n".join(map(str, [*accepted, *logs, *injected])))
        self.report.seconds = time.time() - self._healings[0].at
        received = [message for log in logs for message in log.received]
        self.report.counts = {
            "messages accepted": len(accepted),
            "of them lost or trimmed": sum(entry.removed_at is not None for entry in accepted),
            "messages received": len(received),
            "of them by the page": len(page.log.received),
            "gaps reported": sum(message.gap is not None for message in received),
            "connections": sum(log.connections for log in logs),
            "replies lost": self._nemesis.lost_replies,
            "processes replaced": self._nemesis.replaced,
        }

    def _logs(self, page: PageClient) -> list[ClientLog]:
        return [page.log, *(client.log for client in self._clients)]

    def _add_error(self, text: str) -> None:
        self._errors.append(Finding(ERROR, time.time(), text))
        self.report.findings.append(self._errors[-1])


def _texts(errors: BaseExceptionGroup[BaseException]) -> Iterator[str]:
    """Yield the text of each error in a group, and in the groups in it."""
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _texts(error)
        else:
            yield str(error)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _has_caught_up(log: ClientLog, healing: Healing) -> bool:
    if log.is_away(healing.at - SLACK_SECONDS, healing.at + CATCH_UP_SECONDS):
        return True
    has_all = bool(log.received) and log.received[-1].position >= healing.head
    return has_all and bool(log.states) and log.states[-1].state == "up"
