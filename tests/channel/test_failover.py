"""The channel over sentinels: what a replica has acknowledged survives a failover, and every reader receives it."""

import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hello.channel import HEARTBEAT_SECONDS, Channel, ChannelLost
from hello.channel.urls import open_channel
from hello.message import Position
from hello.testing import PROMISES, check_channel
from hello.testing.conformance import ids, make_message, read
from tests.readmes import least_rights
from tests.redis_server import redis_program
from tests.sentinel_pods import QUOTED, SentinelPods

pytestmark = pytest.mark.slow

REDIS = tuple(f"redis-{n}" for n in range(3))
PUBLISH_SECONDS = 0.05  # between two messages
LONGEST_SILENCE = (
    30.0  # where the code is right, some five seconds; the machine may be slow, or a vote has to be repeated
)
FAULTS = ("kill", "lose the volume", "pause", "isolate", "kill a replica", "kill two sentinels", "all at once")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelPods]:
    directory, rights = tmp_path_factory.mktemp("pods"), f"{least_rights()} +wait"
    with SentinelPods(directory, secret=QUOTED, rights=rights, program=redis_program()) as pods:
        pods.start(*pods.names)
        pods.wait_until_all_know_each_other()
        yield pods


class SentinelBackend:
    """Channels of one stream, of which only a message with a copy counts as published."""

    def __init__(self, pods: SentinelPods, stream: str) -> None:
        self._pods = pods
        self._stream = stream

    @asynccontextmanager
    async def open(self, history: int = 1000) -> AsyncIterator[Channel]:
        async with open_channel(self._pods.url, history=history, stream=self._stream, replicas_ack=1) as channel:
            yield channel

    def cut(self) -> None:
        for pod in REDIS:
            self._pods.signal(pod, signal.SIGSTOP)

    def heal(self) -> None:
        for pod in REDIS:
            self._pods.signal(pod, signal.SIGCONT)

    def held(self) -> int:
        """Count the connections of a channel's user that wait in a blocking read, or were left open by one."""
        with self._pods.client(self._pods.primary()) as client:
            return sum(each["user"] == "app" and each["cmd"] == "xread" for each in client.client_list())


@pytest.mark.parametrize("promise", PROMISES)
async def test_promise(pods: SentinelPods, promise: str) -> None:
    """A primary that sentinels name keeps the promises of every channel."""
    await check_channel(promise, SentinelBackend(pods, promise))
    await anyio.to_thread.run_sync(pods.wait_until_all_know_each_other)


class Traffic:
    """Publishes without a pause, each message again until it is accepted, and reads all of it back."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.accepted: list[str] = []
        self.received: list[str] = []
        self.longest_silence = 0.0

    async def publish(self, channel: Channel) -> None:
        while True:
            message, since = make_message(len(self.accepted)), time.monotonic()
            while True:
                try:
                    await channel.publish(message)
                    break
                except ChannelLost:
                    await anyio.sleep(PUBLISH_SECONDS)
            self.accepted.append(message.id)
            self.longest_silence = max(self.longest_silence, time.monotonic() - since)
            await anyio.sleep(PUBLISH_SECONDS)

    async def read(self, channel: Channel) -> None:
        position: Position | None = None
        while True:
            try:
                async with channel.subscribe(position) as batches:
                    async for batch in batches:
                        for entry in batch:
                            position = entry.position
                            # A message that only an old primary had was published again: clients know its id.
                            if entry.message.id not in self.received:
                                self.received.append(entry.message.id)
            except ChannelLost:
                await anyio.sleep(PUBLISH_SECONDS)

    async def wait_for_more(self, count: int = 20) -> None:
        """Return once so many more messages were accepted, and all that were accepted have been received."""
        target = len(self.accepted) + count
        with anyio.fail_after(LONGEST_SILENCE):
            while len(self.accepted) < target or not set(self.accepted[:target]) <= set(self.received):  # noqa: ASYNC110  # two tasks add to these
                await anyio.sleep(PUBLISH_SECONDS)


@pytest.mark.parametrize("fault", FAULTS)
async def test_durable(pods: SentinelPods, fault: str) -> None:
    """What one replica has acknowledged is received, in order, whatever happens to one Redis or to the sentinels."""
    traffic = Traffic(fault.replace(" ", "-"))
    async with (
        open_channel(pods.url, history=100_000, stream=traffic.stream, replicas_ack=1) as publisher,
        open_channel(pods.url, history=100_000, stream=traffic.stream, replicas_ack=1) as reader,
        anyio.create_task_group() as group,
    ):
        group.start_soon(traffic.publish, publisher)
        group.start_soon(traffic.read, reader)
        await traffic.wait_for_more()
        await anyio.to_thread.run_sync(break_it, pods, fault)
        await traffic.wait_for_more()
        group.cancel_scope.cancel()
    assert traffic.received[: len(traffic.accepted)] == traffic.accepted
    print(f"{fault}: longest silence {traffic.longest_silence:.1f} s")  # noqa: T201  # for the table in tests/README.md
    await anyio.to_thread.run_sync(pods.wait_until_all_know_each_other)


async def test_no_copy(pods: SentinelPods) -> None:
    """A message without a copy is not published, however often it is tried, and is appended once."""
    replicas = [name for name in REDIS if name != pods.primary()]
    async with open_channel(pods.url, history=10, stream="no-copy", replicas_ack=1) as channel:
        for pod in replicas:
            pods.signal(pod, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(ChannelLost, match="0 of 1 replicas acknowledged the message"):
                await channel.publish(make_message(1))
        for pod in replicas:
            pods.signal(pod, signal.SIGCONT)
        await channel.publish(make_message(1))
        assert ids(await read(channel)) == ["test-1"]
    await anyio.to_thread.run_sync(pods.wait_until_all_know_each_other)


def break_it(pods: SentinelPods, fault: str) -> None:
    """Let the fault happen, and mend what does not mend itself."""
    primary = pods.primary()
    replica = next(name for name in ("redis-0", "redis-1") if name != primary)
    match fault:
        case "kill" | "lose the volume" | "kill a replica":
            killed = replica if fault == "kill a replica" else primary
            pods.kill(killed, lose_volume=fault == "lose the volume")
            pods.start(killed)
        case "kill two sentinels":
            for pod in ("sentinel-0", "sentinel-1"):
                pods.kill(pod)
            time.sleep(HEARTBEAT_SECONDS + 1)  # long enough for a channel to ask the only one that is left
            pods.start("sentinel-0", "sentinel-1")
        case "all at once":
            for pod in pods.names:
                pods.kill(pod)
            pods.start(*pods.names)
        case "pause":
            pods.signal(primary, signal.SIGSTOP)
            pods.wait_for_another_primary(primary)
            pods.signal(primary, signal.SIGCONT)
        case "isolate":
            pods.isolate(primary)
            pods.wait_for_another_primary(primary)
            time.sleep(HEARTBEAT_SECONDS + 1)  # a reader that stays there for longer misses what the new primary gets
            pods.join(primary)
