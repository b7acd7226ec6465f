"""Builds the image and runs its container, with Docker, or else with podman, which has the same commands.

With podman no image registry is needed: debootstrap makes the base from Debian's packages, and the base gets the name
that the Dockerfile has for it. This module must not know what the image contains.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import missing
from tests.deploy.tools import ROOT
from tests.processes import free_ports

INSTALL = "start Docker, or run as root and install Debian's `podman debootstrap runc`"
SUITES = {"3.13": "trixie"}  # the Debian release with the Python of the Dockerfile's base
PIP_SETTINGS = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout"}
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# The container shares this machine's network, since not every machine lets a test create a bridge. The limits are lower
# than podman's own, which not every machine allows.
CONFINED = (
    *("--network", "host", "--read-only", "--tmpfs", "/tmp:size=16m", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--no-healthcheck", "--ulimit", "nofile=4096", "--ulimit", "nproc=4096"),
)


def output(*words: str | Path, seconds: float | None = None) -> str:
    """What a command prints. Raises subprocess.SubprocessError if the command fails, or takes more seconds."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds).stdout.strip()


@dataclass
class Image:
    """A built image, with its configuration in Docker's form and the bytes that it adds to its base."""

    name: str
    config: dict[str, Any]
    added_bytes: int


class Container:
    """A running container; `public` and `ops` are the ports of its servers on the loopback interface."""

    def __init__(self, engine: "Engine", image: Image, settings: dict[str, str]) -> None:
        self.public, self.ops = free_ports(2)
        settings |= {"HELLO_PORT": str(self.public), "HELLO_OPS_PORT": str(self.ops)}
        options = [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
        self._command = engine.command
        self._id = output(*self._command, "run", "--detach", *CONFINED, *options, image.name)

    def execute(self, *words: str) -> int:
        """Run a command in the container; its exit code."""
        return subprocess.run([*self._command, "exec", self._id, *words], check=False, capture_output=True).returncode

    def host_pid(self) -> int:
        """The id on this machine of the container's first process."""
        return int(output(*self._command, "inspect", "--format", "{{.State.Pid}}", self._id))

    def terminate(self) -> None:
        """Send SIGTERM."""
        output(*self._command, "kill", "--signal", "TERM", self._id)

    def wait(self, seconds: float) -> int:
        """The exit code, once the container has ended."""
        return int(output(*self._command, "wait", self._id, seconds=seconds))

    def log(self) -> str:
        """The container's output so far."""
        return subprocess.run([*self._command, "logs", self._id], check=False, capture_output=True, text=True).stderr

    def remove(self) -> None:
        subprocess.run([*self._command, "kill", self._id], check=False, capture_output=True)  # it may have ended
        output(*self._command, "rm", self._id)


class Engine:
    """The command that builds and runs, and its options."""

    def __init__(self, *command: str | Path) -> None:
        self.command = command

    def build(self, *options: str | Path) -> Image:
        name = f"localhost/hello:test-{os.getpid()}"
        output(*self.command, "build", "--quiet", "--tag", name, *options, ROOT)
        (built,) = json.loads(output(*self.command, "image", "inspect", name))
        (base,) = json.loads(output(*self.command, "image", "inspect", base_name()))
        # podman has the health check beside the configuration.
        return Image(name, {"Healthcheck": built.get("Healthcheck"), **built["Config"]}, built["Size"] - base["Size"])

    @contextmanager
    def run(self, image: Image, settings: dict[str, str]) -> Iterator[Container]:
        """Run a container with a read-only root and no capabilities, and remove it at the end."""
        container = Container(self, image, settings)
        try:
            yield container
        finally:
            container.remove()

    def remove(self, image: Image) -> None:
        output(*self.command, "image", "rm", image.name)


class Podman(Engine):
    """podman with a storage of its own, which also keeps the base for the next run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hello-tests"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__("podman", "--root", cache / "podman", "--runroot", cache / "run", "--runtime", "runc")

    def build(self, *options: str | Path) -> Image:
        self._make_base(base_name())
        options = (
            *options,
            "--pull=never",
            "--format=docker",
            "--layers=false",
            "--isolation=chroot",
            *self._reach_packages(),
        )
        return super().build(*options)

    def _make_base(self, name: str) -> None:
        """Make the base image from Debian's packages, unless it is cached."""
        if subprocess.run([*self.command, "image", "exists", f"docker.io/library/{name}"], check=False).returncode == 0:
            return
        version = re.fullmatch(r"python:(\d+\.\d+)-slim", name)
        assert version, f"the tests cannot make the base {name}"
        root, archive = self.directory / "base", self.directory / "base.tar"
        output("debootstrap", "--variant=minbase", "--include=python3,python3-pip", SUITES[version[1]], root)
        output("tar", "--exclude=./var/cache/apt/archives", "-C", root, "-cf", archive, ".")
        output(*self.command, "import", archive, f"docker.io/library/{name}")
        shutil.rmtree(root)
        archive.unlink()

    def _reach_packages(self) -> list[str]:
        """Options that give pip in the build the package index of pip on this machine."""
        settings = [f"cert = {CERTIFICATES}"]
        for line in output(sys.executable, "-m", "pip", "config", "list").splitlines():
            setting, _, value = line.partition("=")
            setting, value = setting.rpartition(".")[2], value.strip("'")
            if setting in PIP_SETTINGS and not value.startswith("file:"):
                settings.append(f"{setting} = {value}")
        config = self.directory / "pip.conf"
        config.write_text("[global]\n" + "\n".join(settings) + "\n")
        certificates = ssl.get_default_verify_paths().cafile or CERTIFICATES
        return ["--volume", f"{config}:/etc/pip.conf:ro", "--volume", f"{certificates}:{CERTIFICATES}:ro"]


def engine(directory: Path) -> Engine:
    """The engine of this machine."""
    if shutil.which("docker") and subprocess.run(["docker", "version"], capture_output=True).returncode == 0:
        return Engine("docker")
    if os.geteuid() == 0 and all(map(shutil.which, ("podman", "debootstrap", "runc"))):
        return Podman(directory)
    missing(f"no program that builds an image: {INSTALL}")
    raise AssertionError


def base_name() -> str:
    """The name of the base, which is the same in every stage of the Dockerfile."""
    name: str
    (name,) = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    return name
