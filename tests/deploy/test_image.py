"""The image, built from the Dockerfile, and its container, from start to stop (containers.py)."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.deploy.containers import Container, Engine, Image, base_name, engine
from tests.deploy.tools import ROOT

pytestmark = pytest.mark.container

SECONDS = 30.0  # at most, for anything that takes a fraction of it
# Above Docker's base the limit is 60 MB: the base that containers.py makes already has 10 MB of bytecode.
MAX_ADDED_MB = 50
LOCKS = ("requirements.lock", "build.lock")
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engine(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def image(builder: Engine) -> Iterator[Image]:
    built = builder.build()
    yield built
    builder.remove(built)


@pytest.fixture(scope="module")
def container(builder: Engine, image: Image) -> Iterator[Container]:
    """A container for the tests that change nothing in it."""
    with started(builder, image, HELLO_INTERVAL_MIN="0.1", HELLO_INTERVAL_MAX="0.1") as container:
        yield container


@contextmanager
def started(builder: Engine, image: Image, **settings: str) -> Iterator[Container]:
    """A container that is ready."""
    with builder.run(image, settings) as container:
        deadline = time.monotonic() + SECONDS
        while status(container.ops, "/readyz") != 200:
            assert time.monotonic() < deadline, container.log()
            time.sleep(0.01)  # the container gives no event to wait for
        yield container


def status(port: int, path: str) -> int | None:
    """The status of the response, or None if the server does not answer."""
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


def test_dockerignore() -> None:
    """A builder receives what the Dockerfile copies, and the Dockerfile: Minikube sends it only if it is listed."""
    everything, *rules = re.findall(r"^[^#\n].*", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert everything == "*"
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    needed = {"Dockerfile"} | {name for names in copied for name in names.split()}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == needed


def test_dockerfile() -> None:
    """It has nothing that some builder does not support, and installs locked wheels, and our own one from a file."""
    assert not re.search(r"^\s*(# *syntax|ARG |RUN --|COPY --(?!from=build ))", DOCKERFILE, re.MULTILINE)
    installs = re.findall(r"\bpip .*?\binstall\b(.*?)(?:&&|$)", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    assert len(installs) == len(re.findall(r"\binstall\b", DOCKERFILE)) > 0
    for options in installs:
        locked = re.search(r"--only-binary :all: --require-hashes -r (\S+)", options)
        assert locked[1] in LOCKS if locked else "--no-deps --no-index" in options


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_on_arm64(lock: str) -> None:
    """Each locked package has a wheel for arm64 and the base's Python."""
    version = base_name().removeprefix("python:").removesuffix("-slim")
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("2014", "_2_17", "_2_28")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--target=unused", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={version}", *platforms, "--require-hashes", "-r", lock]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_image(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """The image is small, and its configuration has user, entry point, ports and labels."""
    with capsys.disabled():
        print(f"\nThe image adds {image.added_bytes / 1e6:.1f} MB to its base.")  # noqa: T201 # for README and notes
    assert image.added_bytes < MAX_ADDED_MB * 1e6
    assert (image.config["User"], image.config["Entrypoint"]) == ("10001:10001", ["hello"])
    assert image.config["ExposedPorts"].keys() == {"8000/tcp", "8001/tcp"}
    assert "PYTHONUNBUFFERED=1" in image.config["Env"]
    labels = image.config["Labels"]
    assert {"title", "description", "licenses"} <= {label.removeprefix("org.opencontainers.image.") for label in labels}


def test_page_and_message(container: Container) -> None:
    """The container serves the page and a message with a read-only root."""
    with get(container.public, "/") as page:
        assert page.status == 200
        assert b"<html" in page.read()
    with get(container.public, "/events") as stream:
        message = next(event for event in events(stream) if event["type"] == "message")
        assert message["text"] == "Hello world"


def test_privileges(container: Container) -> None:
    """The process has no capabilities, and can write to /tmp alone."""
    lines = Path(f"/proc/{container.host_pid()}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines)
    assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    for folder, code in (("/tmp", 0), ("/opt/hello", 1), ("/", 1)):
        assert container.execute("python3", "-c", f"open('{folder}/file', 'w')") == code


def test_health_check(container: Container, image: Image) -> None:
    """The image's health check succeeds on a healthy container, and fails if the ops server does not answer."""
    kind, *check = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert container.execute(*check) == 0
    assert container.execute("env", "HELLO_OPS_PORT=9", *check) == 1


@pytest.mark.parametrize(
    ("code", "result"),
    [
        pytest.param(
            "import importlib.util, pathlib, sys, hello.system;"
            "sources = [m.__file__ for m in sys.modules.values() if str(getattr(m, '__file__', '')).endswith('.py')];"
            "sys.exit(not all(pathlib.Path(importlib.util.cache_from_source(s)).exists() for s in sources))",
            0,
            id="all-compiled",  # a read-only root cannot cache bytecode
        ),
        pytest.param("import pip", 1, id="no-pip"),
        pytest.param(
            "import json, sys; from importlib.metadata import distributions;"
            "bom = json.load(open('/opt/hello/sbom.cdx.json'));"
            "components = [bom['metadata']['component'], *bom['components']];"
            "listed = sorted((component['name'].lower(), component['version']) for component in components);"
            "installed = sorted((d.name.lower(), d.version) for d in distributions());"
            "sys.exit(bom['bomFormat'] != 'CycloneDX' or len(listed) < 10 or listed != installed)",
            0,
            id="listed",  # as CycloneDX, exactly and with their versions
        ),
    ],
)
def test_packages(container: Container, code: str, result: int) -> None:
    """The installed packages are compiled and listed, and pip is not among them."""
    assert container.execute("/opt/hello/bin/python", "-c", code) == result


def test_sigterm(builder: Engine, image: Image) -> None:
    """SIGTERM closes the streams and ends the container with exit code 0."""
    with started(builder, image, HELLO_DRAIN_SECONDS="1") as container:
        with get(container.public, "/events") as stream:
            frames = events(stream)
            assert next(frames)["type"] == "welcome"
            container.terminate()
            assert {frame["type"] for frame in frames} <= {"message"}  # up to the end of the stream
        assert container.wait(SECONDS) == 0, container.log()
