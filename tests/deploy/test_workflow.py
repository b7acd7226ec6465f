"""The workflow runs what a user runs. `python -m tests.lint` checks its syntax, its shell and its permissions."""

import re
from typing import Any

import yaml

from tests.deploy.tools import ROOT

TEXT = (ROOT / ".github" / "workflows" / "minikube.yml").read_text()
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
JOURNEY = (
    "minikube start",
    "deploy/deploy.sh split",
    "/events",
    "tests.deploy.cluster minikube",
    "deploy/deploy.sh combined",
    "deploy/undeploy.sh",
)


def commands(job: str) -> str:
    return "\n".join(step.get("run", "") for step in WORKFLOW["jobs"][job]["steps"])


def test_paths_exist() -> None:
    """Each file and each module that a step names exists."""
    for job in WORKFLOW["jobs"]:
        named = re.findall(r"(?:^|[ \n])((?:deploy|\.ci|tests|kustomize)/[\w./-]+)", commands(job))
        named += [f"{module.replace('.', '/')}.py" for module in re.findall(r" -m (tests\.[\w.]+)", commands(job))]
        assert named
        assert [name for name in named if not (ROOT / name).exists()] == []


def test_journey() -> None:
    """The job `minikube` deploys, sees a message, tries everything with clients connected, switches and removes."""
    places = [commands("minikube").find(each) for each in JOURNEY]
    assert -1 not in places
    assert places == sorted(places)


def test_jobs() -> None:
    """Each job has a time limit and a fixed machine, runs for every push and pull request, and uses no secrets."""
    assert set(WORKFLOW[True]) == {"push", "pull_request", "workflow_dispatch"}  # YAML 1.1 reads `on` as True
    assert "secrets." not in TEXT
    for job in WORKFLOW["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert re.fullmatch(r"(ubuntu|macos)-\d+(\.\d+)?(-arm)?", job["runs-on"])
