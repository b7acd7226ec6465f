"""The README's "Make it your own" in the page: an actor of one's own instead of ours, in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import own_actor
from tests.page.conftest import StartHello
from tests.page.tab import START_MS, Tab

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("processes", [["broadcaster,relay"], ["relay", "broadcaster"]], ids=["combined", "split"])
def test_own_actor(
    tab: Tab, start_hello: StartHello, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[str]
) -> None:
    """The page shows the messages of the README's own actor, in both shapes."""
    (tmp_path / "clock").mkdir()
    own_actor.write(tmp_path / "clock")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "clock"))
    started = [start_hello(actors, broadcaster="clock:clock") for actors in processes]
    tab.open(started[0].url)
    expect(tab.page.locator("#messages > li [dir]").last).to_contain_text("It is ", timeout=START_MS)
