"""What the public server refuses: counted by reason, and named in the log. It must not know by which rule."""

import asyncio
import logging
import math
import re
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

from prometheus_client import Counter
from starlette.datastructures import Headers

EXTENSION = "hello.refused"  # an ASGI extension: called with the headers of a request, and the reason of its refusal
LOG_SECONDS = 60.0  # between two warnings with the same reason, however many requests are refused
MAX_VALUE = 100  # characters of a header in a warning

OnRefused = Callable[[asyncio.Transport, Iterable[tuple[bytes, bytes]], str], None]  # see `Refusals.add`

REMEDIES = {
    "origin": "if its pages may open the streams, name it in HELLO_ALLOWED_ORIGINS, or let the proxy pass on Host",
    "host": "if it is a host of this server, name it in HELLO_ALLOWED_HOSTS",
    "upgrade": "let the proxy pass on Upgrade and Connection, and version 13 of the WebSocket protocol",
    "request": "it is not HTTP/1.1 (a proxy may speak TLS or HTTP/2 to this port), or its `after` or `last` is bad",
    "head": "a head has 10 s, 16 KiB and 100 fields, and cookies may fill it",
    "body": "no request to this server has a body",
    "full": "raise HELLO_MAX_CLIENTS, or add a relay",
    "draining": "a balancer sends requests to a relay that is not ready: let it look at /readyz more often",
}

_FOR = re.compile(r'for="?([^\s";,]+)', re.IGNORECASE)  # in Forwarded (RFC 7239, 4)
_NODE = re.compile(r"^\[?([0-9.]+|[0-9a-f:.]+)\]?(?::[0-9]+)?$", re.IGNORECASE)  # an address, and perhaps a port

log = logging.getLogger(__name__)


class Refusals:
    """Counts refusals, and logs one warning per reason and LOG_SECONDS, with what an operator can do."""

    def __init__(self, counter: Counter, trusted_proxies: Collection[IPv4Network | IPv6Network]) -> None:
        self._counts = {reason: counter.labels(reason) for reason in REMEDIES}
        self._logged_at = dict.fromkeys(REMEDIES, -math.inf)  # loop time
        self._trusted_proxies = trusted_proxies

    def add(self, transport: asyncio.Transport, headers: Iterable[tuple[bytes, bytes]], reason: str) -> None:
        """Count the refusal of a request with these headers, which came over this connection."""
        self._counts[reason].inc()
        now = asyncio.get_running_loop().time()
        if now - self._logged_at[reason] >= LOG_SECONDS:
            self._logged_at[reason] = now
            fields = Headers(raw=list(headers))
            client = self._client((transport.get_extra_info("peername") or ["unknown"])[0], fields)
            values = (client, fields.get("origin", ""), fields.get("host", ""))
            quoted = (repr(value[:MAX_VALUE]) for value in values)  # this escapes control characters
            log.warning("refused (%s): client %s, Origin %s, Host %s; %s", reason, *quoted, REMEDIES[reason])

    def _client(self, peer: str, headers: Headers) -> str:
        """Return the peer or, for a trusted proxy, the last client in its header that is no such proxy.

        A client may send the header itself: only what trusted proxies have added at its end is true.
        """
        listed = ",".join(headers.getlist("x-forwarded-for"))
        clients = listed.split(",") if listed else _FOR.findall(",".join(headers.getlist("forwarded")))
        while clients and self._trusts(peer):
            peer = clients.pop().strip()
        return peer

    def _trusts(self, node: str) -> bool:
        try:
            address = ip_address(_NODE.sub(r"\1", node))
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address  # a socket of both families maps IPv4 addresses
        return any(address in network for network in self._trusted_proxies)


def ignore(transport: asyncio.Transport, headers: Iterable[tuple[bytes, bytes]], reason: str) -> None:
    """Count nothing, for a server that is not public."""
