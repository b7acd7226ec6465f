"""`python -m tests.lint`: exit codes and missing programs."""

import pytest

from tests.lint import Linter, run_all

OK = Linter("ok", ["true"])
FAILING = Linter("failing", ["sh", "-c", "echo a finding; exit 3"])
MISSING = Linter("missing", ["no-such-linter"], install="install it so")
INCOMPLETE = Linter("incomplete", ["true"], needs=("no-such-program",))


@pytest.mark.parametrize("ci", ["", "true"])
def test_exit_code(ci: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding fails, and so does a missing program in CI."""
    monkeypatch.setenv("CI", ci)
    assert run_all([OK]) == 0
    assert run_all([FAILING, OK]) == 1
    assert "a finding\n" in capsys.readouterr().out
    for linter in (MISSING, INCOMPLETE):
        assert run_all([OK, linter]) == (1 if ci else 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("no no-such-linter: install it so")
