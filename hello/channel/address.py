"""The URL of a channel in Redis, and what a connection needs besides it. It imports no client of Redis.

    redis://[USER[:PASSWORD]@]HOST[:6379][/DB]                      rediss:// with TLS
    redis+sentinel://[USER[:PASSWORD]@]HOST[:26379],…/SERVICE[/DB]  rediss+sentinel:// with TLS
    unix://[USER[:PASSWORD]@]/PATH[?db=DB]                          a socket of this machine

With `+sentinel` the hosts are sentinels, and SERVICE is their name for the primary. USER and PASSWORD are for the
primary, since sentinels need none. `valkey` in place of `redis` means the same. Characters of a user or a password that
separate are percent-encoded.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

SCHEMES = (*(f"{name}{kind}" for name in ("redis", "valkey") for kind in ("", "s", "+sentinel", "s+sentinel")), "unix")
FORMS = "redis://HOST:PORT, rediss://HOST:PORT (TLS), redis+sentinel://HOST,HOST,HOST/SERVICE or unix:///PATH"

_FLAGS = re.IGNORECASE | re.DOTALL
_USER = r"(?:(?P<username>[^:@/?#]*)(?::(?P<password>[^/?#]*))?@)?"
_TCP = re.compile(
    rf"(?:redis|valkey)(?P<tls>s?)(?P<sentinel>\+sentinel)?://{_USER}(?P<hosts>[^@/?#]+)"
    r"(?(sentinel)/(?P<service>[^/?#]+))(?:/(?P<database>.*))?",
    _FLAGS,
)
_UNIX = re.compile(rf"unix://{_USER}(?P<path>/[^?#]+)(\?db=(?P<database>.*))?", _FLAGS)
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\s:,\[\]]+))(?::(?P<port>[0-9]{1,5}))?", _FLAGS)
_DATABASE = re.compile("[0-9]{0,9}")


class Access(NamedTuple):
    """What a connection needs besides its URL; empty means none. `password_file` and the last three name files.

    These files are read at each connection, so that none of them needs a restart when it is replaced. `ca`, `cert` and
    `key` are in PEM format: the authorities that sign the server's certificate, in addition to those that this machine
    trusts, the certificate of this client, and its key, which may be in `cert` too.
    """

    password: str = ""
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""


class Address(NamedTuple):
    """What a URL says."""

    tls: bool
    username: str
    password: str
    hosts: tuple[tuple[str, int], ...]  # names or addresses, and ports; none for a socket of this machine
    service: str  # the sentinels' name of the primary; empty if the host is the server itself
    path: str  # of the socket
    database: int


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


def parse(url: str) -> Address:
    """Return what the URL says. Raises ValueError, whose text does not have the URL: there may be a password in it."""
    found = _TCP.fullmatch(url) or _UNIX.fullmatch(url)
    if not found:
        raise ValueError(f"give memory://, {FORMS}")
    parts = {name: part or "" for name, part in found.groupdict().items()}
    if not _DATABASE.fullmatch(parts["database"]):
        raise ValueError("a database is a number, as in redis://HOST:PORT/3 or unix:///PATH?db=3")
    service, hosts = parts.get("service", ""), parts.get("hosts", "")
    if "," in hosts and not service:
        raise ValueError("several hosts are sentinels: give redis+sentinel://HOST,HOST,HOST/SERVICE")
    return Address(
        tls=bool(parts.get("tls")),
        username=unquote(parts["username"]),
        password=unquote(parts["password"]),
        hosts=tuple(_host(host, 26379 if service else 6379) for host in hosts.split(",") if hosts),
        service=unquote(service),
        path=unquote(parts.get("path", "")),
        database=int(parts["database"] or 0),
    )


def _host(text: str, default_port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or default_port) if found else 0
    if not found or not 0 < port < 65536:
        raise ValueError(f"give memory://, {FORMS}")
    return found["address"] or found["name"], port
