"""One run: the system under its nemesis, the clients and the page, a check after every round, and the report."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from tests.faults.checker import (
    CATCH_UP_SECONDS,
    FINDINGS,
    SIX,
    SLACK_SECONDS,
    ClientLog,
    Figures,
    Finding,
    Healing,
    check,
)
from tests.faults.clients import Client, PositionRefused
from tests.faults.nemesis import Nemesis, in_thread
from tests.faults.page import PageClient, chromium, open_page
from tests.faults.schedule import Round
from tests.redis_server import RedisServer

PAUSES = (0.05, 0.3)  # seconds between two messages
PER_SECOND = 5.0  # messages, about, while nothing is wrong
FIRST_FINDINGS = 8  # that are told in words
MANNERS = ("stays", "stays", "stays", "hops", "wanders")
SSE_EVERY = 6  # clients


@dataclass
class Report:
    """What a run came to."""

    seed: int
    rounds: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    counts: dict[str, int] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The report as people read it."""
        kinds = Counter(finding.kind for finding in self.findings)
        yield (
            f"seed {self.seed}: {self.rounds} rounds in {self.seconds:.0f} s, {self.faults.total()} faults: "
            + ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        )
        for kind in FINDINGS:
            words = "" if kind in SIX else " (beside the six)"
            yield f"  {kind:<14}{kinds[kind] or 'none':>6}{words}"
        for name, count in self.counts.items():
            yield f"  {name:<28}{count:>8}"
        yield f"  {'slowest catch-up':<28}{self.figures.catch_up:>8.1f} s"
        yield f"  {'slowest status: down':<28}{self.figures.down:>8.1f} s"
        takeovers = self.figures.takeovers
        if takeovers:
            mean = sum(takeovers) / len(takeovers)
            yield f"  takeovers after a kill: {len(takeovers)}, mean {mean:.1f} s, slowest {max(takeovers):.1f} s"
        for finding in self.findings[:FIRST_FINDINGS]:
            yield f"  {_clock(finding.at)} {finding.kind}: {finding.text}"
        if len(self.findings) > FIRST_FINDINGS:
            yield f"  … and {len(self.findings) - FIRST_FINDINGS} more"


class Run:
    """Goes through rounds until they end, the time is over, or there is a finding."""

    def __init__(
        self, rounds: Iterator[Round], seed: int, directory: Path, *, clients: int, history: int, movable_clock: bool
    ) -> None:
        (directory / "redis").mkdir(parents=True)
        server = RedisServer(directory / "redis", movable_clock=movable_clock)
        self.report = Report(seed)
        self._rounds = rounds
        self._nemesis = Nemesis(directory, server, history, PAUSES)
        self._healings: list[Healing] = []
        self._complaints: list[Finding] = []
        self._home = anyio.Event()
        self._clients = [
            Client(
                f"client-{number}",
                self._nemesis.relays,
                sse=number % SSE_EVERY == 0,
                manner=MANNERS[number % len(MANNERS)],
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
                group.start_soon(self._be, client)
            await self._heal(page)
            try:
                for this_round in self._rounds:
                    if self.report.findings or (minutes is not None and self.report.seconds > minutes * 60):
                        break
                    await self._go_through(this_round, page)
                self._home.set()
                await self._heal(page)
            except* (TimeoutError, AssertionError) as errors:  # what the nemesis does has not come to its end
                for complaint in (*_words(errors), *self._nemesis.look_for_complaints()):
                    self._complain(complaint)
            group.cancel_scope.cancel()
        return self.report

    async def _go_through(self, this_round: Round, page: PageClient) -> None:
        print(_clock(time.time()), this_round, flush=True)  # noqa: T201  so that a failure can be read
        self.report.rounds += 1
        self.report.faults.update(fault.kind for fault in this_round.faults)
        await self._nemesis.take_snapshot()
        await self._nemesis.strike(this_round)
        await self._nemesis.ready()
        await self._heal(page)

    async def _be(self, client: Client) -> None:
        try:
            await client.run(self._home)
        except PositionRefused as refused:
            self._complain(f"a position was refused: {refused}")

    async def _heal(self, page: PageClient) -> None:
        """Wait until everybody has caught up, or should have, and check everything that there is by now."""
        await self._nemesis.recorder.catch_up()
        healing = Healing(time.time(), self._nemesis.recorder.head)
        self._healings.append(healing)
        while time.time() < healing.at + CATCH_UP_SECONDS + SLACK_SECONDS:
            await page.collect()
            if all(_has_caught_up(log, healing) for log in self._logs(page)):
                break
            await anyio.sleep(0.1)  # between two looks at what others do
        await page.collect()
        for complaint in self._nemesis.look_for_complaints() + page.complaints:
            self._complain(complaint)
        page.complaints.clear()
        # Nobody has seen more than what the recorder has read by the time that the logs are copied.
        logs = [log.copy() for log in self._logs(page)]
        await self._nemesis.recorder.catch_up()
        accepted = list(self._nemesis.recorder.entries)
        done = [*self._nemesis.done]
        findings, self.report.figures = await in_thread(
            lambda: check(accepted, logs, list(self._healings), done, longest_pause=PAUSES[1])
        )
        self.report.findings = self._complaints + findings
        if findings:
            (self._nemesis.directory / "records.txt").write_text("\n".join(map(str, [*accepted, *logs, *done])))
        self.report.seconds = time.time() - self._healings[0].at
        self.report.counts = {
            "messages accepted": len(accepted),
            "of them removed": sum(entry.removed_at is not None for entry in accepted),
            "clients, with the page": len(logs),
            "connections": sum(log.connections for log in logs),
            "messages seen": sum(len(log.seen) for log in logs),
            "of them by the page": len(page.log.seen),
            "repeated, and not shown": sum(client.dropped for client in self._clients),
            "gaps told": sum(len(log.gaps) for log in logs),
            "replies swallowed": self._nemesis.swallowed + sum(link.swallowed for link in self._nemesis.links.values()),
            "processes replaced": self._nemesis.replaced,
        }

    def _logs(self, page: PageClient) -> list[ClientLog]:
        return [page.log, *(client.log for client in self._clients)]

    def _complain(self, text: str) -> None:
        self._complaints.append(Finding("complaint", time.time(), text))
        self.report.findings.append(self._complaints[-1])


def _words(errors: BaseExceptionGroup[BaseException]) -> Iterator[str]:
    """What each error in a group, and in the groups in it, has to say."""
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _words(error)
        else:
            yield str(error)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _has_caught_up(log: ClientLog, healing: Healing) -> bool:
    if log.is_away(healing.at - SLACK_SECONDS, healing.at + CATCH_UP_SECONDS):
        return True
    return bool(log.seen and log.states) and log.seen[-1].position >= healing.head and log.states[-1].state == "up"
