"""The image: really built from the Dockerfile, and its container driven from start to stop (containers.py)."""

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.deploy.containers import Container, Engine, Image, engine
from tests.deploy.tools import ROOT, tool

SECONDS = 30.0  # anything takes a fraction of it
# The aim is 60 MB above the base, and the base made here brings the standard library's bytecode (10 MB) itself.
MAX_ADDED_MB = 50


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


def test_sigterm_moves_the_browsers_away_and_ends_the_container_with_0(builder: Engine, image: Image) -> None:
    with started(builder, image, HELLO_DRAIN_SECONDS="1") as container:
        with get(container.public, "/events") as stream:
            told = events(stream)
            assert next(told)["type"] == "welcome"
            container.terminate()
            assert {event["type"] for event in told} <= {"message"}  # read to its end
        assert container.wait(SECONDS) == 0, container.log()
