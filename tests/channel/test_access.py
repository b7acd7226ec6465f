"""How a production Redis is reached: TLS with certificates, a socket, a password that changes, the fewest rights."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from hello.channel import ChannelLost
from hello.channel.address import Access, parse
from hello.channel.urls import open_channel
from hello.settings import ConfigError, load
from hello.testing.conformance import ids, make_message, read
from tests.conftest import missing
from tests.engines import on_each_engine
from tests.readmes import least_rights
from tests.redis_server import USUAL, RedisServer

OPTIONAL = {"publish", "xinfo|stream"}  # a script goes on without them


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=on_each_engine())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority `ca`, the certificate `one` that it has signed, and the key of each."""
    folder = tmp_path_factory.mktemp("pem")
    if not shutil.which("openssl"):
        missing("no openssl, which makes a certificate: apt-get install openssl")
    new = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2"
    for name, options in (("ca", ""), ("one", "-CA ca.pem -CAkey ca.key -addext subjectAltName=IP:127.0.0.1")):
        command = f"{new} -subj /CN={name} {options} -keyout {name}.key -out {name}.pem"
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def tls_url(tmp_path: Path, pem: Path) -> Iterator[str]:
    """The URL of a server that demands a certificate of each client, as Redis does unless it is told otherwise."""
    server, other = RedisServer(tmp_path), RedisServer(tmp_path)
    options = f"--tls-port {other.port} --tls-ca-cert-file {pem}/ca.pem"
    try:
        server.start(*options.split(), "--tls-cert-file", f"{pem}/one.pem", "--tls-key-file", f"{pem}/one.key")
    except AssertionError as error:
        if "Bad directive" not in str(error) and "without TLS" not in str(error):
            raise
        missing("this redis-server has no TLS: install Debian's `redis-server`")
    yield f"rediss://127.0.0.1:{other.port}"
    server.kill()


async def is_lost(url: str, access: Access) -> ChannelLost:
    async with open_channel(url, history=10, access=access) as channel:
        with pytest.raises(ChannelLost) as loss:
            await channel.publish(make_message(1))
        with pytest.raises(ChannelLost):
            await read(channel)
    return loss.value


async def works(url: str, access: Access) -> None:
    async with open_channel(url, history=10, access=access) as channel:
        await channel.publish(make_message(1))
        assert ids(await read(channel)) == ["test-1"]


async def test_tls(tls_url: str, pem: Path) -> None:
    """With authorities, certificate and key the channel works; without one of them it is lost, with the reason."""
    access = Access(ca=f"{pem}/ca.pem", cert=f"{pem}/one.pem", key=f"{pem}/one.key")
    await works(tls_url, access)
    await works(tls_url.replace("rediss", "valkeys"), access)
    for lacking, reason in (({"ca": ""}, "certificate verify failed"), ({"cert": "", "key": ""}, "(?i)certificate")):
        loss = await is_lost(tls_url, access._replace(**lacking))
        assert re.search(reason, str(loss)), loss
        assert not loss.unreachable
    loss = await is_lost(tls_url, access._replace(ca="/none"))
    assert "No such file" in str(loss)
    assert not loss.unreachable


def test_mistakes_in_files(pem: Path, tmp_path: Path) -> None:
    """A file that cannot be used ends the start with a line that names its setting."""
    ca, cert, key = f"{pem}/ca.pem", f"{pem}/one.pem", f"{pem}/one.key"
    both = tmp_path / "both.pem"
    both.write_text(Path(cert).read_text() + Path(key).read_text())
    load({"channel": "rediss://h", "channel_cert": str(both), "channel_ca": ca})
    encrypted = f"{tmp_path}/encrypted.key"
    subprocess.run(["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", key, "-out", encrypted], check=True)
    for settings, line in (
        ({"channel_ca": "/none"}, "channel-ca: '/none' .*No such file"),
        ({"channel_ca": key}, "channel-ca: .*PEM"),
        ({"channel_cert": cert}, "channel-cert: .*"),
        ({"channel_cert": cert, "channel_key": f"{pem}/ca.key"}, "channel-cert: .*channel-key.*mismatch"),
        ({"channel_cert": cert, "channel_key": encrypted}, "channel-cert: .*channel-key"),
        ({"channel_key": key}, "channel-key: .*HELLO_CHANNEL_CERT"),
        ({"channel_password_file": "/none"}, "channel-password-file: .*'/none': No such file"),
        ({"channel_password_file": key, "channel_password": "x"}, "channel-password-file: .*channel-password "),
        ({"channel": "redis://h", "channel_ca": ca}, "channel: .*HELLO_CHANNEL_CERT.* rediss://"),
    ):
        with pytest.raises(ConfigError) as error:
            load({"channel": "rediss://h", **settings})
        [found] = error.value.lines
        assert re.match(f"--{line}", found.replace("HELLO_CHANNEL_CA", "--channel-ca")), found


def test_url() -> None:
    """A URL has a user, a password, a host, which may be an IPv6 address, a port and a database, or a socket."""
    assert parse("VALKEYS://me:a%2Fb@c@[::1]:7/3")[:] == (True, "me", "a/b@c", (("::1", 7),), "", "", 3)
    assert parse("redis://localhost/")[:] == (False, "", "", (("localhost", 6379),), "", "", 0)
    assert parse("unix://me@/run/a.sock?db=3")[:] == (False, "me", "", (), "", "/run/a.sock", 3)
    hosts = (("a", 26379), ("::1", 2), ("c", 26379))
    assert parse("redis+sentinel://me@a,[::1]:2,c/the%20one/4")[:] == (False, "me", "", hosts, "the one", "", 4)
    assert parse("rediss+sentinel://a/one")[:] == (True, "", "", hosts[:1], "one", "", 0)
    for url in [
        "redis://h:0",
        "redis://h:65536",
        "redis://::1",
        "redis+sentinel://a,b",
        "redis+sentinel://a,,b/one",
        "redis+sentinel://a,::1/one",
        "unix://h",
        "unix://h/a",
        "unix:///a?b",
    ]:
        with pytest.raises(ValueError, match="give memory://, redis://HOST:PORT"):
            parse(url)
    with pytest.raises(ValueError, match=r"several hosts are sentinels: give redis\+sentinel://HOST,HOST,HOST/SERVICE"):
        parse("redis://a,b")


@pytest.mark.parametrize("engine", [USUAL])
async def test_socket(redis_server: RedisServer) -> None:
    """A socket of this machine is a server as any other, and without the file the channel is lost."""
    path = f"{redis_server.directory}/redis.sock"
    redis_server.kill()
    redis_server.start("--unixsocket", path)
    await works(f"unix://{path}", Access())
    assert Redis.from_url(redis_server.url).exists("hello")
    redis_server.kill()
    assert not (await is_lost(f"unix://{path}x", Access())).unreachable


@pytest.mark.parametrize("user", ["", "app"])
async def test_password_file(redis_server: RedisServer, engine: str, tmp_path: Path, user: str) -> None:
    """The password is read again at each connection: a rotation needs no restart."""
    raw, file = Redis.from_url(redis_server.url), tmp_path / "password"
    app = {"enabled": True, "keys": ["*"], "channels": ["*"], "commands": ["+@all"]}
    raw.acl_setuser(user or "default", passwords="+old", **app)  # type: ignore[arg-type]
    file.write_text("old\n")
    url = redis_server.url.replace("//", f"//{user}@") if user else redis_server.url
    async with open_channel(url, history=10, access=Access(password_file=str(file))) as channel:
        await channel.publish(make_message(1))
        raw = Redis.from_url(redis_server.url, password=None if user else "old")
        raw.acl_setuser(user or "default", reset_passwords=True, passwords="+new", **app)  # type: ignore[arg-type]
        file.write_text("new\n")
        assert ids(await read(channel)) == ["test-1"]
        file.unlink()
        with pytest.raises(ChannelLost, match=r"password file .*No such file"):
            await read(channel)


async def test_least_rights(redis_server: RedisServer, engine: str) -> None:
    """The rights in deploy/README.md suffice for all that a channel does, and without any one of them it is lost."""
    rights = least_rights()
    raw = Redis.from_url(redis_server.url)

    async def use(*rules: str) -> None:
        reset = ("ACL", "SETUSER", "app", "reset", "resetchannels", "on", ">x")
        raw.execute_command(*reset, *rules)  # type: ignore[no-untyped-call]  # the library has no types for it
        raw.flushall()
        raw.script_flush()
        async with open_channel(redis_server.url.replace("//", "//app:x@"), history=2) as channel:
            for _ in range(2):
                assert await channel.acquire("a")
            for number in range(3):
                await channel.publish(make_message(number), "a")
            raw.hset("{hello}:ids", "surplus", "1-0")  # so that the ids are repaired
            await channel.publish(make_message(3), "a")
            assert ids(await read(channel)) == ["test-2", "test-3"]
            await channel.release("a")

    await use(*rights.split())
    for right in rights.split():
        if right != "-@all" and right != "&hello" and right.removeprefix("+") not in OPTIONAL:
            with pytest.raises(ChannelLost, match=r"(?i)permission|can't run|no permissions|can't access"):
                await use(*(each for each in rights.split() if each != right))
