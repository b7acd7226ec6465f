"""The proof on a cluster (cluster.py), run with a fake kubectl; clients, relay and Redis are real."""

import json
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.deploy.cluster import is_ready, main, wait_until
from tests.processes import HelloProcess
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
LABELS = {"app.kubernetes.io/component": "relay"}
POD = {"metadata": {"name": "relay-1", "labels": LABELS}, "status": {"conditions": [READY]}}
# Prints the stream as `redis-cli --json` does. If the file `lost` exists, it adds an entry that no client received.
XRANGE = """
import json, pathlib, redis, sys
url, lost = sys.argv[1], pathlib.Path(sys.argv[2])
entries = redis.Redis.from_url(url, decode_responses=True).xrange("hello")
if lost.exists():
    if not lost.read_text():
        lost.write_text(str(int(entries[-1][0].partition("-")[0]) - 1) + "-9")
    entries = sorted([*entries, (lost.read_text(), {})], key=lambda entry: entry[0])
print(json.dumps(entries))
"""


class Kubectl:
    """A kubectl on the PATH that records its calls; the first eviction fails, as by a disruption budget.

    A restart creates the file `restart`, and waits until it is removed.
    """

    def __init__(self, directory: Path, redis_url: str) -> None:
        self._calls = directory / "calls"
        self.lost = directory / "lost"
        self.restart = directory / "restart"
        program = directory / "bin" / "kubectl"
        program.parent.mkdir()
        restart = shlex.quote(str(self.restart))
        rejected = shlex.quote(str(directory / "rejected"))
        xrange = shlex.join([sys.executable, "-W", "ignore", "-c", XRANGE, redis_url, str(self.lost)])
        workload = {"spec": {"replicas": 1}}
        program.write_text(
            f"""#!/bin/sh
            echo "$*" >>{shlex.quote(str(self._calls))}
            case "$*" in
              *" get pods "*) echo {shlex.quote(json.dumps({"items": [POD]}))} ;;
              *" get deployments,"*) echo {shlex.quote(json.dumps({"items": [workload]}))} ;;
              *" rollout restart "*) touch {restart}; while [ -e {restart} ]; do sleep 0.05; done ;;
              *" XRANGE "*) exec {xrange} ;;
              *" create "*) [ -e {rejected} ] || {{ touch {rejected}; exit 1; }} ;;
            esac
            """
        )
        program.chmod(0o755)
        self.path = program.parent

    def calls(self) -> list[str]:
        """The calls without the context and the namespace, which each of them must name."""
        beginning = "--context a-context --namespace hello "
        lines = self._calls.read_text().splitlines()
        assert all(line.startswith(beginning) for line in lines)
        return [line.removeprefix(beginning) for line in lines]


@pytest.fixture
def kubectl(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    fake = Kubectl(tmp_path, redis_server.url)
    monkeypatch.setenv("PATH", str(fake.path), prepend=":")
    return fake


def prove(kubectl: Kubectl, redis_server: RedisServer, moves: int = 1) -> int:
    """Run the proof, in which a restart restarts the one relay; the first one moves each client so often."""
    settings = {"channel": redis_server.url, "interval_min": "0.1", "interval_max": "0.1"}
    with HelloProcess(**settings) as hello, ThreadPoolExecutor() as pool:
        proof = pool.submit(main, ["a-context", hello.url, "--clients", "2"])
        while not proof.done():
            if kubectl.restart.exists():
                for _ in range(moves):
                    wait_until(lambda: hello.metrics()["hello_clients"] == 2, "the clients are not connected")
                    hello.terminate()
                    hello.start()
                kubectl.restart.unlink()
                moves = 1
            time.sleep(0.05)  # the proof gives no event to wait for
        return proof.result()


def test_nothing_missed(kubectl: Kubectl, redis_server: RedisServer) -> None:
    """The proof succeeds if the clients received every message and were moved once, after it has done every step."""
    assert prove(kubectl, redis_server) == 0
    done = [call.partition(" ")[0] for call in kubectl.calls()]
    assert done.count("apply") == 3
    assert done.count("create") == 3  # evictions, one of which failed
    assert done.count("delete") == done.count("scale") == 2
    assert sum(call.startswith("rollout restart") for call in kubectl.calls()) == 4


def test_missed_message(kubectl: Kubectl, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The proof fails if Redis has a message that no client received."""
    kubectl.lost.touch()
    assert prove(kubectl, redis_server) == 1
    assert capsys.readouterr().out.count(", which is not lost") == 2


def test_moved_twice(kubectl: Kubectl, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The proof fails if one restart moved the clients twice."""
    assert prove(kubectl, redis_server, moves=2) == 1
    assert capsys.readouterr().out.count("more than once: ") == 1


def test_terminating_pod() -> None:
    """A terminating pod is not ready, nor is a pod without conditions."""
    assert is_ready(POD)
    assert not is_ready(POD | {"metadata": {"name": "redis-0", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert not is_ready({"metadata": {"name": "redis-0"}, "status": {}})
