"""The whole system in one event loop: one body for every shape and channel.

Over memory the clock is trio's and jumps; over Redis the server is real, and so is the time.
"""

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
import trio.testing

from hello.channel import open_channel
from hello.testing import SHAPES, Client, Closed, CuttableChannel, Process, Refused, System, running
from tests.faults.rollout import roll_out
from tests.redis_server import RedisServer

LIMIT_SECONDS = 60.0  # no test hangs
QUICK = {"interval_min": "0.01", "interval_max": "0.05"}


@pytest.fixture(params=["combined-memory", "split-memory", "combined-redis", "split-redis"])
def combination(request: pytest.FixtureRequest) -> tuple[str, str]:
    shape, channel = str(request.param).split("-")
    return shape, channel


@pytest.fixture
def anyio_backend(combination: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    if combination[1] == "memory":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def server(combination: tuple[str, str], request: pytest.FixtureRequest) -> RedisServer | None:
    found: RedisServer | None = None
    if combination[1] == "redis":
        found = request.getfixturevalue("redis_server")
    return found


@pytest.fixture
async def channel(server: RedisServer | None) -> AsyncIterator[CuttableChannel]:
    async with open_channel(server.url if server else "memory://", history=1000) as opened:
        yield CuttableChannel(opened)


@pytest.fixture
async def system(combination: tuple[str, str], channel: CuttableChannel) -> AsyncIterator[System]:
    async with running(combination[0], channel, **QUICK) as running_system:
        with anyio.fail_after(LIMIT_SECONDS):
            yield running_system


def ids(client: Client) -> list[str]:
    return [message["id"] for message in client.shown]


def assert_perfect(*clients: Client) -> None:
    """Each has shown the same messages in the same order, none twice, without a gap."""
    for client in clients:
        assert ids(client) == ids(clients[0])
        assert len(set(ids(client))) == len(client.shown)
        assert not client.gaps
        assert not client.repeated
        positions = [tuple(map(int, message["position"].split("-"))) for message in client.shown]
        assert positions == sorted(set(positions))


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_every_browser_shows_every_broadcast_once_and_in_order(system: System, path: str) -> None:
    """Whichever relay it looks at, whenever it came, over either stream."""
    first, late = Client(), Client()
    async with first.open(system.relays[0], path):
        await first.until_shown(20)
        async with late.open(system.relays[-1], path):
            await late.until_shown(30)
        await first.until_shown(30)
    assert_perfect(first, late)
    for message in first.shown:
        assert message["text"] == "Hello world"
        assert message["broadcaster"] == system.processes[-1].instance
        assert message["relay"] == system.relays[0].instance
        assert 0 <= message["relayed_at"] - message["sent_at"] < 10_000


async def test_a_browser_that_comes_back_misses_nothing(system: System) -> None:
    """Positions are good at every relay and over both streams."""
    wanderer, steady = Client(), Client()
    async with steady.open(system.relays[0]):
        for visit in range(6):
            async with wanderer.open(system.relays[visit % len(system.relays)], ("/ws", "/events")[visit % 2]):
                await wanderer.until_shown(len(wanderer.shown) + 3)
            await steady.until_shown(len(wanderer.shown) + 3)
        async with wanderer.open(system.relays[0]):
            await wanderer.until_shown(len(steady.shown))
    assert_perfect(wanderer, steady)


async def test_a_channel_that_was_away_costs_nothing(system: System, channel: CuttableChannel) -> None:
    """Browsers are told, processes stay ready, and afterwards the broadcaster goes on where it was."""
    client = Client()
    async with client.open(system.relays[0]):
        await client.until_shown(5)
        channel.cut()
        await client.until_channel("down")
        for process in system.processes:
            assert (await process.get("/readyz")).status == 200
            assert (await process.get("/livez")).status == 200
        assert 'hello_channel_up{actor="relay"} 0.0' in (await system.relays[0].get("/metrics")).body
        channel.heal()
        await client.until_channel("up")
        await client.until_shown(15)
    assert_perfect(client)


async def test_another_relay_takes_over_from_one_that_was_killed(system: System) -> None:
    """Whether it is there already or has to be started, the client goes on after its last position."""
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


async def test_a_process_that_is_told_to_stop_drains(system: System) -> None:
    """Not ready, newcomers refused, everybody moved with 1012 after what was owed, and then the end."""
    relay, client, events = system.relays[0], Client(), Client()
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
    await relay.ended.wait()
    assert_perfect(client)
    assert_perfect(events)


class Onlookers:
    """Browsers that stay, each at any relay that is ready, and what they note while others start and stop processes."""

    def __init__(self, system: System, count: int) -> None:
        self.clients = [Client() for _ in range(count)]
        self.closes: list[tuple[str, int | None]] = []
        self.told_to_stop: set[str] = set()  # instances
        self._system = system
        self._turn = itertools.count()
        self._goal = math.inf  # messages
        self._seen = anyio.Event()  # each time that any client has taken in a frame

    async def look(self, client: Client, path: str) -> None:
        """Connect, and again after each close, until as many messages were shown as `finish` says."""
        while len(client.shown) < self._goal:
            relays = await self._ready_relays()
            with suppress(Refused):  # it was told to stop since
                async with client.open(relays[next(self._turn) % len(relays)], path):
                    try:
                        while len(client.shown) < self._goal:
                            await self._step(client)
                    except Closed as closed:
                        self.closes.append((path, closed.code))

    async def see_more(self, count: int) -> None:
        """Return once each client has shown so many more messages than any has now."""
        goal = max(len(client.shown) for client in self.clients) + count
        while any(len(client.shown) < goal for client in self.clients):
            await self._seen.wait()

    def finish(self) -> None:
        """Let each go once it has shown what any has, and some more."""
        self._goal = max(len(client.shown) for client in self.clients) + 10

    async def end(self, process: Process) -> None:
        """Tell it to stop, and return once it has ended by itself; an error in it would end the test.

        Some messages are seen first, so that whoever speaks beside the one that has the voice is heard.
        """
        await self.see_more(5)
        self.told_to_stop.add(process.instance)
        process.terminate()
        await process.ended.wait()

    async def _step(self, client: Client) -> None:
        await self._ready_relays()
        before = client.shown[-1:]
        frame = await client.receive()
        self._seen.set()
        self._seen = anyio.Event()
        if before and frame["type"] == "message" and frame["broadcaster"] != before[0]["broadcaster"]:
            assert before[0]["broadcaster"] in self.told_to_stop, "another one spoke while it had the voice"

    async def _ready_relays(self) -> list[Process]:
        serving = [relay for relay in self._system.relays if "public" in relay.apps]
        ready = [relay for relay in serving if (await relay.get("/readyz")).status == 200]
        assert ready, "no relay is ready"
        return ready


async def assert_costs_nothing(channel: CuttableChannel, shape: str, *others: str) -> None:
    """Roll from a shape out to others, one after the other: a relay is ready at every moment, one broadcaster speaks at
    a time, and each client is moved with 1012 (or the end of its events), and shows every message once and in order.

    So do one that was away meanwhile, and one that comes afterwards.
    """
    async with running(shape, channel, **QUICK, drain_seconds=1) as system:
        onlookers, first = Onlookers(system, 8), [process.instance for process in system.processes]
        away, newcomer = Client(), Client()
        async with away.open(system.relays[0]):
            await away.until_shown(5)
        with anyio.fail_after(LIMIT_SECONDS):
            async with anyio.create_task_group() as group:
                for client, path in zip(onlookers.clients, itertools.cycle(["/ws", "/events"]), strict=False):
                    group.start_soon(onlookers.look, client, path)
                for other in others:
                    await onlookers.see_more(10)
                    old = {process: process.actors for process in system.processes if not process.ended.is_set()}
                    await roll_out(old, SHAPES[other], start=system.start, end=onlookers.end)
                    now = [process.actors for process in system.processes if not process.ended.is_set()]
                    assert sorted(now) == sorted(SHAPES[other])
                await onlookers.see_more(10)
                onlookers.finish()
            for client in (away, newcomer):
                async with client.open(system.relays[-1]):
                    await client.until_shown(len(onlookers.clients[0].shown))
    assert_perfect(*onlookers.clients, away, newcomer)
    shown = onlookers.clients[0].shown
    speakers = [speaker for speaker, _ in itertools.groupby(message["broadcaster"] for message in shown)]
    assert len(set(speakers)) == len(speakers) > len(others), "none speaks again after another one"
    assert not set(first) & {shown[-1]["broadcaster"], shown[-1]["relay"]}
    assert set(onlookers.closes) == {("/ws", 1012), ("/events", None)}
    assert len(onlookers.closes) >= len(others) * len(onlookers.clients), "each was moved each time"


async def test_a_rollout_costs_no_browser_anything(combination: tuple[str, str], channel: CuttableChannel) -> None:
    """Each process is replaced, as `kubectl rollout restart` does it."""
    await assert_costs_nothing(channel, combination[0], combination[0])


async def test_a_switch_of_shapes_costs_no_browser_anything(
    combination: tuple[str, str], channel: CuttableChannel
) -> None:
    """There and back, as `kubectl apply -k` of the other overlay does it."""
    here = combination[0]
    there = next(shape for shape in SHAPES if shape != here)
    await assert_costs_nothing(channel, here, there, here)


@pytest.mark.parametrize(("how", "seconds"), [("killed", 5.0), ("told to stop", 2.0)])
async def test_of_several_broadcasters_one_speaks(system: System, how: str, seconds: float) -> None:
    """The others are ready and wait; when it ends another one goes on within seconds, and nothing is disturbed."""
    first = next(process for process in system.processes if "broadcaster" in process.actors)
    second = await system.start("broadcaster,relay")
    client = Client()
    async with client.open(second):
        await client.until_shown(20)
        assert {message["broadcaster"] for message in client.shown} == {first.instance}
        if how == "killed":
            first.kill()
        else:
            first.terminate()
        told = anyio.current_time()
        while client.shown[-1]["broadcaster"] != second.instance:
            await client.receive()
        assert anyio.current_time() - told <= seconds
        await client.until_shown(len(client.shown) + 20)
    assert_perfect(client)
    speakers = [speaker for speaker, _ in itertools.groupby(message["broadcaster"] for message in client.shown)]
    assert speakers == [first.instance, second.instance]
    assert "hello_leader 1.0" in (await second.get("/metrics")).body


async def test_a_process_is_ready_once_its_actors_have_started(
    combination: tuple[str, str], channel: CuttableChannel
) -> None:
    """Without a channel it is alive and not ready, and can be stopped; with one it becomes ready."""
    channel.cut()
    async with anyio.create_task_group() as group:
        system = System(channel, QUICK, group)
        waiting, stopped = system.launch("broadcaster,relay"), system.launch("relay")
        await anyio.wait_all_tasks_blocked()
        for process in (waiting, stopped):
            assert (await process.get("/livez")).status == 200
            assert (await process.get("/readyz")).body == "starting\n"
            assert "public" not in process.apps
        stopped.terminate()
        with anyio.fail_after(LIMIT_SECONDS):
            await stopped.ended.wait()
            channel.heal()
            await waiting.ready.wait()
        assert (await waiting.get("/readyz")).status == 200
        group.cancel_scope.cancel()


async def test_metrics_tell_what_happened(system: System) -> None:
    """Published, relayed, clients, time to the relay, and the state of the channel."""
    client, speaker = Client(), system.processes[-1]
    async with client.open(system.relays[0]):
        await client.until_shown(5)
        text = (await system.relays[0].get("/metrics")).body
        numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert float(numbers["hello_messages_relayed_total"]) >= 5
        assert float(numbers["hello_relay_seconds_count"]) >= 5
        assert float(numbers["hello_clients"]) == 1
        assert float(numbers["hello_slow_clients"]) == 0
        assert float(numbers['hello_gaps_total{reader="client"}']) == 0
        assert float(numbers['hello_channel_up{actor="relay"}']) == 1
        assert 0 <= float(numbers['hello_channel_last_reply_age_seconds{actor="relay"}']) < LIMIT_SECONDS
    late = await system.start("relay")
    relayed = (await late.get("/metrics")).body.split("\nhello_messages_relayed_total ")[1].split("\n")[0]
    assert float(relayed) < 5, "what the channel kept is history, and was not relayed by this relay"
    spoken = (await speaker.get("/metrics")).body
    assert 'hello_channel_up{actor="broadcaster"} 1.0' in spoken
    published = float(spoken.split("\nhello_messages_published_total ")[1].split("\n")[0])
    assert published >= 4, "the relay may hear a message before the broadcaster hears that it was accepted"
