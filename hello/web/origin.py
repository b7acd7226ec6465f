"""Which pages may open a stream, and which hosts may stand in a policy. It reads headers and nothing else."""

import re
from collections.abc import Collection

_HOST = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def may_open(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a page of `origin` may open a stream at `host` (both as the headers say; RFC 6454, RFC 9110).

    A request without an Origin comes from no page and may. A page of the host and port that were asked for may, however
    they are spelt; a proxy may have taken TLS away, so that the scheme says nothing. Other pages may if `allowed` (in
    lower case) names them.
    """
    if origin is None:
        return True
    origin = origin.lower()
    if origin in allowed:
        return True
    scheme, _, place = origin.partition("://")
    asked, own = _HOST.fullmatch((host or "").lower()), _HOST.fullmatch(place)
    if scheme not in _DEFAULT_PORTS or asked is None or own is None:
        return False
    default = _DEFAULT_PORTS[scheme]
    return (own[1], own[2] or default) == (asked[1], asked[2] or default)


def stream_sources(host: str | None) -> str:
    """The host as sources of a Content-Security-Policy, or nothing if it is no plain host.

    Older Safari does not take `ws:` for the page's own origin under 'self'.
    """
    return f"ws://{host} wss://{host}" if host and _HOST.fullmatch(host.lower()) else ""
