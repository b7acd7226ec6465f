"""One real page in Chromium, and what it shows, as an observer inside the page notes it: the log of a client."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from playwright.async_api import ConsoleMessage, Page, async_playwright
from playwright.sync_api import sync_playwright

from hello.message import Gap, Position
from tests.faults.checker import ClientLog
from tests.page.chromium import NAMES, QUIET, launch
from tests.promises import Received, State

# Notes every message and gap that the page adds to its list, which is bounded, and every change of its state.
NOTE = """
  window.noted = [];
  document.addEventListener("DOMContentLoaded", () => {
    const note = (...what) => window.noted.push([Date.now() / 1000, ...what]);
    const list = document.getElementById("messages");
    new MutationObserver((changes) => {
      // The list is newest first: a change that adds several entries has the oldest last.
      for (const { dataset, className } of changes.flatMap((change) => [...change.addedNodes].reverse())) {
        if (className === "gap") note("gap", dataset.after, dataset.before);
        else if (dataset.id) note("message", dataset.position, dataset.id);
      }
    }).observe(list, { childList: true });
    const state = document.getElementById("state");
    const root = document.documentElement; // its class is the state
    const observer = new MutationObserver(() => note("state", root.className, state.textContent));
    observer.observe(root, { attributes: true });
    observer.observe(state, { childList: true, characterData: true, subtree: true });
  });
"""


class PageClient:
    """The page's log, and in `errors` the errors and warnings in its console."""

    def __init__(self, page: Page) -> None:
        self.log = ClientLog("the page")
        self.errors: list[str] = []
        self._gap: Gap | None = None  # shown, before a message that is yet to come
        self._page = page
        page.on("pageerror", lambda error: self.errors.append(f"the page: {error}"))
        page.on("console", self._add_error)

    async def collect(self) -> None:
        """Add to the log what the page has noted since the last time."""
        for at, kind, one, two in await self._page.evaluate("window.noted.splice(0)"):
            match kind:
                case "message":
                    self.log.received.append(Received(at, Position.parse(one), two, self._gap))
                    self._gap = None
                case "gap":
                    self._gap = Gap(Position.parse(one), Position.parse(two))
                case _:
                    self._add_state(at, one, two)

    def _add_state(self, at: float, name: str, text: str) -> None:
        before = self.log.states[-1] if self.log.states else None
        relay = re.match(r"(.+) over ", text)  # the page names it while all is well
        state = {"connected": "up", "channel-down": "down"}.get(name, "gone")
        after = State(at, state, relay[1] if relay else before.relay if before else "")
        if before is None or before[1:] != after[1:]:
            self.log.states.append(after)
            self.log.connections += state != "gone" and (before is None or before.state == "gone")

    def _add_error(self, message: ConsoleMessage) -> None:
        # Chromium itself reports a stream that it cannot open, and no page can prevent that.
        refused = message.text.startswith(("WebSocket connection to ", "Failed to load resource"))
        if message.type in ("error", "warning") and not refused:
            self.errors.append(f"the page: {message.text}")


async def chromium() -> str | None:
    """Return the path of a Chromium, or None for Playwright's own, which is downloaded if need be.

    Raises NoChromiumError if there is none.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        await anyio.to_thread.run_sync(_try)
    return program


@asynccontextmanager
async def open_page(program: str | None, port: int) -> AsyncIterator[PageClient]:
    """Open the page at this port, in a Chromium of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=QUIET)
        page = await browser.new_page()
        await page.add_init_script(NOTE)
        client = PageClient(page)
        await page.goto(f"http://127.0.0.1:{port}/")
        yield client
        await browser.close()


def _try() -> None:
    with sync_playwright() as playwright:
        launch(playwright).close()
