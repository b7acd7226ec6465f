"""The connections to the servers that a URL names, by the client library. Only redis.py uses it.

Everything that the client library would retry or restore by itself is switched off: a command that is silently repeated
duplicates or loses a message. The caller sees every loss, as ChannelLost.
"""

from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from hello.channel import HEARTBEAT_SECONDS, ChannelLost
from hello.channel.address import Access, parse

REPLY_SECONDS = 4.0  # without a byte of a reply the server counts as gone: clients are notified within 6 s
SENTINEL_SECONDS = 0.5  # for each step of a question to a sentinel, which takes it some milliseconds
RESOLVE_SECONDS = 1.0  # for the name of a server that did not reply: to resolve it takes a cluster some milliseconds


class Server:
    """The server that a URL names, or the primary that the sentinels in it name.

    Raises ValueError if the URL cannot be parsed.
    """

    def __init__(self, url: str, access: Access) -> None:
        self._address = address = parse(url)
        self.tls = address.tls
        self._primary = ("", 0)  # host and port by the sentinels, once one has replied
        self._settled = False  # True if most sentinels replied, and no failover was in progress
        self._asked_at = 0.0  # when the question was sent whose replies these are
        self._asking = anyio.Lock()
        self._options: dict[str, Any] = {  # of connections to sentinels too
            "decode_responses": True,
            "protocol": 2,  # these two fix the form of a reply, whatever the next default of the library is
            "legacy_responses": True,
            "retry": Retry(NoBackoff(), 0),
        }
        if address.tls:
            self._options |= {
                "ssl_ca_certs": access.ca or None,
                "ssl_certfile": access.cert or None,
                "ssl_keyfile": access.key or None,
                "ssl_password": "",  # without one OpenSSL would ask for the password of a key, and wait
            }
        self._server_options: dict[str, Any] = self._options | {
            "db": address.database,
            "encoding_errors": "replace",  # a foreign entry that is not UTF-8 is skipped, and does not end the process
            "socket_timeout": REPLY_SECONDS,
            "socket_connect_timeout": REPLY_SECONDS,
        }
        if access.password_file:
            self._server_options["credential_provider"] = _FilePassword(address.username, access.password_file)
        else:
            password = access.password or address.password
            self._server_options |= {"username": address.username or None, "password": password or None}

    def pool(self) -> ConnectionPool:
        options = self._server_options
        if path := self._address.path:
            return ConnectionPool(UnixDomainSocketConnection, path=path, **options)
        if service := self._address.service:
            return SentinelConnectionPool(service, self, ssl=self.tls, **options)  # type: ignore[no-untyped-call]  # redis has no types for it
        [(host, port)] = self._address.hosts
        return ConnectionPool(SSLConnection if self.tls else Connection, host=host, port=port, **options)

    async def has_moved(self, pool: ConnectionPool) -> bool:
        """Return True if the sentinels name another primary than the one that this pool is connected to.

        A primary that is cut off from its sentinels does not know that another one has taken its place. The sentinels
        are asked every HEARTBEAT_SECONDS; if none replies, nothing has moved.
        """
        if not isinstance(pool, SentinelConnectionPool):
            return False
        if monotonic() - self._asked_at >= HEARTBEAT_SECONDS:
            with suppress(RedisError, OSError):
                await self.discover_master(self._address.service)
        return pool.master_address not in (None, self._primary)

    async def settled_primary(self) -> tuple[str, int] | None:
        """Return host and port of the primary, or None without sentinels.

        Raises ChannelLost during a failover, or if most sentinels do not reply. Until a failover has ended, an old
        primary that is back accepts messages, and a replica that still follows the old one acknowledges them; then both
        become replicas of the new primary, and lose them. All of that may happen where no sentinel can be reached.
        """
        if not self._address.service:
            return None
        primary = await self.discover_master(self._address.service)
        if not self._settled:
            raise ChannelLost("a failover is in progress, or most sentinels do not reply")
        return primary

    async def discover_master(self, service: str) -> tuple[str, int]:
        """Return host and port of the primary; a pool calls this for each connection.

        All sentinels are asked at once, and the latest failover counts. The first reply alone may come from a sentinel
        that has not heard of it yet, or is cut off from the others, together with the old primary. Callers that come
        while others wait share the next replies.

        Raises the error of a sentinel if none knows the primary.
        """
        called_at = monotonic()
        async with self._asking:
            if self._asked_at < called_at:
                await self._ask_sentinels(service)
            return self._primary

    async def _ask_sentinels(self, service: str) -> None:
        asked_at = monotonic()
        found: list[tuple[int, str, int, str]] = []  # the number of the failover, the primary since then, its flags
        errors: list[Exception] = []

        async def ask(host: str, port: int) -> None:
            options = self._options | {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
            sentinel: Any = Redis(host=host, port=port, ssl=self.tls, **options)  # the types of its replies are unions
            try:
                async with sentinel:
                    state = await sentinel.sentinel_master(service)
                    # During a failover the `ip` in this state is still that of the old primary.
                    primary = await sentinel.sentinel_get_master_addr_by_name(service)
            except (RedisError, OSError) as error:
                errors.append(error)
            else:
                found.append((int(state["config-epoch"]), *primary, str(state["flags"])))

        async with anyio.create_task_group() as group:
            for host, port in self._address.hosts:
                group.start_soon(ask, host, port)
        if not found:
            raise max(errors, key=lambda error: isinstance(error, ResponseError))
        self._asked_at = asked_at  # set at the end, so that nobody shares what failed or was cancelled
        self._primary = max(found)[1:3]
        self._settled = 2 * len(found) > len(self._address.hosts) and not any("failover" in each[3] for each in found)

    async def resolves(self) -> bool:
        """Return True if the name of a server resolves now: a connect may have failed, or timed out, since not."""
        with anyio.move_on_after(RESOLVE_SECONDS):
            for host, _ in self._address.hosts:
                with suppress(OSError):
                    return bool(await anyio.getaddrinfo(host, None))
        return bool(self._address.path)


class _FilePassword(CredentialProvider):
    """Reads the password at each connection, so that a new one needs no restart."""

    def __init__(self, username: str, path: str) -> None:
        self._username, self._path = username, Path(path)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._path.read_bytes().decode(errors="replace").rstrip("\r\n")
        except OSError as error:
            raise AuthenticationError(f"password file {str(self._path)!r}: {error.strerror}") from error
        return (self._username, password) if self._username else (password,)
