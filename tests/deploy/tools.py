"""Where the deployment's tests find the programs that they run. It knows none of the tests."""

import shutil
import sys
from pathlib import Path

from tests.conftest import missing

ROOT = Path(__file__).parents[2]


def tool(name: str, install: str = "pip install '.[test]'") -> str:
    """The path of a program, from the PATH or from beside the Python that runs the tests.

    Where there is none the test is skipped, and in CI it fails; `install` says how to get it.
    """
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        missing(f"no {name}: {install}")
        raise AssertionError
    return found
