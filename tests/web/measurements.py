"""The figures that matter while a server is abused: its memory, another browser's delay, and the time until it ends.

Tests record them. `python -m tests.web.measurements` runs the tests beside it and prints a table; its options are pytest's.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import anyio

from tests.processes import HelloProcess
from tests.web.raw import CLOSE, SECONDS, TEXT, Client, ask, request

LOOK_SECONDS = 0.02  # between two looks at what no event tells

TABLE = "FIGURES"  # the variable that names the file for the table


class Watched(HelloProcess):
    """A process with what Linux tells about it."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def resident(self) -> float:
        """Its memory now, in MB."""
        return self._status("VmRSS")

    def peak(self) -> float:
        """The most that its memory has been since `forget_peak`, in MB."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def metric(self, name: str) -> float:
        for line in ask(self.ops_port, request("/metrics", "Connection: close")).rest.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def _status(self, field: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {field}")


def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> float:
    """Look until the condition holds; how many seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def eventually(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> float:
    """The same on the event loop, which goes on meanwhile."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s"
        await anyio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


class Onlooker:
    """Another browser, in a thread of its own: it reads all the while, and notes how late each message comes.

    After its `with`, `worst_delay` is the longest from the relay's reading of a message to its arrival here, in
    seconds, this process's own delays included.
    """

    def __init__(self, process: HelloProcess) -> None:
        self.worst_delay = 0.0
        self.positions: list[str] = []
        self._process = process
        self._client = Client(process.port)
        self._client.next(TEXT)  # the welcome: from here on it is owed every message
        self._leaving = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._client.socket.close()

    def see(self, count: int, seconds: float = 60.0) -> None:
        """Return once it has seen so many more messages."""
        goal = len(self.positions) + count

        def seen() -> bool:
            if self._failure is not None:
                raise self._failure
            return len(self.positions) >= goal

        until(seen, f"{count} more messages", seconds)

    def missed_nothing(self) -> bool:
        """Whether what it has seen is what the relay has, one after the other; ask while the process runs."""
        seen = list(self.positions)
        assert seen, "no message was seen at all"
        with Client(self._process.port, f"/ws?last={len(seen) + 100}") as again:
            kept: list[str] = []
            for message in _messages(again, SECONDS):
                kept.append(message["position"])
                if message["position"] == seen[-1]:
                    break
        return seen[-len(kept) :] == kept[-len(seen) :]

    def _watch(self) -> None:
        try:
            for message in _messages(self._client, 600):
                self.worst_delay = max(self.worst_delay, time.time() - message["relayed_at"] / 1000)
                self.positions.append(message["position"])
                if self._leaving.is_set():
                    return
            raise AssertionError("the other browser's stream has ended")
        except BaseException as error:  # noqa: BLE001  # raised where somebody waits for it
            self._failure = error


def _messages(client: Client, seconds: float) -> Iterator[dict[str, Any]]:
    for came in client.frames(seconds):
        assert came.opcode != CLOSE, f"closed with {came.code}"
        frame = json.loads(came.payload)
        assert frame["type"] != "gap", frame
        if frame["type"] == "message":
            yield frame


def record(what: str, figure: object) -> None:
    """Keep a figure for the table, if one is asked for."""
    if table := os.environ.get(TABLE):
        with Path(table).open("a") as lines:
            lines.write(f"{what}\t{figure}\n")


def main() -> int:
    with TemporaryDirectory() as directory:
        table = Path(directory) / "table"
        table.touch()
        command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent), *sys.argv[1:]]
        code = subprocess.run(command, env={**os.environ, TABLE: str(table)}, check=False).returncode
        rows = [line.split("\t") for line in table.read_text().splitlines()]
    width = max((len(what) for what, _ in rows), default=0)
    for what, figure in rows:
        sys.stdout.write(f"{what:<{width}}  {figure:>8}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
