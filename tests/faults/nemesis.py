"""Makes the faults, and heals them: on real processes, a real Redis, and the links between them.

It knows no client, and judges only what a process owes whoever starts and stops it.
"""

import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import TimeoutExpired
from typing import cast

import anyio
import anyio.to_thread
from redis.asyncio import Redis

from tests.faults.checker import Done
from tests.faults.proxy import Link, Mode
from tests.faults.recorder import Recorder, until
from tests.faults.schedule import ALL_LINKS, LOSSES, RELAYS, Fault, Round
from tests.processes import START_SECONDS, HelloProcess
from tests.redis_server import RedisServer

BROADCASTERS = ("broadcaster-1", "broadcaster-2")
DRAIN_SECONDS = 1.0
STOP_SECONDS = 15.0  # from SIGTERM to the end: the drain, and the limits on those who do not go
NEXT_ENTRY_SECONDS = 15.0  # after Redis lost its data, for one of the broadcasters to be accepted again
KNOWING_SECONDS = 10.0  # for both broadcasters to renew their claims, which they do every second
BALLAST = 5000  # commands in Redis's log beside hello's, so that it is loading for a while and says so
KEPT_SNAPSHOTS = 3
TROUBLE = re.compile(r'.*(?:Traceback|"error"|^Exception).*', re.MULTILINE)

in_thread = anyio.to_thread.run_sync


class Nemesis:
    """Two relays, two broadcasters, one Redis and all links, and what was done to them."""

    def __init__(self, directory: Path, server: RedisServer, history: int, pauses: tuple[float, float]) -> None:
        self.directory = directory
        self.server = server
        self.recorder = Recorder(server, history)
        self.done: list[Done] = []
        self.complaints: list[str] = []
        self.links: dict[str, Link] = {}
        self.processes: dict[str, HelloProcess] = {}
        self._snapshots: list[Path] = []
        self._snapshot_count = 0
        self._read: dict[str, int] = {}  # characters of each log
        for name in RELAYS + BROADCASTERS:
            link = self.links[f"{name}>redis"] = Link(f"{name}>redis", server.port)
            process = self.processes[name] = HelloProcess(
                self._log(name),
                actors=name.partition("-")[0],
                instance=name,
                channel=f"redis://127.0.0.1:{link.port}",
                interval_min=str(pauses[0]),
                interval_max=str(pauses[1]),
                history=str(history),
                drain_seconds=str(DRAIN_SECONDS),
                log_format="json",
            )
            if name in RELAYS:
                self.links[f"clients>{name}"] = Link(f"clients>{name}", process.port)
        fronts = [self.links[f"clients>{name}"].port for name in RELAYS]
        # What a Service is to a page: one address, and any of the relays behind it. No fault is made to this one.
        self.service = Link("page>service", *fronts)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything runs, and at least one message was accepted; leaving ends it all."""
        async with anyio.create_task_group() as group:
            try:
                await in_thread(self.server.start)
                for link in (*self.links.values(), self.service):
                    await group.start(link.run)
                group.start_soon(self.recorder.run)
                for process in self.processes.values():
                    process.launch()
                await self.ready()
                await self.recorder.next_entry(NEXT_ENTRY_SECONDS)
                await self._add_ballast()
                yield
            finally:
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    for process in self.processes.values():
                        await in_thread(process.kill)
                    await in_thread(self.server.kill)

    async def ready(self) -> None:
        """Return once every process is ready."""
        deadline = anyio.current_time() + START_SECONDS
        for name, process in self.processes.items():
            while await in_thread(process.status, "/readyz") != 200:
                if process.exit_code() is not None or anyio.current_time() > deadline:
                    raise TimeoutError(f"{name} has ended, or is not ready after {START_SECONDS:g} s")
                await anyio.sleep(0.05)  # between two looks at a process that starts

    async def strike(self, this_round: Round) -> None:
        """Make the faults of a round, and return when they are healed."""
        speaker = self.recorder.entries[-1].broadcaster
        standby = next(name for name in BROADCASTERS if name != speaker)
        async with anyio.create_task_group() as group:
            for fault in this_round.faults:
                target = fault.target.replace("speaker", speaker).replace("standby", standby)
                group.start_soon(self._make, fault, target)

    async def _make(self, fault: Fault, target: str) -> None:
        await anyio.sleep(fault.start)
        if fault.kind in LOSSES:
            with self._noted("hold", "broadcasters"):
                await self._lose(fault.kind)
        else:
            with self._noted(fault.kind, target):
                await self._strike(fault, target)

    @contextmanager
    def _noted(self, kind: str, target: str) -> Iterator[None]:
        number, start = len(self.done), time.time()
        self.done.append(Done(kind, target, start, float("inf")))
        yield
        self.done[number] = Done(kind, target, start, time.time())

    async def _strike(self, fault: Fault, target: str) -> None:
        if target == "redis":
            await self._strike_redis(fault.kind, fault.seconds)
        elif target in self.processes:
            await self._strike_process(fault.kind, target, self.processes[target], fault.seconds)
        elif fault.kind == "reset":
            self.links[target].reset()
        else:
            links = list(self.links.values()) if target == ALL_LINKS else [self.links[target]]
            await self._strike_links(cast("Mode", fault.kind.removesuffix(" all")), links, fault.seconds)

    async def _strike_links(self, mode: Mode, links: list[Link], seconds: float) -> None:
        for link in links:
            link.set(mode)
        await anyio.sleep(seconds)
        for link in links:
            link.set("open")

    async def _strike_process(self, kind: str, name: str, process: HelloProcess, seconds: float) -> None:
        if kind == "stop":
            process.signal(signal.SIGSTOP)
            await anyio.sleep(seconds)
            process.signal(signal.SIGCONT)
            return
        if kind == "kill":
            await in_thread(process.kill)
        else:
            process.signal(signal.SIGTERM)
            try:
                if code := await in_thread(process.wait, STOP_SECONDS):
                    self.complaints.append(f"{name} ended with exit code {code} after SIGTERM")
            except TimeoutExpired:
                self.complaints.append(f"{name} had not ended {STOP_SECONDS:g} s after SIGTERM")
                await in_thread(process.kill)
        await anyio.sleep(seconds)
        process.launch()

    async def _strike_redis(self, kind: str, seconds: float) -> None:
        match kind:
            case "redis kill" | "redis term":
                await in_thread(self.server.kill if kind == "redis kill" else self.server.stop)
                await anyio.sleep(seconds)
                await in_thread(self.server.start)
            case "redis stop":
                self.server.pause()
                await anyio.sleep(seconds)
                self.server.resume()
            case "redis loading":
                await self._load_for(seconds)
            case "redis memory":
                await self._configure("maxmemory", "1")
                await anyio.sleep(seconds)
                await self._configure("maxmemory", "0")
            case "redis clock":
                self.server.set_clock(-int(seconds * 360))  # up to an hour
                await anyio.sleep(seconds)
                self.server.set_clock(0)

    async def _load_for(self, seconds: float) -> None:
        """Start Redis again so that it loads its data for about so long, and answers with LOADING meanwhile."""
        await in_thread(self.server.kill)
        logs = self.server.directory.rglob("*.aof*")
        commands = sum(path.read_bytes().count(b"\r\n*") for path in logs if path.is_file())
        rest = round(seconds * 1_000_000 / commands)  # microseconds after each of them
        await in_thread(lambda: self.server.start("--key-load-delay", str(rest), answer=b""))
        async with Redis.from_url(self.server.url, socket_timeout=30, protocol=2) as client:
            loading = True
            while loading:
                await anyio.sleep(0.05)  # between two looks at a server that loads
                loading = bool((await client.info("persistence"))["loading"])

    async def _lose(self, kind: str) -> None:
        """Let Redis lose data while nobody publishes, and everybody who publishes knows its newest position.

        Before a wipe the speaker does not hear that its last message was accepted, so that it says it again afterwards.
        """
        links = [self.links[f"{name}>redis"] for name in BROADCASTERS]
        speaker = self.links[f"{self.recorder.entries[-1].broadcaster}>redis"]
        for link in links:
            if link is speaker and kind == "redis wipe":
                link.set("swallow", then="hold")
            else:
                link.set("hold")
        await until(lambda: speaker.mode == "hold", NEXT_ENTRY_SECONDS, "the speaker has published")
        for name in BROADCASTERS:
            await self._renewed(name)
        await self.recorder.catch_up()
        with self._noted(kind, "redis"):
            await in_thread(self.server.kill)
            self.server.replace_data(self._snapshots[0] if kind == "redis restore" else None)
            while self._snapshots:  # what is older than a loss would bring back what was told as lost
                shutil.rmtree(self._snapshots.pop())
            await in_thread(self.server.start)
        await self.recorder.note_loss()
        for link in links:
            link.set("open")
        await self.recorder.next_entry(NEXT_ENTRY_SECONDS)
        if kind == "redis wipe":
            await self._add_ballast()

    async def _renewed(self, name: str) -> None:
        """Return once this broadcaster has claimed the voice again, and so heard of the newest position."""
        since = time.time()
        deadline = anyio.current_time() + KNOWING_SECONDS
        while True:
            metrics = await in_thread(self.processes[name].metrics)
            age = metrics['hello_channel_word_age_seconds{actor="broadcaster"}']
            if time.time() - age > since + 0.5:  # well after what was under way as the writes were held
                return
            if anyio.current_time() > deadline:
                raise TimeoutError(f"{name} has not claimed the voice for {KNOWING_SECONDS:g} s")
            await anyio.sleep(0.1)  # between two looks at what another process measures

    async def take_snapshot(self) -> None:
        """Copy what is on Redis's disk; the oldest of the last few copies is the one that a fault restores."""
        self._snapshot_count += 1
        self._snapshots.append(self.directory / f"snapshot-{self._snapshot_count}")
        await in_thread(self.server.copy_data, self._snapshots[-1])
        while len(self._snapshots) > KEPT_SNAPSHOTS:
            shutil.rmtree(self._snapshots.pop(0))

    def look_for_complaints(self) -> list[str]:
        """What was noted since the last time: processes that ended by themselves, errors in their logs."""
        for name, process in self.processes.items():
            if (code := process.exit_code()) is not None:
                self.complaints.append(f"{name} ended by itself with exit code {code}")
            with self._log(name).open() as log:
                log.seek(self._read.get(name, 0))
                text = log.read()
                self._read[name] = log.tell()
            self.complaints += [f"{name}: {line[:2000]}" for line in TROUBLE.findall(text)]
        complaints, self.complaints = self.complaints, []
        return complaints

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    async def _configure(self, name: str, value: str) -> None:
        async with Redis.from_url(self.server.url, socket_timeout=10, protocol=2) as client:
            await client.config_set(name, value)

    async def _add_ballast(self) -> None:
        async with Redis.from_url(self.server.url, socket_timeout=30, protocol=2) as client:
            pipe = client.pipeline(transaction=False)
            for number in range(BALLAST):
                pipe.set("ballast", number)
            await pipe.execute()
