"""What the page's tests share: a Chromium, a tab whose console is watched, and processes of `hello` over a Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import missing
from tests.page.alone import blank_page
from tests.page.chromium import NoChromiumError, launch
from tests.page.said import Stream
from tests.page.tab import Tab
from tests.processes import HelloProcess
from tests.redis_server import RedisServer

QUICK = {"interval_min": "0.05", "interval_max": "0.2"}  # seconds; some eight messages in a second

StartHello = Callable[..., HelloProcess]


# Not for the session: while Playwright's synchronous interface is in use, no other event loop can run in this thread,
# and the rest of the tests need one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for the tests of one file."""
    with sync_playwright() as playwright:
        try:
            chromium = launch(playwright)
        except NoChromiumError as reason:
            missing(str(reason))
            raise AssertionError from reason
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Iterator[Page]:
    """One blank page beside the page's own files, for all tests of a file that leave nothing behind in it."""
    with blank_page(browser) as page:
        yield page


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A blank page beside the page's own files, of this test's own."""
    with blank_page(browser) as page:
        yield page


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A new tab with a profile of its own. At the end its console must be clean, and all requests its own origin's."""
    with browser.new_context() as context:
        tab = Tab(context.new_page())
        yield tab
        assert tab.complaints == []
        assert tab.foreign() == []


@pytest.fixture
def start_hello(redis_server: RedisServer) -> Iterator[StartHello]:
    """Start a process of `hello` with these actors over the test's Redis, and with further settings."""
    with ExitStack() as stack:

        def start(actors: str, **settings: str) -> HelloProcess:
            process = HelloProcess(actors=actors, channel=redis_server.url, **QUICK | settings)
            return stack.enter_context(process)

        yield start


@pytest.fixture
def stream(redis_server: RedisServer) -> Iterator[Stream]:
    """The test's Redis, looked into past the page and `hello`."""
    stream = Stream(redis_server.url)
    yield stream
    stream.close()
