"""The proof on a cluster (cluster.py), without one: watchers, relay and Redis are real, kubectl is played."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from hello.message import ORIGIN, Position
from tests.deploy.cluster import difference, is_ready, main
from tests.processes import HelloProcess
from tests.redis_server import RedisServer

POD = {"metadata": {"name": "redis-0"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
# The stream, as `redis-cli --json` prints it. Where there is a file `lost`, it has an entry that nobody was shown, from
# the first time on that it is asked for.
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
    """A kubectl on the PATH that notes its calls; the first eviction is refused, as by a disruption budget."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        self._calls = directory / "calls"
        self.lost = directory / "lost"
        program = directory / "bin" / "kubectl"
        program.parent.mkdir()
        refused = shlex.quote(str(directory / "refused"))
        xrange = shlex.join([sys.executable, "-W", "ignore", "-c", XRANGE, redis_url, str(self.lost)])
        workload = {"spec": {"replicas": 1}}
        program.write_text(
            f"""#!/bin/sh
            echo "$*" >>{shlex.quote(str(self._calls))}
            case "$*" in
              *" get pods "*) echo {shlex.quote(json.dumps({"items": [POD]}))} ;;
              *" get deployments,"*) echo {shlex.quote(json.dumps({"items": [workload]}))} ;;
              *" XRANGE "*) exec {xrange} ;;
              *" create "*) [ -e {refused} ] || {{ touch {refused}; exit 1; }} ;;
            esac
            """
        )
        program.chmod(0o755)
        self.path = program.parent

    def calls(self) -> list[str]:
        """Less the context and the namespace, which each of them names."""
        beginning = "--context a-context --namespace hello "
        lines = self._calls.read_text().splitlines()
        assert all(line.startswith(beginning) for line in lines)
        return [line.removeprefix(beginning) for line in lines]


@pytest.fixture
def kubectl(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    played = Kubectl(tmp_path, redis_server.url)
    monkeypatch.setenv("PATH", str(played.path), prepend=":")
    return played


def prove(redis_server: RedisServer) -> int:
    settings = {"channel": redis_server.url, "interval_min": "0.1", "interval_max": "0.1"}
    with HelloProcess(**settings) as hello:
        return main(["a-context", hello.url, "--clients", "2"])


def test_watchers_that_were_shown_every_message_prove_it(kubectl: Kubectl, redis_server: RedisServer) -> None:
    """While everything that is promised to be harmless was done."""
    assert prove(redis_server) == 0
    done = [call.partition(" ")[0] for call in kubectl.calls()]
    assert done.count("apply") == 3
    assert done.count("create") == 3  # evictions, of which one was refused
    assert done.count("delete") == done.count("scale") == 2
    assert any(call.startswith("rollout restart") for call in kubectl.calls())


def test_a_message_that_nobody_was_shown_is_a_failure(
    kubectl: Kubectl, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.lost.touch()
    assert prove(redis_server) == 1
    assert capsys.readouterr().out.count("missing: ") == 2


ONE, TWO, THREE = (Position(1, number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ([ONE, TWO, THREE], ""),
        ([ONE, TWO], ""),  # what came after the watcher had ended is not held against it
        ([], ""),
        ([ONE, THREE], "missing: ['1-2'], never accepted: []"),
        ([TWO, THREE], "missing: ['1-1'], never accepted: []"),
        ([ONE, TWO, Position(1, 9)], "missing: ['1-3'], never accepted: ['1-9']"),
        ([ONE, TWO, TWO, THREE], "some twice, or out of order"),
        ([TWO, ONE, THREE], "some twice, or out of order"),
    ],
)
def test_what_differs_from_the_stream_is_told(shown: list[Position], words: str) -> None:
    assert difference(shown, [ONE, TWO, THREE], ORIGIN) == words


def test_what_was_accepted_before_a_watcher_came_is_not_held_against_it() -> None:
    assert difference([TWO], [ONE, TWO], ONE) == ""


def test_a_pod_that_is_told_to_end_is_not_ready() -> None:
    assert is_ready(POD)
    assert not is_ready(POD | {"metadata": {"name": "redis-0", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert not is_ready({"metadata": {"name": "redis-0"}, "status": {}})
