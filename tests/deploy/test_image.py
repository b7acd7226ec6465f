"""The image: really built from the Dockerfile, and its container driven from start to stop (containers.py)."""

import http.client
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.deploy.containers import Container, Engine, Image, base_name, engine
from tests.deploy.tools import ROOT, tool

SECONDS = 30.0  # anything takes a fraction of it
# The aim is 60 MB above the base, and the base made here brings the standard library's bytecode (10 MB) itself.
MAX_ADDED_MB = 50
LOCKS = ("requirements.lock", "build.lock")


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engine(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def image(builder: Engine) -> Iterator[Image]:
    built = builder.build()
    yield built
    builder.remove(built)


@contextmanager
def started(builder: Engine, image: Image, **environment: str) -> Iterator[Container]:
    """A container that says it is ready."""
    with builder.run(image, environment) as container:
        deadline = time.monotonic() + SECONDS
        while status(container.operators, "/readyz") != 200:
            assert time.monotonic() < deadline, container.log()
            time.sleep(0.01)  # between two looks at a program that is starting: there is no event to wait for
        yield container


def status(port: int, path: str) -> int | None:
    """The status of the answer, or None where nobody answers."""
    try:
        with get(port, path) as response:
            return response.status
    except OSError:
        return None


@contextmanager
def get(port: int, path: str) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            yield response


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, object]]:
    """The frames of a stream of server-sent events, until its end."""
    assert response.status == 200
    while line := response.readline():
        if line.startswith(b"data:"):
            yield json.loads(line.removeprefix(b"data:"))


def test_hadolint_finds_nothing() -> None:
    subprocess.run([tool("hadolint"), ROOT / "Dockerfile"], check=True)


def test_the_dockerfile_asks_nothing_that_some_builder_does_not_know() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^\s*(# *syntax|ARG |RUN --|COPY --(?!from=build ))", text, re.MULTILINE)


def test_only_what_is_named_reaches_a_builder_and_the_dockerfile_is() -> None:
    """Minikube sends no Dockerfile that is not named."""
    everything, *named = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert everything == "*"
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    needed = {"Dockerfile"} | {name for names in copied for name in names.split()}
    assert {line.removeprefix("!") for line in named if line.startswith("!")} == needed


def test_nothing_is_installed_that_is_not_locked() -> None:
    """Wheels with the hashes that a lock tells, or our own, from a file."""
    words = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"\bpip .*?\binstall\b(.*?)(?:&&|$)", words, re.MULTILINE)
    assert len(installs) == len(re.findall(r"\binstall\b", words)) > 0
    for options in installs:
        locked = re.search(r"--only-binary :all: --require-hashes -r (\S+)", options)
        assert locked[1] in LOCKS if locked else "--no-deps --no-index" in options


def test_the_build_backend_is_locked_with_all_that_builds() -> None:
    """With a hash each; pip alone would fetch whichever backend is the newest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    builds = project["dependency-groups"]["build"]
    assert set(project["build-system"]["requires"]) <= set(builds)
    locked = re.findall(r"^([a-z0-9-]+)==.+ \\\n    --hash=sha256:", (ROOT / "build.lock").read_text(), re.MULTILINE)
    assert set(builds) <= set(locked)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_says_how_it_is_made_and_holds_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text()
    head = re.match(r"(#.*\n)+", text)
    assert head is not None
    assert f"-o {lock}\n" in head[0]
    assert "://" not in text
    entries = re.findall(r"^[^\s#].*", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[a-z0-9-]+(?:\[.*\])?==.* \\\n    --hash=sha256:", text, re.MULTILINE)) > 0


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_locked_has_a_wheel_for_arm64(lock: str) -> None:
    """For the Python of the base; what this machine is of is built below."""
    version = base_name().removeprefix("python:").removesuffix("-slim")
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_28")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--target=unused", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={version}", *platforms, "--require-hashes", "-r", lock]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_image_is_small(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    megabytes = image.added_bytes / 1e6
    with capsys.disabled():
        print(f"\nThe image adds {megabytes:.1f} MB to its base.")  # noqa: T201 # a figure that people ask for
    assert megabytes < MAX_ADDED_MB


def test_the_image_says_who_runs_it_and_how(image: Image) -> None:
    assert image.config["User"] == "10001:10001"
    assert image.config["Entrypoint"] == ["hello"]
    assert image.config["ExposedPorts"].keys() == {"8000/tcp", "8001/tcp"}
    assert "PYTHONUNBUFFERED=1" in image.config["Env"]
    labels = image.config["Labels"]
    assert {"title", "description", "licenses"} <= {label.removeprefix("org.opencontainers.image.") for label in labels}


def test_the_container_serves_the_page_and_a_broadcast_with_a_read_only_root(
    builder: Engine, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with started(builder, image, HELLO_INTERVAL_MIN="0.1", HELLO_INTERVAL_MAX="0.1") as container:
        with capsys.disabled():
            print(f"\nThe container is ready after {time.monotonic() - began:.2f} s.")  # noqa: T201 # as above
        with get(container.public, "/") as page:
            assert page.status == 200
            assert b"<html" in page.read()
        with get(container.public, "/events") as stream:
            message = next(event for event in events(stream) if event["type"] == "message")
            assert message["text"] == "Hello world"


def test_the_container_has_no_rights_and_can_write_to_tmp_alone(builder: Engine, image: Image) -> None:
    with started(builder, image) as container:
        told = Path(f"/proc/{container.host_pid()}/status").read_text()
        facts = dict(line.split(":\t", 1) for line in told.splitlines())
        assert facts["Uid"].split() == facts["Gid"].split() == ["10001"] * 4
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
        assert facts["NoNewPrivs"] == "1"
        for folder, code in (("/tmp", 0), ("/opt/hello", 1), ("/", 1)):
            assert container.execute("python3", "-c", f"open('{folder}/file', 'w')") == code


def test_the_image_checks_its_own_health(builder: Engine, image: Image) -> None:
    kind, *check = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    with started(builder, image) as container:
        assert container.execute(*check) == 0
        # The check is one that can fail.
        assert container.execute("env", "HELLO_OPS_PORT=9", *check) == 1


def test_pip_stayed_behind_and_everything_is_compiled(builder: Engine, image: Image) -> None:
    """A read-only root could keep no bytecode, so that every start would compile anew what is not."""
    compiled = (
        "import importlib.util, pathlib, sys, hello.system;"
        "sources = [m.__file__ for m in sys.modules.values() if str(getattr(m, '__file__', '')).endswith('.py')];"
        "sys.exit(not all(pathlib.Path(importlib.util.cache_from_source(s)).exists() for s in sources))"
    )
    with started(builder, image) as container:
        assert container.execute("/opt/hello/bin/python", "-c", compiled) == 0
        assert container.execute("/opt/hello/bin/python", "-c", "import pip") == 1


def test_the_image_lists_what_is_in_it(builder: Engine, image: Image) -> None:
    """As CycloneDX, with the versions: no more and no less than Python finds there, and nothing of what built it."""
    compared = (
        "import json, sys; from importlib.metadata import distributions;"
        "bom = json.load(open('/opt/hello/sbom.cdx.json'));"
        "components = [bom['metadata']['component'], *bom['components']];"
        "listed = sorted((component['name'].lower(), component['version']) for component in components);"
        "installed = sorted((d.name.lower(), d.version) for d in distributions());"
        "sys.exit(bom['bomFormat'] != 'CycloneDX' or len(listed) < 10 or listed != installed)"
    )
    with started(builder, image) as container:
        assert container.execute("/opt/hello/bin/python", "-c", compared) == 0


def test_sigterm_moves_the_browsers_away_and_ends_the_container_with_0(builder: Engine, image: Image) -> None:
    with started(builder, image, HELLO_DRAIN_SECONDS="1") as container:
        with get(container.public, "/events") as stream:
            told = events(stream)
            assert next(told)["type"] == "welcome"
            container.terminate()
            assert {event["type"] for event in told} <= {"message"}  # read to its end
        assert container.wait(SECONDS) == 0, container.log()
