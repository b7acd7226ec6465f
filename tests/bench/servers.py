"""The servers that are measured: the floor, hello, and the installed peers. It must not know the load tool.

Each server sends every message published on the Redis channel `hello` to all WebSockets (hello itself reads the stream
of that name). Each measurement starts its server anew.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.bench.machine import Unfit, build, cores, family, pinned
from tests.processes import free_ports
from tests.redis_server import RedisServer
from tests.web.measurements import MeasuredProcess

START_SECONDS = 30.0  # from the start of a peer to its open port
FLOOR, HELLO = "floor", "hello"
MAX_CLIENTS = "1000000"  # of hello: admission is not measured


class Failed(Exception):
    """A server or the load tool failed; the text of the error says how."""


@dataclass(frozen=True)
class Running:
    """A server that accepts connections."""

    port: int
    pids: list[int]


@dataclass(frozen=True)
class Server:
    """How to start a server, and how a client subscribes to it."""

    name: str
    language: str
    start: Callable[[RedisServer, Path], AbstractContextManager[Running]]  # the path is a directory for the log
    path: str
    subscribe: tuple[str, ...] = ()  # options of the load tool


def floor(program: Path) -> Server:
    """Return the floor: one write() per delivery, in C."""

    def command(port: int, redis_port: int) -> list[str]:
        return [str(program), str(port), str(redis_port), "hello"]

    return Server(FLOOR, "C", _starter(FLOOR, command), "/")


def hello() -> Server:
    """Return hello: one relay of this working tree."""

    @contextmanager
    def start(redis: RedisServer, directory: Path) -> Iterator[Running]:
        relay = MeasuredProcess(
            directory / f"{HELLO}.log", actors="relay", channel=redis.url, max_clients=MAX_CLIENTS, instance="relay-1"
        )
        try:
            with pinned(cores()[0]):
                relay.launch()
            try:
                relay.wait_for("/readyz", 200)
            except AssertionError as error:
                raise Failed(str(error)) from error
            yield Running(relay.port, family(relay.pid))
        finally:
            relay.kill()

    return Server(HELLO, "Python", start, "/ws")


def find_peers() -> tuple[list[Server], list[str]]:
    """Return the installed peers, and one line for each peer that is not installed."""
    from tests.bench.peers import PEERS

    servers, absent = [], []
    for peer in PEERS:
        if (how := peer.missing()) is not None:
            absent.append(f"{peer.name}: {how}")
            continue
        options = [option for text in peer.greetings for option in ("--greet", text)]
        options += [option for text in peer.expected for option in ("--expect", text)]
        subscribe = (*options, *peer.wsload)
        start = _starter(peer.name, peer.start, peer.bridge)
        servers.append(Server(peer.name, peer.language, start, peer.path, subscribe))
    return servers, absent


def find(directory: Path, only: list[str] | None, default: tuple[str, ...] | None) -> tuple[list[Server], list[str]]:
    """Return the servers named in `only`, else in `default`, else all, and one line for each that is not installed.

    Raises Unfit if a name is not known.
    """
    servers = [floor(build("floor", directory)), hello()]
    names = only or default
    absent: list[str] = []
    if names is None or set(names) - {FLOOR, HELLO}:
        peers, absent = find_peers()
        servers += peers
    if names is None:
        return servers, absent
    missing = [line for line in absent if line.partition(":")[0] in names]
    known = {server.name: server for server in servers}
    if unknown := set(names) - set(known) - {line.partition(":")[0] for line in missing}:
        raise Unfit(f"there is no server {', '.join(sorted(unknown))}; known here: {', '.join(known)}")
    return [known[name] for name in names if name in known], missing


def _starter(
    name: str,
    command: Callable[[int, int], list[str]],
    bridge: Callable[[int, int], list[str] | None] = lambda _port, _redis_port: None,
) -> Callable[[RedisServer, Path], AbstractContextManager[Running]]:
    """Return a function that starts a server, and the bridge that feeds it, whose cost is not measured."""

    @contextmanager
    def start(redis: RedisServer, directory: Path) -> Iterator[Running]:
        (port,) = free_ports(1)
        log = directory / f"{name}.log"
        with ExitStack() as stack, log.open("w") as output:
            with pinned(cores()[0]):
                process = stack.enter_context(_process(command(port, redis.port), output, directory))
            _wait_for_port(process, port, log)
            if feeding := bridge(port, redis.port):
                stack.enter_context(_process(feeding, output, directory))
            yield Running(port, family(process.pid))

    return start


@contextmanager
def _process(command: list[str], output: IO[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a session of its own, so that its children end with it; `directory` is its TMPDIR."""
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
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
