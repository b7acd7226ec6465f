"""The command as people run it: settings, exit codes, logs and signals of a real process."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack

import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hello.settings import ConfigError, Settings, load
from tests.processes import HelloProcess, free_ports
from tests.redis_server import RedisServer


def hello(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
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


def test_without_configuration_both_actors_run_and_the_page_is_served() -> None:
    """A first message is there as soon as the process is ready."""
    with HelloProcess() as process:
        assert "<title>" in process.page()
        with connect(process.url.replace("http", "ws") + "ws?last=10") as websocket:
            assert json.loads(websocket.recv(timeout=10))["type"] == "welcome"
            assert json.loads(websocket.recv(timeout=10))["text"] == "Hello world"
        assert process.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_success(number: signal.Signals) -> None:
    """The browser is closed with 1012, the exit code is 0, and nothing was complained about."""
    with HelloProcess(log_format="json") as process, connect(process.url.replace("http", "ws") + "ws") as websocket:
        process.signal(number)
        with pytest.raises(ConnectionClosed):
            read_all(websocket)
        assert websocket.close_code == 1012
        assert process.wait() == 0
        lines = [json.loads(line) for line in process.output.splitlines()]
        assert {line["level"] for line in lines} == {"info"}
        assert lines[-1]["message"] == "stopped"
        assert all({"time", "level", "logger", "instance", "message"} == line.keys() for line in lines)


def test_refused_browsers_do_not_fill_the_log() -> None:
    """Anybody can be refused, as often as he likes."""
    with HelloProcess() as process:
        for _ in range(3):
            with pytest.raises(InvalidStatus), connect(process.url.replace("http", "ws") + "ws?after=x"):
                pass
        assert process.terminate() == 0
        assert '"error"' not in process.output


def test_a_second_signal_stops_at_once() -> None:
    """Whoever is in a hurry does not wait for the drain."""
    with HelloProcess(drain_seconds="3600") as process, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(process.url.replace("http", "ws") + "ws"))
        process.signal(signal.SIGTERM)
        process.wait_for("/readyz", 503)
        process.signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_a_process_without_a_relay_serves_no_page(redis_server: RedisServer) -> None:
    """A broadcaster has its operators' server and nothing else."""
    with HelloProcess(actors="broadcaster", channel=redis_server.url) as process:
        assert process.status("/livez") == 200
        with pytest.raises(OSError, match="refused"):
            process.page()


def test_a_process_waits_for_its_channel_alive_and_not_ready(redis_server: RedisServer) -> None:
    """Without Redis it neither ends nor gets ready, and says once what is missing."""
    redis_server.stop()
    process = HelloProcess(channel=redis_server.url, log_format="text")
    try:
        process.launch().wait_for("/readyz", 503)
        assert process.status("/livez") == 200
        redis_server.start()
        process.wait_for("/readyz", 200)
        assert process.terminate() == 0
    finally:
        process.kill()
    assert process.output.count("channel lost") == 1
    assert process.output.count("channel back") == 1


def test_a_programming_error_ends_the_process(redis_server: RedisServer) -> None:
    """A key of another type does not heal: exit code 1, with the error in the log."""
    with Redis.from_url(redis_server.url) as raw:
        raw.set("hello", "x")
    process = HelloProcess(channel=redis_server.url)
    try:
        assert process.launch().wait() == 1
    finally:
        process.kill()
    assert "WRONGTYPE" in process.output


@pytest.mark.parametrize(
    ("settings", "complaints"),
    [
        ({"port": "x"}, ["HELLO_PORT: "]),
        ({"port": "70000", "history": "0"}, ["HELLO_HISTORY: ", "HELLO_PORT: "]),
        ({"port": "tcp://10.0.0.1:80"}, ["HELLO_PORT: .*enableServiceLinks: false"]),
        ({"actors": "relay"}, ["HELLO_CHANNEL: memory:// reaches this process alone"]),
        ({"actors": "relay,relay"}, ["HELLO_ACTORS: "]),
        ({"actors": ""}, ["HELLO_ACTORS: "]),
        ({"actors": "speaker"}, ["HELLO_ACTORS: name one or both of broadcaster, relay"]),
        ({"channel": "amqp://x"}, ["HELLO_CHANNEL: give memory://, redis://HOST:PORT or rediss://HOST:PORT"]),
        ({"channel": "redis://x:port"}, ["HELLO_CHANNEL: "]),
        ({"channel": "redis://"}, ["HELLO_CHANNEL: "]),
        ({"interval_min": "5", "interval_max": "2"}, ["HELLO_INTERVAL_MIN: 5 is more than HELLO_INTERVAL_MAX"]),
        ({"interval_min": "0"}, ["HELLO_INTERVAL_MIN: "]),
        ({"interval_max": "nan"}, ["HELLO_INTERVAL_MAX: "]),
        ({"text": ""}, ["HELLO_TEXT: "]),
        ({"text": "x" * 4097}, ["HELLO_TEXT: "]),
        ({"drain_seconds": "-1"}, ["HELLO_DRAIN_SECONDS: "]),
        ({"max_clients": "0"}, ["HELLO_MAX_CLIENTS: "]),
        ({"allowed_origins": "example.com"}, ["HELLO_ALLOWED_ORIGINS: an origin is http"]),
        ({"port_ops": "9"}, ["HELLO_PORT_OPS: there is no such setting"]),
        ({"log_format": "xml"}, ["HELLO_LOG_FORMAT: "]),
        ({"channel": "MEMORY://", "actors": "relay"}, ["HELLO_CHANNEL: memory:// reaches this process alone"]),
        ({"channel": "redis://h?db=abc"}, ["HELLO_CHANNEL: "]),
        ({"text": "two\nlines"}, ["HELLO_TEXT: "]),
        ({"chanel": "memory://"}, ["HELLO_CHANEL: there is no such setting; did you mean HELLO_CHANNEL"]),
        ({"foo": "1", "history": "x"}, ["HELLO_FOO: there is no such setting$", "HELLO_HISTORY: "]),
    ],
)
def test_a_mistake_is_one_clear_line(
    settings: Mapping[str, str], complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake names its variable, and all are told at once."""
    for name, value in settings.items():
        monkeypatch.setenv(f"HELLO_{name.upper()}", value)
    with pytest.raises(ConfigError) as error:
        load()
    assert len(error.value.lines) == len(complaints)
    for line, complaint in zip(error.value.lines, complaints, strict=True):
        assert re.match(complaint, line), line
        assert "\n" not in line


def test_every_script_can_be_said() -> None:
    """Joined emoji and scripts with joiners are text, not control characters."""
    for text in ("👩‍💻 hello", "می‌خواهم", "Grüße", "a\u00a0b"):
        assert load({"text": text}).text == text


def test_what_kubernetes_sets_beside_a_service_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service named hello describes itself to every pod."""
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"HELLO_{name}", "10.0.0.1")
    assert load() == Settings()


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a mistake, nor in what is logged of the settings."""
    settings = load({"channel": "redis://user:geheim@redis:6379/0", "channel_password": "geheim"})
    assert settings.channel_for_logs == "redis://redis:6379/0"
    assert "geheim" not in repr(settings.channel_password)
    with pytest.raises(ConfigError) as error:
        load({"channel": "redi://user:geheim@redis"})
    assert "geheim" not in str(error.value)


def test_a_misconfigured_process_ends_with_code_2() -> None:
    """Before anything was started, with the mistakes on standard error."""
    ended = hello(prot="1", history="many")
    assert ended.returncode == 2
    assert [line.split(":")[1].strip() for line in ended.stderr.splitlines()] == ["HELLO_PROT", "HELLO_HISTORY"]
    assert hello("--no-such-flag").returncode == 2


def test_an_address_that_is_taken_is_a_mistake() -> None:
    """Which one, and of which setting."""
    with HelloProcess() as process:
        port, other = process.port, free_ports(1)[0]
        ended = hello("--port", str(port), "--ops-port", str(other))
        assert ended.returncode == 2
        assert f"HELLO_HOST, HELLO_PORT: cannot listen on 127.0.0.1:{port}: Address already in use" in ended.stderr


def test_a_flag_beats_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have the same name."""
    monkeypatch.setenv("HELLO_TEXT", "from the environment")
    assert load().text == "from the environment"
    assert load({"text": "from a flag"}).text == "from a flag"


def test_help_tells_every_setting() -> None:
    """Each with its default, and with its unit where it has one."""
    text = " ".join(hello("--help").stdout.split())
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} …" in text
    for told in (
        "seconds; shortest pause",
        "(default: 10000)",
        "(default: broadcaster,relay)",
        "(default: the host's name)",
        "hello watch URL",
    ):
        assert told in text
