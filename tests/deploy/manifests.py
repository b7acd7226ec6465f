"""The manifests as kustomize renders them. It does not know what they should contain."""

import functools
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import ROOT, tool
from tests.readmes import example

Object = dict[str, Any]

SHAPES = ("split", "combined")


def build(folder: Path) -> dict[str, Object]:
    """What kustomize renders there, in its order, by KIND/NAME."""
    rendered = subprocess.run([tool("kubectl"), "kustomize", folder], check=True, capture_output=True)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in yaml.safe_load_all(rendered.stdout)}


@functools.cache
def render(shape: str = "split") -> dict[str, Object]:
    return build(ROOT / "kustomize" / "overlays" / shape)


def overlay(directory: Path, shape: str, *examples: str) -> Path:
    """Write the READMEs' examples as one kustomization over this shape, beside a copy of `kustomize`; its folder."""
    kustomize = directory / "kustomize"
    if not kustomize.exists():
        shutil.copytree(ROOT / "kustomize", kustomize)
    folder = kustomize / "overlays" / f"{examples[0]}-{shape}".replace(" ", "-")
    folder.mkdir()
    text = "\n".join(map(example, examples))
    (folder / "kustomization.yaml").write_text(text.replace("../split", f"../{shape}"))
    return folder


def leaves(value: object, path: str = "") -> dict[str, object]:
    """Each value in a nested object, empty ones too, by its path, in which a list's entries have their names."""
    if not value or not isinstance(value, dict | list):
        return {path: value}
    if isinstance(value, list):
        value = {each.get("name", n) if isinstance(each, dict) else n: each for n, each in enumerate(value)}
    return {key: leaf for name, inner in value.items() for key, leaf in leaves(inner, f"{path}/{name}").items()}


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity such as 25m or 64Mi, as a number of cores or bytes."""
    for suffix, factor in (("Mi", 2**20), ("Gi", 2**30), ("m", Decimal("0.001"))):
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)
