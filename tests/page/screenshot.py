"""Makes the README's picture of the page during a rollout: `python -m tests.page.screenshot tests/page/page.png`.

A real Redis, a broadcaster and two relays run behind one address, as behind a Service. Each relay is replaced while
messages come, and the page must miss none. This takes four minutes, since the page's plot shows ten.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from playwright.sync_api import sync_playwright

from tests.faults.proxy import Proxy
from tests.page.chromium import launch
from tests.page.redis_stream import RedisStream
from tests.page.tab import Tab
from tests.processes import HelloProcess
from tests.redis_server import RedisServer

INTERVALS = {"interval_min": "1", "interval_max": "2"}  # seconds
BROADCASTER = "broadcaster-k7x2m"
OLD_RELAYS = ["relay-2kq8z", "relay-w5t9d"]
NEW_RELAYS = ["relay-8xh4n", "relay-m3v7p"]
SIZE = {"width": 1280, "height": 800}
MESSAGES = 100  # before the rollout
BETWEEN = 20  # messages between the two replacements
AFTER = 4  # messages, so few that the last replacement is still in view


def main() -> None:
    """Run a rollout and write the screenshot to the file that the command names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.page.screenshot FILE.png")
    Path(sys.argv[1]).write_bytes(make_screenshot())


def make_screenshot() -> bytes:
    """Return a PNG of the page after a rollout."""
    with ExitStack() as stack:
        redis = RedisServer(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(redis.kill)
        redis.start()
        stream = RedisStream(redis.url)
        stack.callback(stream.close)

        def start(actor: str, instance: str) -> HelloProcess:
            settings = {"actors": actor, "channel": redis.url, "instance": instance, "drain_seconds": "1"}
            return stack.enter_context(HelloProcess(**INTERVALS, **settings))

        relays = [start("relay", instance) for instance in OLD_RELAYS]
        service = Proxy("service", *(relay.port for relay in relays))
        portal = stack.enter_context(start_blocking_portal())
        running, _ = portal.start_task(service.run)
        stack.callback(running.result)
        stack.callback(portal.call, service.end)

        browser = launch(stack.enter_context(sync_playwright()))
        tab = Tab(browser.new_page(viewport=SIZE))  # type: ignore[arg-type]  # a dict of int is a ViewportSize
        tab.open(f"http://127.0.0.1:{service.port}/")
        start("broadcaster", BROADCASTER)
        stream.wait_for(more=MESSAGES)
        for instance, more in zip(NEW_RELAYS, (BETWEEN, AFTER), strict=True):
            relays.append(start("relay", instance))
            old = relays.pop(0)
            service.targets = [relay.port for relay in relays]  # as a Service leaves out a pod that terminates
            old.terminate()
            tab.expect_state("connected")
            stream.wait_for(more=more)

        entries = stream.entries()
        tab.expect_newest(entries[-1])
        assert tab.listed() == entries
        assert tab.complaints == []
        assert "moved" in tab.states(), "no relay that was replaced had this page"
        tab.expect_statistics(shown=str(len(entries)), lost="0", repeated="0")
        image: bytes = tab.page.screenshot()
        browser.close()
        return image


if __name__ == "__main__":
    main()
