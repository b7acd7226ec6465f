"""The servers that are measured: the floor, hello, and the peers. It must not know the load tool.

Each server sends every message published on the Redis channel `hello` to all WebSockets (hello itself reads the stream
of that name). Each measurement starts its server anew.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.bench.machine import Failed, build, cores, family, pinned
from tests.bench.peers import FOLDER, PEERS, Peer, command
from tests.processes import free_ports
from tests.redis_server import RedisServer
from tests.web.measurements import MeasuredProcess

START_SECONDS = 30.0  # from the start of a peer to its open port
FLOOR, HELLO = "floor", "hello"
NAMES = (FLOOR, HELLO, *(peer.name for peer in PEERS if os.environ.get(FOLDER)))
MAX_CLIENTS = "1000000"  # of hello: admission is not measured


@dataclass(frozen=True)
class Running:
    """A server that accepts connections."""

    port: int
    pids: list[int]


Start = Callable[[RedisServer, Path], AbstractContextManager[Running]]  # the path is a directory for the log


@dataclass(frozen=True)
class Server:
    """How to start a server, and how a client subscribes to it."""

    name: str
    language: str
    start: Start
    path: str
    subscribe: tuple[str, ...] = ()  # options of the load tool


def find(directory: Path, names: Sequence[str]) -> list[Server]:
    """Return the servers of these names. The floor is compiled into the directory.

    Raises Failed if there is no gcc.
    """
    known = {server.name: server for server in (floor(directory), hello(), *map(from_peer, PEERS))}
    return [known[name] for name in names]


def floor(directory: Path) -> Server:
    """Return the floor: one write() per delivery, in C."""
    program = str(build(FLOOR, directory))
    start = _starter(FLOOR, lambda port, redis_port: [program, str(port), str(redis_port), "hello"])
    return Server(FLOOR, "C", start, "/")


def hello() -> Server:
    """Return hello: one relay of this working tree."""

    @contextmanager
    def start(redis: RedisServer, directory: Path) -> Iterator[Running]:
        relay = MeasuredProcess(
            directory / f"{HELLO}.log", actors="relay", channel=redis.url, max_clients=MAX_CLIENTS, instance="relay-1"
        )
        try:
            with pinned(cores()[0]):
                relay.start()
        except AssertionError as error:
            raise Failed(str(error)) from error
        try:
            yield Running(relay.port, family(relay.pid))
        finally:
            relay.kill()

    return Server(HELLO, "Python", start, "/ws")


def from_peer(peer: Peer) -> Server:
    start = _starter(peer.name, lambda *ports: command(peer.program, *ports), peer.bridge)
    return Server(peer.name, peer.language, start, peer.path, peer.wsload)


def _starter(name: str, words: Callable[[int, int], list[str]], bridge: str | None = None) -> Start:
    """Return a function that starts a server, and the bridge that feeds it, whose cost is not measured."""

    @contextmanager
    def start(redis: RedisServer, directory: Path) -> Iterator[Running]:
        (port,) = free_ports(1)
        log = directory / f"{name}.log"
        with ExitStack() as stack, log.open("w") as output:
            with pinned(cores()[0]):
                process = stack.enter_context(_process(words(port, redis.port), output, directory))
            _wait_for_port(process, port, log)
            if bridge is not None:
                stack.enter_context(_process(command(bridge, port, redis.port), output, directory))
            yield Running(port, family(process.pid))

    return start


@contextmanager
def _process(words: list[str], output: IO[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a session of its own, so that its children end with it; `directory` is its TMPDIR.

    Raises Failed if there is no such program.
    """
    try:
        process = subprocess.Popen(
            words,
            env={**os.environ, "TMPDIR": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise Failed(str(error)) from error
    try:
        yield process
    finally:
        # The process group exists until its first process is waited for.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            # WNOWAIT leaves the process to be waited for: see killpg.
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) or time.monotonic() > deadline:
                raise Failed(f"did not start: {log.read_text()[-300:].strip() or 'its log is empty'}") from None
            time.sleep(0.02)  # between two attempts: the start of a server gives no event to wait for
        else:
            return
