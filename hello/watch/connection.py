"""Keeps a WebSocket to a relay open, by the client's rules. It knows neither what frames mean nor how items look."""

import json
import os
import random
import re
from collections.abc import Callable
from typing import NamedTuple, Never
from urllib.parse import urljoin, urlsplit, urlunsplit

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, InvalidURI, WebSocketException
from websockets.http11 import Response
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from hello.client import IDLE_TIMEOUT, OPEN_TIMEOUT, ClientProtocol, Item, backoff_delay, close_reason, next_attempt
from hello.message import Malformed

MAX_FRAME = 64 * 1024  # bytes; a message of 4,096 characters, escaped to 6 bytes each, is less than half of it
MAX_DETAIL = 200  # characters of a reason that a server sent
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}  # of a stream, by that of an address


class Connecting(NamedTuple):
    """The first attempt begins; `url` is without user and password."""

    url: str


class Disconnected(NamedTuple):
    """A connection ended, or an attempt failed: why, in one word and in more, and when the next `attempt` begins."""

    state: str  # the reason
    detail: str
    attempt: int
    retry_in: float  # seconds


Event = Item | Connecting | Disconnected
Ended = tuple[str, str, float | None]  # the reason, in one word and in more; seconds open, or None if no frame came


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
        raise ValueError(f"{_without_credentials(url)!r} is not the address of a page: {hint}") from None
    return address


async def stay_connected(address: str, protocol: ClientProtocol, show: Callable[[Event], None]) -> Never:
    """Follow the stream at `address`, and reconnect until cancelled. `show` gets items and changes of the connection.

    It receives nothing more once `show` has cancelled it.
    """
    show(Connecting(_without_credentials(address)))
    attempt = 0
    while True:
        reason, detail, seconds_open = await _follow(f"{address}?{protocol.resume_query}", protocol, show)
        protocol.disconnected()
        attempt = next_attempt(attempt, seconds_open)
        delay = backoff_delay(reason, attempt, random.random())
        show(Disconnected(reason, detail[:MAX_DETAIL], attempt, round(delay, 3)))
        await anyio.sleep(delay)


async def _follow(address: str, protocol: ClientProtocol, show: Callable[[Event], None]) -> Ended:
    """Connect, and receive frames until the connection ends."""
    opened: float | None = None
    socket: ClientConnection | None = None
    reason, detail = "unreachable", f"no frame within {OPEN_TIMEOUT:g} s"
    # OPEN_TIMEOUT, IDLE_TIMEOUT and the relay's beats replace the library's timeouts and pings.
    attempt = _Connect(address, open_timeout=None, ping_interval=None, compression=None, max_size=MAX_FRAME)
    try:
        with anyio.move_on_after(OPEN_TIMEOUT) as timeout:
            socket = await attempt
            while True:
                for item in protocol.receive(_decode(await socket.recv())):
                    show(item)
                opened = opened or anyio.current_time()
                reason, detail = "dead", f"no frame for {IDLE_TIMEOUT:g} s"
                timeout.deadline = anyio.current_time() + IDLE_TIMEOUT
                await checkpoint_if_cancelled()  # since recv() is no checkpoint while frames are buffered
    except Malformed as error:
        reason, detail = "garbled", str(error)
    except ConnectionClosed as closed:
        if closed.sent is not None and not closed.rcvd_then_sent:  # the library closes first only for a protocol error
            reason, detail = "garbled", f"closed by us with {closed.sent}"
        else:
            reason = close_reason(closed.rcvd.code if closed.rcvd else None, opened is not None)
            detail = f"closed with {closed.rcvd}" if closed.rcvd else "the connection broke"
    except InvalidStatus as rejected:
        detail = _rejection(rejected.response)
        if protocol.rejects_position(rejected.response.status_code, detail):
            protocol.reset_position()
            detail = f"beginning anew with recent messages, after {detail}"
    except (OSError, WebSocketException, ValueError, ImportError) as error:
        if socket is not None:
            raise  # a bug
        detail = _failure(error)  # ValueError: a redirect to a bad address; ImportError: no library for a SOCKS proxy
    finally:
        if socket is not None:
            socket.transport.abort()  # not closed: on a dead connection that may take minutes
    if reason == "unreachable":
        detail = _route(address, attempt) + detail[:MAX_DETAIL]
    return reason, detail, None if opened is None else anyio.current_time() - opened


class _Connect(connect):
    """Follows redirects as servers send them: to http and https, and often without the query that resumes."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the address to follow, or an exception."""
        if not isinstance(exc, InvalidStatus) or not (locations := exc.response.headers.get_all("Location")):
            return exc
        try:
            target = urlsplit(urljoin(self.uri, locations[0]))
            target = target._replace(scheme=SCHEMES[target.scheme], query=target.query or urlsplit(self.uri).query)
            address = urlunsplit(target._replace(fragment=""))
            parse_uri(address)
        except (KeyError, ValueError, InvalidURI):
            where = _without_credentials(locations[0])
            return ValueError(f"redirected to {where}, which is not the address of a stream")
        del exc.response.headers["Location"]
        exc.response.headers["Location"] = address
        return super().process_redirect(exc)


def _route(address: str, attempt: connect) -> str:
    """Return where an attempt went instead of straight to `address`: by redirects, and through a proxy."""
    end = _without_credentials(attempt.uri.partition("?")[0])[:MAX_DETAIL]
    route = "" if attempt.uri == address else f"redirected to {end}: "
    if proxy := get_proxy(attempt.ws_uri):
        scheme, slashes, place = proxy.rpartition("//")  # the library replaces the scheme of socks_proxy
        names = sorted(each for each, value in os.environ.items() if value.rpartition("//")[2] == place)
        source = " and ".join(name for name in names if name.lower().endswith("_proxy")) or "the system"
        route += f"through the proxy {scheme}{slashes}{place.rpartition('@')[2]} of {source}: "
    return route


def _decode(data: str | bytes) -> object:
    if isinstance(data, bytes):
        raise Malformed("a frame is text, not binary")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a frame is a JSON object: {error}") from error


def _rejection(response: Response) -> str:
    """Return the status of a response that opens no WebSocket, and its body, unless that is a page."""
    status = f"{response.status_code} {response.reason_phrase}".strip()
    body = " ".join(bytes(response.body or b"").decode(errors="replace").split())[:MAX_DETAIL]
    if body.startswith("<"):
        return f"an {'HTML' if 'html' in body.lower() else 'XML'} page, from a proxy or another server: {status}"
    return f"{status}: {body}" if body else status


def _failure(error: Exception) -> str:
    """Return why an attempt failed before there was a response that can be read."""
    if not isinstance(error, InvalidMessage):
        return _without_credentials(str(error))  # of a proxy's malformed address
    if old := re.search(r"HTTP/1\.0 (.*)", str(error.__cause__)):
        return f"the server or a proxy answers with HTTP/1.0, which has no WebSocket: {old[1]}"
    return f"{error}: {error.__cause__}"


def _without_credentials(url: str) -> str:
    return re.sub(r"(://|^)[^/?#]*@", r"\1", url)
