"""The whole system in one event loop: each test runs in every shape and over every channel.

Over memory the time is virtual (trio's MockClock); over Redis server and time are real.
"""

import itertools
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
import trio.testing

from hello.channel.urls import open_channel
from hello.feed import BLOCK_BYTES
from hello.testing import SHAPES, Client, Closed, CuttableChannel, Process, Refused, System, running
from hello.testing.conformance import make_message
from tests.engines import on_each_engine
from tests.faults.rollout import roll_out
from tests.redis_server import RedisServer

HISTORY = 1000  # entries
PENDING = 400  # messages: several blocks of the feed, and few enough that none is trimmed meanwhile
LIMIT_SECONDS = 60.0  # nothing hangs
NOTIFIED_SECONDS = 6.0  # from the last reply of Redis to `status: down` in every client
QUICK = {"interval_min": "0.01", "interval_max": "0.05"}


@pytest.fixture(params=["combined-memory", "split-memory", *on_each_engine("combined-{}"), *on_each_engine("split-{}")])
def combination(request: pytest.FixtureRequest) -> tuple[str, str]:
    shape, channel = str(request.param).split("-")
    return shape, channel


@pytest.fixture
def anyio_backend(combination: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    if combination[1] == "memory":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def engine(combination: tuple[str, str]) -> str:
    return combination[1]


@pytest.fixture
def server(combination: tuple[str, str], request: pytest.FixtureRequest) -> RedisServer | None:
    found: RedisServer | None = None
    if combination[1] != "memory":
        found = request.getfixturevalue("redis_server")
    return found


@pytest.fixture
async def channel(server: RedisServer | None) -> AsyncIterator[CuttableChannel]:
    async with open_channel(server.url if server else "memory://", history=HISTORY) as opened:
        yield CuttableChannel(opened)


@pytest.fixture
async def system(combination: tuple[str, str], channel: CuttableChannel) -> AsyncIterator[System]:
    async with running(combination[0], channel, **QUICK) as running_system:
        with anyio.fail_after(LIMIT_SECONDS):
            yield running_system


def ids(client: Client) -> list[str]:
    return [message["id"] for message in client.shown]


def assert_perfect(*clients: Client) -> None:
    """All clients have shown the same messages in the same order, none twice, without a gap."""
    for client in clients:
        assert ids(client) == ids(clients[0])
        assert len(set(ids(client))) == len(client.shown)
        assert not client.gaps
        assert not client.repeated
        positions = [tuple(map(int, message["position"].split("-"))) for message in client.shown]
        assert positions == sorted(set(positions))


async def see_outage(system: System, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Let a client see an outage of the channel: it is notified within 6 s, and misses nothing."""
    client = Client()
    async with client.open(system.relays[0]):
        await client.until_shown(5)
        begin()
        with anyio.fail_after(NOTIFIED_SECONDS):
            await client.until_channel("down")
        for process in system.processes:
            assert (await process.get("/readyz")).status == 200
            assert (await process.get("/livez")).status == 200
        assert 'hello_channel_up{actor="relay"} 0.0' in (await system.relays[0].get("/metrics")).body
        end()
        await client.until_channel("up")
        await client.until_shown(len(client.shown) + 10)
    assert_perfect(client)


async def test_channel_outage(system: System, channel: CuttableChannel) -> None:
    """Clients are notified, processes stay ready, and no message is lost."""
    await see_outage(system, channel.cut, channel.heal)


@pytest.mark.parametrize("combination", on_each_engine("combined-{}"), indirect=True)
async def test_silent_redis(system: System, server: RedisServer) -> None:
    """The same if Redis keeps its connections and sends nothing."""
    await see_outage(system, server.pause, server.resume)


async def test_resume_after_kill(system: System) -> None:
    """A client of a killed relay continues at another one after its last position."""
    client = Client()
    actors = system.relays[0].actors
    async with client.open(system.relays[0]):
        await client.until_shown(5)
        for process in system.relays:
            process.kill()
            await process.ended.wait()
        assert await client.until_closed() == 1006
    relay = await system.start(actors)
    async with client.open(relay):
        await client.until_shown(15)
    assert_perfect(client)


async def test_drain(system: System, channel: CuttableChannel) -> None:
    """A process that stops is not ready, refuses new clients, and closes each client after all that is pending."""
    relay, client, events = system.relays[0], Client(), Client()
    for number in range(PENDING):
        await channel.publish(make_message(number))
    async with client.open(relay), events.open(relay, "/events"):
        await client.until_shown(3)
        await events.until_shown(3)
        relay.terminate()
        await anyio.wait_all_tasks_blocked()
        assert (await relay.get("/readyz")).status == 503
        assert (await relay.get("/livez")).status == 200
        with pytest.raises(Refused) as refused:
            async with relay.open("/ws"):
                pass
        assert refused.value.answer.status == 503
        assert int(refused.value.answer.headers["retry-after"]) > 0
        answer = await relay.get("/events", app="public")
        assert answer.status == 200
        assert answer.body.startswith("retry: ")
        for watcher, code in ((client, 1012), (events, None)):
            assert await watcher.until_closed() == code
            assert f"test-{PENDING - 1}" in ids(watcher)
            assert sum(len(json.dumps(message)) for message in watcher.shown) > 3 * BLOCK_BYTES
    await relay.ended.wait()
    assert_perfect(client)
    assert_perfect(events)


class Onlookers:
    """Clients that stay while processes start and stop, each at any relay that is ready, and what they noted."""

    def __init__(self, system: System, count: int) -> None:
        self.clients = [Client() for _ in range(count)]
        self.closes: list[tuple[str, int | None]] = []
        self.replaced: set[Process] = set()  # the relays that a rollout replaces
        self.stopped: set[str] = set()  # instances that were asked to stop
        self._terminating: set[Process] = set()  # no new client connects to these
        self._system = system
        self._next_relay = itertools.count()
        self._goal = math.inf  # messages
        self._progress = anyio.Event()  # set, and replaced, each time that a client has received a frame

    async def follow(self, client: Client, path: str) -> None:
        """Connect, and reconnect after each close, until the client has shown as many messages as `finish` demands."""
        while len(client.shown) < self._goal:
            relays = await self._ready_relays()
            with suppress(Refused):  # the relay began to drain a moment ago
                async with client.open(relays[next(self._next_relay) % len(relays)], path):
                    try:
                        while len(client.shown) < self._goal:
                            await self._receive(client)
                    except Closed as closed:
                        self.closes.append((path, closed.code))

    async def until_more(self, count: int) -> None:
        """Return once each client has shown `count` messages more than any client has shown now."""
        goal = max(len(client.shown) for client in self.clients) + count
        while any(len(client.shown) < goal for client in self.clients):
            await self._progress.wait()

    def finish(self) -> None:
        """Let each client leave once it has shown 10 messages more than any client has shown now."""
        self._goal = max(len(client.shown) for client in self.clients) + 10

    async def end(self, process: Process) -> None:
        """Stop the process, and return once it has ended by itself.

        First no new client connects to any relay that is replaced, as by the end of the preStop delay, and some
        messages are shown, so that a broadcaster that publishes beside the leader is noticed.
        """
        self._terminating.add(process)
        while not self.replaced <= self._terminating:
            await self._progress.wait()
        await self.until_more(5)
        self.stopped.add(process.instance)
        process.terminate()
        await process.ended.wait()

    async def _receive(self, client: Client) -> None:
        await self._ready_relays()
        before = client.shown[-1:]
        frame = await client.receive()
        self._progress.set()
        self._progress = anyio.Event()
        if before and frame["type"] == "message" and frame["broadcaster"] != before[0]["broadcaster"]:
            assert before[0]["broadcaster"] in self.stopped, "another broadcaster published beside the leader"

    async def _ready_relays(self) -> list[Process]:
        serving = [relay for relay in self._system.relays if "public" in relay.apps and relay not in self._terminating]
        ready = [relay for relay in serving if (await relay.get("/readyz")).status == 200]
        assert ready, "no relay is ready"
        return ready


def broadcasters(client: Client) -> list[str]:
    """Return the instances whose messages the client has shown; one that came back is there twice."""
    return [instance for instance, _ in itertools.groupby(message["broadcaster"] for message in client.shown)]


@pytest.mark.parametrize("change", ["restart", "switch"])
async def test_rollout(combination: tuple[str, str], channel: CuttableChannel, change: str) -> None:
    """A rollout costs nothing, to new processes of the same shape, or to the other shape and back.

    A relay is ready at every moment, one broadcaster publishes at a time, and each client is closed once, with 1012 (or
    the end of its events), and shows every message. So does a client that was away meanwhile, and a new one.
    """
    here = combination[0]
    there = next(shape for shape in SHAPES if shape != here)
    targets = [here] if change == "restart" else [there, here]
    async with running(here, channel, **QUICK, drain_seconds=1) as system:
        onlookers, first = Onlookers(system, 8), [process.instance for process in system.processes]
        away, newcomer = Client(), Client()
        async with away.open(system.relays[0]):
            await away.until_shown(5)
        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                for client, path in zip(onlookers.clients, itertools.cycle(["/ws", "/events"]), strict=False):
                    group.start_soon(onlookers.follow, client, path)
                for target in targets:
                    await onlookers.until_more(10)
                    old = {process: process.actors for process in system.processes if not process.ended.is_set()}
                    onlookers.replaced = set(system.relays)
                    await roll_out(old, SHAPES[target], start=system.start, end=onlookers.end)
                    now = [process.actors for process in system.processes if not process.ended.is_set()]
                    assert sorted(now) == sorted(SHAPES[target])
                await onlookers.until_more(10)
                onlookers.finish()
            for client in (away, newcomer):
                async with client.open(system.relays[-1]):
                    await client.until_shown(len(onlookers.clients[0].shown))
    assert_perfect(*onlookers.clients, away, newcomer)
    leaders, last = broadcasters(newcomer), newcomer.shown[-1]
    assert len(set(leaders)) == len(leaders) > len(targets), "a broadcaster published again after another one"
    assert not set(first) & {last["broadcaster"], last["relay"]}
    assert set(onlookers.closes) == {("/ws", 1012), ("/events", None)}
    assert len(onlookers.closes) == len(targets) * len(onlookers.clients), "a client was not moved once per rollout"


@pytest.mark.parametrize(("end", "seconds"), [(Process.kill, 5.0), (Process.terminate, 2.0)], ids=["kill", "terminate"])
async def test_one_leader(system: System, end: Callable[[Process], None], seconds: float) -> None:
    """Of two broadcasters one publishes; when it ends, the other one is the leader within seconds."""
    first = next(process for process in system.processes if "broadcaster" in process.actors)
    second = await system.start("broadcaster,relay")
    client = Client()
    async with client.open(second):
        await client.until_shown(20)
        assert broadcasters(client) == [first.instance]
        end(first)
        ended_at = anyio.current_time()
        while client.shown[-1]["broadcaster"] != second.instance:
            await client.receive()
        assert anyio.current_time() - ended_at <= seconds
        await client.until_shown(len(client.shown) + 20)
    assert_perfect(client)
    assert broadcasters(client) == [first.instance, second.instance]
    assert "hello_leader 1.0" in (await second.get("/metrics")).body


async def test_start_without_channel(channel: CuttableChannel) -> None:
    """A process serves without its channel and can be stopped; with the channel it is ready, and sends what is kept."""
    sent = [await channel.publish(make_message(number)) for number in range(9)]
    channel.cut(unreachable=False)
    async with anyio.create_task_group() as group:
        system = System(channel, QUICK, group)
        waiting, stopped = system.launch("relay"), system.launch("broadcaster,relay")
        await anyio.wait_all_tasks_blocked()
        for process in (waiting, stopped):
            assert (await process.get("/livez")).status == 200
            assert (await process.get("/readyz")).body.startswith("starting, relay: cut off")
        stopped.terminate()
        welcome: dict[str, object] = {"type": "welcome", "relay": waiting.instance, "channel": "down"}
        welcome |= {"actors": sorted(waiting.actors.split(",")), "backend": "redis"}
        with anyio.fail_after(LIMIT_SECONDS):
            await stopped.ended.wait()
            await waiting.serves.wait()
            async with (
                waiting.open("/ws?last=3") as recent,
                waiting.open(f"/events?after={sent[1]}") as resumed,
                waiting.open(f"/ws?after={sent[-1]}") as caught_up,
            ):
                starts = [(recent, sent[5], "test-6"), (resumed, sent[1], "test-2"), (caught_up, sent[8], "test-9")]
                for stream, _, _ in starts:
                    assert await stream.receive() == welcome
                channel.heal()
                await waiting.ready.wait()
                await channel.publish(make_message(9))
                for stream, start, first in starts:
                    while (frame := await stream.receive())["type"] == "beat":
                        pass
                    del frame["since"]
                    assert frame == {"type": "status", "channel": "up", "start": str(start), "head": str(sent[8])}
                    assert (await stream.receive())["id"] == first
                assert resumed.last_event_id == str(sent[2])
        assert (await waiting.get("/readyz")).status == 200
        group.cancel_scope.cancel()


async def metrics(process: Process) -> dict[str, float]:
    lines = (await process.get("/metrics")).body.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


async def test_metrics(system: System) -> None:
    """The metrics count what was published, relayed and lost, and show the clients and the channel."""
    client, last = Client(), system.processes[-1]
    async with client.open(system.relays[0]):
        await client.until_shown(5)
        relay = await metrics(system.relays[0])
    assert relay["hello_messages_relayed_total"] >= 5
    assert relay["hello_relay_seconds_count"] >= 5
    assert relay["hello_clients"] == 1
    assert relay["hello_slow_clients"] == relay['hello_gaps_total{reader="client"}'] == 0
    assert relay['hello_channel_up{actor="relay"}'] == 1
    assert 0 <= relay['hello_channel_last_reply_age_seconds{actor="relay"}'] < LIMIT_SECONDS
    late = await metrics(await system.start("relay"))
    assert late["hello_messages_relayed_total"] < 5, "messages from before its start are history: it did not relay them"
    broadcaster = await metrics(last)
    assert broadcaster['hello_channel_up{actor="broadcaster"}'] == 1
    assert broadcaster["hello_messages_published_total"] >= 4, "the reply to the fifth may be pending"
