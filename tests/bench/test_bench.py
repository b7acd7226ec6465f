"""The tool that measures works: a smoke test of the command, as users give it. Its figures are nobody's promise."""

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
from tests.bench.rounds import FIGURES, Sample, Samples
from tests.bench.servers import Running, Server
from tests.conftest import missing
from tests.redis_server import NoRedisServer, RedisServer, redis_program

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parent.parent.parent
ACCEPTED = (  # the answer to the load tool's key
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
LITTLE = ("--rounds", "1", "--browsers", "20", "--crowd", "40", "--seconds", "0.5")


@pytest.fixture(scope="module")
def tools() -> None:
    """What the command needs: where it is missing the test is skipped, and in CI it fails."""
    if not sys.platform.startswith("linux"):
        missing("the load tool is made for Linux: it reads /proc and waits by epoll")
    if shutil.which("gcc") is None:
        missing("no gcc, which builds the load tool and the floor: install Debian's `gcc` and `libc6-dev`")
    try:
        redis_program()
    except NoRedisServer as reason:
        missing(str(reason))


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.usefixtures("tools")
def test_the_command_measures_floor_and_hello_and_loses_no_message(tmp_path: Path) -> None:
    """Every figure is in the table, for both, and the exit code is 0."""
    results = tmp_path / "results.json"
    ended = bench(*LITTLE, "--only", "floor,hello", "--json", str(results))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "hello: missing 0, repeated 0, reordered 0, disconnects 0" in ended.stdout
    assert "floor: missing 0, repeated 0, reordered 0, disconnects 0" in ended.stdout
    for server in ("floor", "hello"):
        row = re.search(rf"^\| {server} (.+)\|$", ended.stdout, re.MULTILINE)
        assert row is not None
        assert len(row[1].split("|")) == len(FIGURES) + 3  # what is before the first bar, and two ratios
    samples = json.loads(results.read_text())["samples"]
    assert [sample["server"] for sample in samples] == ["floor", "hello"]
    for sample in samples:
        assert sample["figures"].keys() == {figure.key for figure in FIGURES}
        assert sample["figures"]["cpu_100"] > 0


@pytest.mark.usefixtures("tools")
def test_browsers_that_resume_at_once_have_every_message() -> None:
    """The load tool counts from each browser's own position on."""
    ended = bench("--scenario", "stampede", "--browsers", "20", "--crowd", "40", "--seconds", "0.5")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "hello: missing 0, repeated 0, reordered 0, disconnects 0" in ended.stdout
    assert "during the stampede" in ended.stdout


@pytest.mark.usefixtures("tools")
def test_a_server_that_nobody_knows_is_named() -> None:
    """And so are those that are known."""
    ended = bench(*LITTLE, "--only", "floor,nobody")
    assert ended.returncode == 2
    assert "there is no server nobody" in ended.stderr
    assert "hello" in ended.stderr.rpartition("known here")[2]


def test_a_machine_without_a_compiler_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unfit, match="install Debian's `gcc`"):
        build("wsload", tmp_path)


@pytest.mark.usefixtures("tools")
def test_the_load_tool_tells_what_is_missing_repeated_and_reordered(tmp_path: Path) -> None:
    """A server that leaves out one message, doubles one and swaps two is found out, to the message."""
    load = Load(build("wsload", tmp_path))
    with open_channel() as channel, liar(channel.server, tmp_path) as running:
        server = Server("liar", "Python", liar, "/")
        run = load.run(server, running, channel, 1, ["ten:rate=100:count=10"], "--drain", "0.5")
    assert run.losses == Losses(missing=1, repeated=1, reordered=1, disconnects=0)
    assert run.phases[0].deliveries == 9


@contextmanager
def liar(redis: RedisServer, _directory: Path) -> Iterator[Running]:
    """To one browser: the messages 1 to 11 without the 4th, the 6th twice, the 9th before the 8th."""
    told = [1, 2, 3, 5, 6, 6, 7, 9, 8, 10, 11]

    def serve() -> None:
        browser, _ = door.accept()
        with browser, Redis.from_url(redis.url) as client, client.pubsub() as pubsub:
            pubsub.subscribe("hello")
            pubsub.get_message(timeout=10)
            browser.recv(4096)
            browser.sendall(ACCEPTED)
            heard: list[bytes] = []
            for number in told:
                while len(heard) < number:
                    message = pubsub.get_message(ignore_subscribe_messages=True, timeout=10)
                    if message is not None:
                        heard.append(message["data"])
                frame = heard[number - 1]
                browser.sendall(bytes([0x81, len(frame)]) + frame)
            browser.recv(1)  # until it goes

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Running(door.getsockname()[1], [os.getpid()])
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_ratios_are_of_the_same_round() -> None:
    """The median of each round's ratio, not the ratio of the medians."""
    values = [("floor", 1, 1.0), ("hello", 1, 2.0), ("floor", 2, 10.0), ("hello", 2, 11.0), ("floor", 3, 3.0)]
    values.append(("hello", 3, 3.6))
    samples = Samples([Sample(server, "", round_, 1, {"cpu_100": value}, Losses()) for server, round_, value in values])
    assert to_floor(samples, "hello", "cpu_100") == pytest.approx(1.2)
    assert to_floor(samples, "floor", "cpu_100") is None


def test_the_plot_shows_every_server_at_every_size() -> None:
    """As well-formed SVG with both schemes, in two panels, of which the floor is in the first one only."""
    sizes = (10, 100, 20_000)
    rows = [
        {"server": server, "browsers": size, "figures": {"cpu": 5.0, "memory": 2.0}}
        for server in ("floor", "hello", "a & b")
        for size in sizes
    ]
    svg = draw(points({"samples": rows}))
    assert "prefers-color-scheme: dark" in svg
    root = ElementTree.fromstring(svg)  # noqa: S314  it was made here
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [texts.count(name) for name in ("floor", "hello", "a & b", "20k")] == [1, 2, 2, 2]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 5 * len(sizes)


def test_numbers_are_readable() -> None:
    assert [number(value) for value in (6.2849, 34.36, 997_512.2)] == ["6.28", "34.4", "997,512"]
