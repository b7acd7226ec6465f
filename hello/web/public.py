"""The public app: the page and the two streams; every answer has the headers that protect the page."""

import re
from collections.abc import Collection

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from hello.hub import Hub
from hello.web.document import read_document, source_of
from hello.web.origin import AllowedHosts, stream_sources
from hello.web.plain import STYLE, plain_page
from hello.web.refusals import EXTENSION
from hello.web.stream import Streams

POLICY = "Content-Security-Policy"
PROTECTION = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"  # what no answer allows
_REASONS = {400: "request", 403: "origin", 421: "host", 426: "upgrade"}  # of refusals, by the status of the answer


def public_app(hub: Hub, *, allowed_origins: Collection[str], allowed_hosts: Collection[str] = ()) -> ASGIApp:
    """Return the app, for these hosts (if none, any); pages of these origins may open its streams.

    The hosts are in lower case, without a port and without a dot at the end.
    """
    streams = Streams(hub, allowed_origins)
    document = read_document()
    plain_policy = f"style-src {source_of(STYLE)}"

    async def page(request: Request) -> Response:
        """The page; with `?plain` the recent messages without JavaScript, at the same address below any prefix."""
        if "plain" in request.query_params:
            return HTMLResponse(plain_page(hub.feed), headers={POLICY: plain_policy})
        # `data:` is for the icon, which changes when no relay can be reached.
        connect = f"connect-src 'self' {stream_sources(request.headers.get('host'))}".strip()
        headers = {POLICY: f"{document.sources}; img-src data:; {connect}"}
        headers |= {"ETag": document.etag, "Vary": "Accept-Encoding"}
        if document.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if not _accepts_gzip(request.headers.get("accept-encoding", "")):
            return HTMLResponse(document.html, headers=headers)
        return HTMLResponse(document.gzipped, headers=headers | {"Content-Encoding": "gzip"})

    async def no_websocket(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("there is no WebSocket here, but at /ws\n", 404))

    app = Starlette(
        routes=[
            WebSocketRoute("/ws", streams.websocket),
            WebSocketRoute("/{path:path}", no_websocket),
            Route("/ws", streams.upgrade_required),
            Route("/events", streams.events),
            Route("/", page),
        ],
    )
    app.router.redirect_slashes = False  # a wrong address gets 404, not a redirect
    # The headers are put around the app, and not by a middleware in it: Starlette answers errors outside of those.
    hosts = AllowedHosts(app, allowed_hosts.__contains__, "HELLO_ALLOWED_HOSTS") if allowed_hosts else app
    return _Headers(hosts, hub)


def _accepts_gzip(accepted: str) -> bool:
    """Return True if this Accept-Encoding (RFC 9110, 12.5.3) has gzip with a weight other than 0."""
    found = re.search(r"(?:^|,)\s*gzip\s*(?:;\s*q=([0-9.]+))?\s*(?:,|$)", accepted.lower())
    return found is not None and found[1] not in ("0", "0.0", "0.00", "0.000")


class _Headers:
    """Adds the same headers to every answer, errors and refusals included; a draining relay's is the last one.

    It reports the refusals to the server, which knows where each came from: see EXTENSION.
    """

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app, self._hub = app, hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers, requested = MutableHeaders(scope=message), Headers(scope=scope)
                own = f" {headers[POLICY]};" if POLICY in headers else ""
                headers[POLICY] = f"default-src 'none';{own} {PROTECTION}"
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                # A browser logs an error if this comes from an address that it does not trust, plain http at a name.
                # It sends Sec-Fetch-… to those alone that it trusts (Fetch Metadata, 2).
                if "sec-fetch-dest" in requested:
                    headers["Cross-Origin-Opener-Policy"] = "same-origin"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers.setdefault("Cache-Control", "no-cache")  # revalidated at each load: a rollout shows at once
                no_place = "draining" if self._hub.draining else "full"  # with status 503, or 200 of `/events`
                reason = no_place if "retry-after" in headers else _REASONS.get(message["status"])
                if reason is not None and EXTENSION in scope.get("extensions", {}):
                    scope["extensions"][EXTENSION](scope["headers"], reason)
                if self._hub.draining and scope["type"] == "http":
                    headers.append("Connection", "close")  # a balancer's next request goes to another relay
            await send(message)

        await self._app(scope, receive, send_with_headers)
