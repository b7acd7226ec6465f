"""What the web tests may ask for: a clock that they advance."""

import asyncio
from collections.abc import AsyncIterator

import anyio.lowlevel
import pytest


class Clock:
    """The clock of asyncio's own event loop. It runs as usual, and a test may advance it."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    async def advance(self, seconds: float, step: float = 0.1) -> None:
        """Let so many seconds pass in steps, and let everything run that is due after each."""
        for _ in range(round(seconds / step)):
            self.ahead += step
            for _ in range(5):
                await anyio.lowlevel.checkpoint()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clock]:
    """Return a clock of the running loop, for time-outs of many seconds: uvloop's own cannot be advanced."""
    clock, loop = Clock(), asyncio.get_running_loop()
    real_time = loop.time
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", lambda: real_time() + clock.ahead)
        yield clock
