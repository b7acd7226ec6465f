"""The public app: the page, its files, and the two streams; every answer has the headers that protect the page."""

from collections.abc import Collection
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from hello.hub import Hub
from hello.web.origin import AllowedHosts, stream_sources
from hello.web.refusals import EXTENSION
from hello.web.stream import Streams

_REASONS = {400: "request", 403: "origin", 421: "host", 426: "upgrade"}  # of refusals, by the status of the answer

PAGE = Path(__file__).parent / "page"


def public_app(hub: Hub, *, allowed_origins: Collection[str], allowed_hosts: Collection[str] = ()) -> ASGIApp:
    """Return the app, for these hosts (if none, any); pages of these origins may open its streams.

    The hosts are in lower case, without a port and without a dot at the end.
    """
    streams = Streams(hub, allowed_origins)
    files = _Files(directory=PAGE)

    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    async def upgrade_required(request: Request) -> Response:
        text = "this is a WebSocket; a proxy in between may not pass on Upgrade and Connection\n"
        return PlainTextResponse(text, 426, {"Upgrade": "websocket", "Connection": "Upgrade"})  # RFC 9110, 15.5.22

    async def no_websocket(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("there is no WebSocket here, but at /ws\n", 404))

    app = Starlette(
        routes=[
            WebSocketRoute("/ws", streams.websocket),
            WebSocketRoute("/{path:path}", no_websocket),
            Route("/ws", upgrade_required),
            Route("/events", streams.events),
            Route("/", page),
            Mount("/page", files),
        ],
    )
    app.router.redirect_slashes = False  # a wrong address gets 404, not a redirect
    # The headers are put around the app, and not by a middleware in it: Starlette answers errors outside of those.
    hosts = AllowedHosts(app, allowed_hosts.__contains__, "HELLO_ALLOWED_HOSTS") if allowed_hosts else app
    return _Headers(hosts, hub)


class _Files(StaticFiles):
    """Files that ignore Range (RFC 9110, 14.2): 100 ranges of a small file would cost 20 ms of CPU."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        scope["headers"] = [field for field in scope["headers"] if field[0] != b"range"]
        response = await super().get_response(path, scope)
        response.headers["Accept-Ranges"] = "none"
        return response


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
                connect = f"'self' {stream_sources(requested.get('host'))}".strip()
                # `data:` is for the page's icon, which changes when no relay can be reached.
                headers["Content-Security-Policy"] = (
                    f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
                    f" connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                )
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
