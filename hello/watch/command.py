"""The command `hello watch`: arguments, signals, limits and the exit code. It reads no setting of hello."""

import argparse
import asyncio
import math
import os
import select
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper

import anyio

from hello.client import ClientProtocol
from hello.message import now_ms
from hello.signals import handling_stop
from hello.watch.connection import Event, stay_connected
from hello.watch.output import OutputLost, as_json, as_text, write
from hello.watch.tally import Tally
from hello.watch.transport import stream_address

MAX_LAST = 9_999_999  # messages; relays reject more
MAX_SECONDS = 31_536_000.0  # a year
MAX_MESSAGES = 1_000_000_000  # shown; a larger number is mistyped

PATIENCE = 0.5  # seconds for a reader of stdout, once a signal has come: `| less` may never read on

MISUSED = 2  # exit code
NOT_SHOWN = 1  # exit code: something was lost or repeated, or that is not known

Show = Callable[[Event], bool]  # False: no event is to follow


def main(arguments: Sequence[str]) -> int:
    """Watch until a signal or a limit, and return the exit code that the help describes."""
    options = _parser().parse_args(arguments)
    try:
        address = stream_address(options.url)
        _set_authorities(options.ca)
    except ValueError as mistake:
        sys.stderr.write(f"hello watch: {mistake}\n")
        return MISUSED
    if sys.stdout is None:  # as after `>&-`
        sys.stderr.write("hello watch: stdout is closed: give it a terminal, a file or a pipe\n")
        return MISUSED
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for characters that this terminal does not have
    protocol, tally, complaint = ClientProtocol(options.last), Tally(), ""
    format_line = as_json if options.json else as_text

    def show(event: Event) -> bool:
        at = now_ms()
        tally.add(event, now=time.monotonic(), at=at)
        write(format_line(event, at))
        return bool(tally.shown < options.messages)

    def end_unread() -> None:
        """End the process once stdout accepts nothing for PATIENCE: then a write to it blocks the main thread."""
        while select.select([], [sys.stdout], [], PATIENCE)[1]:
            time.sleep(PATIENCE)
        tally.end(now=time.monotonic(), complete=False)
        if select.select([], [sys.stderr], [], 0)[1]:  # it may be the same pipe
            complaint = "nobody reads stdout, so that later losses are not known"
            sys.stderr.write(f"hello watch: {complaint}\n{format_line(tally, now_ms())}\n")
        os._exit(NOT_SHOWN)

    try:
        anyio.run(_watch, options, address, protocol, show, end_unread)
        for item in protocol.finish():
            show(item)
        tally.end(now=time.monotonic(), complete=protocol.complete)
        write(format_line(tally, now_ms()))
        if not protocol.connections:
            complaint = "no connection was opened, so that losses are not known"
        elif not protocol.complete:
            complaint = "not connected and up to date at the end, so that later losses are not known"
    except* OutputLost as lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python writes once more when it exits
        if not isinstance(cause := lost.exceptions[0].__cause__, BrokenPipeError):  # a pipe's reader may end it
            complaint = f"cannot write: {cause}"
    if complaint:
        sys.stderr.write(f"hello watch: {complaint}\n")
    return NOT_SHOWN if not protocol.complete or tally.lost or tally.repeated or protocol.finish() else 0


async def _watch(
    options: argparse.Namespace, address: str, protocol: ClientProtocol, show: Show, on_stop: Callable[[], None]
) -> None:
    """Follow the stream until a signal, `options.seconds`, or an event for which `show` returns False.

    From a signal on `on_stop` runs in a thread, since a write may block this one.
    """
    with anyio.move_on_after(options.seconds) as scope:
        loop = asyncio.get_running_loop()

        def show_until_limit(event: Event) -> None:
            if not show(event):
                scope.cancel()

        def on_signal(_: int) -> None:
            loop.call_soon_threadsafe(scope.cancel)
            threading.Thread(target=on_stop, daemon=True).start()

        with handling_stop(on_signal):
            await stay_connected(address, protocol, show_until_limit, options.via)


def _set_authorities(path: str | None) -> None:
    """Let TLS trust the certificate authorities in this file, as in that of SSL_CERT_FILE, which OpenSSL reads.

    Raises ValueError with a sentence for the user if there are none: OpenSSL ignores such a file.
    """
    name = "--ca" if path else "SSL_CERT_FILE"
    if path := path or os.environ.get(name):
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(f"{name} {path!r} has no certificate authorities in PEM format: {reason}") from None
        os.environ["SSL_CERT_FILE"] = path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hello watch",
        description="Shows the stream of a relay in the terminal, live. It reconnects and resumes by the page's rules,"
        " and ends with a tally: run it beside a rollout to see whether anything was lost or repeated.",
        epilog="It ends on Ctrl-C, SIGTERM, --seconds or --messages. Exit code 0: nothing was lost or repeated. 1:"
        " something was, or it never connected, or it was not connected and up to date at the end. 2: wrong arguments."
        " Delays are from sent_at to the clock of this machine: they compare the clocks of two machines.",
    )
    parser.add_argument("url", metavar="URL", help="the page's address, such as http://127.0.0.1:8000/")
    parser.add_argument("--ca", metavar="FILE", help="certificate authorities for https, in PEM (or SSL_CERT_FILE)")
    via = "WebSocket (ws), server-sent events (sse), or sse where ws does not open (auto, the default)"
    parser.add_argument("--via", choices=("auto", "ws", "sse"), default="auto", help=via)
    parser.add_argument("--json", action="store_true", help="one JSON object a line; the last one is the tally")
    for flag, parse, default, help_text in (
        ("--last", _within(int, 0, MAX_LAST), 0, "begin with the N newest messages (default: from now on)"),
        ("--seconds", _within(float, 0.1, MAX_SECONDS), math.inf, "watch for so long (default: until it is stopped)"),
        ("--messages", _within(int, 1, MAX_MESSAGES), math.inf, "until so many have been shown"),
    ):
        parser.add_argument(flag, metavar="N", type=parse, default=default, help=help_text)
    return parser


def _within(read: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    """Return a parser of numbers from `least` to `most`."""

    def parse(text: str) -> float:
        try:
            value = read(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"give a number from {least:.15g} to {most:.15g}, not {text!r}")
        return value

    return parse
