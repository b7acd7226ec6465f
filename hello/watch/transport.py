"""What both transports have in common: addresses, redirects, proxies, and how an end is worded. It opens nothing."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, Never
from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import InvalidURI
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

MAX_FRAME = 64 * 1024  # bytes; a message of 4,096 characters, escaped to 6 bytes each, is less than half of it
MAX_DETAIL = 200  # characters of a reason that a server sent
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}  # of a stream, by that of an address

OnFrame = Callable[[str | bytes], Awaitable[None]]  # called with each frame, which is JSON


class Closed(Exception):
    """A connection ended, or did not open: why, in more and in one word, which holds if a frame had come.

    `status` is that of an HTTP response in place of a stream. `answered` is False if no server has answered.
    """

    def __init__(self, detail: str, reason: str = "lost", *, status: int = 0, answered: bool = True) -> None:
        super().__init__(detail)
        self.detail, self.reason, self.status, self.answered = detail, reason, status, answered


class Transport(ABC):
    """One attempt to receive a stream. A redirect changes its `address`, and may change its `proxy`."""

    name: ClassVar[str]

    def __init__(self, address: str) -> None:
        self.address = self._asked = address
        self.proxy = get_proxy(parse_uri(re.sub("^http", "ws", address)))

    @abstractmethod
    async def receive(self, on_frame: OnFrame) -> Never:
        """Connect, and receive frames until the connection ends. Raises Closed then, and what `on_frame` raises."""

    def route(self) -> str:
        """Return where the attempt went instead of straight to its address: by redirects, and through a proxy."""
        end = without_credentials(self.address.partition("?")[0])[:MAX_DETAIL]
        route = "" if self.address == self._asked else f"redirected to {end}: "
        if self.proxy:
            scheme, slashes, place = self.proxy.rpartition("//")  # the library replaces the scheme of socks_proxy
            names = sorted(each for each, value in os.environ.items() if value.rpartition("//")[2] == place)
            source = " and ".join(name for name in names if name.lower().endswith("_proxy")) or "the system"
            route += f"through the proxy {scheme}{slashes}{place.rpartition('@')[2]} of {source}: "
        return route


def stream_address(url: str) -> str:
    """Return the WebSocket address of the stream, from the page's address or from that of a stream: /ws or /events.

    As on the page a path before it is kept. Without a scheme it is http.

    Raises ValueError with a sentence for the user if there is no such address.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme = SCHEMES[parts.scheme]
        if re.search(r"[\s\x00-\x1f]", url) or parts.query or parts.port == 0:
            raise ValueError
        (parts.hostname or "").encode("idna")  # a name that no resolver can look up is a UnicodeError
        path = re.sub(r"/(ws|events)?/*$", "", parts.path) + "/ws"
        address = urlunsplit((scheme, parts.netloc, path, "", ""))
        parse_uri(address)
    except (KeyError, ValueError, InvalidURI):
        hint = "give http://HOST:PORT/ or https://HOST/PATH/, without a query"
        raise ValueError(f"{without_credentials(url)!r} is not the address of a page: {hint}") from None
    return address


def events_address(address: str) -> str:
    """Return the address of the same stream as server-sent events."""
    return re.sub("^ws", "http", address).removesuffix("ws") + "events"


def rejection(status: int, phrase: str, body: bytes) -> str:
    """Return the status of a response that opens no stream, and its body, unless that is a page."""
    named = f"{status} {phrase}".strip()
    text = " ".join(body.decode(errors="replace").split())[:MAX_DETAIL]
    if text.startswith("<"):
        return f"an {'HTML' if 'html' in text.lower() else 'XML'} page, from a proxy or another server: {named}"
    return f"{named}: {text}" if text else named


def without_credentials(url: str) -> str:
    """Return an address without user and password."""
    return re.sub(r"(://|^)[^/?#]*@", r"\1", url)
