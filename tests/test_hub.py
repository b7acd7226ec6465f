"""What clients of one hub share; test_feed.py has what each client gets."""

import json

import pytest

from hello.hub import Client, Hub
from hello.message import Entry, Message, Position
from hello.metrics import Metrics


@pytest.fixture
def hub() -> Hub:
    hub = Hub(history=1000, instance="relay-1", max_clients=10, metrics=Metrics())
    hub.set_loaded()
    return hub


def entry(number: int, prev: int) -> Entry:
    return Entry(Position(number, 0), Position(prev, 0), Message(str(number), "Hello", "b", 0))


class ManualClient(Client):
    """A client that its test polls."""

    def notify(self) -> None:
        pass


def joined(hub: Hub, start: Position | int) -> Client:
    client = ManualClient(hub)
    hub.join(client, start)
    return client


def kinds(client: Client) -> list[str]:
    """Return the types of all pending frames, or the ids of messages."""
    found = []
    while (pending := client.poll()) is not None:
        frames = [json.loads(frame.json) for frame in pending.frames]
        found += [frame.get("id", frame["type"]) for frame in frames]
    return found


async def test_frames_are_made_once(hub: Hub) -> None:
    """Clients with equal cursors get the very same frames, whenever they joined."""
    clients = [joined(hub, 0) for _ in range(3)]
    for client in clients:
        client.poll()
    for number in range(1, 4):
        hub.feed.append(entry(number, number - 1))
        first, second, _ = clients  # the third one lags
        assert first.poll() is second.poll() is not None
        assert first.cursor == second.cursor
        assert joined(hub, 0).poll() is not None
    clients[2].poll()
    assert clients[2].cursor == clients[0].cursor
    assert [kinds(client) for client in clients] == [[], [], []]


@pytest.mark.parametrize("start", [0, 3, Position(1, 0)])
async def test_drain_before_the_channel_is_read(start: Position | int) -> None:
    """A client of a relay that has not read its channel yet is owed the welcome alone, and is drained after that."""
    hub = Hub(history=1000, instance="relay-1", max_clients=10, metrics=Metrics())
    client = joined(hub, start)
    hub.feed.append(entry(2, 1))
    await hub.drain(0)
    assert not client.drained
    assert kinds(client) == ["welcome"]
    assert client.drained
