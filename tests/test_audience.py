"""The audience of a relay: what it drops, and what a browser is owed."""

import json

import pytest

from hello.audience import TAKE, Audience, Browser
from hello.message import ORIGIN, Entry, Message, Position
from hello.metrics import Metrics


@pytest.fixture
def audience() -> Audience:
    return Audience(history=1000, instance="relay-1", max_clients=10, metrics=Metrics())


def entry(number: int, prev: int, message_id: str | None = None) -> Entry:
    message = Message(message_id or str(number), "Hello", "b", 0)
    return Entry(Position(number, 0), Position(prev, 0) if prev else ORIGIN, message)


def owed(browser: Browser) -> list[str]:
    """The types of the frames that it takes, or the message id."""
    frames = [json.loads(frame.json) for frame in browser.take()]
    return [frame.get("id", frame["type"]) for frame in frames]


async def test_a_message_that_was_accepted_twice_is_shown_once(audience: Audience) -> None:
    """A channel that lost its data takes a retry for new. It is dropped, and no false gap is told behind it."""
    browser = audience.join(0)
    assert owed(browser) == ["welcome"]
    for item in (entry(1, 0), entry(2, 1, "1"), entry(3, 2, "1"), entry(4, 3)):
        audience.append(item)
    assert owed(browser) == ["1", "4"]


async def test_a_loss_beside_a_dropped_message_is_told(audience: Audience) -> None:
    """Before it or behind it: dropping a message hides no gap."""
    for prev_of_copy, prev_of_next in ((5, 6), (1, 8)):
        fresh = Audience(history=1000, instance="relay-1", max_clients=10, metrics=Metrics())
        browser = fresh.join(0)
        for item in (entry(1, 0), entry(6, prev_of_copy, "1"), entry(9, prev_of_next)):
            fresh.append(item)
        assert owed(browser) == ["welcome", "1", "gap", "9"]


async def test_a_browser_takes_no_more_than_its_share_at_once(audience: Audience) -> None:
    """One that comes back from far away gets all, but in turns."""
    for number in range(1, 501):
        audience.append(entry(number, number - 1))
    browser = audience.join(500)
    taken = [owed(browser) for _ in range(4)]
    assert [len(frames) for frames in taken] == [TAKE + 1, TAKE, 500 - 2 * TAKE, 0]


async def test_a_browser_ahead_of_its_relay_waits_for_what_it_has_not_seen(audience: Audience) -> None:
    """It may come from a relay that is a moment ahead."""
    audience.append(entry(1, 0))
    browser = audience.join(Position(3, 0))
    assert owed(browser) == ["welcome"]
    for number in (2, 3):
        audience.append(entry(number, number - 1))
        assert owed(browser) == []
    audience.append(entry(4, 3))
    assert owed(browser) == ["4"]


async def test_only_the_last_news_of_the_channel_counts(audience: Audience) -> None:
    """A browser that did not read meanwhile is told how it is, not how it was."""
    browser = audience.join(0)
    audience.channel_turned(True)
    assert json.loads(browser.take()[0].json)["channel"] == "up"
    for up in (False, True, False):
        audience.channel_turned(up)
    frames = [json.loads(frame.json) for frame in browser.take()]
    assert [(frame["type"], frame["channel"]) for frame in frames] == [("status", "down")]
