"""A real Chromium for the tests: from the PATH, else the one that Playwright installed. It knows nothing of hello."""

import shutil

from playwright.sync_api import Browser, Error, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "install Debian's `chromium`, or run `.venv/bin/playwright install --only-shell chromium`"
# Without these, a browser asks the network for things that no test wants.
QUIET = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP hello.test 127.0.0.1",  # for plain http at a name, which a browser does not trust
)
KEPT = ["--disable-back-forward-cache"]  # an argument of Playwright's that would take a feature away


class NoChromiumError(Exception):
    """There is no Chromium on this machine; the message names the ways to get one."""


def launch(playwright: Playwright) -> Browser:
    """Start a Chromium with a new profile, without a window.

    Raises NoChromiumError if there is none.
    """
    for name in NAMES:
        if program := shutil.which(name):
            return playwright.chromium.launch(executable_path=program, args=QUIET, ignore_default_args=KEPT)
    try:
        return playwright.chromium.launch(args=QUIET, ignore_default_args=KEPT)
    except Error as error:
        problem = str(error).strip().partition("\n")[0]  # Playwright's message is a page long
        raise NoChromiumError(f"no Chromium: {INSTALL} ({problem})") from error
