"""Smoke tests of the bench: its command, its load tool and its tables. The metrics are not promises."""

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

import pytest
from redis import Redis

from tests.bench.load import Load, Losses, open_channel
from tests.bench.machine import build
from tests.bench.rounds import METRICS
from tests.bench.servers import Running, Server
from tests.conftest import missing
from tests.deploy.tools import ROOT
from tests.redis_server import NoRedisServer, RedisServer, redis_program

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("tools")]

ACCEPTED = (  # the answer to the key of the load tool
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.fixture(scope="module")
def tools() -> None:
    """Skip the test, or fail it in CI, if a tool that the command needs is missing."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        missing("the load tool needs Linux and gcc: install Debian's `gcc` and `libc6-dev`")
    try:
        redis_program()
    except NoRedisServer as reason:
        missing(str(reason))


def bench(*options: str) -> str:
    """Run the command on a small scale, which must find that no server has lost a message; return its output."""
    command = [sys.executable, "-m", "tests.bench", *options]
    command += ["--rounds", "1", "--clients", "20", "--many-clients", "40", "--seconds", "0.5"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.findall(r": missing .*", ended.stdout) == [f": {Losses()}"] * (2 if "--only" in options else 1)
    return ended.stdout


def test_table(tmp_path: Path) -> None:
    """The table has every metric of floor and hello."""
    results = tmp_path / "results.json"
    output = bench("--only", "floor", "hello", "--json", str(results))
    assert re.findall(r"^\| (floor|hello) ", output, re.MULTILINE) == ["floor", "hello"]
    samples = json.loads(results.read_text())["samples"]
    assert [sample["server"] for sample in samples] == ["floor", "hello"]
    for sample in samples:
        assert sample["metrics"].keys() == {metric.key for metric in METRICS}
        assert sample["metrics"]["cpu_100"] > 0


def test_stampede() -> None:
    """Clients that resume at once receive every message after their own position."""
    assert "during the stampede" in bench("--scenario", "stampede")


def test_load_tool_counts_losses(tmp_path: Path) -> None:
    """Of a server that omits a message, repeats one and swaps two, the load tool reports exactly that."""
    load = Load(build("wsload", tmp_path))
    with open_channel() as channel, faulty(channel.server, tmp_path) as running:
        server = Server("faulty", "Python", faulty, "/")
        run = load.run(server, running, channel, 1, "--phase", "ten:rate=100:count=10", "--drain", "0.5")
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
