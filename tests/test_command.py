"""The command `hello`: settings, exit codes, logs and signals of real processes."""

import errno
import json
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hello.channel.redis import Keys
from hello.command import main as run
from hello.settings import ConfigError, Settings, load
from hello.web.listener import listen
from tests.conftest import missing
from tests.processes import HelloProcess, free_ports
from tests.readmes import ROOT
from tests.redis_server import RedisServer


def hello(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends by itself."""
    environment = {**os.environ, **{f"HELLO_{name.upper()}": value for name, value in settings.items()}}
    return subprocess.run(
        [sys.executable, "-m", "hello", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def read_all(websocket: ClientConnection) -> None:
    for _ in websocket:
        pass


def test_without_configuration() -> None:
    """Both actors run: the page is served, and a first message is there once the process is ready."""
    with HelloProcess() as process:
        assert "<title>" in process.page()
        with connect(process.url.replace("http", "ws") + "ws?last=10") as websocket:
            assert json.loads(websocket.recv(timeout=10))["type"] == "welcome"
            assert json.loads(websocket.recv(timeout=10))["text"] == "Hello world"
        assert process.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_drains(number: signal.Signals) -> None:
    """A client is closed with 1012, the exit code is 0, and the only warning names the client that was rejected."""
    with HelloProcess(log_format="json") as process, connect(process.url.replace("http", "ws") + "ws") as websocket:
        with pytest.raises(InvalidStatus), connect(process.url.replace("http", "ws") + "ws?after=x"):
            pass
        process.signal(number)
        with pytest.raises(ConnectionClosed):
            read_all(websocket)
        assert websocket.close_code == 1012
        assert process.wait() == 0
        lines = [json.loads(line) for line in process.output.splitlines()]
        warnings = [line["message"] for line in lines if line["level"] != "info"]
        assert [line.partition(":")[0] for line in warnings] == ["refused (request)"]
        assert lines[0]["message"] == f"page: {process.url.rstrip('/')}"
        assert lines[-1]["message"] == "stopped"
        assert all({"time", "level", "logger", "instance", "message"} == line.keys() for line in lines)


@pytest.mark.parametrize("setting", ["drain_seconds", "drain_delay"])
def test_second_signal(setting: str) -> None:
    """A second signal ends the process at once, in the middle of a drain, and of the delay before it."""
    with HelloProcess(**{setting: "3600"}) as process, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(process.url.replace("http", "ws") + "ws"))
        process.signal(signal.SIGTERM)
        process.wait_for("/readyz", 503)
        process.signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


AS_PID_1 = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
AT_MOMENT = """
import atexit, os, sys

def send(event, arguments):
    if event == moment[0] and moment[1:] in ([], [arguments[0]]):
        moment[0] = "none"
        os.kill(os.getpid(), number)

moment, number = os.environ["MOMENT"].split(), int(os.environ["NUMBER"])
if moment == ["exit"]:
    atexit.register(os.kill, os.getpid(), number)
else:
    sys.addaudithook(send)
"""


@pytest.mark.parametrize(
    ("moment", "number", "under"),
    [
        *(
            (moment, number, under)
            for moment in ("import argparse", "import pydantic", "import uvloop", "socket.bind")
            for number, under in ((signal.SIGTERM, AS_PID_1), (signal.SIGHUP, AS_PID_1), (signal.SIGINT, ()))
        ),
        *(("exit", number, ()) for number in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_signal_at_any_moment(tmp_path: Path, moment: str, number: signal.Signals, under: Sequence[str]) -> None:
    """A signal before the process is ready, or once it has drained, ends it with code 0 and without a traceback.

    The kernel drops a signal for process 1 of a container that has no handler.
    """
    if under and (shutil.which("unshare") is None or subprocess.run([*under, "true"], check=False).returncode):
        missing("unshare may not start a process 1: run the tests as root, or allow user namespaces")
    (tmp_path / "sitecustomize.py").write_text(AT_MOMENT)
    moments = {"PYTHONPATH": str(tmp_path), "MOMENT": moment, "NUMBER": str(int(number))}
    with HelloProcess(log_format="json").launch(moments, under) as process:
        if moment == "exit":
            process.wait_for("/readyz", 200)
            process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert all(json.loads(line)["level"] == "info" for line in process.output.splitlines())


def test_signal_before_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal before `hello watch` connects ends it with code 1, since losses are not known, without a traceback."""
    (tmp_path / "sitecustomize.py").write_text(AT_MOMENT)
    moment = {"PYTHONPATH": str(tmp_path), "MOMENT": "import websockets", "NUMBER": str(int(signal.SIGINT))}
    for name, value in moment.items():
        monkeypatch.setenv(name, value)
    ended = hello("watch", "127.0.0.1:1")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


def test_nohup() -> None:
    """A closed terminal does not end a process that nohup started."""
    with HelloProcess().launch(under=["nohup"]) as process:
        process.wait_for("/readyz", 200)
        process.signal(signal.SIGHUP)
        assert process.status("/livez") == 200
        assert process.terminate() == 0
    assert "SIGHUP" not in process.output


@pytest.mark.parametrize("log_format", ["text", "json", ""])
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "<&- 2>&-"])
def test_closed_streams(closed: str, log_format: str) -> None:
    """A process whose standard streams are closed serves, and ends with code 0: no socket takes their place."""
    settings = {"log_format": log_format} if log_format else {}
    with HelloProcess(**settings).launch(under=["sh", "-c", f'exec "$@" {closed}', "sh"]) as process:
        process.wait_for("/readyz", 200)
        assert "<title>" in process.page()
        assert process.terminate() == 0


def test_broadcaster_alone(redis_server: RedisServer) -> None:
    """A process without a relay has the ops server and no public server."""
    with HelloProcess(actors="broadcaster", channel=redis_server.url) as process:
        assert process.status("/livez") == 200
        with pytest.raises(OSError, match="refused"):
            process.page()


def test_two_deployments(redis_server: RedisServer) -> None:
    """Two deployments with streams of their own on one Redis both publish, and neither shows the other's messages."""
    settings = {"channel": redis_server.url, "interval_min": "0.05", "interval_max": "0.1"}
    streams = ("hello", "team-1:a.b_c")
    with ExitStack() as stack:
        raw = stack.enter_context(Redis.from_url(redis_server.url, decode_responses=True))
        subscribers = [raw.pubsub(ignore_subscribe_messages=True) for _ in streams]
        for name, subscriber in zip(streams, subscribers, strict=True):
            subscriber.subscribe(name)
        processes = [stack.enter_context(HelloProcess(stream=name, text=name, **settings)) for name in streams]
        for name, process, subscriber in zip(streams, processes, subscribers, strict=True):
            with connect(process.url.replace("http", "ws") + "ws?last=5") as websocket:
                frames = [json.loads(websocket.recv(timeout=10)) for _ in range(5)]
                assert {frame["text"] for frame in frames if frame["type"] == "message"} == {name}
            mirrored = [subscriber.get_message(timeout=10) for _ in range(5)]
            assert {json.loads(message["data"])["text"] for message in mirrored if message} == {name}
            subscriber.close()
        assert set(raw.keys("*")) == {key for name in streams for key in Keys.of(name)}


def test_start_without_redis(redis_server: RedisServer) -> None:
    """Without Redis a process is alive and not ready, and logs the loss once; it is ready once Redis is there."""
    redis_server.stop()
    with HelloProcess(channel=redis_server.url, log_format="text").launch() as process:
        process.wait_for("/readyz", 503)
        assert process.status("/livez") == 200
        redis_server.start()
        process.wait_for("/readyz", 200)
        assert process.terminate() == 0
    assert process.output.count("relay: channel lost") == process.output.count("relay: channel back") == 1


def test_failed_relay_drains(redis_server: RedisServer) -> None:
    """A relay that fails moves its clients first, and the last line of the log names it, with file and line."""
    process = HelloProcess(actors="relay", channel=redis_server.url, log_format="text")
    with process, Redis.from_url(redis_server.url) as raw, connect(process.url.replace("http", "ws") + "ws") as client:
        raw.set("hello", "x")
        with pytest.raises(ConnectionClosed):
            read_all(client)
        assert client.close_code == 1012
        assert process.wait() == 1
    assert re.search(r"relay failed at \S+relay.py:\d+: ResponseError: WRONGTYPE ", process.output.splitlines()[-1])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_cannot_control_a_terminal(log_format: str) -> None:
    """A log has no control character from the error of a server, neither in a message nor in a traceback."""
    sent = "WRONGTYPE \x1b]0;owned\x07 \x9b2J \u202e"

    class Hostile(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while received := self.request.recv(1 << 16):
                commands = len(re.findall(rb"(?m)^\*", received))
                self.request.sendall(f"-{sent} \u2028\r\n".encode() * commands)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hostile) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        channel = f"redis://127.0.0.1:{server.server_address[1]}"
        with HelloProcess(actors="broadcaster", channel=channel, log_format=log_format).launch() as process:
            assert process.wait() == 1
        server.shutdown()
    lines = process.output.split("\n")
    assert all(line.isprintable() for line in lines)
    if log_format == "json":
        *_, error, end = map(json.loads, filter(None, lines))
        assert sent in error["error"]
        assert sent in end["message"]
    else:
        assert process.output.count(r"WRONGTYPE \x1b]0;owned\x07 \x9b2J \u202e") >= 2
        assert re.search("^ .*Traceback ", process.output, re.MULTILINE)


MISTAKES: tuple[tuple[Mapping[str, str], list[str]], ...] = (  # settings, and a pattern for each line of the error
    ({"port": "x"}, ["HELLO_PORT: "]),
    ({"port": "70000", "history": "0"}, ["HELLO_HISTORY: ", "HELLO_PORT: "]),
    ({"port": "tcp://10.0.0.1:80"}, ["HELLO_PORT: .*enableServiceLinks: false"]),
    ({"actors": "relay"}, ["HELLO_CHANNEL: memory://"]),
    ({"actors": "relay", "channel": "MEMORY://"}, ["HELLO_CHANNEL: memory://"]),
    ({"actors": "relay,relay"}, ["HELLO_ACTORS: "]),
    ({"actors": ""}, ["HELLO_ACTORS: "]),
    ({"actors": "publisher"}, ["HELLO_ACTORS: .*broadcaster.*relay"]),
    ({"channel": "amqp://x"}, ["HELLO_CHANNEL: .*memory://, redis://HOST:PORT, rediss://HOST:PORT"]),
    ({"channel": "redis://x:port"}, ["HELLO_CHANNEL: "]),
    ({"channel": "redis://"}, ["HELLO_CHANNEL: "]),
    ({"channel": "redis://h?db=abc"}, ["HELLO_CHANNEL: "]),
    *(
        ({"channel": f"redis://h/{path}"}, ["HELLO_CHANNEL: .*database"])
        for path in ("3x", "abc", "1/2", "-1", "٣", "3#4")
    ),
    (
        {"channel": "redis://:in-url@h", "channel_password": "x"},
        ["HELLO_CHANNEL_PASSWORD: (?!.*in-url).*HELLO_CHANNEL "],
    ),
    ({"interval_min": "5", "interval_max": "2"}, ["HELLO_INTERVAL_MIN: .*HELLO_INTERVAL_MAX"]),
    (
        {"port": "x", "interval_min": "5", "interval_max": "2", "actors": "relay"},
        ["HELLO_PORT: ", "HELLO_INTERVAL_MIN: .*HELLO_INTERVAL_MAX", "HELLO_CHANNEL: memory://"],
    ),
    (
        {"interval_min": "50", "interval_max": "x", "channel": "x", "actors": "relay"},
        ["HELLO_CHANNEL: ", "HELLO_INT.*X: "],
    ),
    ({"interval_min": "0"}, ["HELLO_INTERVAL_MIN: "]),
    ({"interval_max": "nan"}, ["HELLO_INTERVAL_MAX: "]),
    ({"interval_max": "1e9", "history": "1" * 9}, ["HELLO_INTERVAL_MAX: .* 86400 ", "HELLO_HISTORY: .* 1000000 "]),
    ({"text": ""}, ["HELLO_TEXT: "]),
    ({"text": "x" * 4097}, ["HELLO_TEXT: "]),
    # Characters of no width, blank letters and symbols, and marks without a letter.
    *(
        ({"text": text}, ["HELLO_TEXT: "])
        for text in ("\u200b", "\ufeff\u2060 \u00ad", "\u3164\u115f", "\u2800", "\ufe0f")
    ),
    ({"instance": "\u200d"}, ["HELLO_INSTANCE: "]),
    ({"text": "two\nlines"}, ["HELLO_TEXT: "]),
    ({"drain_seconds": "-1", "drain_delay": "-1"}, ["HELLO_DRAIN_DELAY: ", "HELLO_DRAIN_SECONDS: "]),
    ({"max_clients": "0"}, ["HELLO_MAX_CLIENTS: "]),
    ({"allowed_origins": "example.com"}, ["HELLO_ALLOWED_ORIGINS: .*http"]),
    ({"allowed_hosts": "http://a"}, ["HELLO_ALLOWED_HOSTS: .*'http://a'"]),
    ({"trusted_proxies": "::1, 10.0.0.1/8"}, ["HELLO_TRUSTED_PROXIES: .*'10.0.0.1/8'"]),
    ({"allowed_hosts": "a:80"}, ["HELLO_ALLOWED_HOSTS: .*'a:80'"]),
    ({"log_format": "xml"}, ["HELLO_LOG_FORMAT: "]),
    ({"port_ops": "9"}, ["HELLO_PORT_OPS: "]),
    ({"chanel": "memory://"}, ["HELLO_CHANEL: .*HELLO_CHANNEL"]),
    *(({"stream": name}, ["HELLO_STREAM: .*letters"]) for name in ("", "{a}", "a b", "é", "a\n", "x" * 129)),
    ({"foo": "1", "history": "x"}, ["HELLO_FOO: (?!.*HELLO_)", "HELLO_HISTORY: "]),
)


def test_mistakes() -> None:
    """Each mistake is one line that names its variable, and all mistakes are reported together."""
    for settings, lines in MISTAKES:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"HELLO_{name.upper()}", value)
            with pytest.raises(ConfigError) as error:
                load()
        assert len(error.value.lines) == len(lines), settings
        for found, line in zip(error.value.lines, lines, strict=True):
            assert re.match(line, found), found
            assert "\n" not in found


WRONG_FLAGS: tuple[tuple[str, Mapping[str, str], list[str]], ...] = (  # arguments, variables, and patterns as above
    ("--prot 1", {}, ["--prot: .*--port"]),
    (
        "--prot=1 --foo --port x",
        {"prot": "1"},
        ["--prot=1: .*--port", "--foo: (?!.*mean)", "HELLO_PROT: ", "--port: .*'x'"],
    ),
    ("--foo\x1b[2J\x9b", {"a\nb": ""}, [r"--foo\\x1b\[2J\\x9b: ", r"HELLO_A\\nB: "]),
    ("wacth http://h", {}, ["wacth: .*`hello watch URL`"]),
    ("--port 8001", {}, ["--port: 8001 is HELLO_OPS_PORT "]),
    (
        "--interval-min 5 --actors relay",
        {"interval_max": "2"},
        ["--interval-min: .*HELLO_INTERVAL_MAX", "HELLO_CHANNEL: .*--actors"],
    ),
    ("--history 0 --interval-max 1e9", {"port": "x"}, ["--interval-max: .* 86400 ", "--history: ", "HELLO_PORT: "]),
    ("--host 192.0.2.1 --ops-port 0", {}, ["--host, HELLO_PORT: cannot listen on 192.0.2.1:8000: .* --host "]),
)


def test_wrong_flags(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong flag is reported as it was given, and one that does not exist with the flag that was meant."""
    for arguments, settings, patterns in WRONG_FLAGS:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"HELLO_{name.upper()}", value)
            assert run(arguments.split()) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == len(patterns), lines
        for found, pattern in zip(lines, patterns, strict=True):
            assert re.match(f"hello: {pattern}", found), found


def test_service_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that Kubernetes sets in each pod beside a Service named hello are not mistakes."""
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"HELLO_{name}", "10.0.0.1")
    assert load() == Settings()


def test_password_is_hidden() -> None:
    """No error and no log line contains the password of Redis."""
    assert load({"channel": "redis://user:secret@redis:6379/0"}).channel_for_logs == "redis://redis:6379/0"
    assert "secret" not in repr(load({"channel": "redis://user@redis", "channel_password": "secret"}).channel_password)
    with pytest.raises(ConfigError) as error:
        load({"channel": "redi://user:secret@redis"})
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", "Address already in use; another program listens there: stop it, or give another HELLO_PORT"),
        ("192.0.2.1", "Cannot assign requested address; give HELLO_HOST an address of this machine"),
        ("a" * 64, "encoding with 'idna' codec failed .*; give HELLO_HOST an address of this machine"),
    ],
    ids=["in-use", "not-here", "no-name"],
)
def test_cannot_listen(host: str, reason: str) -> None:
    """An address in use, or of another machine, is a mistake of the settings that name it, with a remedy."""
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        ended = hello(host=host, port=str(port), ops_port="0")
    assert ended.returncode == 2
    assert re.search(f"HELLO_HOST, HELLO_PORT: cannot listen on {host}:{port}: {reason}", ended.stderr)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "0.0.0.0", "::", "::1", "a" * 64])  # noqa: S104  # compared
@pytest.mark.parametrize("ops_host", ["127.0.0.1", "0.0.0.0", "::", "::1"])  # noqa: S104  # compared
def test_colliding_ports(host: str, ops_host: str) -> None:
    """One port for both servers is a mistake where they cannot both listen, and nowhere else."""
    [port] = free_ports(1)
    settings = {"host": host, "port": str(port), "ops_host": ops_host, "ops_port": str(port)}
    collide = False
    with ExitStack() as stack:
        try:
            for each in (host, ops_host):
                stack.enter_context(listen(each, port))
        except (OSError, UnicodeError) as error:  # of another kind where this machine has no such address
            collide = getattr(error, "errno", None) == errno.EADDRINUSE
    with pytest.raises(ConfigError, match=f"^--port: {port} is --ops-port too") if collide else nullcontext():
        load(settings)
    assert load({**settings, "actors": "broadcaster", "channel": "redis://h"}).port == port
    assert load({**settings, "port": "0", "ops_port": "0"}).port == 0


def test_flag_overrides_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag overrides the environment variable of the same name."""
    monkeypatch.setenv("HELLO_TEXT", "from the environment")
    assert load().text == "from the environment"
    assert load({"text": "from a flag"}).text == "from a flag"


def test_help() -> None:
    """`--help` shows every setting, with its default and its unit."""
    text = " ".join(hello("--help").stdout.split())
    assert "hello watch URL" in text.partition("Broadcasts")[0]
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} …" in text
    for part in (
        "seconds; shortest pause",
        "(default: 10000)",
        "(default: broadcaster,relay)",
        "(default: the host's name)",
        "hello watch --help",
        "visible in `ps` as a flag",
    ):
        assert part in text


def test_version() -> None:
    """`--version` prints the version of the installed package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert hello("--version").stdout == f"hello {project['version']}\n"
