"""Fixtures of the page's tests: a Chromium, a tab whose console is watched, and processes of `hello` over a Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import missing
from tests.page.chromium import NoChromiumError, launch
from tests.page.redis_stream import RedisStream
from tests.page.standalone import blank_page
from tests.page.tab import Tab
from tests.processes import HelloProcess
from tests.redis_server import RedisServer

FAST = {"interval_min": "0.05", "interval_max": "0.2"}  # seconds; some eight messages in a second

StartHello = Callable[..., HelloProcess]


# Its scope is not the session: while Playwright's synchronous interface is in use, no other event loop can run in this
# thread, and other tests need one.
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
    """One blank page beside the page's own files, for the tests of a file that change nothing in it."""
    with blank_page(browser) as page:
        yield page


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A blank page beside the page's own files, for one test."""
    with blank_page(browser) as page:
        yield page


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab with a new profile. At the end its console must be clean, and every request must be to its own origin."""
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
            process = HelloProcess(actors=actors, channel=redis_server.url, **FAST | settings)
            return stack.enter_context(process)

        yield start


@pytest.fixture
def stream(redis_server: RedisServer) -> Iterator[RedisStream]:
    """The stream in the test's Redis, past the page and `hello`."""
    stream = RedisStream(redis_server.url)
    yield stream
    stream.close()
