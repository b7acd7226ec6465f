"""Receives a stream over WebSocket. It knows neither what frames mean nor when to reconnect."""

import re
from typing import Never
from urllib.parse import urljoin, urlsplit, urlunsplit

from websockets import exceptions
from websockets.asyncio.client import connect
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from hello.client import close_reason
from hello.message import Malformed
from hello.watch.transport import MAX_FRAME, SCHEMES, Closed, OnFrame, Transport, rejection, without_credentials


class WebSocket(Transport):
    """One attempt over WebSocket."""

    name = "websocket"

    async def receive(self, on_frame: OnFrame) -> Never:
        """Do what `Transport` says."""
        # The deadlines of connection.py and the relay's beats replace the library's timeouts and pings.
        attempt = _Connect(self.address, open_timeout=None, ping_interval=None, compression=None, max_size=MAX_FRAME)
        try:
            socket = await attempt
        except (OSError, exceptions.WebSocketException, ValueError, ImportError) as error:
            raise _failure(error) from error
        finally:
            self.address, self.proxy = attempt.uri, get_proxy(attempt.ws_uri)
        try:
            while True:
                frame = await socket.recv()
                if isinstance(frame, bytes):
                    raise Malformed("a frame is text, not binary")
                await on_frame(frame)
        except exceptions.ConnectionClosed as closed:
            if closed.sent is not None and not closed.rcvd_then_sent:  # the library closes first for errors alone
                raise Closed(f"closed by us with {closed.sent}", "garbled") from None
            reason = close_reason(closed.rcvd.code if closed.rcvd else None, opened=True)
            raise Closed(f"closed with {closed.rcvd}" if closed.rcvd else "the connection broke", reason) from None
        finally:
            socket.transport.abort()  # not closed: on a dead connection that may take minutes


class _Connect(connect):
    """Follows redirects as servers send them: to http and https, and often without the query that resumes."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the address to follow, or an exception."""
        if not isinstance(exc, exceptions.InvalidStatus) or not (locations := exc.response.headers.get_all("Location")):
            return exc
        try:
            target = urlsplit(urljoin(self.uri, locations[0]))
            target = target._replace(scheme=SCHEMES[target.scheme], query=target.query or urlsplit(self.uri).query)
            address = urlunsplit(target._replace(fragment=""))
            parse_uri(address)
        except (KeyError, ValueError, exceptions.InvalidURI):
            where = without_credentials(locations[0])
            return ValueError(f"redirected to {where}, which is not the address of a stream")
        del exc.response.headers["Location"]
        exc.response.headers["Location"] = address
        return super().process_redirect(exc)


def _failure(error: Exception) -> Closed:
    """Return why no WebSocket opened."""
    match error:
        case exceptions.InvalidStatus(response=response):
            body = bytes(response.body or b"")
            if response.status_code == 426:  # a relay's answer to a request that is no handshake any more
                body = b"a proxy does not pass on Upgrade and Connection"
            return Closed(rejection(response.status_code, response.reason_phrase, body), status=response.status_code)
        case exceptions.InvalidProxyStatus(response=response):  # of CONNECT; the proxy may pass on a GET all the same
            return Closed(str(error), status=response.status_code)
        case exceptions.InvalidMessage():
            if old := re.search(r"HTTP/1\.0 ((\d+).*)", str(error.__cause__)):
                detail = f"the server or a proxy answers with HTTP/1.0, which has no WebSocket: {old[1]}"
                return Closed(detail, status=int(old[2]))
            return Closed(f"{error}: {error.__cause__}")
    # ValueError: a redirect to a bad address; ImportError: no library for a SOCKS proxy.
    return Closed(without_credentials(str(error)), answered=False)  # of a proxy's malformed address
