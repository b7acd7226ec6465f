"""What takes minutes and hours, in virtual time: the broadcaster's pauses, beats, slow readers, and a long outage."""

import itertools
import json
import math
import random
from typing import Any

import anyio
import pytest
import trio.testing

from hello.channel.memory import MemoryChannel
from hello.feed import BLOCK_BYTES
from hello.message import Message, Position
from hello.testing import Client, CuttableChannel, Refused, running

HOUR = 3600.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class RecordingChannel(CuttableChannel):
    """Notes when each message was published for the first time, and every attempt to publish it."""

    def __init__(self, history: int = 10_000) -> None:
        super().__init__(MemoryChannel(history))
        self.accepted: dict[str, float] = {}
        self.attempts: list[str] = []

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        self.attempts.append(message.id)
        position = await super().publish(message, holder)
        self.accepted.setdefault(message.id, anyio.current_time())
        return position


@pytest.mark.parametrize("shape", ["combined", "split"])
@pytest.mark.slow
async def test_an_hour_of_broadcasts(shape: str) -> None:
    """Every message of an hour is shown once and in order, and the pauses are uniform between 1 and 10 seconds."""
    random.seed(shape)
    channel, client = RecordingChannel(), Client()
    async with running(shape, channel) as system, client.open(system.relays[0]):
        with anyio.move_on_after(HOUR):
            while True:
                await client.receive()
        await client.until_shown(len(channel.accepted))
    assert [message["id"] for message in client.shown] == list(channel.accepted)
    assert not client.gaps

    moments = sorted(channel.accepted.values())
    pauses = sorted(after - before for before, after in itertools.pairwise(moments))
    assert 1 <= pauses[0] < 1.2
    assert 9.8 < pauses[-1] <= 10.001
    # Kolmogorov and Smirnov's test: the largest distance from the uniform distribution, at a level of one in a million.
    distance = max(abs((n + 0.5) / len(pauses) - (pause - 1) / 9) for n, pause in enumerate(pauses))
    assert distance < math.sqrt(math.log(2e6) / 2 / len(pauses))


async def test_a_beat_every_ten_seconds() -> None:
    """A page can tell a dead line, and a beat is no message."""
    client = Client()
    async with (
        running("combined", RecordingChannel(), interval_min=1000, interval_max=1000) as system,
        client.open(system.relays[0]),
    ):
        await client.until_shown(1)
        began = anyio.current_time()
        for beat in range(1, 6):
            assert (await client.receive()) == {"type": "beat"}
            assert anyio.current_time() - began == pytest.approx(10 * beat, abs=0.1)


async def test_the_broadcaster_goes_on_with_the_very_message_that_it_could_not_publish() -> None:
    """Through an hour without a channel: one message, the same id, again and again in pauses of up to two seconds."""
    channel, client = RecordingChannel(), Client()
    async with running("combined", channel) as system, client.open(system.relays[0]):
        await client.until_shown(3)
        channel.cut()
        channel.attempts.clear()
        await client.until_channel("down")
        with anyio.move_on_after(HOUR):
            while True:
                assert (await client.receive())["type"] == "beat"
        assert len(set(channel.attempts)) == 1
        assert HOUR / 2 <= len(channel.attempts) <= HOUR
        channel.heal()
        healed = anyio.current_time()
        await client.until_shown(4)
        assert client.shown[3]["id"] == channel.attempts[0]
        assert anyio.current_time() - healed <= 4
        await client.until_shown(10)
    assert [message["id"] for message in client.shown] == list(channel.accepted)[:10]
    assert not client.gaps


async def test_a_slow_browser_is_told_what_it_missed_and_delays_nobody() -> None:
    """One that reads nothing while the log moves on gets a gap and then the rest; the others notice nothing."""
    channel, quick, slow = RecordingChannel(history=5), Client(), Client()
    async with running("combined", channel, history=5) as system:
        async with slow.open(system.relays[0]), quick.open(system.relays[0]):
            await slow.until_shown(1)
            await quick.until_shown(8)
            assert quick.shown[-1]["relayed_at"] - quick.shown[-1]["sent_at"] < 1000
        async with slow.open(system.relays[0]):
            await slow.until_shown(5)
        assert len(slow.gaps) == 1
        assert not quick.gaps
        assert slow.gaps[0]["after"] == slow.shown[0]["position"]
        assert slow.gaps[0]["before"] == slow.shown[1]["position"]
        assert 'hello_gaps_total{reader="client"} 1.0' in (await system.relays[0].get("/metrics")).body


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_a_browser_that_stops_reading_is_given_up(path: str) -> None:
    """It counts as slow after a second, with what it lags, and is closed with 1013 after half a minute."""
    async with (
        running("combined", RecordingChannel(), interval_min=2, interval_max=2) as system,
        system.relays[0].open(path) as stream,
    ):
        await stream.receive()
        await anyio.sleep(25)
        metrics = (await system.relays[0].get("/metrics")).body
        assert "hello_slow_clients 1.0" in metrics
        lag = float(metrics.split("\nhello_client_lag_messages ")[1].split("\n")[0])
        assert 10 <= lag <= 13, "it has taken one or two frames, and a message came every two seconds"
        await anyio.sleep(9)
        assert await stream.until_closed() == (1013 if path == "/ws" else None)
        await anyio.wait_all_tasks_blocked()
        assert "hello_clients 0.0" in (await system.relays[0].get("/metrics")).body


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_a_drain_flushes_what_a_browser_is_still_owed(path: str) -> None:
    """One that lags by far more than it takes in one turn gets all of it before it is moved."""
    channel, client = RecordingChannel(), Client()
    for number in range(1000):
        await channel.publish(Message(str(number), "Hello", "test", 0))
    async with (
        running("combined", channel, interval_min=1000, interval_max=1000) as system,
        client.open(system.relays[0], path),
    ):
        await client.until_shown(1)
        system.relays[0].terminate()
        assert await client.until_closed() == (1012 if path == "/ws" else None)
    assert [message["id"] for message in client.shown] == list(channel.accepted)
    assert sum(len(json.dumps(message)) for message in client.shown) > 10 * BLOCK_BYTES


@pytest.mark.parametrize(("clients", "seconds"), [(3, 0.2), (200, 10.0)])
async def test_a_drain_moves_browsers_in_batches(clients: int, seconds: float) -> None:
    """A few go quickly; many are spread over the time that was set, and never longer."""
    moved: list[float] = []
    async with running("combined", RecordingChannel(), drain_seconds=10) as system:
        relay = system.relays[0]
        joined = anyio.Semaphore(0)

        async def look() -> None:
            async with relay.open("/ws") as stream:
                await stream.receive()
                joined.release()
                assert await stream.until_closed() == 1012
                moved.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(clients):
                group.start_soon(look)
            for _ in range(clients):
                await joined.acquire()
            relay.terminate()
        assert len(moved) == clients
        assert moved[-1] - moved[0] == pytest.approx(seconds, rel=0.05)
        await relay.ended.wait()


async def test_a_relay_that_is_full_refuses_one_more() -> None:
    """503 with Retry-After, and room again once one has left."""
    async with running("combined", RecordingChannel(), max_clients=1) as system:
        relay = system.relays[0]
        async with relay.open("/ws") as stream:
            await stream.receive()
            with pytest.raises(Refused, match="full") as refused:
                async with relay.open("/ws"):
                    pass
            assert refused.value.answer.status == 503
            assert "retry-after" in refused.value.answer.headers
        async with relay.open("/ws") as stream:
            assert (await stream.receive())["type"] == "welcome"


async def test_an_error_that_is_no_lost_channel_ends_the_process() -> None:
    """Nothing goes on half dead: the error reaches whoever runs the process."""

    class BrokenChannel(MemoryChannel):
        async def publish(self, message: Message, holder: str | None = None) -> Position:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with running("combined", BrokenChannel(10)):
            await anyio.sleep_forever()
