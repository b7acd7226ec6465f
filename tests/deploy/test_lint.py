"""What well-kept checkers say of the manifests, the Dockerfile and the workflow. None of them asks the network."""

import json
import os
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.tools import ROOT, tool

WORKFLOW = ROOT / ".github" / "workflows" / "minikube.yml"
SHAPES = ("split", "combined")
CHECKOV = "install it where its many dependencies disturb nobody: `pipx install checkov`"
# Of all that checkov asks for, what the manifests do not do: always to pull the image, to name it by its digest, and to
# mount secrets as files. The reasons stand beside each workload; a new exception is to be written here as well.
EXCEPTIONS = {"CKV_K8S_15", "CKV_K8S_43", "CKV_K8S_35"}
# No network: whatever asks for it all the same is refused at once.
OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
YAML_RULES = {
    "extends": "default",
    "rules": {
        "line-length": {"max": 120},
        "document-start": "disable",  # the first document of a file needs no mark
        "comments": {"min-spaces-from-content": 1},
        "truthy": {"check-keys": False},  # a workflow's `on`
    },
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What checkov found in what both shapes render and in the Dockerfile, by the kind of file."""
    program = tool("checkov", CHECKOV)
    folder = tmp_path_factory.mktemp("checkov")
    (folder / "Dockerfile").write_bytes((ROOT / "Dockerfile").read_bytes())
    for shape in SHAPES:
        rendered = subprocess.run(
            [tool("kubectl"), "kustomize", ROOT / "kustomize" / "overlays" / shape], check=True, capture_output=True
        )
        (folder / f"{shape}.yaml").write_bytes(rendered.stdout)
    kinds = ("kubernetes", "dockerfile")
    found = subprocess.run(
        [program, "--directory", folder, "--framework", *kinds, "--skip-download", "--output", "json"],
        env=os.environ | OFFLINE | {"HOME": str(folder.parent)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.stdout, found.stderr
    return {each["check_type"]: each for each in json.loads(found.stdout)}


def test_checkov_reads_every_workload_of_both_shapes_and_the_dockerfile(report: dict[str, dict[str, Any]]) -> None:
    """Else it would find nothing wrong."""
    read = {
        (
            check["file_path"],
            check["resource"].rpartition(".")[0].rpartition(".")[0],
            check["resource"].rpartition(".")[2],
        )
        for check in report["kubernetes"]["results"]["passed_checks"]
    }
    workloads = (("Deployment", "relay"), ("Deployment", "broadcaster"), ("StatefulSet", "redis"))
    assert {(f"/{shape}.yaml", kind, name) for shape in SHAPES for kind, name in workloads} <= read
    assert report["dockerfile"]["summary"]["passed"] > 0
    assert [each["summary"]["parsing_errors"] for each in report.values()] == [0, 0]


def test_checkov_finds_nothing(report: dict[str, dict[str, Any]]) -> None:
    for each in report.values():
        assert [f"{c['check_id']} {c['check_name']}: {c['resource']}" for c in each["results"]["failed_checks"]] == []


def test_what_checkov_is_told_to_pass_over_has_a_reason_in_words(report: dict[str, dict[str, Any]]) -> None:
    skipped = [check for each in report.values() for check in each["results"]["skipped_checks"]]
    assert {check["check_id"] for check in skipped} == EXCEPTIONS
    for check in skipped:
        reason = check["check_result"]["suppress_comment"]
        assert len(re.findall(r"[a-z]{2,}", reason)) >= 5, f"{check['check_id']} at {check['resource']}: {reason!r}"


def test_the_yaml_is_tidy() -> None:
    subprocess.run(
        [tool("yamllint"), "--strict", "--config-data", json.dumps(YAML_RULES), "kustomize", ".github"],
        cwd=ROOT,
        check=True,
    )


# The workflow


def workflow() -> dict[Any, Any]:
    """It; its `on` is True, as YAML 1.1 reads that word."""
    read: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    return read


def steps() -> list[dict[str, Any]]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def test_zizmor_finds_no_weakness_in_the_workflow() -> None:
    subprocess.run([tool("zizmor"), "--offline", "--no-progress", WORKFLOW], check=True)


def test_the_workflow_may_read_the_repository_and_nothing_else() -> None:
    assert workflow()["permissions"] == {"contents": "read"}
    for job in workflow()["jobs"].values():
        assert "permissions" not in job
    for step in steps():
        if "uses" in step:
            assert step["with"] == {"persist-credentials": False}
    assert "secrets." not in WORKFLOW.read_text()


def test_every_action_is_pinned_by_commit_and_names_its_version() -> None:
    uses = re.findall(r"uses:.*", WORKFLOW.read_text())
    assert len(uses) == sum("uses" in step for step in steps()) > 0
    for use in uses:
        assert re.fullmatch(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)


def test_every_job_ends_and_runs_on_a_machine_that_is_named() -> None:
    """`latest` would be another machine one day, and a job without an end one of six hours."""
    assert set(workflow()[True]) == {"push", "pull_request", "workflow_dispatch"}
    for job in workflow()["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert re.fullmatch(r"(ubuntu|macos)-\d+(\.\d+)?(-arm)?", job["runs-on"])


@pytest.mark.parametrize("run", [pytest.param(step["run"], id=step["name"]) for step in steps() if "run" in step])
def test_the_steps_are_sound_shell_and_what_they_name_is_there(run: str) -> None:
    subprocess.run([tool("shellcheck"), "--shell=bash", "-"], input=f"set -eo pipefail\n{run}", check=True, text=True)
    named = re.findall(r"(?:^|[ \n])((?:deploy|\.ci|tests|kustomize)/[\w./-]+)", run)
    named += [f"{module.replace('.', '/')}.py" for module in re.findall(r" -m (tests\.[\w.]+)", run)]
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_workflow_does_what_a_person_does() -> None:
    """Start, deploy, see a broadcast, try everything with watchers attached, switch, remove."""
    runs = [step["run"] for step in workflow()["jobs"]["minikube"]["steps"] if "run" in step]
    told = iter(runs)
    for what in (
        "minikube start",
        "deploy/deploy.sh split",
        "/events",
        "tests.deploy.cluster minikube",
        "deploy/deploy.sh combined",
        "deploy/undeploy.sh",
    ):
        assert any(what in run for run in told), what
