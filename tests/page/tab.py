"""What the tests see of the page, as a person or a developer would: its list, its words, its console, its requests."""

import re
import time
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, expect

from tests.page.said import Said

START_MS = 20_000  # for what takes a moment in a browser, on a busy machine too
RECENT = 50  # messages that the page asks for at the start (connection.js)

# Every state that the page has told, however short: the page's own process notes it.
NOTE_STATES = """
  window.states = [];
  document.addEventListener("DOMContentLoaded", () => {
    const root = document.documentElement;
    const note = () => window.states.at(-1) === root.className || window.states.push(root.className);
    new MutationObserver(note).observe(root, { attributes: true });
    note();
  });
"""


class Tab:
    """One open page. `complaints` is what a developer would see in the console that should not be there."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator("html")  # its class is the state of the connection
        self.state = page.locator("#state")  # in words
        self.entries = page.locator("#messages > li:not(.event)")  # messages and gaps, oldest first
        self.events = page.locator("#messages > li.event p")  # what became of the connection, oldest first
        self.gaps = page.locator("#messages > li.gap")
        self.complaints: list[str] = []
        self.addresses: list[str] = []  # all that was requested, WebSockets included
        self.refused: list[str] = []  # the addresses that were answered 400
        self.documents = 0  # how often the page itself was loaded
        page.add_init_script(NOTE_STATES)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._note_request(request.url, document=request.is_navigation_request()))
        page.on("response", lambda answer: self.refused.extend([answer.url] if answer.status == 400 else []))
        page.on("websocket", lambda socket: self.addresses.append(socket.url))

    def open(self, url: str) -> None:
        """Open the page and wait until it is connected."""
        self.page.goto(url)
        self.expect_state("connected")

    def expect_state(self, state: str) -> None:
        """Wait until the page tells this state."""
        expect(self.root).to_have_class(state, timeout=START_MS)

    def hasten_until(self, state: str) -> None:
        """Let no pause between two attempts pass, as when the network comes back, until the page tells this state."""
        deadline = time.monotonic() + START_MS / 1000
        while self.root.get_attribute("class") != state:
            assert time.monotonic() < deadline, f"no {state} after {START_MS} ms: {self.told_states()}"
            self.page.evaluate("dispatchEvent(new Event('online'))")

    def expect_newest(self, said: Said) -> None:
        """Wait until this is the newest message in the list."""
        expect(self.entries.last).to_have_attribute("data-id", said.id, timeout=START_MS)

    def expect_messages(self, count: int) -> None:
        """Wait until the list has so many entries, or more."""
        expect(self.entries.nth(count - 1)).to_be_attached(timeout=START_MS)

    def expect_figures(self, **figures: str) -> None:
        """Wait until the tally says so; `lost="0"` is the figure whose name begins with "Lost"."""
        for name, figure in figures.items():
            title = re.compile(f"^{name.replace('_', ' ')}", re.IGNORECASE)
            pair = self.page.locator("#tally > div", has=self.page.locator("dt", has_text=title))
            expect(pair.locator("dd")).to_have_text(figure, timeout=START_MS)

    def expect_events(self, *words: str) -> None:
        """Wait until these patterns are the newest entries on what became of the connection, newest first."""
        for n, pattern in enumerate(words, 1):
            expect(self.events.nth(-n)).to_have_text(re.compile(f"^{pattern}$"), timeout=START_MS)

    def expect_cut(self, hop: int, word: str) -> None:
        """Wait until the picture has the path cut before the channel's (1) or the relay's (2) next, with this word."""
        expect(self.page.locator("#picture .hop").nth(hop)).to_have_text(word, timeout=START_MS)
        expect(self.page.locator("#picture .cross").nth(hop)).to_be_visible()

    def told_states(self) -> list[str]:
        """Every state that the page has told since it was loaded, in order."""
        states: list[str] = self.page.evaluate("window.states")
        return states

    def shown(self) -> list[Said]:
        """The messages in the list, oldest first."""
        found = self.page.locator("#messages > li[data-id]").evaluate_all(
            "entries => entries.map(({ dataset }) => [dataset.position, dataset.id])"
        )
        return [Said(position, message_id) for position, message_id in found]

    def foreign(self) -> list[str]:
        """The addresses of another origin than the page's own that were requested."""
        own = urlsplit(self.page.url).netloc
        return [address for address in self.addresses if urlsplit(address).netloc != own]

    def _note_request(self, url: str, *, document: bool) -> None:
        self.addresses.append(url)
        self.documents += document

    def _note_console(self, message: ConsoleMessage) -> None:
        # The browser itself reports a stream that cannot be opened, and no page can prevent it.
        source = message.location["url"]
        refused_socket = message.text.startswith("WebSocket connection to ")
        refused_enquiry = message.text.startswith("Failed to load resource") and urlsplit(source).path == "/events"
        if message.type in ("error", "warning") and not refused_socket and not refused_enquiry:
            self.complaints.append(f"{message.text} ({source})")
