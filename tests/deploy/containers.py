"""Builds the image and runs its container, with Docker, or else with buildah and runc.

With buildah no image registry is needed: debootstrap makes the base from Debian's packages, and the base gets the name
that the Dockerfile has for it. This module must not know what the image contains.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.conftest import missing
from tests.deploy.tools import ROOT
from tests.processes import free_ports

INSTALL = "start Docker, or run as root and install Debian's `buildah debootstrap runc`"
SUITES = {"3.13": "trixie"}  # the Debian release with the Python of the Dockerfile's base
PIP_SETTINGS = {"index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout"}
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
CONTAINER_PORTS = (8000, 8001)


@dataclass
class Image:
    """A built image, with its configuration in Docker's form and the bytes that it adds to its base."""

    name: str
    config: dict[str, Any]
    added_bytes: int


class Container(Protocol):
    """A running container."""

    public: int  # the port, on the loopback interface, of the public server
    ops: int

    def execute(self, *words: str) -> int:
        """Run a command in the container; its exit code."""

    def host_pid(self) -> int:
        """The id on this machine of the container's first process."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def wait(self, seconds: float) -> int:
        """The exit code."""

    def log(self) -> str:
        """The container's output so far."""


class Engine(Protocol):
    def build(self) -> Image: ...

    def run(self, image: Image, environment: Mapping[str, str]) -> Any:
        """A context manager for a Container with a read-only root and no capabilities, which it removes at the end."""

    def remove(self, image: Image) -> None: ...


def engine(directory: Path) -> Engine:
    """The engine of this machine. Its files are in `directory`, except for the base, which is cached."""
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "version"], check=False, capture_output=True).returncode == 0
    ):
        return Docker()
    if os.geteuid() == 0 and all(map(shutil.which, ("buildah", "debootstrap", "runc"))):
        return Buildah(directory)
    missing(f"no program that builds an image: {INSTALL}")
    raise AssertionError


def output(*words: str | Path) -> str:
    """What a command prints. Raises subprocess.CalledProcessError if the command fails."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Docker:
    def build(self) -> Image:
        name = f"hello:test-{os.getpid()}"
        subprocess.run(["docker", "build", "--quiet", "--tag", name, ROOT], check=True)
        (built,) = json.loads(output("docker", "image", "inspect", name))
        (base,) = json.loads(output("docker", "image", "inspect", base_name()))
        return Image(name, built["Config"], built["Size"] - base["Size"])

    @contextmanager
    def run(self, image: Image, environment: Mapping[str, str]) -> Iterator[Container]:
        confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        ports = [word for port in CONTAINER_PORTS for word in ("--publish", f"127.0.0.1::{port}")]
        settings = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        container = DockerContainer(output("docker", "run", "--detach", *confined, *ports, *settings, image.name))
        try:
            yield container
        finally:
            subprocess.run(["docker", "rm", "--force", container.id], check=True, stdout=subprocess.DEVNULL)

    def remove(self, image: Image) -> None:
        subprocess.run(["docker", "image", "rm", image.name], check=True, stdout=subprocess.DEVNULL)


class DockerContainer:
    def __init__(self, name: str) -> None:
        self.id = name
        self.public, self.ops = (
            int(output("docker", "port", name, f"{port}/tcp").rpartition(":")[2]) for port in CONTAINER_PORTS
        )

    def execute(self, *words: str) -> int:
        return subprocess.run(["docker", "exec", self.id, *words], check=False, capture_output=True).returncode

    def host_pid(self) -> int:
        return int(output("docker", "inspect", "--format", "{{.State.Pid}}", self.id))

    def terminate(self) -> None:
        output("docker", "kill", "--signal", "TERM", self.id)

    def wait(self, seconds: float) -> int:
        waited = subprocess.run(
            ["docker", "wait", self.id], check=True, stdout=subprocess.PIPE, text=True, timeout=seconds
        )
        return int(waited.stdout)

    def log(self) -> str:
        return subprocess.run(["docker", "logs", self.id], check=False, capture_output=True, text=True).stderr


class Buildah:
    """Builds with buildah in a storage of its own, and runs the mounted image with runc."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hello-tests"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._buildah = ("buildah", "--root", cache / "images", "--runroot", directory / "run")

    def build(self) -> Image:
        self._make_base(base_name())
        name = f"localhost/hello:test-{os.getpid()}"
        command: list[str | Path] = [
            *self._buildah,
            *("build", "--quiet", "--pull-never", "--format", "docker", "--isolation", "chroot", "--tag", name),
            *self._reach_packages(),
            ROOT,
        ]
        subprocess.run(command, check=True)
        config = json.loads(output(*self._buildah, "inspect", "--type", "image", name))["Docker"]["config"]
        return Image(name, config, self._size(name) - self._size(base_name()))

    @contextmanager
    def run(self, image: Image, environment: Mapping[str, str]) -> Iterator[Container]:
        ports = dict(zip(("HELLO_PORT", "HELLO_OPS_PORT"), map(str, free_ports(2)), strict=True))
        with self._mounted(image.name) as root:
            bundle = self.directory / f"container-{ports['HELLO_PORT']}"
            bundle.mkdir()
            (bundle / "config.json").write_text(json.dumps(runtime_config(image, root, {**environment, **ports})))
            container = RuncContainer(bundle, int(ports["HELLO_PORT"]), int(ports["HELLO_OPS_PORT"]))
            try:
                yield container
            finally:
                container.end()

    def remove(self, image: Image) -> None:
        output(*self._buildah, "rmi", image.name)

    def _make_base(self, name: str) -> None:
        """Make the base image from Debian's packages, unless it is cached."""
        full = f"docker.io/library/{name}"
        if output(*self._buildah, "images", "--all", "--format", "{{.Name}}:{{.Tag}}").splitlines().count(full):
            return
        version = re.fullmatch(r"python:(\d+\.\d+)-slim", name)
        assert version, f"the tests cannot make the base {name}"
        container = output(*self._buildah, "from", "scratch")
        try:
            root = output(*self._buildah, "mount", container)
            packages = "python3,python3-pip"
            with (self.directory / "debootstrap.log").open("w") as log:
                subprocess.run(
                    ["debootstrap", "--variant=minbase", f"--include={packages}", SUITES[version[1]], root],
                    check=True,
                    stdout=log,
                )
            shutil.rmtree(f"{root}/var/cache/apt/archives")
            output(*self._buildah, "umount", container)
            output(*self._buildah, "commit", "--quiet", container, full)
        finally:
            output(*self._buildah, "rm", container)

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

    @contextmanager
    def _mounted(self, image: str) -> Iterator[Path]:
        container = output(*self._buildah, "from", "--pull-never", image)
        try:
            yield Path(output(*self._buildah, "mount", container))
        finally:
            output(*self._buildah, "rm", container)

    def _size(self, image: str) -> int:
        with self._mounted(image) as root:
            return sum(path.lstat().st_size for path in root.rglob("*"))


class RuncContainer:
    def __init__(self, bundle: Path, public: int, ops: int) -> None:
        self.public, self.ops = public, ops
        self._log = bundle / "log"
        self._runc = ("runc", "--root", bundle / "state")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._runc, "run", "--bundle", bundle, "hello"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def execute(self, *words: str) -> int:
        return subprocess.run([*self._runc, "exec", "hello", *words], check=False, capture_output=True).returncode

    def host_pid(self) -> int:
        return int(json.loads(output(*self._runc, "state", "hello"))["pid"])

    def terminate(self) -> None:
        output(*self._runc, "kill", "hello", "TERM")

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):  # it has ended already
            if self._process.poll() is None:
                output(*self._runc, "kill", "hello", "KILL")
        self._process.wait()


def runtime_config(image: Image, root: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """runc's configuration for the image, with a read-only root, no capabilities and a small /tmp.

    The container shares this machine's network, since not every machine lets a test create a bridge.
    """
    user, _, group = image.config["User"].partition(":")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": [*image.config["Entrypoint"], *(image.config["Cmd"] or [])],
            "env": [*image.config["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "cwd": image.config["WorkingDir"] or "/",
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=16m"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


def base_name() -> str:
    """The name of the base, which is the same in every stage of the Dockerfile."""
    name: str
    (name,) = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    return name
