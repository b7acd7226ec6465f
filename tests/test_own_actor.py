"""The README's "Make it your own": an actor of one's own in the harness and in both overlays, and wrong ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hello.settings import ConfigError, load
from tests import own_actor
from tests.deploy.tools import tool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "clock"
    folder.mkdir()
    own_actor.write(folder)
    return folder


def test_the_section_is_complete_and_the_actor_has_twenty_lines_at_most() -> None:
    files = own_actor.files()
    assert set(files) == {"clock.py", "Dockerfile", "kustomization.yaml", "test_clock.py"}
    assert len(files["clock.py"].splitlines()) <= 20


@pytest.mark.slow
def test_its_test_passes_in_both_shapes_in_a_folder_of_its_own(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_clock.py"]
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{own_actor.ROOT}", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


@pytest.mark.parametrize("shape", ["split", "combined"])
def test_either_overlay_takes_the_image_that_holds_it(folder: Path, shape: str) -> None:
    """Redis keeps its own, and what is set in the image is not set otherwise by a pod."""
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
    said = {variable["name"] for of_pod in containers.values() for variable in of_pod[0].get("env", ())}
    assert not said & {"HELLO_BROADCASTER", "PYTHONPATH"}


def test_what_its_image_sets_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = dict(re.findall(r"(\w+)=(\S+)", own_actor.files()["Dockerfile"]))
    assert variables.pop("PYTHONPATH") in own_actor.files()["Dockerfile"].split("COPY clock.py ")[1]
    monkeypatch.syspath_prepend(str(folder))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load().broadcaster_function.__name__ == "clock"


@pytest.mark.parametrize(
    ("actor", "told"),
    [
        (
            "async def once(wait_until_leader, publish, **_): await wait_until_leader()",
            "once:once has returned, and an actor never does",
        ),
        ("async def once(wait, publish): await wait()", "unexpected keyword argument 'text'"),
    ],
)
def test_an_actor_that_ends_ends_its_process_and_the_first_line_says_why(tmp_path: Path, actor: str, told: str) -> None:
    """It would hold the voice, so that no other process could speak."""
    (tmp_path / "once.py").write_text(actor)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{own_actor.ROOT}"}
    command = [sys.executable, "-m", "hello", "--broadcaster", "once:once", "--port", "0", "--ops-port", "0"]
    command += ["--log-format", "text"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "stopped by an error" in line]
    assert told in line


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("clock", "give MODULE:FUNCTION, such as clock:clock"),
        ("clock.py:clock", "No module named 'clock.py'"),
        ("nowhere:clock", "No module named 'nowhere'; name the folder that holds the module in PYTHONPATH"),
        ("clock:tell", "module 'clock' has no attribute 'tell'"),
        ("clock:uuid", "an actor is an async function"),
        ("clock:clock()", "give MODULE:FUNCTION, such as clock:clock"),
    ],
)
def test_a_name_that_is_no_actor_is_told_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, named: str, told: str
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ConfigError, match=r"^HELLO_BROADCASTER: ") as error:
        load({"broadcaster": named})
    assert told in str(error.value)
