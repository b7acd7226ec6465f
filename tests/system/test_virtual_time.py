"""What takes minutes or hours, in virtual time: intervals, beats, slow clients, a long outage, the drain."""

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import yaml

from hello.channel.memory import MemoryChannel
from hello.client import backoff_delay
from hello.message import Message, Position
from hello.testing import SHAPES, Client, CuttableChannel, Process, System, running
from hello.testing.conformance import make_message
from tests.deploy.cluster import SPREAD_SECONDS
from tests.faults.rollout import roll_out
from tests.readmes import ROOT

HOUR = 3600.0
ROUTES_SECONDS = 2.0  # at most, until no node routes to a relay that terminates

pytestmark = pytest.mark.parametrize("anyio_backend", ["virtual time"], indirect=True)


class RecordingChannel(CuttableChannel):
    """Records when each message was accepted for the first time, and every attempt to publish one."""

    def __init__(self, history: int = 10_000) -> None:
        super().__init__(MemoryChannel(history))
        self.accepted: dict[str, float] = {}  # time by message id
        self.attempts: list[str] = []  # message ids

    async def publish(self, message: Message, holder: str | None = None) -> Position:
        self.attempts.append(message.id)
        position = await super().publish(message, holder)
        self.accepted.setdefault(message.id, anyio.current_time())
        return position


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
async def test_intervals(shape: str) -> None:
    """Over an hour each message is shown once and in order, and the intervals are uniform between 1 and 10 seconds."""
    random.seed(shape)
    channel, client = RecordingChannel(), Client()
    async with running(shape, channel) as system, client.open(system.relays[0]):
        with anyio.move_on_after(HOUR):
            while True:
                await client.receive()
        await client.until_shown(len(channel.accepted))
    assert [message["id"] for message in client.shown] == list(channel.accepted)
    assert not client.gaps

    times = sorted(channel.accepted.values())
    intervals = sorted(after - before for before, after in itertools.pairwise(times))
    assert 1 <= intervals[0] < 1.2
    assert 9.8 < intervals[-1] <= 10.001
    # Kolmogorov and Smirnov's test: the largest distance from the uniform distribution, at a level of one in a million.
    distance = max(abs((n + 0.5) / len(intervals) - (interval - 1) / 9) for n, interval in enumerate(intervals))
    assert distance < math.sqrt(math.log(2e6) / 2 / len(intervals))


@pytest.mark.parametrize("unreachable", [True, False])
async def test_ready_without_channel(unreachable: bool) -> None:
    """Where nothing has replied for ten seconds a new process is ready; where the channel refuses, it is not."""
    channel = CuttableChannel(MemoryChannel(history=10))
    channel.cut(unreachable=unreachable)
    async with anyio.create_task_group() as group:
        process = System(channel, {}, group).launch("broadcaster,relay")
        with anyio.move_on_after(9.9 if unreachable else HOUR):
            await process.ready.wait()
        assert (await process.get("/readyz")).body == "starting, relay: cut off, broadcaster: cut off\n"
        if not unreachable:
            channel.heal()
        with anyio.fail_after(3):
            await process.ready.wait()
        assert (await process.get("/readyz")).status == 200
        group.cancel_scope.cancel()


@pytest.mark.parametrize("end", [Process.terminate, Process.kill], ids=["terminate", "kill"])
@pytest.mark.parametrize("replacement", ["before", "after"])
async def test_shortest_interval_holds_for_new_leaders(end: Callable[[Process], None], replacement: str) -> None:
    """Messages of successive leaders are as far apart as those of one, in whatever order processes start and end."""
    channel, client = RecordingChannel(), Client()
    async with running("split", channel, interval_min=5, interval_max=10) as system, client.open(system.relays[0]):
        for count in range(1, 6):
            await client.until_shown(count)
            leader = system.processes[-1]
            if replacement == "before":
                await system.start("broadcaster")
            end(leader)
            if replacement == "after":
                await system.start("broadcaster")
        await client.until_shown(6)
    times = list(channel.accepted.values())
    assert min(after - before for before, after in itertools.pairwise(times)) >= 5
    assert len({message["broadcaster"] for message in client.shown}) >= 5


async def test_hour_of_outage() -> None:
    """Through an hour without a channel the broadcaster retries one message, at least every 2 seconds.

    Meanwhile a client receives a beat every 10 seconds.
    """
    channel, client, beats = RecordingChannel(), Client(), []
    async with running("combined", channel) as system, client.open(system.relays[0]):
        await client.until_shown(3)
        channel.cut()
        channel.attempts.clear()
        await client.until_channel("down")
        with anyio.move_on_after(HOUR):
            while True:
                assert (await client.receive()) == {"type": "beat"}
                beats.append(anyio.current_time())
        assert len(beats) == HOUR / 10
        assert beats[-1] - beats[0] == pytest.approx(HOUR - 10, abs=0.1)
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


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_empty_start(path: str) -> None:
    """A client that has received nothing of a wiped channel gets at the next relay all that came, and no false gap."""
    channel, client = CuttableChannel(MemoryChannel(history=10, high_watermark=Position(5, 0))), Client()
    async with anyio.create_task_group() as group:
        system = System(channel, {}, group)
        async with client.open(await system.start("relay"), path):
            welcome = await client.receive()
        assert (welcome["start"], welcome["head"]) == ("5-0", None)
        for number in range(2):
            await channel.publish(make_message(number))
        async with client.open(await system.start("relay"), path):
            await client.until_shown(2)
        group.cancel_scope.cancel()
    assert (len(client.shown), client.gaps) == (2, [])


@pytest.mark.parametrize(("clients", "seconds"), [(3, 0.2), (200, 10.0)])
async def test_drain_in_groups(clients: int, seconds: float) -> None:
    """A drain closes few clients quickly, and spreads many over HELLO_DRAIN_SECONDS."""
    closed_at: list[float] = []
    async with running("combined", RecordingChannel(), drain_seconds=10) as system:
        relay = system.relays[0]
        joined = anyio.Semaphore(0)

        async def follow() -> None:
            async with relay.open("/ws") as stream:
                await stream.receive()
                joined.release()
                assert await stream.until_closed() == 1012
                closed_at.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(clients):
                group.start_soon(follow)
            for _ in range(clients):
                await joined.acquire()
            relay.terminate()
        assert len(closed_at) == clients
        assert closed_at[-1] - closed_at[0] == pytest.approx(seconds, rel=0.05)
        await relay.ended.wait()


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_drain_delay(path: str) -> None:
    """For HELLO_DRAIN_DELAY after SIGTERM a process is not ready, and serves old and new clients; then it drains."""
    old, new = Client(), Client()
    flags = {"interval_max": 2, "drain_delay": 30, "drain_seconds": 0}
    async with running("combined", RecordingChannel(), **flags) as system, old.open(system.relays[0], path):
        (process,) = system.processes
        await old.until_shown(1)
        process.terminate()
        terminated_at = anyio.current_time()
        await anyio.wait_all_tasks_blocked()
        async with new.open(process, path):
            await new.until_shown(10)
            assert anyio.current_time() - terminated_at < 30
            assert [(await process.get(each)).status for each in ("/readyz", "/livez")] == [503, 200]
            for client in (old, new):
                assert await client.until_closed() == (1012 if path == "/ws" else None)
                assert anyio.current_time() - terminated_at == pytest.approx(30, abs=0.2)
        assert old.shown == new.shown
        await process.ended.wait()


def deployment(file: str) -> dict[str, Any]:
    """Return the spec of the Deployment in a file of kustomize/base."""
    documents = yaml.safe_load_all((ROOT / "kustomize" / "base" / file).read_text())
    return next(each["spec"] for each in documents if each["kind"] == "Deployment")


@pytest.mark.parametrize("relays", [2, 4])
async def test_one_move_per_rollout(relays: int) -> None:
    """Each client is moved once, where all new relays become available within SPREAD_SECONDS of each other.

    A new connection goes to any ready relay, except for one that has been terminating for ROUTES_SECONDS.
    """
    random.seed(relays)
    surge = deployment("pod.yaml")["strategy"]["rollingUpdate"]["maxSurge"]
    (container,) = deployment("relay.yaml")["template"]["spec"]["containers"]
    delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    start_seconds = iter([5 + n * (SPREAD_SECONDS - 0.1) / (relays - 1) for n in range(relays)])
    channel, clients = RecordingChannel(), [Client() for _ in range(20)]

    async with running("split", channel, interval_max=2) as system, anyio.create_task_group() as group:
        while len(system.relays) < relays:
            await system.start("relay")
        routed = system.relays

        async def follow(client: Client) -> None:
            while True:
                async with client.open(random.choice(routed)):
                    await client.until_closed()
                await anyio.sleep(backoff_delay("moved", 1, random.random()))

        async def start(actors: str) -> Process:
            await anyio.sleep(next(start_seconds))
            routed.append(await system.start(actors))
            return routed[-1]

        async def end(relay: Process) -> None:
            await anyio.sleep(ROUTES_SECONDS)
            routed.remove(relay)
            await anyio.sleep(delay - ROUTES_SECONDS)
            relay.terminate()
            await relay.ended.wait()

        for client in clients:
            group.start_soon(follow, client)
        await anyio.sleep(10)
        old = dict.fromkeys(routed, "relay")
        await roll_out(old, [*old.values()], start=start, end=end, surge=relays if surge == "100%" else surge)
        await anyio.sleep(10)
        group.cancel_scope.cancel()
    assert {client.moves for client in clients} == {1}
    for client in clients:
        assert [message["id"] for message in client.shown] == list(channel.accepted)[: len(client.shown)]
        assert len(channel.accepted) - len(client.shown) <= 1
