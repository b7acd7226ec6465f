"""Proves on a real cluster that clients miss nothing: `python -m tests.deploy.cluster CONTEXT URL`.

While clients (`hello watch`) are connected, it switches the shape and restarts, evicts, deletes and scales pods. Exit
code 0: every client showed each message that Redis accepted meanwhile, once and in order, and each restart moved each
client once. The shape `split` has to be deployed, and is deployed again at the end; nothing outside the namespace
changes. The URL has to outlive each pod: a NodePort does, a port-forward does not.
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
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from hello.message import ORIGIN, Position
from tests.promises import Accepted, AcceptedLog, Finding, Reader, Received

CLIENTS = 40  # each is a Python process of 40 MB
ROLLOUT = "180s"  # with time to pull an image
SECONDS = 120.0  # for anything else: a pod stops within 45 s, and a message comes within 10 s
POLL_SECONDS = 0.5
SPREAD_SECONDS = 8  # between the first and the last new relay: the condition of one move (deploy/README.md)
OVERLAYS = Path(__file__).parents[2] / "kustomize" / "overlays"
COMPONENT = "app.kubernetes.io/component"
WORKLOADS = ("statefulset/redis", "deployment/broadcaster", "deployment/relay")


class Cluster:
    """The namespace hello of the cluster in this context of kubectl."""

    def __init__(self, context: str) -> None:
        self._context = context

    def kubectl(self, *words: str | Path, stdin: str | None = None) -> str:
        """What kubectl prints. Raises subprocess.CalledProcessError if it fails; the reason is then on stderr."""
        command = ["kubectl", "--context", self._context, "--namespace", "hello", *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, input=stdin, text=True).stdout

    def settle(self) -> None:
        """Return once every workload is rolled out, all pods are ready, and none is terminating."""
        for workload in WORKLOADS:
            self.kubectl("rollout", "status", workload, f"--timeout={ROLLOUT}")
        wait_until(self._is_settled, "some pods are missing, not ready or still terminating")

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self._list("pods")]

    def evict(self, pod: str) -> None:
        """Evict a pod, as a drain of its node does; try again while the disruption budget does not allow it."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "hello"}}
        path = f"/api/v1/namespaces/hello/pods/{pod}/eviction"

        def is_allowed() -> bool:
            try:
                self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
            except subprocess.CalledProcessError:
                return False
            return True

        wait_until(is_allowed, f"the eviction of {pod} is not allowed")

    def accepted(self) -> list[Position]:
        """The position of each message in Redis."""
        output = self.kubectl("exec", "redis-0", "--", "redis-cli", "-e", "--json", "XRANGE", "hello", "-", "+")
        return [Position.parse(entry[0]) for entry in json.loads(output)]

    def spread(self) -> float:
        """Seconds between the moments at which the first and the last relay became ready."""
        pods = [pod for pod in self._list("pods") if pod["metadata"]["labels"].get(COMPONENT) == "relay"]
        ready = [each for pod in pods for each in pod["status"]["conditions"] if each["type"] == "Ready"]
        times = [datetime.fromisoformat(each["lastTransitionTime"]) for each in ready]
        return (max(times) - min(times)).total_seconds()

    def _is_settled(self) -> bool:
        pods = self._list("pods")
        wanted = sum(workload["spec"]["replicas"] for workload in self._list("deployments,statefulsets"))
        return len(pods) == wanted and all(map(is_ready, pods))

    def _list(self, kinds: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
        return listed


def is_ready(pod: dict[str, Any]) -> bool:
    """True if the pod is ready and not terminating: a terminating pod has the condition Ready for a while."""
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


class Client:
    """A process of `hello watch`. Leaving its `with` kills the process."""

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

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The complete lines of this type so far."""
        texts = self._output.read_text().splitlines(keepends=True)
        return [line for text in texts if text.endswith("\n") and (line := json.loads(text))["type"] == kind]

    def shown(self) -> list[Position]:
        return [Position.parse(message["position"]) for message in self.lines("message")]

    def moves(self) -> int:
        """How often a relay has closed its connection for a restart."""
        return sum(line["state"] == "moved" for line in self.lines("connection"))

    def head(self) -> Position | None:
        """The relay's head when the client first connected; None until then."""
        opened = [line["head"] for line in self.lines("connection") if line["state"] == "open"]
        return (Position.parse(opened[0]) if opened[0] else ORIGIN) if opened else None

    def end(self) -> int:
        """Send SIGINT; the exit code, which is 0 if the client found nothing lost or repeated."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=SECONDS)


def disturb(cluster: Cluster, clients: Sequence[Client]) -> list[str]:
    """Do everything that may happen to pods, one step after the other, from split to combined and back.

    Returns the restarts that moved a client more than once, each in a line.
    """
    findings = []

    def step(what: str, *words: str | Path) -> None:
        log(what)
        cluster.kubectl(*words)
        cluster.settle()

    def each_pod(what: str, do: Callable[[str], object]) -> None:
        for pod in cluster.pods():
            log(f"{what} {pod}")
            do(pod)
            cluster.settle()

    def restart(what: str, *workloads: str) -> None:
        before = [client.moves() for client in clients]

        def moves() -> list[int]:
            return [client.moves() - count for client, count in zip(clients, before, strict=True)]

        step(what, "rollout", "restart", *workloads)
        wait_until(lambda: min(moves()) > 0, f"some clients were not moved: {what}")
        total, spread = sum(moves()), cluster.spread()
        line = f"{what}: {total} moves of {len(clients)} clients; the relays became ready within {spread:g} s"
        log(line)
        if total > len(clients) and spread <= SPREAD_SECONDS:
            findings.append(line)

    for shape in ("combined", "split"):
        step(f"switch to {shape}", "apply", "-k", OVERLAYS / shape)
        restart("restart everything", *WORKLOADS)
        each_pod("evict", cluster.evict)
        each_pod("delete", lambda pod: cluster.kubectl("delete", "pod", pod))
        step("scale to 4 relays", "scale", "deployment/relay", "--replicas=4")
        restart("restart 4 relays", "deployment/relay")
    step("scale back", "apply", "-k", OVERLAYS / "split")
    return findings


def differences(shown: Iterable[Position], accepted: Iterable[Position], head: Position) -> list[Finding]:
    """How the shown positions differ from those accepted after `head`, up to the last one shown."""
    reader = Reader("", AcceptedLog(Accepted(0, each, "message", None) for each in accepted), lambda *_: False, head)
    return [finding for each in shown for finding in reader.receive(Received(0, each, "message", shown=None))]


def wait_until(done: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"after {SECONDS:g} s: {problem}")
        time.sleep(POLL_SECONDS)  # other programs give no event to wait for


def log(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)  # noqa: T201 # a command prints


def run(context: str, url: str, clients: int = CLIENTS) -> int:
    """Run the proof and print what it finds; the exit code."""
    cluster = Cluster(context)
    cluster.settle()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        watching = [stack.enter_context(Client(url, Path(directory) / f"{n}.jsonl")) for n in range(clients)]
        wait_until(lambda: all(client.head() for client in watching), f"some clients did not connect to {url}")
        log(f"{clients} clients are connected")
        moved_twice = disturb(cluster, watching)
        newest = cluster.accepted()[-1:]
        wait_until(lambda: all(client.shown()[-1:] > newest for client in watching), "some clients receive no message")
        codes = [client.end() for client in watching]
        accepted = cluster.accepted()
        found = [differences(client.shown(), accepted, client.head() or ORIGIN) for client in watching]
        tallies = [client.lines("tally")[-1] for client in watching]
    for number, (code, findings) in enumerate(zip(codes, found, strict=True)):
        if code or findings:
            log(f"client {number} ended with {code}: {[each.text for each in findings] or tallies[number]}")
    log(
        f"{clients} clients: {min(tally['shown'] for tally in tallies)} messages or more each;"
        f" at most {max(tally['moves'] for tally in tallies)} moves and"
        f" {max(tally['reconnects'] for tally in tallies)} reconnects;"
        f" the longest silence {max(tally['longest_silence'] for tally in tallies)} s"
    )
    for line in moved_twice:
        log(f"a client was moved more than once: {line}")
    return 1 if any(codes) or any(found) or moved_twice else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.deploy.cluster", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("context", help="kubectl's context, such as minikube")
    parser.add_argument("url", help="the page's address")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"how many clients (default: {CLIENTS})")
    options = parser.parse_args(arguments)
    return run(options.context, options.url, options.clients)


if __name__ == "__main__":
    sys.exit(main())
