"""Receives a stream as server-sent events. It knows neither what frames mean nor when to reconnect."""

import ssl
from functools import cache
from typing import Never

import httpx
from websockets.exceptions import InvalidProxy
from websockets.proxy import parse_proxy

from hello.message import Malformed
from hello.watch.transport import MAX_FRAME, Closed, OnFrame, Transport, rejection, without_credentials

_tls_context = cache(ssl.create_default_context)  # it reads all authorities: those of SSL_CERT_FILE, or the system's

# A proxy that compresses events may hold them back.
HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}


class Events(Transport):
    """One attempt by server-sent events."""

    name = "events"

    async def receive(self, on_frame: OnFrame) -> Never:
        """Do what `Transport` says."""
        query = httpx.URL(self.address).query

        async def keep_query(request: httpx.Request) -> None:  # of a redirect, which often lacks it
            if self.address.startswith("https:") and request.url.scheme == "http":
                raise Closed(f"cannot follow redirect to non-secure URI {without_credentials(str(request.url))}")
            request.url = request.url.copy_with(query=request.url.query or query)
            self.address = str(request.url)

        try:
            if self.proxy:
                parse_proxy(self.proxy)  # raises a clearer error
            client = httpx.AsyncClient(
                verify=_tls_context(),
                proxy=self.proxy,
                trust_env=False,  # httpx would choose other proxies than the WebSocket's
                timeout=httpx.Timeout(None),  # connection.py has the deadlines
                follow_redirects=True,
                max_redirects=10,  # as websockets
                event_hooks={"request": [keep_query]},
            )
            async with client, client.stream("GET", self.address, headers=HEADERS) as response:
                await _read(response, on_frame)
        except (httpx.HTTPError, httpx.InvalidURL, InvalidProxy, ImportError) as error:
            raise Closed(without_credentials(_cause(error))) from error


async def _read(response: httpx.Response, on_frame: OnFrame) -> Never:
    """Receive the frames of a response until it ends, as server-sent events (WHATWG HTML, section 9.2).

    A relay sends the data of an event in one line.
    """
    chunks = response.aiter_raw()
    if response.status_code != 200 or not response.headers.get("Content-Type", "").startswith("text/event-stream"):
        body = await anext(chunks, b"")
        raise Closed(rejection(response.status_code, response.reason_phrase, body), status=response.status_code)
    reason, detail, rest = "lost", "the relay ended the stream", b""
    async for chunk in chunks:
        *events, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(rest) > MAX_FRAME:
            raise Malformed(f"an event has over {MAX_FRAME} bytes")
        for event in events:
            fields = dict(line.partition(b":")[::2] for line in event.split(b"\n"))
            if b"data" in fields:
                await on_frame(fields[b"data"])
            elif b"" in fields:  # a comment: why the relay takes no client
                detail = fields[b""].strip().decode(errors="replace")
            elif b"retry" in fields:  # the end, if the relay stops; a proxy may end a lost stream as if it were whole
                reason = "moved"
    raise Closed(detail, reason)


def _cause(error: BaseException) -> str:
    """Return the first cause, such as a refused connection, which the errors above it do not name."""
    if isinstance(error, httpx.RemoteProtocolError):
        return f"no valid HTTP response: {error}"
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error) or "the connection broke"
