"""The command: settings, logging, sockets and signals; then the system. It decides nothing about actors."""

import argparse
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from hello.channel import open_channel
from hello.settings import Mistakes, Settings, add_flags, load
from hello.system import run
from hello.web.server import KEPT_FILES, listen, serve

MANY_FILES = 65_536  # descriptors, where the system sets no limit; macOS refuses to be asked for infinity
MISCONFIGURED = 2  # exit code; a failure of any other kind is 1
YOUNG = 10_000  # objects that are new to the garbage collector before it looks: each look costs browsers their time

log = logging.getLogger("hello")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one process until it is told to stop, or the terminal client (`hello watch`); the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] == "watch":
        from hello.watch import main as watch  # here, since it would take a tenth of a server's start

        return watch(words[1:])
    parser = argparse.ArgumentParser(
        prog="hello",
        description='Says "Hello world" at random moments, live in every open browser. Without any flag: both actors,'
        " over memory, at http://127.0.0.1:8000.",
        epilog="Each flag is an environment variable too: --interval-min is HELLO_INTERVAL_MIN. A flag beats it."
        " `hello watch URL` shows the stream of a running relay in the terminal: see `hello watch --help`.",
    )
    add_flags(parser)
    try:
        settings = load(vars(parser.parse_args(words)))
        listeners = _listen(settings)
    except Mistakes as mistakes:
        for line in mistakes.lines:
            sys.stderr.write(f"hello: {line}\n")
        return MISCONFIGURED
    _configure_logging(settings)
    _raise_file_limit()
    try:
        anyio.run(_run, settings, listeners, backend_options={"use_uvloop": True})
    except* Exception as errors:
        log.critical("ended by an error: %s", "; ".join(_told(errors)), exc_info=errors)
        return_code = 1
    else:
        log.info("stopped")
        return_code = 0
    return return_code


def _told(error: BaseException) -> list[str]:
    """What went wrong, apart from where: the errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [words for each in error.exceptions for words in _told(each)]
    return [f"{type(error).__name__}: {error}"]


async def _run(settings: Settings, listeners: dict[str, socket.socket]) -> None:
    stop = anyio.Event()
    for what, listener in listeners.items():
        host, port = listener.getsockname()[:2]
        what = "page" if what == "public" else "operators"
        log.info("%s: http://%s:%d", what, f"[{host}]" if ":" in host else host, port)

    async def serve_at(name: str, app: ASGIApp, stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
        kept = KEPT_FILES if name == "public" else 0
        await serve(app, stop, listener=listeners[name], kept_files=kept, task_status=task_status)

    async with anyio.create_task_group() as group:
        group.start_soon(_watch_signals, stop)
        async with open_channel(settings.channel, history=settings.history, password=settings.password) as channel:
            _spare_the_collector()
            await run(settings, channel, serve=serve_at, stop=stop)
        group.cancel_scope.cancel()


async def _watch_signals(stop: anyio.Event) -> None:
    """The first signal drains; a second one ends the process at once, as if nobody had listened."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: %s", signal.Signals(number).name, "stopping at once" if stop.is_set() else "stopping")
            if stop.is_set():
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
                os._exit(128 + number)  # the first process of a container is not ended by a signal that it sends itself
            stop.set()


def _listen(settings: Settings) -> dict[str, socket.socket]:
    wanted = {"operators": ("OPS_HOST", "OPS_PORT", settings.ops_host, settings.ops_port)}
    if "relay" in settings.actors:
        wanted["public"] = ("HOST", "PORT", settings.host, settings.port)
    listeners, mistakes = {}, []
    for what, (host_name, port_name, host, port) in wanted.items():
        try:
            listeners[what] = listen(host, port)
        except (OSError, UnicodeError) as error:  # a name that no resolver can be asked for is a UnicodeError
            reason = getattr(error, "strerror", None) or error
            mistakes.append(f"HELLO_{host_name}, HELLO_{port_name}: cannot listen on {host}:{port}: {reason}")
    if mistakes:
        raise Mistakes(mistakes)
    return listeners


def _raise_file_limit() -> None:
    """Each browser takes a file descriptor, and the usual soft limit (1024) is far below what one process serves."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else hard
    if soft not in (hard, resource.RLIM_INFINITY) and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError) as error:
            log.warning("only %d files can be open, and each browser takes one: %s", soft, error)


def _spare_the_collector() -> None:
    """What is there now stays, and what comes is freed without the garbage collector, but for rare cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


def _configure_logging(settings: Settings) -> None:
    as_text = settings.log_format == "text" or (settings.log_format is None and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)-8s %(message)s") if as_text else _Json(settings.instance)
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.setLevel(logging.ERROR)  # turning points are ours; it warns of every bad request
    # It takes each WebSocket that is refused, each stream that is given up, and each browser that does not read at the
    # end for a fault of the app, so that anybody could fill the log.
    ordinary = ("ASGI callable returned without completing", "timeout graceful shutdown exceeded")
    uvicorn_log.addFilter(lambda record: not any(words in record.getMessage() for words in ordinary))


class _Json(logging.Formatter):
    """One JSON object a line."""

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
        return json.dumps(line, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
