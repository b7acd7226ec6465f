"""Runs all linters of the repository: `python -m tests.lint`.

Each linter prints one line with its time, and its findings if it has any; then the exit code is 1. A linter that is not
installed is skipped, with a line on how to install it; in CI it is a failure. No linter uses the network.

To add a linter, add a line to `linters`.
"""

# ruff: noqa: T201 # a command prints

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.deploy.manifests import SHAPES, overlay
from tests.deploy.tools import INSTALL, KUBERNETES_VERSIONS, ROOT, find

CHECKOV_KINDS = ("--framework", "kubernetes", "dockerfile")
EXAMPLES = ("sentinel", "external redis")  # kustomizations in deploy/README.md
# What bash 3.2, the bash of macOS, does not support: shellcheck does not check for it.
NEWER_BASH = "|".join(
    (
        r"\b(mapfile|readarray)\b",
        r"\b(declare|local|typeset) -[a-zA-Z]*[An]",  # associative arrays and name references
        r"\$\{\w+(\[.\])?[,^]",  # changing case
        r"\$\{\w+@",
        r"\$\{\w+\[-",  # negative indices
        r"\bwait -n\b",
        r"\[\[ -v ",
        r"\|&|&>>",
        r"%\([^)]*\)T",
        r"\bEPOCH(REAL)?SECONDS\b",
        r"\$\{\w+\[[@*]\]\}",  # an empty array is an error under set -u
    )
)


@dataclass(frozen=True)
class Linter:
    name: str
    command: Sequence[str]  # exits 0 if it finds nothing
    install: str = INSTALL
    needs: tuple[str, ...] = ()  # other programs, without which the linter is skipped


def linters(folder: Path) -> list[Linter]:
    """All linters; `folder` holds what `prepare` wrote there."""
    scripts = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "deploy").glob("*.sh"))]
    scripts += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "kustomize").rglob("*.sh"))]
    steps = [str(path) for path in sorted(folder.glob("*.sh"))]
    rendered = [str(folder / f"{name}.yaml") for name in (*SHAPES, *EXAMPLES)]
    return [
        Linter("mypy", ["mypy"]),
        Linter(
            "checkov",
            ["checkov", "--quiet", "--compact", "--skip-download", *CHECKOV_KINDS, "--file", *rendered, "Dockerfile"],
            install="pipx install checkov",  # not beside our packages, since checkov pins many of its dependencies
            needs=("kubectl",),
        ),
        *(
            Linter(
                f"kubernetes-validate {version}",
                ["kubernetes-validate", "--strict", "--quiet", "--kubernetes-version", version, *rendered],
                needs=("kubectl",),
            )
            for version in KUBERNETES_VERSIONS
        ),
        Linter("lint-imports", ["lint-imports", "--no-cache"]),
        Linter(
            "page",  # TypeScript's compiler checks the types in the JSDoc comments, prettier the format
            ["npm", "--prefix", "tests/page", "run", "--silent", "check"],
            install="npm ci --prefix tests/page, with Debian's npm",
            needs=(str(ROOT / "tests" / "page" / "node_modules" / ".bin" / "tsc"),),
        ),
        Linter("ruff check", ["ruff", "check", "."]),
        Linter("ruff format", ["ruff", "format", "--check", "."]),
        Linter("shellcheck", ["shellcheck", "-x", ".ci/run", *scripts, *steps]),
        Linter("shfmt", ["shfmt", "-d", "-i", "2", "-ci", ".ci/run", *scripts]),
        # grep exits 1 if it finds nothing.
        Linter("bash 3.2", ["sh", "-c", 'grep -nE "$@"; [ $? -eq 1 ]', "sh", NEWER_BASH, *scripts]),
        Linter("hadolint", ["hadolint", "Dockerfile"]),
        Linter("yamllint", ["yamllint", "--strict", "kustomize", ".github"]),
        Linter("zizmor", ["zizmor", "--offline", "--no-progress", "--pedantic", ".github"]),
    ]


def prepare(folder: Path) -> None:
    """Write to `folder` what the overlays and the examples render, as NAME.yaml, and each step of the workflows."""
    if kubectl := find("kubectl"):
        overlays = {shape: ROOT / "kustomize" / "overlays" / shape for shape in SHAPES}
        overlays |= {name: overlay(folder, "split", name) for name in EXAMPLES}
        for name, source in overlays.items():
            subprocess.run([kubectl, "kustomize", source, "-o", str(folder / f"{name}.yaml")], check=True)
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job, spec in yaml.safe_load(workflow.read_text())["jobs"].items():
            for number, step in enumerate(spec["steps"], 1):
                if "run" in step:
                    script = folder / f"{workflow.stem}-{job}-step-{number}.sh"
                    script.write_text(f"#!/usr/bin/env bash\nset -eo pipefail\n{step['run']}")


def run(linter: Linter) -> tuple[bool, str]:
    """Run one linter; return True if it failed, and what to print."""
    program, *arguments = linter.command
    for name in (program, *linter.needs):
        if find(name) is None:
            failed = bool(os.environ.get("CI"))
            return failed, f"{'FAILED' if failed else 'skipped':8}{linter.name:26}no {name}: {linter.install}"
    # Every request to the network fails at once.
    environment = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    command, began = [find(program) or program, *arguments], time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    failed = done.returncode != 0
    line = f"{'FAILED' if failed else 'ok':8}{linter.name:26}{time.monotonic() - began:5.1f} s"
    return failed, f"{line}\n{done.stdout}" if failed else line


def run_all(chosen: Iterable[Linter]) -> int:
    """Run the linters on all cores and print their results in this order; the exit code."""
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for has_failed, text in pool.map(run, chosen):
            print(text, flush=True)
            failed |= has_failed
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lint", description=(__doc__ or "").partition("\n")[2])
    parser.add_argument("names", nargs="*", help="run only the linters whose names begin so (default: all)")
    names = tuple(parser.parse_args(arguments).names)
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory))
        known = linters(Path(directory))
        if not (chosen := [linter for linter in known if linter.name.startswith(names or "")]):
            parser.error(f"no linter is called so; there are: {', '.join(linter.name for linter in known)}")
        return run_all(chosen)


if __name__ == "__main__":
    sys.exit(main())
