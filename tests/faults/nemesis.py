"""Makes the faults, and heals them: on real processes, a real Redis, and the proxies between them.

It knows no client, and judges only how processes start and end.
"""

import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import cast

import anyio
import anyio.to_thread
from redis.asyncio import Redis

from tests.faults import schedule
from tests.faults.checker import Injected
from tests.faults.proxy import Mode, Proxy
from tests.faults.recorder import Recorder
from tests.faults.rollout import deployment, roll_out
from tests.processes import START_SECONDS
from tests.redis_server import RedisServer
from tests.web.measurements import MeasuredProcess, eventually

# The processes of each shape, by their actors: two of everything, more than the overlays have, so that there always is
# another relay for the clients, and a standby for the leader.
SHAPES = {
    "split": ("relay", "relay", "broadcaster", "broadcaster"),
    "combined": ("broadcaster,relay", "broadcaster,relay"),
}
DRAIN_SECONDS = 1.0
STOP_SECONDS = 15.0  # from SIGTERM to the end: the drain, and the limits for clients that do not disconnect
NEXT_ENTRY_SECONDS = 15.0  # after Redis lost its data, until a message is accepted again
ROLLED_SECONDS = START_SECONDS + 2 * schedule.LONGEST  # until a process is ready if Redis may be away as it starts
RENEWED_SECONDS = 10.0  # until both broadcasters have tried to acquire the lease, which they do every second
BALLAST = 5000  # commands in Redis's log beside those of hello, so that it is loading for a while
KEPT_SNAPSHOTS = 3
ERRORS = re.compile(r'.*(?:Traceback|"error"|^Exception).*', re.MULTILINE)  # lines of a process's log

in_thread = anyio.to_thread.run_sync


class Nemesis:
    """The processes of a shape, one Redis and the proxies between them, and the faults that were injected.

    `processes` are those that run, the first relay first. `service` leads to any relay that serves new clients.
    `proxies` are named CLIENT>SERVER.
    """

    def __init__(self, directory: Path, server: RedisServer, history: int, intervals: tuple[float, float]) -> None:
        self.directory = directory
        self.server = server
        self.recorder = Recorder(server, history)
        self.injected: list[Injected] = []
        self.proxies: dict[str, Proxy] = {}
        self.processes: dict[str, MeasuredProcess] = {}
        self.service = Proxy("clients>service")  # no fault is injected here
        self.replaced = 0  # processes
        self._errors: list[str] = []
        self._lost_replies = 0  # at proxies that have ended
        self._settings = {
            "interval_min": str(intervals[0]),
            "interval_max": str(intervals[1]),
            "history": str(history),
            "drain_seconds": str(DRAIN_SECONDS),
            "log_format": "json",
        }
        self._mode_of_all: Mode = "open"
        self._snapshots: list[Path] = []
        self._snapshot_count = 0
        self._relays: dict[str, int] = {}  # the ports of those that serve new clients
        self._read: dict[str, int] = {}  # characters of each log
        self._count = 0  # processes, ever

    @property
    def lost_replies(self) -> int:
        return self._lost_replies + sum(proxy.lost_replies for proxy in self.proxies.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the first shape, and enter once a message was accepted; leaving ends all processes."""
        async with anyio.create_task_group() as self._group:
            group = self._group
            try:
                await in_thread(self.server.start)
                await group.start(self.service.run)
                group.start_soon(self.recorder.run)
                for actors in SHAPES[schedule.FIRST_SHAPE]:
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
        """Return once every process is ready, and one of them has published. All faults are healed."""
        deadline = anyio.current_time() + START_SECONDS
        for name in self.processes:
            await self._until_ready(name, deadline)
        await eventually(self._has_leader, "one of the running processes publishes", NEXT_ENTRY_SECONDS)
        for name in [name for name in self.proxies if not self.processes.keys() & set(name.split(">"))]:
            proxy = self.proxies.pop(name)
            proxy.end()
            self._lost_replies += proxy.lost_replies

    async def inject(self, this_round: schedule.Round) -> None:
        """Make the faults of a round, and return when they are healed."""
        names = self._names_of_roles()
        async with anyio.create_task_group() as group:
            for fault in this_round.faults:
                target = ">".join(names.get(end, end) for end in fault.target.split(">"))
                group.start_soon(self._inject, fault, target)

    def _has_leader(self) -> bool:
        return bool(self.recorder.entries) and self._leader() in self.processes

    def _leader(self) -> str:
        """Return the process that published last."""
        return self.recorder.entries[-1].broadcaster or ""

    def _names_of_roles(self) -> dict[str, str]:
        """Return which process has which role of a schedule now."""
        leader = self._leader()
        standby = next(name for name in self._broadcasters() if name != leader)
        relays = [name for name in self.processes if name.startswith("relay")]
        return {"leader": leader, "standby": standby, **dict(zip(schedule.RELAYS, relays, strict=False))}

    def _broadcasters(self) -> list[str]:
        return [name for name in self.processes if name.startswith("broadcaster")]

    async def _start(self, actors: str) -> str:
        """Start a process, and let new clients connect to it once it is ready; return its name."""
        self._count += 1
        name = f"{actors.replace(',', '-')}-{self._count}"
        proxy = await self._add_proxy(f"{name}>redis", self.server.port)
        process = self.processes[name] = MeasuredProcess(
            self.directory / f"{name}.log",
            actors=actors,
            instance=name,
            channel=proxy.url,
            **self._settings,
        )
        self._read[name] = 0
        process.launch()
        await self._until_ready(name, anyio.current_time() + ROLLED_SECONDS)
        if deployment(actors) == "relay":
            proxy = await self._add_proxy(f"clients>{name}", process.port)
            self._relays[name] = proxy.port
            self.service.targets = [*self._relays.values()]
        return name

    async def _add_proxy(self, name: str, port: int) -> Proxy:
        proxy = self.proxies[name] = Proxy(name, port)
        proxy.set(self._mode_of_all)
        await self._group.start(proxy.run)
        return proxy

    async def _end(self, name: str) -> None:
        """Let no new client connect to a process, terminate it, and return once it has ended."""
        self._relays.pop(name, None)
        self.service.targets = [*self._relays.values()]
        self.replaced += 1
        with self._recorded("terminate", name):
            await self._terminate(name)
        del self.processes[name]

    async def _replace(self, target: str) -> None:
        """Roll out a target of a schedule: every process to the shape of this name, or a Deployment to itself."""
        running = {name: process.settings["actors"] for name, process in self.processes.items()}
        if target not in SHAPES:
            name = "broadcaster" if target == "broadcasters" else "relay"
            running = {process: actors for process, actors in running.items() if deployment(actors) == name}
        wanted = SHAPES.get(target) or tuple(running.values())
        await roll_out(running, wanted, start=self._start, end=self._end)

    async def _until_ready(self, name: str, deadline: float) -> None:
        process = self.processes[name]
        while await in_thread(process.status, "/readyz") != 200:
            if process.exit_code() is not None or anyio.current_time() > deadline:
                raise TimeoutError(f"{name} has ended, or is not ready in time")
            await anyio.sleep(0.05)  # between two checks of a process that starts

    async def _inject(self, fault: schedule.Fault, target: str) -> None:
        await anyio.sleep(fault.start)
        if fault.kind in schedule.LOSSES:
            with self._recorded("hold", "broadcasters"):
                await self._lose(fault.kind)
        elif fault.kind in ("rollout", "switch"):
            await self._replace(fault.target)  # which records each process that it terminates
        else:
            with self._recorded(fault.kind, target):
                await self._inject_at(target, fault)

    @contextmanager
    def _recorded(self, kind: str, target: str) -> Iterator[None]:
        number, start = len(self.injected), time.time()
        self.injected.append(Injected(kind, target, start, float("inf")))
        yield
        self.injected[number] = Injected(kind, target, start, time.time())

    async def _inject_at(self, target: str, fault: schedule.Fault) -> None:
        server, seconds = self.server, fault.seconds
        match fault.kind:
            case "reset":
                self.proxies[target].reset()
            case "pause":
                self.processes[target].signal(signal.SIGSTOP)
                await anyio.sleep(seconds)
                self.processes[target].signal(signal.SIGCONT)
            case "kill" | "terminate":
                await (in_thread(self.processes[target].kill) if fault.kind == "kill" else self._terminate(target))
                await anyio.sleep(seconds)
                self.processes[target].launch()
            case "redis kill" | "redis terminate":
                await in_thread(server.kill if fault.kind == "redis kill" else server.stop)
                await anyio.sleep(seconds)
                await in_thread(server.start)
            case "redis pause":
                server.pause()
                await anyio.sleep(seconds)
                server.resume()
            case "redis loading":
                await self._load_for(seconds)
            case "redis out of memory":
                await self._configure("maxmemory", "1")
                await anyio.sleep(seconds)
                await self._configure("maxmemory", "0")
            case schedule.CLOCK_BACK:
                server.set_clock(-int(seconds * 360))  # up to an hour
                await anyio.sleep(seconds)
                server.set_clock(0)
            case mode:
                self._set_proxies(target, cast("Mode", mode.removesuffix(" all")))
                await anyio.sleep(seconds)
                self._set_proxies(target, "open")

    def _set_proxies(self, target: str, mode: Mode) -> None:
        if target == schedule.ALL_CONNECTIONS:
            self._mode_of_all = mode  # of later proxies too
        for proxy in self.proxies.values() if target == schedule.ALL_CONNECTIONS else [self.proxies[target]]:
            proxy.set(mode)

    async def _terminate(self, name: str) -> None:
        process = self.processes[name]
        process.signal(signal.SIGTERM)
        try:
            if code := await in_thread(process.wait, STOP_SECONDS):
                self._errors.append(f"{name} ended with exit code {code} after SIGTERM")
        except TimeoutExpired:
            self._errors.append(f"{name} had not ended {STOP_SECONDS:g} s after SIGTERM")
            await in_thread(process.kill)

    async def _load_for(self, seconds: float) -> None:
        """Restart Redis so that it loads its data for about so long, and answers with LOADING meanwhile."""
        await in_thread(self.server.kill)
        logs = self.server.directory.rglob("*.aof*")
        commands = sum(path.read_bytes().count(b"\r\n*") for path in logs if path.is_file())
        delay = round(seconds * 1_000_000 / commands)  # microseconds after each command
        await in_thread(lambda: self.server.start("--key-load-delay", str(delay), answer=b""))
        async with Redis.from_url(self.server.url, socket_timeout=30, protocol=2) as client:
            loading = True
            while loading:
                await anyio.sleep(0.05)  # between two checks of a server that loads
                loading = bool((await client.info("persistence"))["loading"])

    async def _lose(self, kind: str) -> None:
        """Let Redis lose data while every broadcaster knows its newest position, and none publishes.

        Before a wipe the leader gets no reply to its last publish, so that it publishes the same message again.
        """
        proxies = [self.proxies[f"{name}>redis"] for name in self._broadcasters()]
        leader = self.proxies[f"{self._leader()}>redis"]
        for proxy in proxies:
            if proxy is leader and kind == "redis wipe":
                proxy.set(schedule.LOSE_REPLY, then="hold")
            else:
                proxy.set("hold")
        await eventually(lambda: leader.mode == "hold", "the leader has published", NEXT_ENTRY_SECONDS)
        for name in self._broadcasters():
            await self._until_renewed(name)
        await self.recorder.catch_up()
        with self._recorded(kind, "redis"):
            await in_thread(self.server.kill)
            self.server.replace_data(self._snapshots[0] if kind == "redis restore" else None)
            while self._snapshots:  # an older snapshot would bring back entries that were reported as lost
                shutil.rmtree(self._snapshots.pop())
            await in_thread(self.server.start)
        await self.recorder.note_loss()
        for proxy in proxies:
            proxy.set("open")
        await self.recorder.next_entry(NEXT_ENTRY_SECONDS)
        if kind == "redis wipe":
            await self._add_ballast()

    async def _until_renewed(self, name: str) -> None:
        """Return once this broadcaster has had a reply about the lease, and with it the newest position."""
        well_after = time.time() + 0.5  # the calls that were under way as the hold began
        age = partial(self.processes[name].metric, 'hello_channel_last_reply_age_seconds{actor="broadcaster"}')
        with anyio.fail_after(RENEWED_SECONDS):
            while True:
                if time.time() - await in_thread(age) > well_after:
                    return
                await anyio.sleep(0.1)  # between two checks of the metrics of another process

    async def take_snapshot(self) -> None:
        """Copy what is on Redis's disk; a restore brings the oldest of the last few copies back."""
        self._snapshot_count += 1
        self._snapshots.append(self.directory / f"snapshot-{self._snapshot_count}")
        await in_thread(self.server.copy_data, self._snapshots[-1])
        while len(self._snapshots) > KEPT_SNAPSHOTS:
            shutil.rmtree(self._snapshots.pop(0))

    def take_errors(self) -> list[str]:
        """Return the errors since the last time: processes that ended by themselves, errors in their logs."""
        for name, process in self.processes.items():
            if (code := process.exit_code()) is not None:
                self._errors.append(f"{name} ended by itself with exit code {code}")
        for name, read in [*self._read.items()]:
            with (self.directory / f"{name}.log").open() as log:
                log.seek(read)
                text = log.read()
                self._read[name] = log.tell()
            self._errors += [f"{name}: {line[:2000]}" for line in ERRORS.findall(text)]
            if name not in self.processes:
                del self._read[name]
        errors, self._errors = self._errors, []
        return errors

    async def _configure(self, name: str, value: str) -> None:
        async with Redis.from_url(self.server.url, socket_timeout=10, protocol=2) as client:
            await client.config_set(name, value)

    async def _add_ballast(self) -> None:
        script = f"for number = 1, {BALLAST} do redis.call('SET', 'ballast', number) end"
        async with Redis.from_url(self.server.url, socket_timeout=30, protocol=2) as client:
            await client.eval(script, 0)
