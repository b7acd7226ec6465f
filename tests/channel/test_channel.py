"""Every backend keeps every promise of a channel, on every event loop that it runs on."""

import pytest
import trio.testing

from hello.channel.urls import open_channel
from hello.testing import PROMISES, Backend, check_channel
from tests.channel.backends import MemoryBackend, RedisBackend
from tests.engines import on_each_engine


@pytest.fixture(
    params=["memory-asyncio", "memory-uvloop", "memory-trio", "redis-asyncio", *on_each_engine("{}-uvloop")],
)
def combination(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, loop = str(request.param).split("-")
    return name, loop


@pytest.fixture
def anyio_backend(combination: tuple[str, str]) -> tuple[str, dict[str, object]]:
    match combination[1]:
        case "trio":
            return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}  # virtual time
        case loop:
            return "asyncio", {"use_uvloop": loop == "uvloop"}


@pytest.fixture
def engine(combination: tuple[str, str]) -> str:
    return combination[0]


@pytest.fixture
def backend(combination: tuple[str, str], request: pytest.FixtureRequest) -> Backend:
    if combination[0] == "memory":
        return MemoryBackend()
    return RedisBackend(request.getfixturevalue("redis_server"))


@pytest.mark.parametrize("promise", PROMISES)
async def test_promise(promise: str, backend: Backend) -> None:
    """See `hello.channel` for what each promise means."""
    await check_channel(promise, backend)


async def test_unknown_scheme() -> None:
    """A scheme without a backend is refused, and the error names the known ones."""
    with pytest.raises(ValueError, match="memory://, redis://, rediss://"):
        async with open_channel("amqp://localhost", history=1):
            pass
