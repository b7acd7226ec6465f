"""Checks types (TypeScript) and format (prettier) of the page, which has no build: `python -m tests.page.check`.

Without npm, or without its registry, the checks are skipped; where CI is set, that is a failure.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE / "package-lock.json"
INSTALLED = HERE / "node_modules" / ".package-lock.json"  # written by npm at the end of an installation


def main() -> int:
    """Install the tools where they are missing or old, run the checks, and return the exit code."""
    npm = shutil.which("npm")
    if npm is None:
        return skip("no npm: install Node.js, or Debian's `npm`")
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        installation = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=HERE, check=False)
        if installation.returncode != 0:
            return skip(f"`npm ci` in {HERE} failed")
    return subprocess.run([npm, "run", "--silent", "check"], cwd=HERE, check=False).returncode


def skip(reason: str) -> int:
    """Print why the page is not checked, and return the exit code: a failure in CI, where all tools are installed."""
    sys.stderr.write(f"the page's types and format are not checked: {reason}\n")
    return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
