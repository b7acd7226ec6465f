"""The scripts in deploy/ without a cluster: they meet stand-ins of minikube and kubectl (stand_in.py), and curl.

They run under the bash of the PATH, and under bash 3.2 as well where there is one: `bash-3.2` on the PATH, or whatever
BASH_3_2 names (on macOS: `BASH_3_2=/bin/bash`). Elsewhere NEWER_BASH stands in for it.
"""

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
from typing import Any, ClassVar

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

# The programs that run the scripts, by the names that tests show.
BASHES = {"bash": "bash"}
if old := os.environ.get("BASH_3_2") or shutil.which("bash-3.2"):
    BASHES["bash-3.2"] = old


class Deployment:
    """A checkout's scripts, with a cluster that is played; they are run by the bash whose path is given."""

    def __init__(self, directory: Path, bash: str, root: Path = ROOT) -> None:
        self._root = root
        self._file = directory / "cluster.json"
        self.path = directory / "bin"
        self.path.mkdir()
        (self.path / "bash").symlink_to(bash)
        for name in ("minikube", "kubectl"):
            program = self.path / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {STAND_IN} {name} "$@"\n')
            program.chmod(0o755)
        self.environment = {
            "PATH": f"{self.path}:{os.environ['PATH']}",
            "STAND_IN": str(self._file),
            "TMPDIR": str(directory),
            "HOME": str(directory),
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
            [Path("deploy") / script, *words],
            cwd=self._root,
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
    """The page and its stream, each of which takes up its work after a refusal, if one is given by its path."""

    protocol_version = "HTTP/1.1"
    refusals: ClassVar[dict[str, int]] = {}
    answers: ClassVar[list[tuple[str, int]]] = []

    def do_GET(self) -> None:
        refused = Page.refusals.pop(self.path, None)
        status = refused or (101 if self.path == "/ws" else 200)
        Page.answers.append((self.path, status))
        self.send_response(status)
        if status == 101:
            assert self.headers["Upgrade"] == "websocket"
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.close_connection = True  # a real one stays open
            return
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=BASHES)
def bash(request: pytest.FixtureRequest) -> str:
    """The path of each bash that the scripts are for and that there is."""
    return str(Path(tool(BASHES[request.param], "install bash, or correct BASH_3_2")).absolute())


@pytest.fixture
def deployment(tmp_path: Path, bash: str) -> Deployment:
    return Deployment(tmp_path, bash)


@pytest.fixture
def url() -> Iterator[str]:
    """Where the page is, once everything is deployed."""
    tool("curl", "install Debian's `curl`")
    Page.refusals.clear()
    Page.answers.clear()
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


def test_what_is_given_as_bash_3_2_is_that(request: pytest.FixtureRequest, bash: str) -> None:
    version = subprocess.run([bash, "--version"], check=True, capture_output=True, text=True).stdout
    assert version.startswith("GNU bash, version 3.2." if "bash-3.2" in request.node.name else "GNU bash, version ")


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
        ("Running/Paused/Configured", "Minikube 'minikube' is paused: run 'minikube unpause -p minikube'."),
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
@pytest.mark.parametrize("missing", ["minikube", "kubectl", "curl"])
def test_a_missing_tool_is_told_in_one_sentence(script: str, missing: str, deployment: Deployment) -> None:
    for name in ("env", "dirname", "curl"):
        (deployment.path / name).symlink_to(shutil.which(name) or name)
    (deployment.path / missing).unlink()
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


def test_a_cluster_of_several_nodes_is_judged_by_the_one_that_has_kubernetes_own(deployment: Deployment) -> None:
    deployment.change(status="Running/Running/Configured\nRunning/Irrelevant/Irrelevant")
    assert deployment.run("undeploy.sh").returncode == 0


# What a user's machine may be like


def test_a_checkout_may_lie_in_a_folder_whose_name_has_spaces(tmp_path: Path, bash: str, url: str) -> None:
    root = tmp_path / "my own checkout"
    for folder in ("deploy", "kustomize"):
        shutil.copytree(ROOT / folder, root / folder)
    deployment = Deployment(root, bash, root)
    deployment.change(url=url)
    for script in ("deploy.sh", "undeploy.sh"):
        done = deployment.run(script)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_another_folder_of_the_same_name_that_the_cdpath_knows_is_not_taken(
    script: str, deployment: Deployment, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / "deploy").mkdir(parents=True)
    assert deployment.run(script, "--help", CDPATH=str(tmp_path / "elsewhere")).returncode == 0


def test_what_a_user_has_told_curl_to_do_always_does_no_harm(deployment: Deployment, url: str) -> None:
    (Path(deployment.environment["HOME"]) / ".curlrc").write_text('data = "a POST, then"\n')
    deployment.change(url=url)
    assert deployment.run("deploy.sh").returncode == 0


# The image


def test_the_image_is_built_under_a_name_that_was_never_used_and_then_named_hello_dev(deployment: Deployment) -> None:
    for _ in range(2):
        before = deployment.cluster["images"]
        assert deployment.run("build-images.sh").returncode == 0
        (build,) = deployment.calls("minikube", "image", "build")
        built, context = build[-2:]
        assert build[3:] == ["--all", "-t", built, context]
        assert built not in before
        assert Path(context).resolve() == ROOT
        images = deployment.cluster["images"]
        assert images[DEV] == images[built]


def test_a_failed_build_that_exits_0_is_a_failure_and_leaves_the_old_image(deployment: Deployment) -> None:
    deployment.change(build_works=False, images={DEV: "old"})
    done = deployment.run("deploy.sh")
    assert done.returncode == 1
    assert done.stderr.endswith("build-images.sh: the build failed: its last lines above say why.\n")
    assert deployment.cluster["images"] == {DEV: "old"}
    assert deployment.calls("kubectl", "apply") == []


def test_an_image_whose_id_minikube_does_not_tell_is_proof_of_nothing(deployment: Deployment) -> None:
    """Two unknown ids are not the same id."""
    deployment.change(json="odd")
    done = deployment.run("deploy.sh")
    assert done.returncode == 1
    assert "does not say which image" in done.stderr
    assert deployment.calls("kubectl", "apply") == []


@pytest.mark.parametrize("json", ["compact", "indented"])
def test_a_new_image_is_noticed_however_minikube_lays_out_its_json(json: str, deployed: Deployment) -> None:
    deployed.change(json=json, source="second")
    assert deployed.run("deploy.sh").returncode == 0
    assert len(deployed.calls("kubectl", "rollout", "restart")) == 1


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


@pytest.mark.parametrize(("refusing", "status"), [("/", 500), ("/ws", 503)])
def test_deploying_goes_from_a_checkout_to_a_url_whose_page_and_stream_answer(
    refusing: str, status: int, deployment: Deployment, url: str
) -> None:
    """One of them alone, at the first try, is not taken for an answer."""
    deployment.change(url=url)
    Page.refusals[refusing] = status
    done = deployment.run("deploy.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == url
    assert (refusing, status) in Page.answers
    assert Page.answers[-2:] == [("/", 200), ("/ws", 101)]


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


def test_a_password_of_digits_alone_is_text_all_the_same(deployment: Deployment) -> None:
    """YAML would read it as a number, which a Secret refuses."""
    od = deployment.path / "od"
    od.write_text("#!/bin/sh\necho 12 34 56 78 90\n")
    od.chmod(0o755)
    deployment.run("deploy.sh")
    secret = yaml.safe_load(deployment.cluster["secret"])
    assert secret["stringData"] == {"password": "1234567890", "auth.conf": "requirepass 1234567890"}


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


def test_a_new_shape_with_a_new_image_is_restarted_before_a_pod_of_the_apply_can_be_ready(deployed: Deployment) -> None:
    """So that its browsers are moved once: nothing comes between the two calls."""
    deployed.change(source="second")
    assert deployed.run("deploy.sh", "combined").returncode == 0
    calls = [call[1:3] for call in deployed.calls()]
    assert calls[calls.index(["apply", "-k"]) + 1] == ["rollout", "restart"]


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


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_tunnel_stays_open_with_the_url_told_until_the_user_or_the_terminal_ends_it(
    how: signal.Signals, code: int, deployment: Deployment, url: str
) -> None:
    deployment.change(url=url, tunnel=True)
    # Whatever the script starts inherits the writing end: the reading end is at its end when all of it is gone.
    alive, inherited = os.pipe()
    with subprocess.Popen(
        [ROOT / "deploy" / "deploy.sh"],
        env=deployment.environment,
        # A shell cannot trap what was ignored when it began, as SIGINT is where tests run in the background.
        preexec_fn=lambda: signal.signal(how, signal.SIG_DFL),
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
        script.send_signal(how)
        assert script.wait(SECONDS) == code
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


def test_an_image_that_cannot_be_removed_is_told(deployed: Deployment) -> None:
    deployed.change(removable=False)
    done = deployed.run("undeploy.sh")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"undeploy.sh: hello is gone, but its image {next(iter(deployed.cluster['images']))} could not be removed:"
        " run this again in a minute, when no pod has it."
    )
