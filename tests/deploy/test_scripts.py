"""The scripts in deploy/ without a cluster: they meet stand-ins of minikube and kubectl (stand_in.py), and curl."""

import http.server
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.stand_in import FRESH, Cluster
from tests.deploy.tools import ROOT, tool

WRITTEN = [*sorted((ROOT / "deploy").glob("*.sh")), ROOT / ".ci" / "run"]
SCRIPTS = ("build-images.sh", "deploy.sh", "undeploy.sh")
STAND_IN = shlex.quote(str(ROOT / "tests" / "deploy" / "stand_in.py"))
DEV = "docker.io/library/hello:dev"
SECONDS = 60.0  # no script takes a tenth of it here

# What bash 3.2, which macOS has, does not know.
NEWER_BASH = {
    "mapfile and readarray": r"\b(mapfile|readarray)\b",
    "associative arrays and name references": r"\b(declare|local|typeset) -[a-zA-Z]*[An]",
    "changing case": r"\$\{\w+(\[.\])?[,^]",
    "transformations": r"\$\{\w+@",
    "negative indices": r"\$\{\w+\[-",
    "wait -n": r"\bwait -n\b",
    "[[ -v": r"\[\[ -v ",
    "|& and &>>": r"\|&|&>>",
    "printf '%(...)T'": r"%\([^)]*\)T",
    "EPOCHSECONDS": r"\bEPOCH(REAL)?SECONDS\b",
    "empty arrays under set -u": r"\$\{\w+\[[@*]\]\}",
}


class Deployment:
    """A checkout's scripts, with a cluster that is played."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "cluster.json"
        self.path = directory / "bin"
        self.path.mkdir()
        for name in ("minikube", "kubectl"):
            program = self.path / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {STAND_IN} {name} "$@"\n')
            program.chmod(0o755)
        self.environment = {
            "PATH": f"{self.path}:{os.environ['PATH']}",
            "STAND_IN": str(self._file),
            "TMPDIR": str(directory),
        }
        self.cluster = FRESH

    @property
    def cluster(self) -> Cluster:
        found: Cluster = json.loads(self._file.read_text())
        return found

    @cluster.setter
    def cluster(self, cluster: Cluster) -> None:
        self._file.write_text(json.dumps(cluster))

    def change(self, **story: Any) -> None:
        self.cluster = self.cluster | story

    def run(self, script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.change(calls=[])
        return subprocess.run(
            [ROOT / "deploy" / script, *words],
            env=self.environment | environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def calls(self, *beginning: str) -> list[list[str]]:
        """The calls since the last run began, less the cluster's and the namespace's names, that begin so."""
        stripped = (
            [
                word
                for word, before in zip(call, ["", *call], strict=False)
                if not {word, before} & {"-p", "--context", "-n"}
            ]
            for call in self.cluster["calls"]
        )
        return [call for call in stripped if call[: len(beginning)] == list(beginning)]


class Page(http.server.BaseHTTPRequestHandler):
    """The page, and a stream that takes up its work after so many refusals."""

    protocol_version = "HTTP/1.1"
    refusals = 0

    def do_GET(self) -> None:
        if self.path != "/ws":
            self.send_response(200)
        elif Page.refusals:
            Page.refusals -= 1
            self.send_response(503)
        else:
            assert self.headers["Upgrade"] == "websocket"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.close_connection = True  # a real one stays open
            return
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    tool("bash")
    return Deployment(tmp_path)


@pytest.fixture
def url() -> Iterator[str]:
    """Where the page is, once everything is deployed."""
    tool("curl", "install Debian's `curl`")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def deployed(deployment: Deployment, url: str) -> Deployment:
    """Deployed once, in the shape split."""
    deployment.change(url=url)
    assert deployment.run("deploy.sh").returncode == 0
    return deployment


# Written well


def test_shellcheck_finds_nothing() -> None:
    subprocess.run([tool("shellcheck"), "-x", *WRITTEN], check=True, cwd=ROOT)


def test_shfmt_would_change_nothing() -> None:
    subprocess.run([tool("shfmt"), "-d", "-i", "2", "-ci", *WRITTEN], check=True)


@pytest.mark.parametrize("construct", NEWER_BASH)
def test_the_bash_of_macos_understands_them(construct: str) -> None:
    for script in (ROOT / "deploy").glob("*.sh"):
        assert not re.search(NEWER_BASH[construct], script.read_text()), f"{script.name} has {construct}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_they_can_be_run_and_say_what_they_do(script: str, deployment: Deployment) -> None:
    done = deployment.run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: deploy/{script}")
    assert deployment.calls() == []


@pytest.mark.parametrize("words", [("build-images.sh", "now"), ("deploy.sh", "both"), ("undeploy.sh", "split")])
def test_a_word_that_they_do_not_know_is_answered_with_the_usage(
    words: tuple[str, str], deployment: Deployment
) -> None:
    done = deployment.run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")
    assert deployment.calls() == []


# Which cluster


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("", "there is no Minikube 'minikube': run 'minikube start -p minikube', or name yours in MINIKUBE_PROFILE."),
        ("Stopped/Stopped/Stopped", "Minikube 'minikube' is stopped: run 'minikube start -p minikube'."),
        (
            "Running/Stopped/Configured",
            "Minikube 'minikube' runs, but Kubernetes in it does not: run 'minikube start -p minikube'.",
        ),
        (
            "Running/Running/Misconfigured",
            "kubectl's context 'minikube' does not point at Minikube: run 'minikube update-context -p minikube'.",
        ),
    ],
)
def test_a_cluster_that_is_not_there_is_told_in_one_sentence_and_nothing_is_done(
    script: str, status: str, sentence: str, deployment: Deployment
) -> None:
    deployment.change(status=status)
    done = deployment.run(script)
    assert done.returncode == 1
    assert done.stderr == f"{script}: {sentence}\n"
    assert [call[1] for call in deployment.calls()] == ["status"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_cluster_that_kubectl_does_not_reach_is_told_in_one_sentence_and_nothing_is_done(
    script: str, deployment: Deployment
) -> None:
    deployment.change(reachable=False)
    done = deployment.run(script)
    assert done.returncode == 1
    assert done.stderr == (
        f"{script}: kubectl does not reach Minikube 'minikube': run 'minikube update-context -p minikube'.\n"
    )
    assert [call[1] for call in deployment.calls()] == ["status", "get"]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("missing", ["minikube", "kubectl"])
def test_a_missing_tool_is_told_in_one_sentence(script: str, missing: str, deployment: Deployment) -> None:
    (deployment.path / missing).unlink()
    for name in ("bash", "env", "dirname", "curl"):
        (deployment.path / name).symlink_to(shutil.which(name) or name)
    done = deployment.run(script, PATH=str(deployment.path))
    assert done.returncode == 1
    assert done.stderr == (
        f"{script}: {missing} is missing: install it and put it on the PATH (README.md, Prerequisites).\n"
    )


@pytest.mark.parametrize("profile", ["minikube", "another"])
def test_every_call_names_its_cluster_whatever_context_is_current(
    profile: str, deployment: Deployment, url: str
) -> None:
    deployment.change(url=url)
    calls: list[list[str]] = []
    for script in ("deploy.sh", "undeploy.sh"):
        assert deployment.run(script, MINIKUBE_PROFILE=profile).returncode == 0
        calls += deployment.cluster["calls"]
    assert {tuple(call[:3]) for call in calls} == {("minikube", "-p", profile), ("kubectl", "--context", profile)}


# The image


def test_the_image_is_built_under_a_name_that_was_never_used_and_then_named_hello_dev(deployment: Deployment) -> None:
    for _ in range(2):
        before = deployment.cluster["images"]
        assert deployment.run("build-images.sh").returncode == 0
        (build,) = deployment.calls("minikube", "image", "build")
        built = build[build.index("-t") + 1]
        assert built not in before
        assert Path(build[-1]).resolve() == ROOT
        images = deployment.cluster["images"]
        assert images[DEV] == images[built]


def test_a_failed_build_that_exits_0_is_a_failure_and_leaves_the_old_image(deployment: Deployment) -> None:
    deployment.change(build_works=False, images={DEV: "old"})
    done = deployment.run("deploy.sh")
    assert done.returncode == 1
    assert done.stderr.endswith("build-images.sh: the build failed: its last lines above say why.\n")
    assert deployment.cluster["images"] == {DEV: "old"}
    assert deployment.calls("kubectl", "apply") == []


@pytest.mark.parametrize("source", ["first", "second"])
def test_hello_dev_is_the_new_image_even_where_the_runtime_does_not_move_a_tag(
    source: str, deployment: Deployment
) -> None:
    """containerd refuses, and minikube exits 0 all the same."""
    deployment.change(tags_move=False)
    assert deployment.run("build-images.sh").returncode == 0
    deployment.change(source=source)
    assert deployment.run("build-images.sh").returncode == 0
    (build,) = deployment.calls("minikube", "image", "build")
    images = deployment.cluster["images"]
    assert images[DEV] == images[build[build.index("-t") + 1]]


# Deploying


def test_deploying_goes_from_a_checkout_to_a_url_whose_page_and_stream_answer(
    deployment: Deployment, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.change(url=url)
    monkeypatch.setattr(Page, "refusals", 1)
    done = deployment.run("deploy.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == url
    assert Page.refusals == 0  # it did not take the page alone for an answer


@pytest.mark.parametrize(("words", "shape"), [([], "split"), (["split"], "split"), (["combined"], "combined")])
def test_the_shape_is_split_unless_told_otherwise(
    words: list[str], shape: str, deployment: Deployment, url: str
) -> None:
    deployment.change(url=url)
    assert deployment.run("deploy.sh", *words).returncode == 0
    _, overlay = deployment.calls("kubectl", "apply")
    assert overlay[2] == "-k"
    assert Path(overlay[3]).resolve() == ROOT / "kustomize" / "overlays" / shape


def test_the_namespace_comes_first_then_the_password_then_everything(deployed: Deployment) -> None:
    order = [tuple(call[1:3]) for call in deployed.calls("kubectl") if call[1] in {"apply", "create"}]
    assert order == [("apply", "-f"), ("create", "-f"), ("apply", "-k")]


def test_the_password_is_random_and_on_no_command_line(deployed: Deployment) -> None:
    secret = yaml.safe_load(deployed.cluster["secret"])
    password = secret["stringData"]["password"]
    assert len(password) == 48
    assert secret["stringData"]["auth.conf"] == f"requirepass {password}"
    assert password not in json.dumps(deployed.cluster["calls"])
    assert deployed.run("undeploy.sh").returncode == 0
    assert deployed.run("deploy.sh").returncode == 0
    assert password not in deployed.cluster["secret"]


def test_what_is_new_needs_no_restart(deployed: Deployment) -> None:
    assert deployed.calls("kubectl", "rollout", "restart") == []


def test_deploying_again_unchanged_restarts_nothing_and_keeps_the_password(deployed: Deployment) -> None:
    password = deployed.cluster["secret"]
    assert deployed.run("deploy.sh", "combined").returncode == 0
    assert deployed.calls("kubectl", "rollout", "restart") == []
    assert deployed.cluster["secret"] == password


def test_a_new_image_behind_the_same_tag_restarts_what_runs_it(deployed: Deployment) -> None:
    deployed.change(source="second")
    assert deployed.run("deploy.sh").returncode == 0
    assert deployed.calls("kubectl", "rollout", "restart") == [
        ["kubectl", "rollout", "restart", "deployment/relay", "deployment/broadcaster"]
    ]


def test_an_image_that_was_built_by_itself_before_is_noticed_too(deployed: Deployment) -> None:
    deployed.change(source="second")
    assert deployed.run("build-images.sh").returncode == 0
    assert deployed.run("deploy.sh").returncode == 0
    assert len(deployed.calls("kubectl", "rollout", "restart")) == 1


def test_a_password_that_is_new_to_what_runs_restarts_all_of_it(deployed: Deployment) -> None:
    deployed.change(secret="")
    assert deployed.run("deploy.sh").returncode == 0
    assert deployed.calls("kubectl", "rollout", "restart") == [
        ["kubectl", "rollout", "restart", "statefulset/redis", "deployment/relay", "deployment/broadcaster"]
    ]


def test_all_three_workloads_are_waited_for(deployed: Deployment) -> None:
    waited = [call[3] for call in deployed.calls("kubectl", "rollout", "status")]
    assert waited == ["statefulset/redis", "deployment/broadcaster", "deployment/relay"]


def test_a_rollout_that_times_out_shows_the_pods_and_their_logs_and_is_tried_again_next_time(
    deployed: Deployment,
) -> None:
    deployed.change(rollout_works=False, source="second")
    done = deployed.run("deploy.sh")
    assert done.returncode == 1
    for shown in ("the pods of", "the events of", "the log of pod/relay-1", "the previous log of pod/relay-1"):
        assert shown in done.stderr
    assert done.stderr.endswith("deploy.sh: statefulset/redis did not become ready within 300 s: see above.\n")
    assert deployed.calls("minikube", "service") == []
    deployed.change(rollout_works=True)
    assert deployed.run("deploy.sh").returncode == 0
    assert len(deployed.calls("kubectl", "rollout", "restart")) == 1


def test_no_url_is_told_with_what_minikube_said(deployment: Deployment) -> None:
    deployment.change(url="Exiting due to SVC_UNREACHABLE")
    done = deployment.run("deploy.sh")
    assert done.returncode == 1
    assert "Exiting due to SVC_UNREACHABLE" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("deploy.sh: hello is deployed, but ")


def test_a_tunnel_stays_open_with_the_url_told_until_the_user_ends_it(deployment: Deployment, url: str) -> None:
    deployment.change(url=url, tunnel=True)
    # Whatever the script starts inherits the writing end: the reading end is at its end when all of it is gone.
    alive, inherited = os.pipe()
    with subprocess.Popen(
        [ROOT / "deploy" / "deploy.sh"],
        env=deployment.environment,
        # A shell cannot trap what was ignored when it began, as SIGINT is where tests run in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        pass_fds=[inherited],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        os.close(inherited)
        assert script.stdout is not None
        assert script.stderr is not None
        told = []
        while (line := script.stdout.readline().rstrip()) != url:
            assert line, script.stderr.read()
            told.append(line)
        assert "Ctrl-C closes the tunnel" in told[-1]
        script.send_signal(signal.SIGINT)
        assert script.wait(SECONDS) == 0
        assert script.stderr.read() == ""
    with os.fdopen(alive, "rb") as end:
        assert select.select([end], [], [], SECONDS)[0]
        assert end.read() == b""


def test_a_tunnel_that_breaks_is_told(deployment: Deployment, url: str) -> None:
    deployment.change(url=url, tunnel=True, tunnel_seconds=1)
    done = deployment.run("deploy.sh")
    assert done.returncode == 1
    assert done.stderr.startswith("deploy.sh: minikube closed the tunnel")


# Undeploying


def test_undeploying_removes_everything_and_can_be_repeated(deployed: Deployment) -> None:
    for _ in range(2):
        done = deployed.run("undeploy.sh")
        assert (done.returncode, done.stderr) == (0, "")
        assert deployed.calls("kubectl", "delete", "namespace", "hello")
        assert deployed.cluster["images"] == {}
        assert deployed.cluster["objects"] == []


def test_undeploying_removes_the_images_where_one_name_takes_the_others_along(deployed: Deployment) -> None:
    deployed.change(source="second")
    assert deployed.run("build-images.sh").returncode == 0
    deployed.change(tags_move=False)
    done = deployed.run("undeploy.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert deployed.cluster["images"] == {}
