"""Real `hello` processes. It must not know what a process does."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Self

START_SECONDS = 20.0  # from the command to ready; half a second on an idle machine


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that are not in use."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class HelloProcess:
    """`python -m hello` with these settings (`interval_min="0.1"`), at ports of its own that it keeps over restarts.

    Its output is appended to the file `log`, or else is in `output` once the process has ended. A process that writes
    more than a pipe holds (64 KiB) needs the file. Its `with` starts it, unless it was launched, and kills it.
    """

    def __init__(self, log: Path | None = None, /, **settings: str) -> None:
        self.port, self.ops_port = free_ports(2)
        self.settings = {"port": str(self.port), "ops_port": str(self.ops_port), **settings}
        self.output = ""
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self if self._process else self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def launch(self, environment: Mapping[str, str] | None = None, under: Sequence[str] = ()) -> Self:
        """Start the process, by the program `under` if there is one, and do not wait until it is ready."""
        named = {f"HELLO_{name.upper()}": value for name, value in self.settings.items()}
        with self._log.open("a") if self._log else nullcontext(subprocess.PIPE) as output:
            self._process = subprocess.Popen(
                [*under, sys.executable, "-W", "error", "-m", "hello"],
                env={**os.environ, **named, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return self

    def exit_code(self) -> int | None:
        """Return the exit code, or None if the process runs or was already waited for."""
        return None if self._process is None else self._process.poll()

    def start(self) -> Self:
        """Start the process, and return once it is ready."""
        self.launch()
        self.wait_for("/readyz", 200)
        return self

    def wait_for(self, path: str, status: int) -> None:
        """Return once the ops server answers with this status; kill the process if it does not within START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while (found := self.status(path)) != status:
            if self.exit_code() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{path} answers {found} rather than {status}:\n{self.output}")
            time.sleep(0.02)  # between two requests: the process gives no event to wait for

    def page(self) -> str:
        """Return the HTML of the page."""
        return self._get(self.url)[1]

    def status(self, path: str) -> int | None:
        """Return the status with which the ops server answers, or None if it does not answer."""
        try:
            return self._get(f"http://127.0.0.1:{self.ops_port}{path}")[0]
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the process, by name and labels as in /metrics."""
        _, text = self._get(f"http://127.0.0.1:{self.ops_port}/metrics")
        rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    @staticmethod
    def _get(url: str) -> tuple[int, str]:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # the URLs are made here
            return answer.status, answer.read().decode()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Return the exit code once the process has ended."""
        assert self._process is not None
        output, _ = self._process.communicate(timeout=seconds)
        self.output = self._log.read_text() if self._log else output
        code = self._process.returncode
        self._process = None
        return code

    def terminate(self) -> int:
        """Send SIGTERM, and return the exit code once the process has drained."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL; nothing happens if the process has ended."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.wait()
