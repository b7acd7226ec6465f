"""Documents, lock and scripts agree with the program; tests/lint.py runs the linters."""

import re
import tomllib

import pytest

from hello.metrics import Metrics
from hello.settings import Settings
from tests.readmes import ALL, READMES, ROOT, example


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """CI proves what a person would run."""
    assert f'"{example("test")}"' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("lock", ["requirements.lock", "build.lock"])
def test_the_lock_has_every_dependency(lock: str) -> None:
    """Each lock has a hash for each dependency, the command that makes it, and no address of a registry."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = {*settings["dependency-groups"]["build"], *settings["build-system"]["requires"]}
    wanted = settings["project"]["dependencies"] if lock == "requirements.lock" else build
    text = (ROOT / lock).read_text()
    locked = re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==.+ \\\n    --hash=sha256:", text, re.MULTILINE)
    assert {re.split(r"[^a-z0-9-]", line)[0] for line in wanted} <= set(locked)
    assert f"-o {lock}\n" in text
    assert "://" not in text


def test_every_setting_is_documented() -> None:
    """A README has a row with each variable and its default."""
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `HELLO_{name.upper()}` \| (.+?) \|", ALL, re.MULTILINE)
        assert row is not None, name
        if isinstance(field.default, int | float | str):
            assert row[1].strip("`") == (f"{field.default}".removesuffix(".0") or "empty"), name


def test_every_metric_is_documented() -> None:
    """The READMEs name each metric, and no metric that does not exist."""
    named = {name.removesuffix("_total") for name in re.findall(r"`(hello_\w+)[`{]", ALL)}
    ours = {family.name for family in Metrics().registry.collect() if family.name.startswith("hello_")}
    assert named == ours


def test_a_link_has_its_target() -> None:
    """The file exists beside the README, and the heading exists in the file."""
    for readme, text in READMES.items():
        # A link's text may hold brackets of its own (a badge), so that its end alone is looked for.
        for target in set(re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)):
            name, _, heading = target.partition("#")
            file = readme.parent / name if name else readme
            assert file.exists(), (readme, target)
            if heading:
                titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert heading in anchors, (readme, target)


def test_a_test_that_is_named_exists() -> None:
    """The file that a README gives for a test defines that test."""
    for path, text in READMES.items():
        for test, target in re.findall(r"\[`(test_\w+)`\]\((\S+?\.py)\)", text):
            assert re.search(rf"^(async )?def {test}\(", (path.parent / target).read_text(), re.MULTILINE), test
