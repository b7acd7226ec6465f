"""The engines that the tests of the channel and of the whole system run on; all other tests run on the usual one.

`python -m tests.engines` prints the version of each, and fails if one is missing or has another version than its name.
"""

# ruff: noqa: T201 # a command prints

import subprocess
import sys
from typing import Any

import pytest

from tests.redis_server import PACKAGED, USUAL, NoRedisServer, redis_program


def on_each_engine(pattern: str = "{}") -> list[Any]:
    """Return a test's parameters: the pattern with each engine; all but the usual one have the marker `engines`."""
    engines = (engine for engine in PACKAGED if engine != "redis6.0")  # which is too old
    others = (pytest.param(pattern.format(engine), marks=pytest.mark.engines) for engine in engines)
    return [pattern.format(USUAL), *others]


def version(program: str) -> str:
    """Return such as `Redis server v=7.0.15`."""
    command = [program, "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition(" sha=")[0]


def main() -> int:
    code = 0
    for engine in (USUAL, *PACKAGED):
        try:
            found = version(redis_program(engine))
            if engine != USUAL and not found.lower().replace(" server v=", "").startswith(engine):
                code = 1
        except NoRedisServer as reason:
            found, code = str(reason), 1
        print(f"{engine:9} {found}")
    return code


if __name__ == "__main__":
    sys.exit(main())
