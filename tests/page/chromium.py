"""A real Chromium for the tests: from the PATH, else Playwright's own download. It knows nothing of hello."""

import shutil
import subprocess
import sys
from functools import cache

from playwright.sync_api import Browser, Error, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = (sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
INSTALL_HINT = f"no Chromium: install Debian's `chromium`, or let `{' '.join(INSTALL)}` work"
INSTALL_SECONDS = 300  # some 100 MB over a slow line
# Without these, a browser asks the network for things that no test wants.
QUIET = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP hello.test 127.0.0.1",  # for plain http at a name, which a browser does not trust
)


class NoChromiumError(Exception):
    """There is no Chromium on this machine, and none could be downloaded; the message names the ways to get one."""


def launch(playwright: Playwright) -> Browser:
    """Start a Chromium with a new profile, without a window.

    Raises NoChromiumError if there is none.
    """
    for name in NAMES:
        if program := shutil.which(name):
            return playwright.chromium.launch(executable_path=program, args=QUIET)
    try:
        return playwright.chromium.launch(args=QUIET)
    except Error:
        problem = _download()
    try:
        return playwright.chromium.launch(args=QUIET)
    except Error as error:
        # Playwright's message is a page long; its first line names the problem.
        problem = problem or str(error).strip().partition("\n")[0]
        raise NoChromiumError(f"{INSTALL_HINT} ({problem})") from error


@cache  # one attempt in a run, whether it succeeds or not
def _download() -> str:
    """Let Playwright download its own Chromium; return what went wrong, or an empty string."""
    try:
        done = subprocess.run(INSTALL, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after {INSTALL_SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
    return lines[0] if lines else f"exit code {done.returncode}"
