"""The page as a person or a developer sees it: its list, texts, console and requests."""

import re
import time
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, expect

from tests.page.redis_stream import Entry

START_MS = 20_000  # for what takes a moment in a browser, on a busy machine too

# Records every state of the connection that the page shows, however short.
RECORD_STATES = """
  window.states = [];
  document.addEventListener("DOMContentLoaded", () => {
    const root = document.documentElement;
    const record = () => window.states.at(-1) === root.className || window.states.push(root.className);
    new MutationObserver(record).observe(root, { attributes: true });
    record();
  });
"""


class Tab:
    """One open page. `complaints` is what a developer would see in the console that should not be there."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator("html")  # its class is the state of the connection
        self.state = page.locator("#state")  # as a sentence
        self.entries = page.locator("#messages > li:not(.event)")  # messages and gaps, newest first
        self.events = page.locator("#messages > li.event p")  # of the connection, newest first
        self.gaps = page.locator("#messages > li.gap")
        self.complaints: list[str] = []
        self.addresses: list[str] = []  # of all requests and WebSockets
        self.rejected: list[str] = []  # the addresses that were answered with 400
        self.documents = 0  # how often the page itself was loaded
        page.add_init_script(RECORD_STATES)
        page.on("console", self._record_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._record_request(request.url, document=request.is_navigation_request()))
        page.on("response", lambda response: self.rejected.extend([response.url] if response.status == 400 else []))
        page.on("websocket", lambda socket: self.addresses.append(socket.url))

    def open(self, url: str) -> None:
        """Open the page and wait until it is connected."""
        self.page.goto(url)
        self.expect_state("connected")

    def expect_state(self, state: str) -> None:
        """Wait until the page shows this state."""
        expect(self.root).to_have_class(state, timeout=START_MS)

    def reconnect_until(self, state: str) -> None:
        """Make the page reconnect without delays, as when the network is back, until it shows this state anew."""
        deadline = time.monotonic() + START_MS / 1000
        shown = len(self.states())
        while state not in self.states()[shown:]:
            assert time.monotonic() < deadline, f"no {state} after {START_MS} ms: {self.states()}"
            self.page.evaluate("dispatchEvent(new Event('online'))")

    def expect_newest(self, entry: Entry) -> None:
        """Wait until this is the newest message in the list."""
        expect(self.entries.first).to_have_attribute("data-id", entry.id, timeout=START_MS)

    def expect_messages(self, count: int) -> None:
        """Wait until the list has at least so many messages and gaps."""
        expect(self.entries.nth(count - 1)).to_be_attached(timeout=START_MS)

    def expect_statistics(self, **values: str) -> None:
        """Wait until the statistics have these values; `lost="0"` is the value whose label begins with "Lost"."""
        for name, value in values.items():
            label = self.page.locator("dt", has_text=re.compile(f"^{name}", re.IGNORECASE))
            row = self.page.locator("#statistics > div", has=label)
            expect(row.locator("dd")).to_have_text(value, timeout=START_MS)

    def expect_events(self, *patterns: str, without: str | None = None) -> None:
        """Wait until the newest events of the connection match these patterns, newest first.

        Events that contain the text `without` do not count.
        """
        events = self.events.filter(has_not_text=without)
        for n, pattern in enumerate(patterns):
            expect(events.nth(n)).to_have_text(re.compile(f"^{pattern}$"), timeout=START_MS)

    def expect_broken_hop(self, hop: int, label: str) -> None:
        """Wait until the picture has the path broken after the channel (1) or after the relay (2), with this label."""
        expect(self.page.locator("#picture .place.broken")).to_contain_text(label, timeout=START_MS)
        expect(self.page.locator("#picture .hop-cross").nth(hop)).to_be_visible()

    def states(self) -> list[str]:
        """Return every state that the page has shown since it was loaded, in order."""
        states: list[str] = self.page.evaluate("window.states")
        return states

    def listed(self) -> list[Entry]:
        """Return the messages in the list, oldest first."""
        found = self.page.locator("#messages > li[data-id]").evaluate_all(
            "entries => entries.map(({ dataset }) => [dataset.position, dataset.id]).reverse()"
        )
        return [Entry(position, message_id) for position, message_id in found]

    def foreign(self) -> list[str]:
        """Return the addresses that were requested from another origin than the page's own."""
        own = urlsplit(self.page.url).netloc
        return [address for address in self.addresses if urlsplit(address).netloc != own]

    def _record_request(self, url: str, *, document: bool) -> None:
        self.addresses.append(url)
        self.documents += document

    def _record_console(self, message: ConsoleMessage) -> None:
        # The browser itself reports a stream that cannot be opened, and no page can prevent it.
        source = message.location["url"]
        failed_socket = message.text.startswith("WebSocket connection to ")
        failed_request = message.text.startswith("Failed to load resource")
        failed_stream = failed_request and urlsplit(source).path in ("/ws", "/events")
        if message.type in ("error", "warning") and not failed_socket and not failed_stream:
            self.complaints.append(f"{message.text} ({source})")
