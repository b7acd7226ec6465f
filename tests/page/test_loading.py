"""The page where its document comes late, in part, again, or to a browser that cannot run it."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, expect

from tests.page.conftest import StartHello
from tests.page.proxies import balancer, running
from tests.page.tab import START_MS, Tab
from tests.processes import HelloProcess

pytestmark = pytest.mark.browser

LOADS = int(os.environ.get("TEST_LOADS", "3"))  # of the page, while the relays are restarted one after the other
ALERT = "[role=alert]"


def test_half_document(browser: Browser, start_hello: StartHello) -> None:
    """A document whose connection is cut is told in words, with links, and loaded again once a relay is there."""
    relay = start_hello("broadcaster,relay")
    with urlopen(relay.url) as answer:  # noqa: S310
        policy, whole = answer.headers["Content-Security-Policy"], answer.read()
    relay.terminate()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(whole)}\r\nContent-Security-Policy: {policy}\r\n\r\n".encode()

    def send_half() -> None:
        with socket.create_server(("127.0.0.1", relay.port)) as server, server.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(head.replace(b"\r\n", b"\r\nContent-Type: text/html\r\n", 1) + whole[: len(whole) // 2])

    with browser.new_context() as context, ThreadPoolExecutor(1) as pool:
        page = context.new_page()
        sent = pool.submit(send_half)
        page.goto(relay.url, wait_until="commit")
        sent.result()
        with page.expect_event("requestfailed", timeout=START_MS):  # no relay is there: the page stays as it is
            expect(page.locator(ALERT)).to_contain_text("completely. It is loaded again in ", timeout=START_MS)
        expect(page.get_by_role("link", name="the stream as text")).to_have_attribute("href", "/events?last=50")
        relay.start()
        expect(page.locator("html")).to_have_class("connected", timeout=2 * START_MS)
        expect(page.locator(ALERT)).to_have_count(0)


def test_path_prefix(tab: Tab, start_hello: StartHello, tmp_path: Path) -> None:
    """Behind a proxy that removes a path prefix the page works without a slash at its end, too."""
    relay = start_hello("broadcaster,relay")
    strip = "uri strip_prefix /hello\n    reverse_proxy"
    with running("caddy", balancer("caddy", [relay.port]).replace("reverse_proxy", strip), tmp_path) as (url, _):
        tab.open(f"{url}hello")
        tab.expect_messages(1)
    assert {urlsplit(address).path for address in tab.addresses} == {"/hello", "/hello/ws"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("delete AbortSignal.timeout", "needs Chrome or Edge 123, Firefox 120, Safari 17.5"),
        ("window.matchMedia = null", r"cannot run here \(.*TypeError.*\)"),
    ],
    ids=["old", "error"],
)
def test_browser_that_cannot_run_it(browser: Browser, start_hello: StartHello, change: str, text: str) -> None:
    """An old browser is told which ones work, and an error what it is; both get to the messages by a link."""
    relay = start_hello("broadcaster,relay")
    with browser.new_context() as context:
        page = context.new_page()
        page.add_init_script(f"if (location.search === '') {{ {change} }}")
        page.goto(relay.url)
        expect(page.locator(ALERT)).to_have_text(re.compile(text), timeout=START_MS)
        page.get_by_role("link", name="the recent messages").click()
        expect(page.locator("li").first).to_contain_text("Hello world", timeout=START_MS)


def test_without_javascript(browser: Browser, start_hello: StartHello) -> None:
    """Without JavaScript the page is that of the recent messages, and stays up to date."""
    relay = start_hello("broadcaster,relay", text="Hello <i>you</i>")
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(relay.url)
        newest = page.locator("li").first
        expect(newest).to_contain_text("Hello <i>you</i>", timeout=START_MS)
        assert page.url == f"{relay.url}?plain"
        before = newest.text_content() or ""
        expect(newest).not_to_have_text(before, timeout=START_MS)


@contextmanager
def restarting(relays: list[HelloProcess]) -> Iterator[None]:
    """Stop and start one relay after the other for as long as the context lasts."""
    stop = threading.Event()

    def restart() -> None:
        while not stop.is_set():
            for relay in relays:
                relay.terminate()
                relay.start()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(restart)
        try:
            yield
        finally:
            stop.set()
            done.result()


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_loads_in_a_rollout(browser: Browser, start_hello: StartHello, tmp_path: Path, name: str) -> None:
    """Each load of the page, while the two relays behind a proxy are restarted all the time, ends as a live page."""
    start_hello("broadcaster")
    relays = [start_hello("relay", instance=f"relay-{n}", drain_seconds="0.5") for n in (1, 2)]
    configuration = balancer(name, [relay.port for relay in relays])
    with running(name, configuration, tmp_path) as (url, _), restarting(relays):
        for _ in range(LOADS):
            with browser.new_context() as context:
                tab = Tab(context.new_page())
                tab.open(url)
                tab.expect_messages(1)
