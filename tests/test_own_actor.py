"""An actor of one's own, as in the README's "Make it your own": in the harness, in both overlays, and with mistakes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from hello.channel.memory import MemoryChannel
from hello.channel.urls import open_channel
from hello.message import Message, Position
from hello.settings import ConfigError, load
from hello.testing import Client, Closed, CuttableChannel, running
from hello.watchdog import STALL_SECONDS
from tests.deploy.tools import tool
from tests.processes import HelloProcess
from tests.readmes import ROOT, example

ACTORS = ("clock.py", "tail.py", "website.py")
FILES = {name: example(name) for name in (*ACTORS, "Dockerfile", "kustomization.yaml", "test_clock.py")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the READMEs, beside a link to this repository."""
    folder = tmp_path / "clock"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(f"{text}\n")
    (tmp_path / "hello").symlink_to(ROOT)
    return folder


def test_first_actor_is_short() -> None:
    """The first actor has at most 20 lines."""
    assert len(FILES["clock.py"].splitlines()) <= 20


@pytest.mark.slow
def test_harness(folder: Path) -> None:
    """The test of the actor passes in a folder of its own, in both shapes and on both event loops."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_clock.py"]
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


@pytest.mark.slow
def test_types(folder: Path) -> None:
    """The actors pass the strictest checks of their types."""
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir=.cache", *ACTORS]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Recorder(CuttableChannel):
    """Records the text of every attempt to publish, and the holder of the lease."""

    def __init__(self) -> None:
        super().__init__(MemoryChannel(10_000))
        self.attempts: list[str] = []
        self.attempted_thrice = anyio.Event()
        self.holder = ""

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        self.attempts.append(message.text)
        if len(self.attempts) == 3:
            self.attempted_thrice.set()
        self.holder = holder or ""
        return await super().publish(message, holder)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_tail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is shown in order, through an outage in which nothing is read on; a new leader begins at the end."""
    path, channel, client = folder / "log", Recorder(), Client()
    path.write_text("old\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("TAIL_FILE", str(path))

    async def begin(word: str) -> None:
        """Add lines until one is shown: then the actor has opened the file."""
        while not any(message["text"] == word for message in client.shown):
            write(f"{word}\n")
            with anyio.move_on_after(0.1):
                await client.until_shown(len(client.shown) + 1)

    def write(text: str) -> None:
        with path.open("a") as file:
            file.write(text)

    async with (
        running("combined", channel, broadcaster="tail:tail") as system,
        client.open(system.relays[0]),
    ):
        await begin("begin")
        channel.cut()
        channel.attempts, channel.attempted_thrice = [], anyio.Event()
        lines = [f"  line {number}" for number in range(500)]
        write("\n".join(["\n", *lines, "x" * 5000, "é"]))
        await channel.attempted_thrice.wait()
        assert len(set(channel.attempts)) == 1
        channel.heal()
        write(" the end\n")
        while client.shown[-1]["text"] != "é the end":
            await client.receive()
        await channel.release(channel.holder)
        await channel.acquire("another")
        write("of another leader\n")
        await begin("begin again")
    shown = [message["text"] for message in client.shown if not message["text"].startswith("begin")]
    assert shown == [*lines, "x" * 4096, "é the end"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_website(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change of the answer is published once; a site that does not answer blocks neither clients nor the stop."""
    statuses, may_answer, asked = iter([200, 200, 503, 503, 200]), threading.Event(), threading.Event()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if (status := next(statuses, None)) is None:
                asked.set()
                may_answer.wait()
            self.send_response(status or 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    client = Client()
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever).start()
        url = f"http://127.0.0.1:{site.server_port}/"
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("WEBSITE_URL", url)
        monkeypatch.setenv("WEBSITE_SECONDS", "0.01")
        try:
            async with (
                open_channel("memory://", history=100) as channel,
                running("combined", channel, broadcaster="website:website") as system,
                client.open(system.relays[0]) as stream,
            ):
                await client.until_shown(3)
                await anyio.to_thread.run_sync(asked.wait)
                system.processes[0].terminate()
                with pytest.raises(Closed), anyio.fail_after(3):  # less than the client's own time-out
                    await stream.receive()
        finally:
            may_answer.set()
            site.shutdown()
    assert [message["text"].removeprefix(f"{url} ") for message in client.shown] == [
        "answers 200",
        "fails: HTTP Error 503: Service Unavailable",
        "answers 200",
    ]


@pytest.mark.parametrize("shape", ["split", "combined"])
def test_overlays(folder: Path, shape: str) -> None:
    """Each overlay runs the image of the actor, and no pod overrides a variable that the image sets."""
    kustomization = folder / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("overlays/split", f"overlays/{shape}"))
    command = [tool("kubectl"), "kustomize", str(folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    workloads = [each for each in yaml.safe_load_all(rendered) if each["kind"] in ("Deployment", "StatefulSet")]
    containers = {each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"] for each in workloads}
    assert {name: of_pod[0]["image"] for name, of_pod in containers.items()} == {
        "relay": "clock:dev",
        "broadcaster": "clock:dev",
        "redis": "redis:8-alpine",
    }
    variables = {variable["name"] for of_pod in containers.values() for variable in of_pod[0].get("env", ())}
    assert not variables & {"HELLO_BROADCASTER", "PYTHONPATH"}


def test_image_variables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the image select the actor."""
    variables = dict(re.findall(r"(\w+)=(\S+)", FILES["Dockerfile"]))
    assert variables.pop("PYTHONPATH") in FILES["Dockerfile"].split("COPY clock.py ")[1]
    monkeypatch.syspath_prepend(str(folder))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load().broadcaster_function.__name__ == "clock"


ONCE = """\
import subprocess, sys
from pathlib import Path
import anyio

async def once(publisher):
    while not Path(__file__).with_name("go").exists():
        await anyio.sleep(0.02)
    await publisher.publish("the last")
    END
"""
ENDS = {  # the last line of an actor, its number or that of the actor's first line, and the error
    "pass": (5, "RuntimeError: it has returned, and an actor never does"),
    "await publisher.publish('')": (9, "Malformed: a message's text has 1 to 4096 characters, not 0"),
    "await publisher.publish('x' * 4097)": (9, "Malformed: a message's text has 1 to 4096 characters, not 4097"),
    "async with anyio.create_task_group() as group: group.start_soon(publisher.publish, '')": (9, "Malformed: .*"),
    "sys.exit('no more')": (9, "SystemExit: no more"),
}


@pytest.mark.parametrize("end", ENDS)
def test_actor_ends(tmp_path: Path, end: str) -> None:
    """An actor that ends, ends its process after a drain; the last line of the log says which, where and why."""
    (tmp_path / "once.py").write_text(ONCE.replace("END", end))
    line, reason = ENDS[end]
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with HelloProcess(broadcaster="once:once", log_format="text").launch(path) as process:
        process.wait_for("/readyz", 200)
        with connect(process.url.replace("http", "ws") + "ws") as websocket:
            (tmp_path / "go").touch()
            texts: list[str | None] = []
            with pytest.raises(ConnectionClosed):
                texts.extend(json.loads(frame).get("text") for frame in websocket)
        assert (texts[-1], websocket.close_code) == ("the last", 1012)
        assert process.wait() == 1
    where = re.escape(f"once:once failed at {tmp_path / 'once.py'}:{line}: ")
    assert re.search(f"stopped by an error: ActorFailed: {where}{reason}$", process.output.splitlines()[-1])


@pytest.mark.parametrize("how", ["blocked", pytest.param("paused", marks=pytest.mark.slow)])
def test_event_loop_stands_still(tmp_path: Path, how: str) -> None:
    """A warning says for how long, and in which line of the actor; a process that was paused as a whole logs none."""
    (tmp_path / "once.py").write_text(
        ONCE.replace("END", "subprocess.run(['sleep', '2']); await publisher.publish('')")
    )
    settings = {"broadcaster": "once:once", "log_format": "text", "interval_min": "1000", "interval_max": "1000"}
    with HelloProcess(**settings).launch({"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as process:
        process.wait_for("/readyz", 200)
        if how == "blocked":
            (tmp_path / "go").touch()
            assert process.wait() == 1
        else:
            process.signal(signal.SIGSTOP)
            time.sleep(2 * STALL_SECONDS)  # the pause itself
            process.signal(signal.SIGCONT)
            assert process.terminate() == 0
    if how == "paused":
        assert "WARNING" not in process.output
    else:
        where = re.escape(f"{tmp_path / 'once.py'}:9 (once)")
        assert re.search(f"WARNING .* stands still for over 1 s, in {where}: .*to_thread", process.output)
        lasted = re.search(f"WARNING .* stood still for (.+) s, in {where}$", process.output, re.MULTILINE)
        assert lasted is not None
        assert 1.5 < float(lasted[1]) < 10


def test_wrong_parameters(tmp_path: Path) -> None:
    """The error of an actor that cannot be called names it, and the line where it is defined."""
    (tmp_path / "once.py").write_text("\nasync def once(wait, publish): await wait()")
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with HelloProcess(broadcaster="once:once", log_format="text").launch(path) as process:
        assert process.wait() == 1
    assert re.search(r"once:once failed at .*once.py:2: TypeError: .*'publish'$", process.output.splitlines()[-1])


MODULES = {
    "divides": "x = 1\nx / 0\n",
    "decodes": "import json\n\njson.loads('[')\n",  # the error is raised in a file of the library
    "asks": "import nothing\n",
    "lacks": "from json import nothing\n",
    "broken": "\n\nasync def broken(:\n",
    "ends": "import sys\n\nsys.exit('done')\n",
    "uses": "import divides\n",
}
FAILED = "its import failed at /.+/clock"
MISTAKES = {  # values of HELLO_BROADCASTER, and a pattern of the error
    "clock": "give MODULE:FUNCTION, such as clock:clock",
    "clock:clock()": "give MODULE:FUNCTION, such as clock:clock",
    "clock.py:clock": "No module named 'clock.py'.*; give the name of the module, without .py",
    "nowhere:clock": "No module named 'nowhere'; name the folder that holds the module in PYTHONPATH",
    "clock.of.mine:clock": "No module named 'clock.of'.*; name the folder that holds the module in PYTHONPATH",
    "clock:time": "module 'clock' has no attribute 'time'; its async functions: clock",
    "clock:anyio": "an actor is an async function; those of the module: clock",
    "divides:actor": rf"{FAILED}/divides\.py:2: ZeroDivisionError: division by zero",
    "decodes:actor": rf"{FAILED}/decodes\.py:3: JSONDecodeError: Expecting value.+",
    "asks:actor": rf"{FAILED}/asks\.py:1: .*No module named 'nothing'; install it where hello is installed",
    "lacks:actor": rf"{FAILED}/lacks\.py:1: ImportError: cannot import name 'nothing' from 'json'[^;]+",
    "broken:actor": rf"{FAILED}/broken\.py:3: SyntaxError: [^;]+",
    "ends:actor": rf"{FAILED}/ends\.py:3: SystemExit: done",
    "uses:actor": rf"{FAILED}/divides\.py:2: ZeroDivisionError: division by zero",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A name that is not an actor is a mistake at the start, and the error names the reason: in a module its line."""
    for module, text in MODULES.items():
        (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HELLO_BROADCASTER", name)
    with pytest.raises(ConfigError) as error:
        load()
    assert re.fullmatch(rf"HELLO_BROADCASTER: {MISTAKES[name]} \(it is '.+'\)", str(error.value)), error.value
