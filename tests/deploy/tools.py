"""Finds the programs that the tests and the linters run."""

import shutil
import sys
from pathlib import Path

from tests.conftest import missing

ROOT = Path(__file__).parents[2]
INSTALL = "pip install -e '.[test]'"
KUBERNETES_VERSIONS = ("1.30", "1.37")  # the oldest and the newest that the manifests support


def find(name: str) -> str | None:
    """The path of a program on the PATH, or else beside the Python that runs; None if there is none."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def tool(name: str, install: str = INSTALL) -> str:
    """The path of a program. If there is none, the test is skipped, or fails in CI; `install` is the remedy."""
    found = find(name)
    if found is None:
        missing(f"no {name}: {install}")
        raise AssertionError
    return found
