"""The connections to the servers that a URL names, by the client library. Only redis.py uses it.

Everything that the client library would retry or restore by itself is switched off: a command that is silently repeated
duplicates or loses a message. The caller sees every loss, as ChannelLost.
"""

from pathlib import Path
from typing import Any

import anyio
from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from hello.channel.address import Access, parse

REPLY_SECONDS = 4.0  # without a byte of a reply the server counts as gone: clients are notified within 6 s
RESOLVE_SECONDS = 1.0  # for the name of a server that did not reply: to resolve it takes a cluster some milliseconds


class Server:
    """One server, at the address in a URL. Raises ValueError if the URL cannot be parsed."""

    def __init__(self, url: str, access: Access) -> None:
        self._address = address = parse(url)
        self.tls = address.tls
        self._options: dict[str, Any] = {
            "db": address.database,
            "decode_responses": True,
            "encoding_errors": "replace",  # a foreign entry that is not UTF-8 is skipped, and does not end the process
            "protocol": 2,  # these two fix the form of a reply, whatever the next default of the library is
            "legacy_responses": True,
            "socket_timeout": REPLY_SECONDS,
            "socket_connect_timeout": REPLY_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
        if access.password_file:
            self._options["credential_provider"] = _FilePassword(address.username, access.password_file)
        else:
            password = access.password or address.password
            self._options |= {"username": address.username or None, "password": password or None}
        if address.tls:
            self._options |= {
                "ssl_ca_certs": access.ca or None,
                "ssl_certfile": access.cert or None,
                "ssl_keyfile": access.key or None,
                "ssl_password": "",  # without one OpenSSL would ask for the password of a key, and wait
            }

    def pool(self) -> ConnectionPool:
        if path := self._address.path:
            return ConnectionPool(UnixDomainSocketConnection, path=path, **self._options)
        of_class = SSLConnection if self.tls else Connection
        return ConnectionPool(of_class, host=self._address.host, port=self._address.port, **self._options)

    async def resolves(self) -> bool:
        """Return True if the name of the server resolves now: a connect may have failed, or timed out, since not."""
        with anyio.move_on_after(RESOLVE_SECONDS):
            try:
                return bool(self._address.path or await anyio.getaddrinfo(self._address.host, None))
            except OSError:
                pass
        return False


class _FilePassword(CredentialProvider):
    """Reads the password at each connection, so that a new one needs no restart."""

    def __init__(self, username: str, path: str) -> None:
        self._username = username
        self._path = Path(path)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._path.read_bytes().decode(errors="replace").rstrip("\r\n")
        except OSError as error:
            raise AuthenticationError(f"password file {str(self._path)!r}: {error.strerror}") from error
        return (self._username, password) if self._username else (password,)
