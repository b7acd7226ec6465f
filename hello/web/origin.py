"""Which hosts are served, which pages may open a stream, and which hosts a security policy may name.

It reads headers and nothing else.
"""

import re
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# A name, which a dot may end (RFC 1034, 3.1), or an IPv6 address; then a port.
_HOST = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?:(?<!\])\.)?(?::([0-9]{1,5}))?")
# What a security policy can name of these (CSP Level 3, 2.3.1): no IPv6 address, and no underscore.
_SOURCE = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.?(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def may_open(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Return True if a page of `origin` may open a stream at `host` (the two headers: RFC 6454, RFC 9110).

    A request without an Origin does not come from a page, and may. A page may if its host and port are those of the
    request, in any spelling; the scheme is ignored, since a proxy may have ended TLS. If the request has no port, the
    names alone decide: nginx drops the port by `proxy_set_header Host $host`. Any other page may if `allowed` has its
    origin.
    """
    if origin is None:
        return True
    page, requested = _parse(origin), _HOST.fullmatch((host or "").lower())
    if page is None:
        return False
    _, name, port = page
    if requested is not None and requested[1] == name and requested[2] in (None, port):
        return True
    return page in map(_parse, allowed)


def _parse(origin: str) -> tuple[str, str, str] | None:
    """Return scheme, host and port, equal for each spelling of an origin; or None if it is not one of a web page."""
    scheme, _, authority = origin.lower().partition("://")
    found = _HOST.fullmatch(authority)
    if scheme not in _DEFAULT_PORTS or found is None:
        return None
    return scheme, found[1], found[2] or _DEFAULT_PORTS[scheme]


def stream_sources(host: str | None) -> str:
    """Return the host as sources of a Content-Security-Policy, or an empty string if a policy cannot name it.

    Older Safari does not match `ws:` of the page's own origin against 'self'.
    """
    return f"ws://{host} wss://{host}" if host and _SOURCE.fullmatch(host.lower()) else ""


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
