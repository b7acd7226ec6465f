"""Smoke tests of the bench: its command, its load tool, its tables and its plot. The metrics are not promises."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from redis import Redis

from tests.bench.load import Load, Losses, open_channel
from tests.bench.machine import Unfit, build
from tests.bench.plot import draw, points
from tests.bench.report import number, to_floor
from tests.bench.rounds import METRICS, Sample, Samples
from tests.bench.servers import Running, Server
from tests.conftest import missing
from tests.redis_server import NoRedisServer, RedisServer, redis_program

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parent.parent.parent
ACCEPTED = (  # the answer to the key of the load tool
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
SMALL = ("--rounds", "1", "--clients", "20", "--many-clients", "40", "--seconds", "0.5")


@pytest.fixture(scope="module")
def tools() -> None:
    """Skip the test, or fail it in CI, if a tool that the command needs is missing."""
    if not sys.platform.startswith("linux"):
        missing("the load tool needs Linux: it reads /proc and waits by epoll")
    if shutil.which("gcc") is None:
        missing("no gcc to build the load tool and the floor: install Debian's `gcc` and `libc6-dev`")
    try:
        redis_program()
    except NoRedisServer as reason:
        missing(str(reason))


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.usefixtures("tools")
def test_table(tmp_path: Path) -> None:
    """The table has every metric of floor and hello, neither lost a message, and the exit code is 0."""
    results = tmp_path / "results.json"
    ended = bench(*SMALL, "--only", "floor,hello", "--json", str(results))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "hello: missing 0, repeated 0, reordered 0, disconnects 0" in ended.stdout
    assert "floor: missing 0, repeated 0, reordered 0, disconnects 0" in ended.stdout
    for server in ("floor", "hello"):
        row = re.search(rf"^\| {server} (.+)\|$", ended.stdout, re.MULTILINE)
        assert row is not None
        assert len(row[1].split("|")) == len(METRICS) + 3  # the language, and two ratios
    samples = json.loads(results.read_text())["samples"]
    assert [sample["server"] for sample in samples] == ["floor", "hello"]
    for sample in samples:
        assert sample["metrics"].keys() == {metric.key for metric in METRICS}
        assert sample["metrics"]["cpu_100"] > 0


@pytest.mark.usefixtures("tools")
def test_stampede() -> None:
    """Clients that resume at once receive every message after their own position."""
    ended = bench("--scenario", "stampede", *SMALL)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "hello: missing 0, repeated 0, reordered 0, disconnects 0" in ended.stdout
    assert "during the stampede" in ended.stdout


@pytest.mark.usefixtures("tools")
def test_unknown_server() -> None:
    """The error names the unknown server and the known ones."""
    ended = bench(*SMALL, "--only", "floor,unknown")
    assert ended.returncode == 2
    assert "there is no server unknown" in ended.stderr
    assert "hello" in ended.stderr.rpartition("known here")[2]


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gcc the error names the package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unfit, match="install Debian's `gcc`"):
        build("wsload", tmp_path)


@pytest.mark.usefixtures("tools")
def test_load_tool_counts_losses(tmp_path: Path) -> None:
    """Of a server that omits a message, repeats one and swaps two, the load tool reports exactly that."""
    load = Load(build("wsload", tmp_path))
    with open_channel() as channel, faulty(channel.server, tmp_path) as running:
        server = Server("faulty", "Python", faulty, "/")
        run = load.run(server, running, channel, 1, ["ten:rate=100:count=10"], "--drain", "0.5")
    assert run.losses == Losses(missing=1, repeated=1, reordered=1, disconnects=0)
    assert run.phases[0].deliveries == 9


@contextmanager
def faulty(redis: RedisServer, _directory: Path) -> Iterator[Running]:
    """Serve one client: the messages 1 to 11 without the 4th, the 6th twice, the 9th before the 8th."""
    sent = [1, 2, 3, 5, 6, 6, 7, 9, 8, 10, 11]

    def serve() -> None:
        client, _ = listener.accept()
        with client, Redis.from_url(redis.url) as raw, raw.pubsub() as pubsub:
            pubsub.subscribe("hello")
            pubsub.get_message(timeout=10)
            client.recv(4096)
            client.sendall(ACCEPTED)
            received: list[bytes] = []
            for number in sent:
                while len(received) < number:
                    message = pubsub.get_message(ignore_subscribe_messages=True, timeout=10)
                    if message is not None:
                        received.append(message["data"])
                frame = received[number - 1]
                client.sendall(bytes([0x81, len(frame)]) + frame)
            client.recv(1)  # returns when the client disconnects

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Running(listener.getsockname()[1], [os.getpid()])
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_ratio_within_a_round() -> None:
    """The ratio to the floor is the median of the ratios of each round, not the ratio of the medians."""
    values = [("floor", 1, 1.0), ("hello", 1, 2.0), ("floor", 2, 10.0), ("hello", 2, 11.0), ("floor", 3, 3.0)]
    values.append(("hello", 3, 3.6))
    samples = Samples([Sample(server, "", round_, 1, {"cpu_100": value}, Losses()) for server, round_, value in values])
    assert to_floor(samples, "hello", "cpu_100") == pytest.approx(1.2)
    assert to_floor(samples, "floor", "cpu_100") is None


def test_plot() -> None:
    """The SVG is well-formed, has both colour schemes, and every server at every size; the floor is in one panel."""
    sizes = (10, 100, 20_000)
    rows = [
        {"server": server, "clients": size, "metrics": {"cpu": 5.0, "memory": 2.0}}
        for server in ("floor", "hello", "a & b")
        for size in sizes
    ]
    svg = draw(points({"samples": rows}))
    assert "prefers-color-scheme: dark" in svg
    root = ElementTree.fromstring(svg)  # noqa: S314  made here
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [texts.count(name) for name in ("floor", "hello", "a & b", "20k")] == [1, 2, 2, 2]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 5 * len(sizes)


def test_number() -> None:
    """Numbers have three significant digits, and commas between thousands."""
    assert [number(value) for value in (6.2849, 34.36, 997_512.2)] == ["6.28", "34.4", "997,512"]
