"""The checks that need no running: style, types, and that documents and lock agree with the program."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from hello.settings import Settings
from tests.deploy.tools import tool

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def run(*command: str) -> None:
    ended = subprocess.run([tool(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_style() -> None:
    run("ruff", "check", ".")


def test_layout() -> None:
    run("ruff", "format", "--check", ".")


def test_types() -> None:
    run("mypy")


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """What CI proves is what a person would run."""
    command = re.search(r"<!-- test -->\n+```sh\n(.+)\n```", README)
    assert command is not None
    assert command[1] == (ROOT / ".ci" / "run").read_text().splitlines()[-1]


def test_the_lock_has_every_dependency() -> None:
    """With a hash each; the image is built from it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^a-z0-9-]", line)[0] for line in project["dependencies"]}
    lock = (ROOT / "requirements.lock").read_text()
    locked = re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==.+ \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert names <= set(locked)


def test_the_readme_tells_every_setting() -> None:
    """By its variable and its default."""
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `HELLO_{name.upper()}` \| (.+?) \|", README, re.MULTILINE)
        assert row is not None, name
        if isinstance(field.default, int | float | str):
            assert row[1].strip("`") == f"{field.default}".removesuffix(".0"), name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_the_readme_points_at_what_is_there(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_readme_names_the_rooms() -> None:
    """Every file of the program stands in the reading order."""
    for path in (ROOT / "hello").rglob("*.py"):
        if path.name != "__init__.py" and path.stat().st_size > 0:
            assert path.name in README, path


def test_scripts_are_executable() -> None:
    for path in [ROOT / ".ci" / "run", *(ROOT / "deploy").glob("*.sh")]:
        if path.name != "cluster.sh":  # which the others read
            assert os.access(path, os.X_OK), path
