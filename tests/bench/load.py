"""The load tool `wsload`: its command line, and its output as objects. It must not know metrics or tables."""

import json
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import redis as redis_client

from hello.channel import DEFAULT_STREAM
from hello.channel.redis import PUBLISH, Keys
from hello.message import ORIGIN, Message, now_ms
from tests.bench.servers import Failed, Running, Server
from tests.redis_server import RedisServer

HISTORY = 10_000  # entries; the default of hello
KEYS = Keys.of(DEFAULT_STREAM)  # in the order of the script
FIXED = (str(ORIGIN), str(HISTORY), "")  # no high watermark, and no lease
EXTRA_SECONDS = 300.0  # beyond the phases: for connecting, and for late messages


@dataclass(frozen=True)
class Losses:
    """Messages that a client did not receive, received twice or received too late, and connections that were closed."""

    missing: int = 0  # when the load tool gave up
    repeated: int = 0
    reordered: int = 0  # received after a later message
    disconnects: int = 0

    def __add__(self, other: "Losses") -> "Losses":
        return Losses(*(one + another for one, another in zip(self.values(), other.values(), strict=True)))

    def __bool__(self) -> bool:
        return any(self.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())

    def values(self) -> tuple[int, ...]:
        return (self.missing, self.repeated, self.reordered, self.disconnects)


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
    stale: int  # frames of messages that had been published before the phase
    disconnects: int
    other_frames: int
    lag_at_end_ms: float  # from the last publishing to the last delivery
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    complete: int  # messages that have reached every client
    slowest_p50_ms: float  # until the slowest client has a message: median over the complete messages
    slowest_max_ms: float
    server_cpu_s: float
    server_cpu_us_per_delivery: float
    server_cpu_share: float
    server_rss_kib: int
    client_cpu_share: float
    cpu_busy: list[float]
    ksoftirqd_cpu_s: list[float]

    @property
    def losses(self) -> Losses:
        return Losses(self.missing, self.repeated, self.reordered, self.disconnects)


@dataclass(frozen=True)
class Resume:
    """The result of clients that resumed, each from a position of its own."""

    wait_s: float
    missing: int
    repeated: int
    reordered: int
    stale: int
    wrong_conns: int


@dataclass(frozen=True)
class Run:
    """The result of one run of the load tool."""

    conns_wanted: int
    conns_open: int
    connect_failed: int
    connect_s: float
    connect_server_cpu_s: float
    resume: Resume | None
    warm_up_tries: int
    server_rss_before_kib: int
    server_rss_kib: int
    server_rss_kib_per_conn: float
    phases: list[Phase]
    disconnects: int
    other_frames: int
    pings: int
    closes: int
    protocol_errors: int
    bytes: int

    @property
    def losses(self) -> Losses:
        lost = sum((phase.losses for phase in self.phases), Losses(disconnects=self.conns_wanted - self.conns_open))
        if self.resume is not None:
            lost += Losses(self.resume.missing, self.resume.repeated, self.resume.reordered + self.resume.stale)
        return lost

    @classmethod
    def parse(cls, text: str) -> "Run":
        fields = json.loads(text)
        phases = [Phase(**phase) for phase in fields.pop("phases")]
        resume = fields.pop("resume")
        return cls(phases=phases, resume=Resume(**resume) if resume else None, **fields)


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

    def command(
        self, server: Server, running: Running, channel: Channel | None, clients: int, *options: str
    ) -> list[str]:
        """Return the command line; without a channel the tool publishes nothing."""
        return [
            *(str(self._program), "--url", f"ws://127.0.0.1:{running.port}{server.path}", "--conns", str(clients)),
            *("--server-pid", ",".join(map(str, running.pids)), *server.subscribe),
            *(channel.publishing if channel else ()),
            *options,
        ]

    def run(
        self,
        server: Server,
        running: Running,
        channel: Channel,
        clients: int,
        phases: Sequence[str] = (),
        *options: str,
        seconds: float = 0.0,
    ) -> Run:
        """Connect the clients and run the phases, which take `seconds` in all.

        Raises Failed if a client could not connect, or the first message did not reach all of them.
        """
        phased = [argument for phase in phases for argument in ("--phase", phase)]
        command = self.command(server, running, channel, clients, *phased, *options)
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds + EXTRA_SECONDS
            )
        except subprocess.TimeoutExpired as late:
            raise Failed(f"the load tool did not end within {late.timeout:.0f} s") from late
        return self.result(ended.stdout, ended.stderr, ended.returncode)

    @staticmethod
    def result(output: str, errors: str, code: int) -> Run:
        """Read the output of the load tool.

        Raises Failed if the exit code is not 0.
        """
        if code != 0:
            raise Failed((errors.strip() or output.strip() or f"the load tool ended with {code}")[:300])
        return Run.parse(output)
