"""The command `hello watch` (hello/watch/command.py) as a process, before real relays: limits, signals, exit codes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import pytest

from hello.client import ClientProtocol
from hello.message import now_ms
from hello.watch import command
from hello.watch.command import main as watch
from tests.client_histories import Frame, gap, message, play, welcome
from tests.conftest import missing
from tests.page.redis_stream import Entry, RedisStream
from tests.processes import HelloProcess, free_ports
from tests.redis_server import RedisServer

QUICK = {"interval_min": "0.02", "interval_max": "0.1"}  # seconds
LIMIT_SECONDS = 90.0  # for what takes seconds, on a busy machine too


class Watching:
    """`hello watch` as a process of its own, killed after LIMIT_SECONDS at the latest."""

    def __init__(self, url: str, *flags: str, stdout: IO[str] | int = subprocess.PIPE, **variables: str) -> None:
        self.items: list[dict[str, Any]] = []
        command = [sys.executable, "-W", "error", "-m", "hello", "watch", url, *flags]
        environment = {**os.environ, **variables}
        environment.pop("PYTHONUNBUFFERED", None)  # which would hide that a line is not flushed
        self.process = subprocess.Popen(command, text=True, stdout=stdout, stderr=subprocess.PIPE, env=environment)
        self._limit = threading.Timer(LIMIT_SECONDS, self.process.kill)
        self._limit.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._limit.cancel()
        self.process.kill()
        for pipe in filter(None, (self.process.stdout, self.process.stderr)):
            pipe.close()
        self.process.wait()

    def until(self, **fields: object) -> dict[str, Any]:
        """Read on to a line of JSON with these fields."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.items.append(json.loads(line))
            if self.items[-1].items() >= fields.items():
                return self.items[-1]
        raise AssertionError(f"no {fields} in {self.items[-20:]}: {self.process.stderr and self.process.stderr.read()}")

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[dict[str, Any], int, str]:
        """Send a signal: the tally, which is the last line, the exit code and what was written to stderr."""
        self.process.send_signal(number)
        tally = self.until(type="tally")
        rest, errors = self.process.communicate()
        assert rest == ""
        return tally, self.process.returncode, errors

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item for item in self.items if item["type"] == kind]


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    """Both actors in one process, over memory, with a text that not every terminal can show."""
    with HelloProcess(text="Hello 👩", **QUICK) as running_process:
        yield running_process


@pytest.mark.slow
@pytest.mark.parametrize(("via", "end"), [("ws", "closed with 1012"), ("sse", "the relay ended the stream")])
def test_each_message_is_shown_once_or_reported_as_lost(redis_server: RedisServer, via: str, end: str) -> None:
    """Beside a relay that is killed, then rolled, then killed until its history has passed."""
    history = 1000
    settings = {"channel": redis_server.url, "history": str(history), **QUICK}
    relay = HelloProcess(actors="relay", drain_seconds="0.5", **settings)
    broadcaster = HelloProcess(actors="broadcaster", **settings)
    with relay, broadcaster, Watching(relay.url, "--json", "--via", via, "--last", str(history)) as watching:
        stream = RedisStream(redis_server.url)
        watching.until(type="message")
        relay.kill()
        watching.until(state="lost")
        stream.wait_for(more=3)
        relay.start()
        watching.until(state="resumed")
        assert relay.terminate() == 0
        moved = watching.until(state="moved")
        stream.wait_for(more=3)
        relay.start()
        watching.until(state="resumed")
        broadcaster.terminate()
        sent = stream.entries()
        if watching.of("message")[-1]["id"] != sent[-1].id:
            watching.until(type="message", id=sent[-1].id)
        shown = [Entry(item["position"], item["id"]) for item in watching.of("message")]

        relay.kill()
        watching.until(state="lost")
        stream.flood(history)
        broadcaster.start()
        stream.wait_for(more=1)
        broadcaster.terminate()
        kept = stream.entries()
        stream.close()
        relay.start()
        watching.until(state="resumed", missed=history)
        tally, code, errors = watching.end()
    assert shown == sent
    assert moved["detail"].startswith(end)
    lost = {"type": "gap", "after": sent[-1].position, "before": kept[0].position, "certain": True}
    assert watching.of("gap") == tally["gaps"] == [lost]
    assert (tally["shown"], tally["repeated"]) == (len(sent) + history, 0)
    assert (tally["moves"], tally["reconnects"], tally["over_events"]) == (1, 3, 4 if via == "sse" else 0)
    missed = [item["missed"] for item in watching.items if item.get("state") == "resumed"]
    assert tally["recovered"] == sum(missed)
    assert min(missed) >= 3
    assert (tally["complete"], code, errors) == (True, 1, "")


@pytest.mark.parametrize(
    ("steps", "code", "last"),
    [
        ([welcome(), message("1-0", "a")], 0, {"type": "message", "id": "a"}),
        ([welcome(), message("1-0", "a"), gap("1-0", "5-0")], 1, {"type": "gap", "before": "5-0"}),
        ([welcome(), message("1-0", "a"), message("2-0", "a")], 1, {"type": "repeated", "id": "a"}),
    ],
)
def test_exit_code(
    steps: list[Frame], code: int, last: Frame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that no message has followed is shown at the end."""

    async def play_steps(_: object, __: str, protocol: ClientProtocol, show: command.Show, *___: object) -> None:
        for item in play(protocol, steps):
            show(item)

    monkeypatch.setattr(command, "_watch", play_steps)
    assert watch(["127.0.0.1:1", "--json"]) == code
    *_, line, tally = map(json.loads, capsys.readouterr().out.splitlines())
    assert line.items() >= last.items()
    assert tally["lost"] + tally["repeated"] == code


def test_it_ends_after_so_many_messages(process: HelloProcess) -> None:
    """Those before it connected included, and none more, however many the relay has sent."""
    with Watching(process.url, "--messages", "20") as watching:  # so that there is a history
        assert watching.process.communicate()[0].count("  Hello") == 20
    with Watching(process.url, "--json", "--last", "1000", "--messages", "3") as watching:
        assert watching.until(type="tally")["shown"] == len(watching.of("message")) == 3
        assert watching.process.wait() == 0


def test_text_for_which_the_terminal_has_no_characters_is_escaped(process: HelloProcess) -> None:
    with Watching(process.url, "--messages", "1", PYTHONIOENCODING="ascii") as watching:
        lines, errors = watching.process.communicate()
    assert "  Hello \\U0001f469  " in lines
    assert (watching.process.returncode, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_the_tally(process: HelloProcess, number: signal.Signals) -> None:
    """Whatever hello's own variables hold."""
    with Watching(process.url, "--json", HELLO_PORT="x", HELLO_FOO="y") as watching:
        watching.until(type="message")
        tally, code, errors = watching.end(number)
    assert (tally["shown"], code, errors) == (len(watching.of("message")), 0, "")


def test_it_ends_after_so_many_seconds(process: HelloProcess, capsys: pytest.CaptureFixture[str]) -> None:
    began = now_ms()
    watch([process.url, "--json", "--seconds", "0.5"])
    *_, tally = map(json.loads, capsys.readouterr().out.splitlines())
    assert tally["type"] == "tally"
    assert 500 <= now_ms() - began < 10_000


def test_without_a_connection_the_exit_code_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    """Attempts are not made at once, and a password is not shown."""
    assert watch([f"me:secret@127.0.0.1:{free_ports(1)[0]}", "--seconds", "0.2"]) == 1
    captured = capsys.readouterr()
    assert 1 <= captured.out.count("unreachable: ") < 10
    assert "secret" not in captured.out
    assert captured.err == "hello watch: no connection was opened, so that losses are not known\n"


def test_disconnected_at_the_end_the_exit_code_is_1() -> None:
    """A rollout that removes the service and never brings it back is no good one."""
    with HelloProcess(**QUICK) as process, Watching(process.url, "--json") as watching:
        watching.until(type="message")
        process.kill()
        watching.until(state="unreachable")
        tally, code, errors = watching.end()
    assert (tally["complete"], tally["lost"], code) == (False, 0, 1)
    assert errors == "hello watch: not connected and up to date at the end, so that later losses are not known\n"


def test_a_pipe_whose_reader_ends_ends_it_quietly(process: HelloProcess) -> None:
    """As `| head` does."""
    with Watching(process.url) as watching:
        assert watching.process.stdout is not None
        while "Hello" not in watching.process.stdout.readline():
            pass
        watching.process.stdout.close()
        assert watching.process.stderr is not None
        assert watching.process.stderr.read() == ""
        assert watching.process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_nobody_reads(process: HelloProcess, number: signal.Signals) -> None:
    """The tally goes to stderr, and what was lost since the last line is not known."""
    if not Path("/proc/self/wchan").exists():
        missing("no /proc/PID/wchan, which shows that a process waits for a pipe, on Linux")
    reader, writer = os.pipe()
    with Watching(process.url, "--json", stdout=writer) as watching:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):  # until the pipe is full, whoever has filled it
            while os.write(writer, b"\n"):
                pass
        os.set_blocking(writer, True)
        while "pipe_write" not in Path(f"/proc/{watching.process.pid}/wchan").read_text():
            time.sleep(0.02)  # the process gives no event to wait for
        watching.process.send_signal(number)
        _, errors = watching.process.communicate()
    os.close(reader)
    os.close(writer)
    complaint, tally = errors.splitlines()
    assert complaint == "hello watch: nobody reads stdout, so that later losses are not known"
    assert json.loads(tally)["complete"] is False
    assert watching.process.returncode == 1


def test_a_full_disk_is_one_line_on_stderr(process: HelloProcess) -> None:
    if not Path("/dev/full").exists():
        missing("no /dev/full: a device on which every write fails, on Linux")
    with Path("/dev/full").open("w") as full, Watching(process.url, stdout=full) as watching:
        _, errors = watching.process.communicate()
    assert re.fullmatch(r"hello watch: cannot write: .*No space left on device\n", errors)
    assert watching.process.returncode == 1


def test_without_stdout_it_does_not_start() -> None:
    command = ["sh", "-c", 'exec "$0" -m hello watch 127.0.0.1:1 >&-', sys.executable]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=20, check=False)
    assert re.fullmatch(r"hello watch: stdout is closed: .+\n", ended.stderr)
    assert ended.returncode == 2


def test_a_bad_address_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(["http://me:secret@h/?x"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"hello watch: 'http://h/\?x' is not the address of a page: give .+\n", captured.err)


@pytest.mark.parametrize("name", ["--ca", "SSL_CERT_FILE"])
@pytest.mark.parametrize(
    ("path", "why"), [("/no/such", "No such file"), (__file__, "NO_CERTIFICATE"), ("/", "Is a dir")]
)
def test_a_bad_file_of_authorities_is_one_line_on_stderr(
    name: str, path: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", path)
    assert watch(["127.0.0.1:1", "--seconds", "0.1", *([name, path] if name == "--ca" else [])]) == 2
    found = capsys.readouterr().err
    assert re.fullmatch(rf"hello watch: {name} '{path}' has no certificate authorities .+: .*{why}.*\n", found)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--last", "-1"], 2, "argument --last: give a number from 0 to "),
        (["--last", "x"], 2, "argument --last: give a number from 0 to "),
        (["--seconds", "1e9"], 2, "from 0.1 to 31536000, not '1e9'"),
        (["--messages", str(10**15)], 2, "from 1 to 1000000000, not"),
        (["--seconds", "nan"], 2, "argument --seconds: give a number from 0.1 to "),
        (["--messages", "0"], 2, "argument --messages: give a number from 1 to "),
        (["--help"], 0, "Exit code 0: "),
    ],
)
def test_arguments(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        watch(["127.0.0.1:1", *arguments])
    captured = capsys.readouterr()
    assert ended.value.code == code
    assert words in " ".join((captured.out + captured.err).split())
