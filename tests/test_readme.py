"""What the README says to type, typed: the run command in a fresh copy with nothing installed, and the like."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from hello.metrics import Metrics
from tests.conftest import missing
from tests.processes import free_ports

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
INSTALL_SECONDS = 300.0  # a fresh environment: some ten seconds where the packages are near


def fresh_copy(directory: Path) -> Path:
    """What a clone of the working tree would hold."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("no git, or no clone: the run command is tried on a fresh copy of what git tracks")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if (ROOT / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
    return directory


def test_the_run_command_shows_a_first_message(tmp_path: Path) -> None:
    """From a fresh copy and no environment to a message at the address that it prints."""
    command = re.search(r"<!-- run -->\n+```sh\n(.+)\n```", README)
    assert command is not None
    # Whatever `python3` is on the PATH, here it is the one that runs the tests.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    port, ops_port = free_ports(2)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    environment |= {"HELLO_PORT": str(port), "HELLO_OPS_PORT": str(ops_port), "HELLO_LOG_FORMAT": "text"}
    process = subprocess.Popen(
        ["sh", "-c", command[1].replace("&& .venv/bin/hello", "&& exec .venv/bin/hello")],
        cwd=fresh_copy(tmp_path / "clone"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        output = ""
        deadline = time.monotonic() + INSTALL_SECONDS
        while "ready: " not in output and time.monotonic() < deadline:
            if not (line := process.stdout.readline()):
                missing(f"the run command could not install:\n{output}")
            output += line
        assert f"page: http://127.0.0.1:{port}\n" in output
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/events?last=1", timeout=20) as events:  # made here
            lines = [events.readline().decode() for _ in range(4)]
        assert json.loads(lines[3].removeprefix("data: "))["text"] == "Hello world"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


SHOWN_BY = re.findall(r"\[`(test_\w+)`\]\((tests/\S+?\.py)\)", README)


def test_every_fault_and_limit_names_its_test() -> None:
    """The tables were found by the expression above: else the next test would have nothing to check."""
    rows = re.findall(r"^\| .* \| .* \| .* \|$", README.split("What it does **not** promise")[0], re.MULTILINE)
    assert len(rows) - 2 == len(SHOWN_BY) > 20, "each row but the two heads"


@pytest.mark.parametrize(("test", "path"), SHOWN_BY, ids=[test for test, _ in SHOWN_BY])
def test_a_test_that_is_named_exists(test: str, path: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_the_command_for_faults_is_understood() -> None:
    """It would run for twenty minutes: here it only tells its options."""
    command = re.search(r"<!-- faults -->\n+```sh\n\.venv/bin/python (-m tests\.faults) (.+)\n```", README)
    assert command is not None
    asked = [sys.executable, *command[1].split(), "--help"]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"{option} " in told for option in re.findall(r"--\w+", command[2]))


def test_it_names_every_metric() -> None:
    named = set(re.findall(r"`(hello_\w+)`", README))
    of_ours = {family.name for family in Metrics().registry.collect() if family.name.startswith("hello_")}
    assert {name.removesuffix("_total") for name in named} == of_ours
