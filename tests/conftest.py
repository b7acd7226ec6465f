"""The choice of the quick tier, and what tests share: an event loop of each kind, and a real Redis server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio.testing

from tests.redis_server import USUAL, NoRedisServer, RedisServer

OTHER_TIERS = ("slow", "browser", "engines", "container", "faults", "bench")  # pyproject.toml describes each


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads how many workers there shall be
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the quick tier on all cores if the command line names neither a path nor `-m` nor `-k`."""
    option = config.option
    if config.args_source is pytest.Config.ArgsSource.ARGS or option.markexpr or option.keyword:
        return
    option.markexpr = f"quick or not ({' or '.join(OTHER_TIERS)})"
    is_worker = hasattr(config, "workerinput")  # a worker reads the same command line, and starts no workers
    if option.numprocesses is None and not option.usepdb and not is_worker:
        option.numprocesses = "auto"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave a slow test to the usual engine."""
    left_out = [item for item in items if {"slow", "engines"} <= {mark.name for mark in item.iter_markers()}]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Let `-n auto` start two workers per core: tests wait as long as they compute. Those of `engines` wait longer."""
    return (3 if config.option.markexpr == "engines" else 2) * (os.cpu_count() or 1)


def missing(reason: str) -> None:
    """Skip the test, since a tool is missing; fail it in CI, where all tools are installed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run each async test on all three event loops, unless it names one, or trio's with a clock that jumps."""
    match request.param:
        case "uvloop":
            return "asyncio", {"use_uvloop": True}
        case "virtual time":
            return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
        case name:
            return name, {}


@pytest.fixture
def engine() -> str:
    """The engine of `redis_server`; a module whose tests run on each one overrides this fixture."""
    return USUAL


@pytest.fixture
def redis_server(tmp_path: Path, engine: str) -> Iterator[RedisServer]:
    """Start a Redis server for this test."""
    try:
        server = RedisServer(tmp_path, engine)
    except NoRedisServer as reason:
        missing(str(reason))
        raise AssertionError from reason
    server.start()
    yield server
    server.kill()
