"""The scripts in deploy/ run against a fake minikube and kubectl (fake_cluster.py) and the real curl.

They run under the bash of the PATH, and under bash 3.2 if there is one: `bash-3.2` on the PATH, or the path in
BASH_3_2 (on macOS: `BASH_3_2=/bin/bash`).
"""

import http.server
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tests.deploy.fake_cluster import FRESH, Cluster
from tests.deploy.tools import ROOT, tool

pytestmark = pytest.mark.slow

SCRIPTS = ("build-images.sh", "deploy.sh", "undeploy.sh")
FAKE_CLUSTER = shlex.quote(str(ROOT / "tests" / "deploy" / "fake_cluster.py"))
DEV = "docker.io/library/hello:dev"
SECONDS = 60.0  # at most, for one script; each takes a few seconds

BASHES = {"bash": "bash"}  # the programs that run the scripts, by the names in the tests' ids
if old := os.environ.get("BASH_3_2") or shutil.which("bash-3.2"):
    BASHES["bash-3.2"] = old


class Deployment:
    """The scripts of the checkout `root` and a fake cluster; `bash` is the path of the bash that runs the scripts."""

    def __init__(self, directory: Path, bash: str, root: Path = ROOT) -> None:
        self._root = root
        self._file = directory / "cluster.json"
        self.path = directory / "bin"
        self.path.mkdir()
        (self.path / "bash").symlink_to(bash)
        for name in ("minikube", "kubectl"):
            self.add_program(name, f'exec {shlex.quote(sys.executable)} -I -S {FAKE_CLUSTER} {name} "$@"')
        self.environment = {
            "PATH": f"{self.path}:{os.environ['PATH']}",
            "FAKE_CLUSTER": str(self._file),
            "TMPDIR": str(directory),
            "HOME": str(directory),
        }
        self._file.write_text(json.dumps(FRESH))

    def add_program(self, name: str, script: str) -> None:
        """Put a program before all others of this name on the PATH."""
        program = self.path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    @property
    def cluster(self) -> Cluster:
        found: Cluster = json.loads(self._file.read_text())
        return found

    def change(self, **fields: Any) -> None:
        self._file.write_text(json.dumps(self.cluster | fields))

    def run(self, script: str, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script that must exit with this code, and print nothing on stderr if the code is 0.

        It must name the cluster in every call, whatever kubectl's current context is.
        """
        self.change(calls=[])
        command = [f"deploy/{script}", *words]
        environment = self.environment | environment
        done = subprocess.run(
            command, cwd=self._root, env=environment, check=False, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == code, done.stderr
        assert code or not done.stderr
        cluster = environment.get("MINIKUBE_PROFILE", "minikube")
        assert {tuple(call[1:3]) for call in self.cluster["calls"]} <= {("-p", cluster), ("--context", cluster)}
        return done

    def calls(self, beginning: str = "") -> list[str]:
        """The calls of the last run that begin so, without the names of the cluster and the namespace."""
        lines = [" ".join([call[0], *call[3:]]).replace(" -n hello", "") for call in self.cluster["calls"]]
        return [line for line in lines if line.startswith(beginning)]


class Page(http.server.BaseHTTPRequestHandler):
    """The page and its WebSocket; the first request to a path in `rejections` gets that status."""

    protocol_version = "HTTP/1.1"
    rejections: ClassVar[dict[str, int]] = {}
    answers: ClassVar[list[tuple[str, int]]] = []

    def do_GET(self) -> None:
        status = Page.rejections.pop(self.path, None) or (101 if self.path == "/ws" else 200)
        Page.answers.append((self.path, status))
        self.send_response(status)
        if status == 101:
            assert self.headers["Upgrade"] == "websocket"
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.close_connection = True  # unlike a real WebSocket, which stays open
            return
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", params=BASHES)
def bash(request: pytest.FixtureRequest) -> str:
    """The path of each bash that the scripts support and that is installed."""
    path = str(Path(tool(BASHES[request.param], "install bash, or correct BASH_3_2")).absolute())
    version = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
    assert version.startswith("GNU bash, version 3.2." if request.param == "bash-3.2" else "GNU bash, version ")
    return path


@pytest.fixture
def deployment(tmp_path: Path, bash: str) -> Deployment:
    return Deployment(tmp_path, bash)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The page's address once hello is deployed."""
    tool("curl", "install Debian's `curl`")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def deployed_cluster(tmp_path_factory: pytest.TempPathFactory, bash: str, url: str) -> Cluster:
    """The cluster after a first `deploy.sh`."""
    deployment = Deployment(tmp_path_factory.mktemp("deployed"), bash)
    deployment.change(url=url)
    deployment.run("deploy.sh")
    return deployment.cluster


@pytest.fixture
def deployed(deployment: Deployment, deployed_cluster: Cluster) -> Deployment:
    """A deployment after a first `deploy.sh`."""
    deployment.change(**deployed_cluster)
    return deployment


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *((f"{script} --help", 0) for script in SCRIPTS),
        *(("build-images.sh now", 2), ("deploy.sh both", 2), ("deploy.sh split now", 2), ("undeploy.sh split", 2)),
    ],
)
def test_usage(words: str, code: int, deployment: Deployment) -> None:
    """--help prints the usage; so does an unknown argument, on stderr and with exit code 2. Neither calls anything."""
    done = deployment.run(*words.split(), code=code)
    assert (done.stderr if code else done.stdout).startswith(f"Usage: deploy/{words.split()[0]}")
    assert deployment.calls() == []


@pytest.mark.parametrize(
    ("script", "status", "remedy"),
    [
        *((script, "", "start") for script in SCRIPTS),
        ("deploy.sh", "Stopped/Stopped/Stopped", "start"),
        ("deploy.sh", "Running/Paused/Configured", "unpause"),
        ("deploy.sh", "Running/Stopped/Configured", "start"),
        ("deploy.sh", "Running/Running/Misconfigured", "update-context"),
        ("deploy.sh", FRESH["status"], "update-context"),
    ],
)
def test_unusable_cluster(script: str, status: str, remedy: str, deployment: Deployment) -> None:
    """The script prints one line with the remedy, and changes nothing."""
    deployment.change(status=status, reachable=False)
    (line,) = deployment.run(script, code=1).stderr.splitlines()
    assert line.startswith(f"{script}: ")
    assert f"run 'minikube {remedy} -p minikube'" in line
    assert {call.split()[1] for call in deployment.calls()} <= {"status", "get"}


@pytest.mark.parametrize("missing", ["minikube", "kubectl", "curl"])
def test_missing_tool(missing: str, deployment: Deployment) -> None:
    """The script names the tool that is not installed."""
    for name in ("env", "dirname", "curl"):
        (deployment.path / name).symlink_to(shutil.which(name) or name)
    (deployment.path / missing).unlink()
    assert f"deploy.sh: {missing} is missing" in deployment.run("deploy.sh", code=1, PATH=str(deployment.path)).stderr


def test_unusual_environment(tmp_path: Path, bash: str, url: str) -> None:
    """Spaces in the path, a CDPATH, a ~/.curlrc, more nodes and another profile make no difference."""
    root = tmp_path / "my own checkout"
    for folder in ("deploy", "kustomize"):
        shutil.copytree(ROOT / folder, root / folder)
    (root / "elsewhere" / "deploy").mkdir(parents=True)
    (root / ".curlrc").write_text('data = "a POST, then"\n')
    deployment = Deployment(root, bash, root)
    deployment.change(url=url, status=f"{FRESH['status']}\nRunning/Irrelevant/Irrelevant")
    for script in SCRIPTS:
        deployment.run(script, CDPATH=str(root / "elsewhere"), MINIKUBE_PROFILE="another")


@pytest.mark.parametrize("source", ["first", "second"])
@pytest.mark.parametrize("tags_move", [True, False])
def test_build(tags_move: bool, source: str, deployment: Deployment) -> None:
    """Each build has a new tag and is done on every node; hello:dev is the same image, also where tags do not move."""
    deployment.change(tags_move=tags_move)
    for content in ("first", source):
        before = deployment.cluster["images"]
        deployment.change(source=content)
        deployment.run("build-images.sh")
        (build,) = deployment.calls("minikube image build --all -t ")
        built, context = build.split()[-2:]
        assert built not in before
        assert Path(context).resolve() == ROOT
        images = deployment.cluster["images"]
        assert images[DEV] == images[built]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"build_works": False}, "the build failed: see its last lines above."), ({"json": "without_ids"}, "lists no id")],
)
def test_failed_build(fields: Cluster, message: str, deployment: Deployment) -> None:
    """`minikube image build` exits 0 for a failed build, and two images without an id are not the same image."""
    deployment.change(images={DEV: "old"}, **fields)
    assert message in deployment.run("deploy.sh", code=1).stderr
    assert deployment.cluster["images"][DEV] == "old"
    assert deployment.calls("kubectl apply") == []


@pytest.mark.parametrize(
    ("words", "shape", "path", "status"),
    [([], "split", "/", 500), (["split"], "split", "/ws", 503), (["combined"], "combined", "/ws", 200)],
)
def test_deploy(words: list[str], shape: str, path: str, status: int, deployment: Deployment, url: str) -> None:
    """deploy.sh applies the shape's overlay, waits for all workloads and for page and WebSocket, and prints the URL.

    The namespace comes first, then the password, then the rest, and nothing new is restarted.
    """
    deployment.change(url=url)
    Page.answers.clear()
    Page.rejections[path] = status
    assert deployment.run("deploy.sh", *words).stdout.splitlines()[-1] == url
    (overlay,) = deployment.calls("kubectl apply -k ")
    assert Path(overlay.split()[-1]).resolve() == ROOT / "kustomize" / "overlays" / shape
    order = [
        call.split()[1:4] for call in deployment.calls("kubectl") if call.split()[1] in ("apply", "create", "rollout")
    ]
    assert [words[:2] for words in order[:3]] == [["apply", "-f"], ["create", "-f"], ["apply", "-k"]]
    waited = ("statefulset/redis", "deployment/broadcaster", "deployment/relay")
    assert order[3:] == [["rollout", "status", workload] for workload in waited]
    assert (path, status) in Page.answers
    assert Page.answers[-2:] == [("/", 200), ("/ws", 101)]


def test_password(deployed: Deployment) -> None:
    """The password is random, and on no command line."""
    secret = yaml.safe_load(deployed.cluster["secret"])
    password = secret["stringData"]["password"]
    assert len(password) == 48
    assert secret["stringData"]["auth.conf"] == f"requirepass {password}"
    assert password not in json.dumps(deployed.cluster["calls"])
    deployed.change(secret="")
    deployed.run("deploy.sh")
    assert password not in deployed.cluster["secret"]


def test_password_of_digits(deployment: Deployment) -> None:
    """A password of digits is text: YAML would read a number, which a Secret rejects."""
    deployment.add_program("od", "echo 12 34 56 78 90")
    deployment.run("deploy.sh", code=1)  # there is no URL
    secret = yaml.safe_load(deployment.cluster["secret"])
    assert secret["stringData"] == {"password": "1234567890", "auth.conf": "requirepass 1234567890"}


RESTART = "kubectl rollout restart "
OURS = "deployment/relay deployment/broadcaster"


@pytest.mark.parametrize(
    ("fields", "scripts", "restarts"),
    [
        pytest.param({}, ["deploy.sh combined"], [], id="new-shape"),
        pytest.param({"source": "second"}, ["deploy.sh"], [OURS], id="new-image"),
        pytest.param({"source": "second", "json": "indented"}, ["deploy.sh"], [OURS], id="new-image-indented-json"),
        pytest.param({"source": "second"}, ["build-images.sh", "deploy.sh"], [OURS], id="new-image-built-before"),
        pytest.param({"source": "second"}, ["deploy.sh combined"], [OURS], id="new-shape-and-image"),
        pytest.param({"secret": ""}, ["deploy.sh"], [f"statefulset/redis {OURS}"], id="new-password"),
    ],
)
def test_deploy_again(fields: Cluster, scripts: list[str], restarts: list[str], deployed: Deployment) -> None:
    """A new image or password restarts the pods that use it, right after the apply; the password stays."""
    password = deployed.cluster["secret"]
    deployed.change(**fields)
    for script in scripts:
        deployed.run(*script.split())
    assert deployed.calls(RESTART) == [RESTART + workloads for workloads in restarts]
    assert "secret" in fields or deployed.cluster["secret"] == password
    calls = [" ".join(call.split()[1:3]) for call in deployed.calls()]
    assert calls[calls.index("apply -k") + 1] == ("rollout restart" if restarts else "rollout status")


@pytest.mark.parametrize("pod", ["redis-0 True", "redis-0 False", "redis-0 "])
def test_redis_not_ready(pod: str, deployed: Deployment) -> None:
    """deploy.sh deletes a pod of Redis that is not ready: its StatefulSet would never replace it by a corrected one."""
    deployed.change(redis_pod=pod)
    deployed.run("deploy.sh")
    calls = [" ".join(call.split()[1:4]) for call in deployed.calls("kubectl")]
    deleted = [] if pod == "redis-0 True" else ["delete pod redis-0"]
    assert [call for call in calls if call.startswith(("apply -k", "delete"))][1:] == deleted


def test_failed_rollout(deployed: Deployment) -> None:
    """deploy.sh prints pods, events and logs, opens no URL, and restarts the pods again at the next run."""
    deployed.change(rollout_works=False, source="second")
    errors = deployed.run("deploy.sh", code=1).stderr
    for shown in ("the pods of", "the events of", "the log of pod/relay-1", "the previous log of pod/relay-1"):
        assert shown in errors
    assert "deploy.sh: statefulset/redis did not become ready within 300 s" in errors
    assert deployed.calls("minikube service") == []
    deployed.change(rollout_works=True)
    deployed.run("deploy.sh")
    assert deployed.calls(RESTART) == [RESTART + OURS]


@pytest.mark.parametrize(
    ("script", "fields", "message"),
    [
        pytest.param("deploy.sh", {"url": "SVC_UNREACHABLE"}, "SVC_UNREACHABLE\ndeploy.sh: hello is", id="no-url"),
        pytest.param("deploy.sh", {"tunnel": True, "tunnel_seconds": 1}, "closed the tunnel", id="broken-tunnel"),
        pytest.param("undeploy.sh", {"removable": False}, f"its image {DEV.partition(':')[0]}:", id="image-in-use"),
    ],
)
def test_failure(script: str, fields: Cluster, message: str, deployed: Deployment) -> None:
    """A script fails, and names the cause, if there is no URL, the tunnel closes, or an image cannot be removed."""
    deployed.change(**fields)
    assert message in deployed.run(script, code=1).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_tunnel(number: signal.Signals, deployed: Deployment) -> None:
    """The tunnel stays open after the URL is printed; a signal ends the script and every process that it started."""
    deployed.change(tunnel=True)
    # Every process that the script starts inherits the writing end: the reading end is at its end once all have ended.
    alive, inherited = os.pipe()
    with subprocess.Popen(
        [ROOT / "deploy" / "deploy.sh"],
        env=deployed.environment,
        # A shell cannot trap a signal that was ignored at its start, as SIGINT is where tests run in the background.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        pass_fds=[inherited],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        os.close(inherited)
        assert script.stdout is not None
        assert script.stderr is not None
        while "Ctrl-C closes the tunnel" not in (line := script.stdout.readline()):
            assert line, script.stderr.read()
        assert script.stdout.readline().rstrip() == deployed.cluster["url"]
        script.send_signal(number)
        assert script.wait(SECONDS) == (0 if number == signal.SIGINT else -number)
        assert script.stderr.read() == ""
    with os.fdopen(alive, "rb") as end:
        assert select.select([end], [], [], SECONDS)[0]
        assert end.read() == b""


@pytest.mark.parametrize("tags_move", [True, False])
def test_undeploy(tags_move: bool, deployed: Deployment) -> None:
    """undeploy.sh removes namespace and images, one name at a time or all at once, and may run again."""
    deployed.change(source="second")
    deployed.run("build-images.sh")
    deployed.change(tags_move=tags_move)
    for _ in range(2):
        deployed.run("undeploy.sh")
        assert deployed.calls("kubectl delete namespace hello")
        assert deployed.cluster["images"] == {}
        assert deployed.cluster["objects"] == []
