"""The page's own files in a real Chromium, without `hello`: a test plays the relay, and may send invalid frames.

It knows the frames of the outside contract.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, WebSocketRoute

PAGE = Path(__file__).parents[2] / "hello" / "web" / "page"
ORIGIN = "http://hello.test"
PREFIX = "/some/where"  # of an ingress; the same files are served below it
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
KEPT = 500  # entries in the list (list.js)
# True if nothing is wider than the page or the list.
FITS = """[document.documentElement, document.querySelector("#messages")]
    .every(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)"""
NOON = 1_700_049_600_000  # 15 November 2023, 12:00:00 UTC
WELCOME: dict[str, object] = {"type": "welcome", "relay": "r", "channel": "up", "start": "0-0", "head": None}


@contextmanager
def blank_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """Open a blank page of an origin that serves the page's files as `hello` does; no request leaves the browser."""

    def serve(route: Route) -> None:
        path = urlsplit(route.request.url).path.removeprefix(PREFIX)
        if path == "/blank":
            body = "<!doctype html><p id=announcement></p><button id=jump></button><ol id=messages></ol>"
            route.fulfill(body=body, content_type="text/html")
        elif path in ("/ws", "/events"):
            route.abort()  # a relay that cannot be reached, unless a test plays one
        else:
            file = PAGE / ("index.html" if path == "/" else path.removeprefix("/page/"))
            route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])

    # The page must not depend on the zone and the language of the browser.
    with browser.new_context(timezone_id="UTC", locale="ar-EG", **options) as context:
        context.route("**/*", serve)
        page = context.new_page()
        page.goto(f"{ORIGIN}/blank")
        yield page


def run(page: Page, module: str, body: str, argument: object = None) -> Any:
    """Return what `body` (JavaScript) returns, with the module's exports as `m` and the argument as `a`."""
    return page.evaluate(f"async (a) => {{ const m = await import('/page/{module}.js'); {body} }}", argument)


# Frames, as a relay sends them.


def message(position: str, message_id: str, **fields: object) -> dict[str, object]:
    defaults = {"text": "Hello world", "broadcaster": "b", "relay": "r", "sent_at": NOON, "relayed_at": NOON}
    return {"type": "message", "position": position, "id": message_id, **defaults, **fields}


def gap(after: str, before: str) -> dict[str, object]:
    return {"type": "gap", "after": after, "before": before}


def send(socket: WebSocketRoute, *frames: object) -> None:
    """Send frames: an object as JSON, a text as it is; an integer closes the connection with that code."""
    for frame in frames:
        if isinstance(frame, int):
            socket.close(code=frame)
        else:
            socket.send(frame if isinstance(frame, str) else json.dumps(frame))


def serve_stream(page: Page, *connections: list[object]) -> list[WebSocketRoute]:
    """Send these frames on the page's connections, one list for each, see `send`.

    Further connections get no frame. Returns the connections, a list that grows as they are opened.
    """
    opened: list[WebSocketRoute] = []

    def serve(socket: WebSocketRoute) -> None:
        opened.append(socket)
        send(socket, *(connections[len(opened) - 1] if len(opened) <= len(connections) else []))

    page.route_web_socket(re.compile("/ws"), serve)
    return opened


def open_page(page: Page, *connections: list[object], url: str = ORIGIN) -> list[WebSocketRoute]:
    """Open the page with these connections, see `serve_stream`."""
    opened = serve_stream(page, *connections)
    page.goto(url)
    return opened
