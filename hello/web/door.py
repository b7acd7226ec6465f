"""The queue at a server's door: when thousands come back at once, those who are there already get messages meanwhile.

It knows nothing of what is asked.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

# Of one turn of the event loop, for what is asked; what the apps do about it comes on top, in the next turn. A message
# takes several turns on its way from Redis to the browsers.
TURN_SECONDS = 0.001


class Door:
    """Calls what is put into it in that order, and so much of it in one turn."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def enqueue(self, take: Callable[[], None]) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        self._waiting.append(take)

    def _turn(self) -> None:
        until = time.perf_counter() + TURN_SECONDS
        try:
            while self._waiting and time.perf_counter() < until:
                self._waiting.popleft()()
        finally:  # an error in one of them is not the others'
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)
