"""On a real cluster: watchers stay attached while pods are switched, restarted, evicted, deleted and scaled.

`python -m tests.deploy.cluster CONTEXT URL`

It wants the shape split deployed, at a URL that outlives each pod (a NodePort, not a port-forward), and leaves it so;
it changes nothing outside the namespace. It knows the clients as `hello watch`, and the channel by its redis-cli. Exit
code 0: every watcher was shown every message that Redis accepted meanwhile, once and in order.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from hello.message import ORIGIN, Position

CLIENTS = 40  # a Python process of some 40 MB each
ROLLOUT = "180s"  # with time to pull an image
SECONDS = 120.0  # for anything else: a pod takes up to 45 s to end, and a message comes within 10 s
LOOK_SECONDS = 0.5
OVERLAYS = Path(__file__).parents[2] / "kustomize" / "overlays"
WORKLOADS = ("statefulset/redis", "deployment/broadcaster", "deployment/relay")


class Cluster:
    """The namespace hello of the cluster that kubectl's context names."""

    def __init__(self, context: str) -> None:
        self._context = context

    def kubectl(self, *words: str | Path, given: str | None = None) -> str:
        """What kubectl answers. Raises subprocess.CalledProcessError where it fails, and has said why on stderr."""
        command = ["kubectl", "--context", self._context, "--namespace", "hello", *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, input=given, text=True).stdout

    def settle(self) -> None:
        """Return once all is rolled out, every pod is ready, and none is on its way out any more."""
        for workload in WORKLOADS:
            self.kubectl("rollout", "status", workload, f"--timeout={ROLLOUT}")
        wait_until(self._is_settled, "pods are not what they should be")

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self._list("pods")]

    def evict(self, pod: str) -> None:
        """As a drain of its node does; what a disruption budget does not allow yet is asked for again."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "hello"}}
        path = f"/api/v1/namespaces/hello/pods/{pod}/eviction"

        def is_allowed() -> bool:
            try:
                self.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
            except subprocess.CalledProcessError:
                return False
            return True

        wait_until(is_allowed, f"{pod} may not be evicted")

    def accepted(self) -> list[Position]:
        """The position of each message that Redis has."""
        answer = self.kubectl("exec", "redis-0", "--", "redis-cli", "-e", "--json", "XRANGE", "hello", "-", "+")
        return [Position.parse(entry[0]) for entry in json.loads(answer)]

    def _is_settled(self) -> bool:
        pods = self._list("pods")
        wanted = sum(workload["spec"]["replicas"] for workload in self._list("deployments,statefulsets"))
        return len(pods) == wanted and all(map(is_ready, pods))

    def _list(self, kinds: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
        return listed


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether it serves, and will go on: kubectl counts one that is told to end as ready for a while."""
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


class Watcher:
    """`hello watch`, and what it has been shown. Leaving its `with` ends it, if it has not ended."""

    def __init__(self, url: str, output: Path) -> None:
        self._output = output
        self._url = url

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "hello", "watch", self._url, "--json"]
        with self._output.open("w") as output:
            self._process = subprocess.Popen(command, stdout=output)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Its lines of this type so far; a last line that is still being written is left out."""
        lines = self._output.read_text().splitlines(keepends=True)
        return [told for line in lines if line.endswith("\n") and (told := json.loads(line))["type"] == kind]

    def shown(self) -> list[Position]:
        return [Position.parse(message["position"]) for message in self.told("message")]

    def head(self) -> Position | None:
        """The newest position when it was first attached; None until then."""
        opened = [told["head"] for told in self.told("connection") if told["state"] == "open"]
        return (Position.parse(opened[0]) if opened[0] else ORIGIN) if opened else None

    def end(self) -> int:
        """Ctrl-C; its exit code, which is its own verdict."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=SECONDS)


def disturb(cluster: Cluster) -> None:
    """Everything that may happen to pods, one thing after another, from split to combined and back."""

    def step(what: str, *words: str | Path) -> None:
        say(what)
        cluster.kubectl(*words)
        cluster.settle()

    def each_pod(what: str, do: Callable[[str], object]) -> None:
        for pod in cluster.pods():
            say(f"{what} {pod}")
            do(pod)
            cluster.settle()

    for shape in ("combined", "split"):
        step(f"switch to {shape}", "apply", "-k", OVERLAYS / shape)
        step("restart everything", "rollout", "restart", *WORKLOADS)
        each_pod("evict", cluster.evict)
        each_pod("delete", lambda pod: cluster.kubectl("delete", "pod", pod))
        step("scale to 3 relays", "scale", "deployment/relay", "--replicas=3")
    step("scale back", "apply", "-k", OVERLAYS / "split")


def difference(shown: Sequence[Position], accepted: Iterable[Position], head: Position) -> str:
    """How what was shown after `head` differs from what was accepted until its last, in words; empty if it does not."""
    last = shown[-1] if shown else head
    wanted = [position for position in accepted if head < position <= last]
    if list(shown) == wanted:
        return ""
    missing = sorted(map(str, set(wanted) - set(shown)))
    strange = sorted(map(str, set(shown) - set(wanted)))
    return f"missing: {missing}, never accepted: {strange}" if missing or strange else "some twice, or out of order"


def wait_until(done: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"after {SECONDS:g} s: {complaint}")
        time.sleep(LOOK_SECONDS)  # between two looks at what other programs do: there is no event to wait for


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)  # noqa: T201 # a command prints


def run(context: str, url: str, clients: int = CLIENTS) -> int:
    """The exit code: 0, or 1 with the reasons printed."""
    cluster = Cluster(context)
    cluster.settle()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        watchers = [stack.enter_context(Watcher(url, Path(directory) / f"{n}.jsonl")) for n in range(clients)]
        wait_until(lambda: all(watcher.head() for watcher in watchers), f"some watchers did not reach {url}")
        say(f"{clients} watchers are attached")
        disturb(cluster)
        mark = cluster.accepted()[-1:]
        wait_until(lambda: all(watcher.shown()[-1:] > mark for watcher in watchers), "some are shown nothing any more")
        codes = [watcher.end() for watcher in watchers]
        accepted = cluster.accepted()
        found = [difference(watcher.shown(), accepted, watcher.head() or ORIGIN) for watcher in watchers]
        tallies = [watcher.told("tally")[-1] for watcher in watchers]
    for number, (code, words) in enumerate(zip(codes, found, strict=True)):
        if code or words:
            say(f"watcher {number} ended with {code}: {words or tallies[number]}")
    say(
        f"{clients} watchers: {min(tally['shown'] for tally in tallies)} messages or more each;"
        f" at most {max(tally['reconnects'] for tally in tallies)} reconnects;"
        f" the longest silence {max(tally['longest_silence'] for tally in tallies)} s"
    )
    return 1 if any(codes) or any(found) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.deploy.cluster", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("context", help="kubectl's context, such as minikube")
    parser.add_argument("url", help="the page's address")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"how many watchers (default: {CLIENTS})")
    options = parser.parse_args(arguments)
    return run(options.context, options.url, options.clients)


if __name__ == "__main__":
    sys.exit(main())
