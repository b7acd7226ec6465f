"""Which hosts are served, which pages may open a stream, and which hosts a security policy may name.

It reads headers and nothing else.
"""

import re
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_HOST = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def may_open(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Return True if a page of `origin` may open a stream at `host` (the two headers: RFC 6454, RFC 9110).

    A request without an Origin does not come from a page, and may. A page may if its host and port are those of the
    request, in any spelling; the scheme is ignored, since a proxy may have ended TLS. Any other page may if `allowed`
    (in lower case) has its origin.
    """
    if origin is None:
        return True
    origin = origin.lower()
    if origin in allowed:
        return True
    scheme, _, authority = origin.partition("://")
    requested, own = _HOST.fullmatch((host or "").lower()), _HOST.fullmatch(authority)
    if scheme not in _DEFAULT_PORTS or requested is None or own is None:
        return False
    default = _DEFAULT_PORTS[scheme]
    return (own[1], own[2] or default) == (requested[1], requested[2] or default)


def stream_sources(host: str | None) -> str:
    """Return the host as sources of a Content-Security-Policy, or an empty string if it is not a plain host.

    Older Safari does not match `ws:` of the page's own origin against 'self'.
    """
    return f"ws://{host} wss://{host}" if host and _HOST.fullmatch(host.lower()) else ""


class AllowedHosts:
    """An app behind a check of the Host, against DNS rebinding: others are answered 421, with the setting to change.

    A request without a Host passes, since no browser sends one.
    """

    def __init__(self, app: ASGIApp, allowed: Callable[[str], bool], setting: str) -> None:
        self._app, self._allowed, self._setting = app, allowed, setting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(raw=scope["headers"]).get("host")
        found = _HOST.fullmatch((host or "").lower())
        if host is None or (found is not None and self._allowed(found[1])):
            return await self._app(scope, receive, send)
        refusal = PlainTextResponse(f"no answer for {host[:100]!r}: see {self._setting}\n", 421)
        return await refusal(scope, receive, send)
