"""A warning when the event loop stands still: for how long, and in which line. It must not know what runs in the loop.

A thread asks the loop for an answer, four times a second. Only if none comes does it look at what the loop executes.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from traceback import walk_stack

import anyio

from hello.own_code import is_own

PERIOD_SECONDS = 0.25  # between an answer and the next question
STALL_SECONDS = 1.0  # without an answer before a warning; meanwhile no stream of this process gets anything
GRACE_SECONDS = 0.25  # for the answer of a loop that did not run because the whole process was paused

log = logging.getLogger(__name__)


@asynccontextmanager
async def watched_loop() -> AsyncIterator[None]:
    """Log a warning each time the event loop stands still for over STALL_SECONDS, until leaving; on asyncio only.

    A call into C that keeps the GIL stops the watching thread too, and gets no warning.
    """
    loop, ended = asyncio.get_running_loop(), threading.Event()
    watching = loop.run_in_executor(None, _watch, loop, threading.get_ident(), ended)
    try:
        yield
    finally:
        ended.set()
        with anyio.CancelScope(shield=True):
            await watching


def _watch(loop: asyncio.AbstractEventLoop, loop_thread: int, ended: threading.Event) -> None:
    while not ended.wait(PERIOD_SECONDS):
        asked_at = time.monotonic()
        answered = threading.Event()
        loop.call_soon_threadsafe(answered.set)
        if answered.wait(STALL_SECONDS) or answered.wait(GRACE_SECONDS):
            continue
        where = _executed_line(loop_thread)
        log.warning(
            "the event loop stands still for over %g s, in %s: use anyio.to_thread.run_sync",
            STALL_SECONDS,
            where,
        )
        answered.wait()
        log.warning("the event loop stood still for %.1f s, in %s", time.monotonic() - asked_at, where)


def _executed_line(thread: int) -> str:
    """Return the innermost line of a person's own code that the thread executes, or else of any code."""
    stack = [(frame.f_code, line) for frame, line in walk_stack(sys._current_frames()[thread])]
    own = [each for each in stack if is_own(each[0].co_filename) and each[0].co_name != "<module>"]
    code, line = (own or stack)[0]
    return f"{code.co_filename}:{line} ({code.co_name})"
