"""The commands of the README, run as a person would run them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.processes import free_ports
from tests.readmes import ROOT, example

INSTALL_SECONDS = 300.0  # a fresh environment: some ten seconds where the packages are near


def fresh_copy(directory: Path) -> Path:
    """Copy the files that a clone of the working tree would have into `directory`, and return it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("no git, or no clone: the run command is tried on a fresh copy of what git tracks")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if (ROOT / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
    return directory


@pytest.mark.slow
def test_run_command(tmp_path: Path) -> None:
    """From a fresh copy without an environment to a message at the address that the command prints."""
    # Whatever `python3` is on the PATH, here it is the one that runs the tests.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    port, ops_port = free_ports(2)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    environment |= {"HELLO_PORT": str(port), "HELLO_OPS_PORT": str(ops_port), "HELLO_LOG_FORMAT": "text"}
    process = subprocess.Popen(
        ["sh", "-c", example("run").replace("&& .venv/bin/hello", "&& exec .venv/bin/hello")],
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
            lines = [events.readline().decode() for _ in range(5)]  # a welcome, and a message
        assert json.loads(lines[4].removeprefix("data: "))["text"] == "Hello world"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
