"""Measurements of a server under abuse: its memory, what another client receives, and whether connections end."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import anyio

from tests.processes import HelloProcess
from tests.web.raw import CLOSE, SECONDS, TEXT, Client

POLL_SECONDS = 0.02  # between two checks of a condition that has no event
ENDED_SECONDS = 30.0  # until connections have ended that the server aborts after 5 to 10 s


class MeasuredProcess(HelloProcess):
    """A process, and what Linux and its metrics report about it."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def resident(self) -> float:
        """Return its resident memory in MB."""
        return self._status("VmRSS")

    def peak(self) -> float:
        """Return its largest resident memory since `reset_peak`, in MB."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        """Return its number of open file descriptors."""
        return count_descriptors(self.pid)

    def metric(self, name: str) -> float:
        return self.metrics()[name]

    def _status(self, field: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {field}")


def count_descriptors(pid: int) -> int:
    """Return the number of open file descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait for a condition."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(POLL_SECONDS)


async def eventually(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait for a condition while the event loop runs."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"{what}: not within {seconds:g} s"
        await anyio.sleep(POLL_SECONDS)


class Observer:
    """Another client, in a thread of its own: it reads all the time, and counts messages."""

    def __init__(self, process: HelloProcess) -> None:
        self.count = 0  # messages
        self._client = Client(process.port)
        self._client.receive(TEXT)  # the welcome: every later message is pending for this client
        self._leaving = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._observe)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._client.socket.close()

    def wait_for(self, count: int, seconds: float = 60.0) -> None:
        """Return once so many more messages have arrived."""
        goal = self.count + count

        def arrived() -> bool:
            if self._failure is not None:
                raise self._failure
            return self.count >= goal

        until(arrived, f"{count} more messages", seconds)

    def _observe(self) -> None:
        try:
            for received in self._client.frames(600):
                assert received.opcode != CLOSE, f"closed with {received.code}"
                fields = json.loads(received.payload)
                assert fields["type"] != "gap", fields
                self.count += fields["type"] == "message"
                if self._leaving.is_set():
                    return
            raise AssertionError("the observer's connection has ended")
        except BaseException as error:  # noqa: BLE001  # raised by `wait_for`
            self._failure = error


class Abuse:
    """Checks that the abuse in its `with` block costs little.

    Memory grows by at most `megabytes`, an observer is sent no gap, and no connection is left afterwards.
    """

    def __init__(self, process: MeasuredProcess, megabytes: float = 20) -> None:
        self._process = process
        self._megabytes = megabytes
        self.observer = Observer(process)

    def __enter__(self) -> Self:
        self.observer.__enter__()
        self.observer.wait_for(1)
        self._descriptors = self._process.descriptors()
        self.measure_from_now()
        return self

    def measure_from_now(self) -> None:
        """Measure the memory from now on, instead of from the start of the block."""
        self._before = self._process.resident()
        self._process.reset_peak()

    def wait_for_end(self, seconds: float = ENDED_SECONDS) -> None:
        """Return once the server has ended every connection of the block."""
        until(lambda: self._process.descriptors() <= self._descriptors, "the connections end", seconds)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.observer.wait_for(20)
                grown = self._process.peak() - self._before
                self.wait_for_end()
                assert grown < self._megabytes
        finally:
            self.observer.__exit__()
