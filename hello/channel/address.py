"""The URL of a channel in Redis, and what a connection needs besides it. It imports no client of Redis.

    redis://[USER[:PASSWORD]@]HOST[:6379][/DB]    rediss:// with TLS
    unix://[USER[:PASSWORD]@]/PATH[?db=DB]        a socket of this machine

`valkey` in place of `redis` means the same. Characters of a user or a password that separate are percent-encoded.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
FORMS = "redis://HOST:PORT, rediss://HOST:PORT (TLS) or unix:///PATH"

_FLAGS = re.IGNORECASE | re.DOTALL
_USER = r"(?:(?P<username>[^:@/?#]*)(?::(?P<password>[^/?#]*))?@)?"
_TCP = re.compile(rf"(redis|valkey)(?P<tls>s?)://{_USER}(?P<host>[^@/?#]+)(/(?P<database>.*))?", _FLAGS)
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
    host: str  # empty for a socket of this machine
    port: int
    path: str  # of the socket
    database: int


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


def parse(url: str) -> Address:
    """Return what the URL says. Raises ValueError, whose text does not have the URL: there may be a password in it."""
    found = _TCP.fullmatch(url) or _UNIX.fullmatch(url)
    parts = {name: part or "" for name, part in found.groupdict().items()} if found else {}
    host, port = ("", 0) if "path" in parts else _host(parts.get("host", ""))
    if not _DATABASE.fullmatch(parts["database"]):
        raise ValueError("a database is a number, as in redis://HOST:PORT/3 or unix:///PATH?db=3")
    return Address(
        tls=bool(parts.get("tls")),
        username=unquote(parts["username"]),
        password=unquote(parts["password"]),
        host=host,
        port=port,
        path=unquote(parts.get("path", "")),
        database=int(parts["database"] or 0),
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or 6379) if found else 0
    if not found or not 0 < port < 65536:
        raise ValueError(f"give memory://, {FORMS}")
    return found["address"] or found["name"], port
