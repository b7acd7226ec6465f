"""The load tool `wsload`: its command line, and its output as objects. It must not know metrics or tables."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import redis as redis_client
from pydantic import TypeAdapter

from hello.channel.redis import PUBLISH, Keys
from hello.channel.urls import DEFAULT_STREAM
from hello.message import ORIGIN, Message, now_ms
from tests.bench.machine import Failed
from tests.bench.servers import Running, Server
from tests.redis_server import RedisServer

HISTORY = 10_000  # entries; the default of hello
KEYS = Keys.of(DEFAULT_STREAM)  # in the order of the script
FIXED = (str(ORIGIN), str(HISTORY), "")  # no high watermark, and no lease


@dataclass(frozen=True)
class Losses:
    """Messages that a client did not receive, received twice or received too late, and connections that were closed."""

    missing: int = 0  # when the load tool gave up
    repeated: int = 0
    reordered: int = 0  # received after a later message
    disconnects: int = 0

    def __add__(self, other: "Losses") -> "Losses":
        return Losses(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __bool__(self) -> bool:
        return any(astuple(self))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class Phase:
    """The result of a phase. Each name ends with its unit; latencies are from publishing to reading in the client."""

    name: str
    published: int
    publish_late_max_ms: float
    wall_s: float
    deliveries: int
    deliveries_per_s: float
    missing: int
    repeated: int
    reordered: int
    disconnects: int
    other_frames: int
    lag_at_end_ms: float  # from the last publishing to the last delivery
    latency_p50_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    slowest_p50_ms: float  # until the slowest client has a message: median over the messages that reached every client
    server_cpu_us_per_delivery: float
    server_cpu_share: float
    client_cpu_share: float
    cpu_busy: list[float]

    @property
    def losses(self) -> Losses:
        return Losses(self.missing, self.repeated, self.reordered, self.disconnects)


@dataclass(frozen=True)
class Resume:
    """What went wrong with clients that resumed, each from a position of its own."""

    missing: int
    repeated: int
    reordered: int
    stale: int  # frames of messages from before the position


@dataclass(frozen=True)
class Run:
    """The result of one run of the load tool."""

    conns_wanted: int
    conns_open: int
    connect_s: float
    connect_server_cpu_s: float
    resume: Resume | None
    server_rss_kib_per_conn: float
    phases: list[Phase]

    @property
    def losses(self) -> Losses:
        lost = sum((phase.losses for phase in self.phases), Losses(disconnects=self.conns_wanted - self.conns_open))
        if self.resume is not None:
            lost += Losses(self.resume.missing, self.resume.repeated, self.resume.reordered + self.resume.stale)
        return lost


class Channel:
    """The Redis of one measurement, with hello's script in it."""

    def __init__(self, server: RedisServer, client: redis_client.Redis) -> None:
        self.server = server
        self.tag = f"b{uuid.uuid4().hex[:8]}"  # prefix of the message ids
        self._client = client
        self._script = str(client.script_load(PUBLISH))

    @property
    def publishing(self) -> list[str]:
        """The options of the load tool."""
        options = ["--pub", f"script:127.0.0.1:{self.server.port}", "--sha", self._script, "--tag", self.tag]
        return [*options, "--keys", ",".join(KEYS), "--args", ",".join(FIXED)]

    def fill(self, count: int, first: int = 1) -> list[str]:
        """Publish `count` messages, numbered from `first`, and return their positions."""
        pipeline = self._client.pipeline(transaction=False)
        for number in range(first, first + count):
            message = Message(f"{self.tag}-{number:06}", "Hello world", "bench", now_ms())
            fields = (message.id, message.text, message.broadcaster, str(message.sent_at), message.to_json())
            pipeline.evalsha(self._script, len(KEYS), *KEYS, *FIXED, *fields)
        return [str(position) for position in pipeline.execute()]

    def calls(self) -> dict[str, int]:
        """Return how often each Redis command was called, by any client and inside scripts, without INFO itself."""
        stats = self._client.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()}
        calls.pop("info", None)
        return calls


@contextmanager
def open_channel() -> Iterator[Channel]:
    """Start an empty Redis without persistence, since the relay is measured and not Redis."""
    with TemporaryDirectory(prefix="hello-bench-") as directory:
        server = RedisServer(Path(directory), durable=False)
        server.start("--stream-node-max-entries", "10")  # as in kustomize/base/redis.conf
        try:
            with redis_client.Redis.from_url(server.url, decode_responses=True) as client:
                yield Channel(server, client)
        finally:
            server.kill()


class Load:
    """The compiled load tool."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def run(self, server: Server, running: Running, channel: Channel, clients: int, *options: str) -> Run:
        """Connect the clients, and run the phases that the options name.

        Raises Failed if a client could not connect, or the first message did not reach all of them.
        """
        with self.start(server, running, channel, clients, *options) as process:
            return process.result()

    def start(
        self, server: Server, running: Running, channel: Channel | None, clients: int, *options: str
    ) -> "LoadProcess":
        """Start the load tool; without a channel it publishes nothing."""
        return LoadProcess(
            [
                *(str(self._program), "--url", f"ws://127.0.0.1:{running.port}{server.path}", "--conns", str(clients)),
                *("--server-pid", ",".join(map(str, running.pids)), *server.subscribe),
                *(channel.publishing if channel else ()),
                *options,
            ]
        )


class LoadProcess:
    """A running load tool, whose output can be read meanwhile. Leaving its `with` kills it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._output = b""

    def __enter__(self) -> Self:
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
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def result(self) -> Run:
        """Return the result once the load tool has ended.

        Raises Failed if its exit code is not 0.
        """
        more, errors = self._process.communicate()
        output = self._output + more
        if code := self._process.returncode:
            raise Failed((errors or output).decode().strip()[:300] or f"the load tool ended with {code}")
        return TypeAdapter(Run).validate_json(output)  # the load tool prints more than these fields
