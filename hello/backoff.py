"""The delays between attempts to reach a lost channel. It must not know what is attempted."""

import random

import anyio

FIRST_DELAY = 0.1  # seconds; most losses are one closed connection, so that an early retry succeeds
MAX_DELAY = 2.0  # seconds; a longer delay would add to an outage, a shorter one to the load on a server that starts
STEADY_SECONDS = 10.0  # an attempt that lasted so long has nothing to do with the failures before it
MAX_FAILURES = 10  # any limit from 6 on reaches MAX_DELAY; without one 2 ** failures becomes huge in a long outage


class Backoff:
    """Delays that double from FIRST_DELAY to MAX_DELAY, and start again after an attempt of over STEADY_SECONDS.

    An attempt is all the time between two calls of `wait`, however many requests it has.

    Each delay is drawn between 50 % and 100 % of the doubled value, so that processes that lost the channel together
    do not come back together.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._attempt_began = anyio.current_time()

    async def wait(self) -> None:
        """Wait before the next attempt, which begins when this returns."""
        lasted = anyio.current_time() - self._attempt_began
        self._failures = 1 if lasted > STEADY_SECONDS else min(self._failures + 1, MAX_FAILURES)
        delay = min(MAX_DELAY, FIRST_DELAY * 2 ** (self._failures - 1))
        await anyio.sleep(random.uniform(delay / 2, delay))
        self._attempt_began = anyio.current_time()
