"""A queue for incoming requests: when thousands of clients come at once, connected ones still get their messages.

It must not know what the requests are.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

# Seconds for queued requests in one step of the event loop. The apps answer them in the next step, which takes time as
# well, and a message needs several steps from Redis to the clients.
STEP_SECONDS = 0.001


class AdmissionQueue:
    """Calls the queued functions in order, for STEP_SECONDS in each step of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def enqueue(self, process: Callable[[], None]) -> None:
        """Call `process` soon, after all functions that are queued already."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._step)
        self._waiting.append(process)

    def _step(self) -> None:
        end = time.perf_counter() + STEP_SECONDS
        try:
            while self._waiting and time.perf_counter() < end:
                self._waiting.popleft()()
        finally:  # an error of one function does not stop the others
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._step)
