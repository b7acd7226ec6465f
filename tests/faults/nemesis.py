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
from tests.faults.rollout import deployment, roll_out
from tests.faults.schedule import ALL_LINKS, FIRST_SHAPE, LONGEST, LOSSES, RELAYS, Fault, Round
from tests.processes import START_SECONDS, HelloProcess
from tests.redis_server import RedisServer

# The processes of each shape, by their actors: two of everything, more than the overlays have, so that there always is
# another relay to go to and another broadcaster that waits.
SHAPES = {
    "split": ("relay", "relay", "broadcaster", "broadcaster"),
    "combined": ("broadcaster,relay", "broadcaster,relay"),
}
DRAIN_SECONDS = 1.0
STOP_SECONDS = 15.0  # from SIGTERM to the end: the drain, and the limits on those who do not go
NEXT_ENTRY_SECONDS = 15.0  # after Redis lost its data, for one of the broadcasters to be accepted again
ROLLED_SECONDS = START_SECONDS + 2 * LONGEST  # for a process to be ready if Redis may be away as it starts
KNOWING_SECONDS = 10.0  # for both broadcasters to renew their claims, which they do every second
BALLAST = 5000  # commands in Redis's log beside hello's, so that it is loading for a while and says so
KEPT_SNAPSHOTS = 3
TROUBLE = re.compile(r'.*(?:Traceback|"error"|^Exception).*', re.MULTILINE)

in_thread = anyio.to_thread.run_sync


class Nemesis:
    """The processes of a shape, one Redis and all links, and what was done to them.

    `processes` are those that run, the first relay first, `links` theirs, and `relays` the ports of those that serve
    newcomers, which are what a Service knows.
    """

    def __init__(self, directory: Path, server: RedisServer, history: int, pauses: tuple[float, float]) -> None:
        self.directory = directory
        self.server = server
        self.recorder = Recorder(server, history)
        self.done: list[Done] = []
        self.complaints: list[str] = []
        self.links: dict[str, Link] = {}
        self.processes: dict[str, HelloProcess] = {}
        self.relays: dict[str, int] = {}
        # What a Service is to a page: one address, and any of the relays behind it. No fault is made to this one.
        self.service = Link("page>service")
        self.replaced = 0  # processes
        self.swallowed = 0  # replies, on links that are no more
        self._settings = {
            "interval_min": str(pauses[0]),
            "interval_max": str(pauses[1]),
            "history": str(history),
            "drain_seconds": str(DRAIN_SECONDS),
            "log_format": "json",
        }
        self._every_link: Mode = "open"
        self._snapshots: list[Path] = []
        self._snapshot_count = 0
        self._read: dict[str, int] = {}  # characters of each log
        self._count = 0  # processes, ever

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The first shape runs, and at least one message was accepted; leaving ends it all."""
        async with anyio.create_task_group() as self._group:
            group = self._group
            try:
                await in_thread(self.server.start)
                await group.start(self.service.run)
                group.start_soon(self.recorder.run)
                for actors in SHAPES[FIRST_SHAPE]:
                    await self._start(actors)
                await self.ready()
                await self._add_ballast()
                yield
            finally:
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    for process in self.processes.values():
                        await in_thread(process.kill)
                    await in_thread(self.server.kill)

    async def ready(self) -> None:
        """Return once every process is ready, and one of them has spoken. All faults are healed."""
        deadline = anyio.current_time() + START_SECONDS
        for name in self.processes:
            await self._be_ready(name, deadline)
        await until(self._has_a_speaker, NEXT_ENTRY_SECONDS, "one of those that run speaks")
        for name in [name for name in self.links if not self.processes.keys() & set(name.split(">"))]:
            link = self.links.pop(name)
            link.end()
            self.swallowed += link.swallowed

    async def strike(self, this_round: Round) -> None:
        """Make the faults of a round, and return when they are healed."""
        parts = self._parts()
        async with anyio.create_task_group() as group:
            for fault in this_round.faults:
                target = ">".join(parts.get(end, end) for end in fault.target.split(">"))
                group.start_soon(self._make, fault, target)

    def _has_a_speaker(self) -> bool:
        return bool(self.recorder.entries) and self.recorder.entries[-1].broadcaster in self.processes

    def _parts(self) -> dict[str, str]:
        """Which process plays which part of a schedule now."""
        speaker = self.recorder.entries[-1].broadcaster
        standby = next(name for name in self._broadcasters() if name != speaker)
        relays = [name for name in self.processes if name.startswith("relay")]
        return {"speaker": speaker, "standby": standby, **dict(zip(RELAYS, relays, strict=False))}

    def _broadcasters(self) -> list[str]:
        return [name for name in self.processes if name.startswith("broadcaster")]

    async def _start(self, actors: str) -> str:
        """Start a new process, and let newcomers go to it once it is ready; its name."""
        self._count += 1
        name = f"{actors.replace(',', '-')}-{self._count}"
        link = await self._add_link(f"{name}>redis", self.server.port)
        process = self.processes[name] = HelloProcess(
            self.directory / f"{name}.log",
            actors=actors,
            instance=name,
            channel=f"redis://127.0.0.1:{link.port}",
            **self._settings,
        )
        self._read[name] = 0
        process.launch()
        await self._be_ready(name, anyio.current_time() + ROLLED_SECONDS)
        if deployment(actors) == "relay":
            link = await self._add_link(f"clients>{name}", process.port)
            self.relays[name] = link.port
            self.service.targets = [*self.relays.values()]
        return name

    async def _add_link(self, name: str, port: int) -> Link:
        link = self.links[name] = Link(name, port)
        link.set(self._every_link)
        await self._group.start(link.run)
        return link

    async def _end(self, name: str) -> None:
        """Let no newcomer go to a process, tell it to stop, and return once it has ended for good."""
        self.relays.pop(name, None)
        self.service.targets = [*self.relays.values()]
        self.replaced += 1
        with self._noted("term", name):
            await self._terminate(name)
        del self.processes[name]

    async def _replace(self, target: str) -> None:
        """Roll what a schedule names so: all that runs to the shape of this name, or a Deployment to itself."""
        running = {name: process.settings["actors"] for name, process in self.processes.items()}
        if target not in SHAPES:
            name = "broadcaster" if target == "broadcasters" else "relay"
            running = {process: actors for process, actors in running.items() if deployment(actors) == name}
        wanted = SHAPES.get(target) or tuple(running.values())
        await roll_out(running, wanted, start=self._start, end=self._end)

    async def _be_ready(self, name: str, deadline: float) -> None:
        process = self.processes[name]
        while await in_thread(process.status, "/readyz") != 200:
            if process.exit_code() is not None or anyio.current_time() > deadline:
                raise TimeoutError(f"{name} has ended, or is not ready in time")
            await anyio.sleep(0.05)  # between two looks at a process that starts

    async def _make(self, fault: Fault, target: str) -> None:
        await anyio.sleep(fault.start)
        if fault.kind in LOSSES:
            with self._noted("hold", "broadcasters"):
                await self._lose(fault.kind)
        elif fault.kind in ("rollout", "switch"):
            await self._replace(fault.target)  # each process that goes is noted by itself
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
            await self._strike_links(cast("Mode", fault.kind.removesuffix(" all")), target, fault.seconds)

    async def _strike_links(self, mode: Mode, target: str, seconds: float) -> None:
        self._set_links(mode, target)
        await anyio.sleep(seconds)
        self._set_links("open", target)

    def _set_links(self, mode: Mode, target: str) -> None:
        if target == ALL_LINKS:
            self._every_link = mode  # of those too that are yet to come
        for link in self.links.values() if target == ALL_LINKS else [self.links[target]]:
            link.set(mode)

    async def _strike_process(self, kind: str, name: str, process: HelloProcess, seconds: float) -> None:
        if kind == "stop":
            process.signal(signal.SIGSTOP)
            await anyio.sleep(seconds)
            process.signal(signal.SIGCONT)
            return
        if kind == "kill":
            await in_thread(process.kill)
        else:
            await self._terminate(name)
        await anyio.sleep(seconds)
        process.launch()

    async def _terminate(self, name: str) -> None:
        process = self.processes[name]
        process.signal(signal.SIGTERM)
        try:
            if code := await in_thread(process.wait, STOP_SECONDS):
                self.complaints.append(f"{name} ended with exit code {code} after SIGTERM")
        except TimeoutExpired:
            self.complaints.append(f"{name} had not ended {STOP_SECONDS:g} s after SIGTERM")
            await in_thread(process.kill)

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
        links = [self.links[f"{name}>redis"] for name in self._broadcasters()]
        speaker = self.links[f"{self.recorder.entries[-1].broadcaster}>redis"]
        for link in links:
            if link is speaker and kind == "redis wipe":
                link.set("swallow", then="hold")
            else:
                link.set("hold")
        await until(lambda: speaker.mode == "hold", NEXT_ENTRY_SECONDS, "the speaker has published")
        for name in self._broadcasters():
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
            age = metrics['hello_channel_last_reply_age_seconds{actor="broadcaster"}']
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
        for name, read in [*self._read.items()]:
            with (self.directory / f"{name}.log").open() as log:
                log.seek(read)
                text = log.read()
                self._read[name] = log.tell()
            self.complaints += [f"{name}: {line[:2000]}" for line in TROUBLE.findall(text)]
            if name not in self.processes:
                del self._read[name]
        complaints, self.complaints = self.complaints, []
        return complaints

    async def _configure(self, name: str, value: str) -> None:
        async with Redis.from_url(self.server.url, socket_timeout=10, protocol=2) as client:
            await client.config_set(name, value)

    async def _add_ballast(self) -> None:
        async with Redis.from_url(self.server.url, socket_timeout=30, protocol=2) as client:
            pipe = client.pipeline(transaction=False)
            for number in range(BALLAST):
                pipe.set("ballast", number)
            await pipe.execute()
