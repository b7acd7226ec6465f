"""Three Redis and three sentinels: the pods of `kustomize/components/redis-sentinel`, as processes of this machine.

They run the component's own scripts and configuration. Each pod has an address of the loopback interface in place of
its Service's name, and a folder in place of its volumes. As in a cluster, a pod that starts has its volume of before.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import redis

from tests.deploy.tools import ROOT, tool

KUSTOMIZE = ROOT / "kustomize"
FILES = (
    KUSTOMIZE / "base" / "redis.conf",
    *(KUSTOMIZE / "components" / "redis-sentinel" / name for name in ("redis.sh", "sentinel.sh", "sentinel.conf")),
)
FOLDERS = {"/etc/redis": "config", "/etc/sentinel": "config", "/data": "data", "/tmp": "tmp"}  # noqa: S108  # of a pod
PORTS = {"redis": 6379, "sentinel": 26379}
NAMES = tuple(f"{kind}-{n}" for kind in PORTS for n in range(3))
WAIT_SECONDS = 60.0  # a failover takes four, and some ten where the first attempt fails
ACKNOWLEDGED_MS = 1000
QUOTED = 'with "quotes" and \\'  # a password that both scripts have to quote

T = TypeVar("T")


class SentinelPods:
    """Three Redis and three sentinels, by their pods' names; they end with the context."""

    names = NAMES

    def __init__(self, directory: Path, *, secret: str = "", rights: str = "", program: str = "redis-server") -> None:
        """`rights` are those of the user `app` in `url`, with the stream `hello`, and are given for every stream.

        `program` is a server of any engine; the scripts also run `redis-cli`.
        """
        tool("redis-cli", "install Debian's `redis-server`")
        self._program = program
        # Other tests run at the same time: each process has a network of the loopback interface to itself.
        network = f"127.{os.getpid() // 254 % 126 + 1}.{os.getpid() % 254 + 1}"
        self._addresses = {name: f"{network}.{number}" for number, name in enumerate(NAMES, 1)}
        self.url = f"redis+sentinel://app@{','.join(self._addresses[name] for name in NAMES[3:])}/hello"
        self._directory = directory
        self._password = secret
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for pod in self.names:
            for folder in ("config/auth", "data", "tmp"):
                (directory / pod / folder).mkdir(parents=True)
            for file in FILES:
                (directory / pod / "config" / file.name).write_text(self._localised(file.read_text(), pod))
            quoted = re.sub(r'(["\\])', r"\\\1", secret)
            users = {"tests": "+@all", "app": " ".join(word for word in rights.split() if word[0] in "+-")}
            lines = [f"user {name} on nopass ~* &* {commands}" for name, commands in users.items()]
            auth = directory / pod / "config" / "auth" / "auth.conf"
            auth.write_text("\n".join([f'requirepass "{quoted}"', *lines, ""]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in tuple(self._processes):
            self.kill(pod)

    def start(self, *pods: str) -> None:
        for pod in pods:
            passwords = {"REDISCLI_AUTH": self._password, "REDIS_PASSWORD": self._password}
            environment = {**os.environ, **passwords, "POD": self._addresses[pod]}
            script = self._directory / pod / "config" / f"{_kind(pod)}.sh"
            with (self._directory / pod / "log").open("ab") as log:
                # Its own group: redis.sh waits in other programs before it becomes Redis.
                self._processes[pod] = subprocess.Popen(
                    ["sh", script], env=environment, stdout=log, stderr=log, start_new_session=True
                )

    def kill(self, pod: str, *, lose_volume: bool = False) -> None:
        process = self._processes.pop(pod)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if lose_volume:
            shutil.rmtree(self._directory / pod / "data")
            (self._directory / pod / "data").mkdir()

    def signal(self, pod: str, number: int) -> None:
        self._processes[pod].send_signal(number)

    def primary(self) -> str:
        """Return the name of the pod that the sentinel with the latest failover names."""
        address = max(self._views(), key=lambda each: int(each["config-epoch"]))["address"]
        return next(pod for pod, known in self._addresses.items() if known == address)

    def wait_for_another_primary(self, than: str) -> None:
        def is_another() -> None:
            assert self.primary() != than

        _retry(is_another)

    def isolate(self, pod: str) -> None:
        """Cut this Redis off from sentinels and other Redis, which are the user `default`, but from no channel."""
        with self.client(pod) as client:
            client.execute_command("ACL", "SETUSER", "default", "off")
            client.execute_command("CLIENT", "KILL", "USER", "default")

    def join(self, pod: str) -> None:
        with self.client(pod) as client:
            client.execute_command("ACL", "SETUSER", "default", "on")

    def wait_until_all_know_each_other(self) -> None:
        """Return once every sentinel sees a primary, two replicas and two other sentinels, and all of them reply."""

        def complete() -> None:
            for each in self._views():
                assert (each["num-slaves"], each["num-other-sentinels"], each["flags"]) == ("2", "2", "master")
            for n in range(3):
                state = self.client(f"redis-{n}").info("replication")
                assert state["role"] == "master" or state["master_link_status"] == "up"

        _retry(complete)

    def publish(self) -> str:
        """Append an entry to the stream of the primary; return its position once a replica has it."""

        def append() -> str:
            with self.client(self.primary()) as client:
                position = str(client.xadd("hello", {"text": "Hello world"}))
                assert client.execute_command("WAIT", 1, ACKNOWLEDGED_MS) >= 1
                return position

        return _retry(append)

    def entries(self) -> list[str]:
        with self.client(self.primary()) as client:
            return [str(position) for position, _ in client.xrange("hello")]

    def _views(self) -> list[dict[str, Any]]:
        """What each sentinel knows of the primary."""
        views = []
        for n in range(3):
            with self.client(f"sentinel-{n}") as client:
                fields = client.execute_command("SENTINEL", "MASTER", "hello")
                # In a failover the `ip` of the first reply is still the old primary.
                address, _ = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "hello")
            views.append({"address": address, **{name: str(value) for name, value in fields.items()}})
        return views

    def client(self, pod: str) -> Any:
        """A client of the library for this Redis or sentinel, to be closed."""
        kind = _kind(pod)
        user = "tests:any@" if kind == "redis" else ""
        url = f"redis://{user}{self._addresses[pod]}:{PORTS[kind]}"
        return redis.Redis.from_url(url, socket_timeout=2, decode_responses=True)

    def _localised(self, text: str, pod: str) -> str:
        text = text.replace("bind * -::*", f"bind {self._addresses[pod]}")
        text = re.sub(r"\b(redis|sentinel)-\d\b", lambda name: self._addresses[name[0]], text)
        folders = rf"(?<![\w/])({'|'.join(FOLDERS)})(?=[/\s\"])"
        text = re.sub(folders, lambda found: str(self._directory / pod / FOLDERS[found[1]]), text)
        return text.replace("redis-server", self._program)


def _kind(pod: str) -> str:
    return pod.partition("-")[0]


def _retry(step: Callable[[], T]) -> T:
    """Return what the step returns, once it neither loses a connection nor finds that something is not so yet."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return step()
        except (redis.RedisError, AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
