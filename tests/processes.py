"""A real `hello` process, started as people start it. It knows nothing of what the process does."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Self

START_SECONDS = 20.0  # from the command to ready; half a second where nothing else runs


def free_ports(count: int) -> list[int]:
    """So many different ports that nobody listens at."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class HelloProcess:
    """`python -m hello` with these settings (`interval_min="0.1"`), at ports of its own that it keeps over restarts.

    With a `log` its output is appended to this file, else it is in `output` once it has ended; a process that is to say
    more than a pipe holds (64 KiB) needs the file. Leaving its `with` kills it.
    """

    def __init__(self, log: Path | None = None, /, **settings: str) -> None:
        self.port, self.ops_port = free_ports(2)
        self.settings = {"port": str(self.port), "ops_port": str(self.ops_port), **settings}
        self.output = ""
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def launch(self, environment: Mapping[str, str] | None = None) -> Self:
        """Start it and do not wait for it."""
        named = {f"HELLO_{name.upper()}": value for name, value in self.settings.items()}
        with self._log.open("a") if self._log else nullcontext(subprocess.PIPE) as output:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "hello"],
                env={**os.environ, **named, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return self

    def exit_code(self) -> int | None:
        """The code that it ended with, if it has ended by itself or by a signal and nobody has waited for it yet."""
        return None if self._process is None else self._process.poll()

    def start(self) -> Self:
        """Start it and return once it is ready."""
        self.launch()
        self.wait_for("/readyz", 200)
        return self

    def wait_for(self, path: str, status: int) -> None:
        """Return once the ops server answers with this status; if it never does, the process is killed."""
        deadline = time.monotonic() + START_SECONDS
        while (found := self.status(path)) != status:
            if self.exit_code() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{path} answers {found} rather than {status}:\n{self.output}")
            time.sleep(0.02)  # between two looks at a process: there is no event to wait for

    def page(self) -> str:
        """What a browser is given at the page's address."""
        return self._get(self.url)[1]

    def status(self, path: str) -> int | None:
        """The status that the ops server answers with, or None while it does not answer."""
        try:
            return self._get(f"http://127.0.0.1:{self.ops_port}{path}")[0]
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None

    def metrics(self) -> dict[str, float]:
        """What it measures of itself, by name and labels as they stand in /metrics."""
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
        """The exit code, once it has ended."""
        assert self._process is not None
        output, _ = self._process.communicate(timeout=seconds)
        self.output = self._log.read_text() if self._log else output
        code = self._process.returncode
        self._process = None
        return code

    def terminate(self) -> int:
        """SIGTERM; the exit code once it has drained."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL; nothing happens if it has ended."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.wait()
