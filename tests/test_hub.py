"""The hub of a relay: what its clients get, and what it drops."""

import json
from typing import Any

import pytest

from hello.feed import BLOCK_BYTES
from hello.hub import Client, Hub
from hello.message import ORIGIN, Entry, Message, Position
from hello.metrics import Metrics


@pytest.fixture
def hub() -> Hub:
    hub = Hub(history=1000, instance="relay-1", max_clients=10, metrics=Metrics())
    hub.set_loaded()
    return hub


def entry(number: int, prev: int, message_id: str | None = None, text: str = "Hello") -> Entry:
    message = Message(message_id or str(number), text, "b", 0)
    return Entry(Position(number, 0), Position(prev, 0) if prev else ORIGIN, message)


class ManualClient(Client):
    """A client that its test polls."""

    def notify(self) -> None:
        pass


def joined(hub: Hub, start: Position | int) -> Client:
    client = ManualClient(hub)
    hub.join(client, start)
    return client


def polled(client: Client) -> list[dict[str, Any]]:
    """Return all frames that are pending for the client."""
    frames = []
    while (pending := client.poll()) is not None:
        frames += [json.loads(frame.json) for frame in pending.frames]
    return frames


def kinds(client: Client) -> list[str]:
    """Return the types of all pending frames, or the ids of messages."""
    return [frame.get("id", frame["type"]) for frame in polled(client)]


async def test_second_copy_is_dropped(hub: Hub) -> None:
    """A message that a wiped channel accepted again is sent once, and without a false gap after it."""
    client = joined(hub, 0)
    assert kinds(client) == ["welcome"]
    for item in (entry(1, 0), entry(2, 1, "1"), entry(3, 2, "1"), entry(4, 3)):
        hub.append(item)
    assert kinds(client) == ["1", "4"]


@pytest.mark.parametrize(("prev_of_copy", "prev_of_next"), [(5, 6), (1, 8)])
async def test_gap_beside_a_dropped_copy(hub: Hub, prev_of_copy: int, prev_of_next: int) -> None:
    """A dropped copy hides no gap before or after it."""
    client = joined(hub, 0)
    assert kinds(client) == ["welcome"]
    for item in (entry(1, 0), entry(6, prev_of_copy, "1"), entry(9, prev_of_next)):
        hub.append(item)
    assert kinds(client) == ["1", "gap", "9"]


@pytest.mark.parametrize("size", [1, 4096])
async def test_poll_is_bounded(hub: Hub, size: int) -> None:
    """A client that is far behind gets everything, at most about a block at a time."""
    for number in range(1, 501):
        hub.append(entry(number, number - 1, text="x" * size))
    client = joined(hub, 500)
    received = []
    while (pending := client.poll()) is not None:
        assert sum(len(frame.json) for frame in pending.frames[:-1]) < BLOCK_BYTES
        received += [frame.resume.milliseconds for frame in pending.frames if frame.resume]
    assert received == list(range(501))


async def test_frames_are_made_once(hub: Hub) -> None:
    """Clients with equal cursors get the very same frames, whenever they joined."""
    clients = [joined(hub, 0) for _ in range(3)]
    for client in clients:
        client.poll()
    for number in range(1, 4):
        hub.append(entry(number, number - 1))
        first, second, _ = clients  # the third one lags
        assert first.poll() is second.poll() is not None
        assert first.cursor == second.cursor
        assert joined(hub, 0).poll() is not None
    clients[2].poll()
    assert clients[2].cursor == clients[0].cursor
    assert [kinds(client) for client in clients] == [[], [], []]


async def test_client_ahead_of_its_relay(hub: Hub) -> None:
    """A client that comes from a relay that is ahead gets only messages that it has not seen."""
    hub.append(entry(1, 0))
    client = joined(hub, Position(3, 0))
    assert kinds(client) == ["welcome"]
    for number in (2, 3):
        hub.append(entry(number, number - 1))
        assert kinds(client) == []
    hub.append(entry(4, 3))
    assert kinds(client) == ["4"]


async def test_last_status_only(hub: Hub) -> None:
    """A client that did not read meanwhile gets the last status only."""
    client = joined(hub, 0)
    assert polled(client)[0]["channel"] == "up"
    for up in (False, True, False):
        hub.set_channel_up(up)
    assert [(frame["type"], frame["channel"]) for frame in polled(client)] == [("status", "down")]
