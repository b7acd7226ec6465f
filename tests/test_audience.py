"""The audience of a relay: what it drops, and what a browser is owed."""

import json
from typing import Any

import pytest

from hello.audience import Audience, Browser
from hello.feed import BLOCK
from hello.message import ORIGIN, Entry, Message, Position
from hello.metrics import Metrics


@pytest.fixture
def audience() -> Audience:
    return Audience(history=1000, instance="relay-1", max_clients=10, metrics=Metrics())


def entry(number: int, prev: int, message_id: str | None = None, text: str = "Hello") -> Entry:
    message = Message(message_id or str(number), text, "b", 0)
    return Entry(Position(number, 0), Position(prev, 0) if prev else ORIGIN, message)


class Onlooker(Browser):
    """A browser that is looked after by its test."""

    def ring(self) -> None:
        pass


def joined(audience: Audience, start: Position | int) -> Browser:
    browser = Onlooker(audience)
    audience.join(browser, start)
    return browser


def taken(browser: Browser) -> list[dict[str, Any]]:
    """All frames that it is owed."""
    frames = []
    while (owed := browser.take()) is not None:
        frames += [json.loads(frame.json) for frame in owed.frames]
    return frames


def owed(browser: Browser) -> list[str]:
    """The types of all frames that it is owed, or the message ids."""
    return [frame.get("id", frame["type"]) for frame in taken(browser)]


async def test_a_message_that_was_accepted_twice_is_shown_once(audience: Audience) -> None:
    """A channel that lost its data takes a retry for new. It is dropped, and no false gap is told behind it."""
    browser = joined(audience, 0)
    assert owed(browser) == ["welcome"]
    for item in (entry(1, 0), entry(2, 1, "1"), entry(3, 2, "1"), entry(4, 3)):
        audience.append(item)
    assert owed(browser) == ["1", "4"]


async def test_a_loss_beside_a_dropped_message_is_told(audience: Audience) -> None:
    """Before it or behind it: dropping a message hides no gap."""
    for prev_of_copy, prev_of_next in ((5, 6), (1, 8)):
        fresh = Audience(history=1000, instance="relay-1", max_clients=10, metrics=Metrics())
        browser = joined(fresh, 0)
        for item in (entry(1, 0), entry(6, prev_of_copy, "1"), entry(9, prev_of_next)):
            fresh.append(item)
        assert owed(browser) == ["welcome", "1", "gap", "9"]


@pytest.mark.parametrize("size", [1, 4096])
async def test_a_browser_takes_no_more_than_its_share_at_once(audience: Audience, size: int) -> None:
    """One that comes back from far away gets all, but in turns, however long the messages are."""
    for number in range(1, 501):
        audience.append(entry(number, number - 1, text="x" * size))
    browser = joined(audience, 500)
    seen = []
    while (next_ones := browser.take()) is not None:
        assert sum(len(frame.json) for frame in next_ones.frames[:-1]) < BLOCK
        seen += [frame.position.milliseconds for frame in next_ones.frames if frame.position]
    assert seen == list(range(1, 501))


async def test_what_comes_next_is_put_together_once_for_all_who_have_been_given_the_same(audience: Audience) -> None:
    """Whether they are many, came at different times, or lag together."""
    browsers = [joined(audience, 0) for _ in range(3)]
    for browser in browsers:
        browser.take()
    for number in range(1, 4):
        audience.append(entry(number, number - 1))
        first, second, _ = browsers  # the third one lags
        assert first.take() is second.take() is not None
        assert first.cursor is second.cursor
        browsers.append(joined(audience, 0))
        assert browsers.pop().take() is not None
    browsers[2].take()
    assert browsers[2].cursor is browsers[0].cursor
    assert [owed(browser) for browser in browsers] == [[], [], []]


async def test_a_browser_ahead_of_its_relay_waits_for_what_it_has_not_seen(audience: Audience) -> None:
    """It may come from a relay that is a moment ahead."""
    audience.append(entry(1, 0))
    browser = joined(audience, Position(3, 0))
    assert owed(browser) == ["welcome"]
    for number in (2, 3):
        audience.append(entry(number, number - 1))
        assert owed(browser) == []
    audience.append(entry(4, 3))
    assert owed(browser) == ["4"]


async def test_only_the_last_news_of_the_channel_counts(audience: Audience) -> None:
    """A browser that did not read meanwhile is told how it is, not how it was."""
    browser = joined(audience, 0)
    audience.channel_turned(True)
    assert taken(browser)[0]["channel"] == "up"
    for up in (False, True, False):
        audience.channel_turned(up)
    assert [(frame["type"], frame["channel"]) for frame in taken(browser)] == [("status", "down")]
