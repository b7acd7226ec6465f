"""What the web tests may ask for: a clock that they advance, and a log without errors."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import anyio.lowlevel
import pytest

# uvicorn logs two of an app that refuses a WebSocket with an answer, and of one that gives up a stalled client; asyncio
# logs the third for writes between a loss and `connection_lost`.
HARMLESS = {f"ASGI callable returned without completing {what}." for what in ("handshake", "response")}
HARMLESS |= {"socket.send() raised exception."}


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


@pytest.fixture
def no_errors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test after which a warning or an error was logged; a client counts as slow after 0.1 s."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0.1)
    monkeypatch.setattr("tests.web.measurements.POLL_SECONDS", 0.001)
    yield
    logged = {record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING}
    assert logged <= HARMLESS
