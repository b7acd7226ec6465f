"""The command that runs a process: settings, logging, sockets; then the system. It must not know actors."""

import argparse
import asyncio
import errno
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Container, Sequence
from importlib.metadata import distributions
from ipaddress import ip_address
from typing import Any

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from hello.channel import Unsupported
from hello.channel.urls import open_channel
from hello.failures import describe
from hello.printable import printable, printable_json
from hello.settings import ConfigError, Settings, add_flags, load, name_of
from hello.signals import end_by, handling_stop
from hello.system import run
from hello.watchdog import watched_loop
from hello.web.listener import RESERVED_FDS, listen
from hello.web.origin import AllowedHosts
from hello.web.refusals import OnRefused
from hello.web.server import serve

FALLBACK_NOFILE = 65_536  # file descriptors, where the hard limit is infinite; macOS refuses an infinite soft limit
EXIT_MISCONFIGURED = 2  # a failure of any other kind is 1
GC_THRESHOLD = 10_000  # new objects between two runs of the garbage collector: each run delays messages

log = logging.getLogger("hello")


def main(arguments: Sequence[str]) -> int:
    """Run one process until a signal stops it, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="hello",
        usage="hello [--SETTING VALUE]...\n       hello watch URL  (shows a relay's stream: see hello watch --help)",
        description='Broadcasts "Hello world" at random intervals, live in every open browser. Without any'
        " flag: both actors, over memory, at http://127.0.0.1:8000.",
        epilog="Each flag is an environment variable too: --interval-min is HELLO_INTERVAL_MIN. The flag overrides it.",
    )
    add_flags(parser)
    asked = "--version" in arguments  # to look for the version takes 10 ms
    version = next((each.version for each in distributions(name="hello")), "is not installed") if asked else ""
    parser.add_argument("--version", action="version", version=f"hello {version}")
    flags, unknown = parser.parse_known_args(arguments)
    try:
        settings = load(vars(flags), unknown)
        listeners = _listen(settings, vars(flags))
    except ConfigError as error:
        for line in error.lines:
            sys.stderr.write(f"hello: {printable(line)}\n")
        return EXIT_MISCONFIGURED
    _configure_logging(settings)
    _raise_file_limit()
    try:
        anyio.run(_run, settings, listeners, backend_options={"use_uvloop": True})
    except* Unsupported as errors:
        log.critical("stopped: %s", describe(errors))
        return_code = EXIT_MISCONFIGURED
    except* Exception as errors:
        log.error("an error ends this process", exc_info=errors)
        log.critical("stopped by an error: %s", describe(errors))  # without a traceback, which would be the log's end
        return_code = 1
    else:
        log.info("stopped")
        return_code = 0
    return return_code


async def _run(settings: Settings, listeners: dict[str, socket.socket]) -> None:
    stop = anyio.Event()
    for name, listener in listeners.items():
        host, port = listener.getsockname()[:2]
        log.info("%s: http://%s:%d", "page" if name == "public" else name, f"[{host}]" if ":" in host else host, port)

    async def serve_at(
        name: str, app: ASGIApp, stop: anyio.Event, *, on_refused: OnRefused, task_status: TaskStatus[None]
    ) -> None:
        listener, reserved = listeners[name], RESERVED_FDS if name == "public" else 0
        if name == "ops" and ip_address(listener.getsockname()[0]).is_loopback:
            app = AllowedHosts(app, _is_local, "HELLO_OPS_HOST")  # no proxy is in front of it
        await serve(app, stop, listener=listener, reserved_fds=reserved, on_refused=on_refused, task_status=task_status)

    with handling_stop(_stopper(stop)):
        history, stream, ack = settings.history, settings.stream, settings.replicas_ack
        opening = open_channel(
            settings.channel, history=history, access=settings.access, stream=stream, replicas_ack=ack
        )
        async with watched_loop(), opening as channel:
            _tune_gc()
            await run(settings, channel, serve=serve_at, stop=stop)


def _stopper(stop: anyio.Event) -> Callable[[signal.Signals], None]:
    """Return a handler: the first signal sets `stop`; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stopping = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal stopping
        log.info("%s: %s", number.name, "stopping at once" if stopping else "stopping")
        if stopping:
            end_by(number)
        stopping = True
        loop.call_soon_threadsafe(stop.set)  # a handler runs between any two steps of the loop

    return on_signal


def _listen(settings: Settings, flags: Container[str]) -> dict[str, socket.socket]:
    wanted = {"public": ("host", "port")} if "relay" in settings.actors else {}  # first, since it is logged first
    wanted["ops"] = ("ops_host", "ops_port")
    listeners, mistakes = {}, []
    for name, (host_field, port_field) in wanted.items():
        host, port = getattr(settings, host_field), getattr(settings, port_field)
        host_name, port_name = name_of(host_field, flags), name_of(port_field, flags)
        try:
            listeners[name] = listen(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: the name cannot be encoded for DNS
            reason = getattr(error, "strerror", None) or error
            remedy = {
                errno.EADDRINUSE: f"another program listens there: stop it, or give another {port_name}",
                errno.EACCES: f"give {port_name} a port from 1024",
            }.get(getattr(error, "errno", 0), f"give {host_name} an address of this machine")
            mistakes.append(f"{host_name}, {port_name}: cannot listen on {host}:{port}: {reason}; {remedy}")
    if mistakes:
        for listener in listeners.values():
            listener.close()
        raise ConfigError(mistakes)
    return listeners


def _is_local(name: str) -> bool:
    """Return True for an IP address or a loopback name (RFC 6761, 6.3): no DNS server decides where these lead."""
    try:
        return bool(ip_address(name.strip("[]")))
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _raise_file_limit() -> None:
    """Raise the soft limit to the hard one: each client takes a file descriptor, and the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FALLBACK_NOFILE if hard == resource.RLIM_INFINITY else hard
    if soft not in (hard, resource.RLIM_INFINITY) and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as error:
            log.warning("only %d files can be open, and each client takes one: %s", soft, error)


def _tune_gc() -> None:
    """Let the garbage collector ignore what exists now, and run rarely: only rare cycles need it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def _configure_logging(settings: Settings) -> None:
    as_text = settings.log_format == "text" or (settings.log_format is None and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(_Text() if as_text else _Json(settings.instance))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.raiseExceptions = False  # no traceback if the terminal was closed, or a signal is logged amid another line
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.setLevel(logging.ERROR)  # uvicorn warns of every bad request
    # uvicorn logs an error for each refused WebSocket, each abandoned stream, and each client that does not read when
    # the server stops: any client could fill the log.
    ordinary = ("ASGI callable returned without completing", "timeout graceful shutdown exceeded")
    uvicorn_log.addFilter(lambda record: not any(text in record.getMessage() for text in ordinary))


class _Text(logging.Formatter):
    """One line of printable text, and the lines of a traceback: an error may contain what another server sent."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is that of logging
        return printable(super().formatMessage(record).rstrip())

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the name is that of logging
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))


class _Json(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, instance: str) -> None:
        super().__init__()
        self._instance = instance

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "instance": self._instance,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return printable_json(line)
