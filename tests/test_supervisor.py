"""The voice as a broadcaster has it or waits for it, through pauses and outages, on virtual time."""

from typing import Any

import anyio
import pytest
import trio.testing

from hello.channel import LEASE_SECONDS, ChannelLost
from hello.channel.memory import MemoryChannel
from hello.message import Message, Position
from hello.metrics import Metrics
from hello.supervisor import RENEW_SECONDS, Link, Voice
from hello.testing import CuttableChannel
from tests.channel.test_channel import ids, read, say

HOUR = 3600


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Swallowing(CuttableChannel):
    """Its link breaks after a message has been accepted and before the reply has come, if `swallow` is set."""

    swallow = False

    async def publish(self, message: Message, speaker: str | None = None) -> Position:
        position = await super().publish(message, speaker)
        if self.swallow:
            self.swallow = False
            self.cut()
            raise ChannelLost("the reply was lost")
        return position


class Speakers:
    """Two broadcasters on one channel, each with a link of its own. The first has the voice, the second waits."""

    def __init__(self) -> None:
        self.channel = MemoryChannel(100)
        self.links = [Swallowing(self.channel), Swallowing(self.channel)]
        self.one, self.two = (
            Voice(link, name, Link("broadcaster", Metrics())) for link, name in zip(self.links, "ab", strict=True)
        )


@pytest.fixture
async def speakers() -> Speakers:
    return Speakers()


async def test_who_had_to_wait_is_told_so(speakers: Speakers) -> None:
    """The first to come may speak at once; who comes later waits until the voice was let go, and hears of that."""
    async with anyio.create_task_group() as group:
        await group.start(speakers.one.keep)
        assert await speakers.one.turn() is False
        await group.start(speakers.two.keep)
        with anyio.move_on_after(HOUR) as waiting:
            await speakers.two.turn()
        assert waiting.cancelled_caught
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(speakers.two.keep)
        await speakers.one.release()
        with anyio.fail_after(RENEW_SECONDS + 0.1):
            assert await speakers.two.turn() is True
        group.cancel_scope.cancel()


async def test_one_that_was_paused_past_its_lease_is_fenced_and_waits(speakers: Speakers) -> None:
    """It still believes that it has the voice; its message is dropped, and it does not speak again before its turn."""
    async with anyio.create_task_group() as paused:
        await paused.start(speakers.one.keep)
        paused.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        await group.start(speakers.two.keep)
        with anyio.fail_after(LEASE_SECONDS + RENEW_SECONDS):
            await speakers.two.turn()
        assert speakers.one.mine
        assert await speakers.one.say(say(1)) is None
        assert not speakers.one.mine
        await speakers.two.say(say(2))
        assert ids(await read(speakers.channel)) == ["test-2"]
        group.cancel_scope.cancel()


async def test_a_message_is_held_through_an_outage_of_any_length(speakers: Speakers) -> None:
    """The lease lapses meanwhile; where nobody else has taken the voice, the very message is accepted afterwards."""
    async with anyio.create_task_group() as group:
        await group.start(speakers.one.keep)
        speakers.links[0].cut()
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(speakers.one.say, say(1))
        await anyio.sleep(HOUR)
        speakers.links[0].heal()
    assert ids(await read(speakers.channel)) == ["test-1"]


async def test_a_lease_that_lapsed_in_silence_costs_no_message(speakers: Speakers) -> None:
    """An outage between two messages: nobody else has taken the voice, so that the next one is accepted."""
    async with anyio.create_task_group() as group:
        await group.start(speakers.one.keep)
        speakers.links[0].cut()
        await anyio.sleep(HOUR)
        group.cancel_scope.cancel()
    speakers.links[0].heal()
    assert await speakers.one.say(say(1)) is not None
    assert ids(await read(speakers.channel)) == ["test-1"]


@pytest.mark.parametrize("accepted", [True, False], ids=["reply lost", "request lost"])
async def test_after_an_outage_another_one_may_have_the_voice(speakers: Speakers, accepted: bool) -> None:
    """A message that had been accepted stays, once; one that had not is dropped."""
    link = speakers.links[0]
    position: list[Position | None] = []

    async def speak() -> None:
        position.append(await speakers.one.say(say(1)))

    async with anyio.create_task_group() as group:
        await group.start(speakers.one.keep)
        await group.start(speakers.two.keep)
        if accepted:
            link.swallow = True
        else:
            link.cut()
        async with anyio.create_task_group() as speaking:
            speaking.start_soon(speak)
            await speakers.two.turn()
            await speakers.two.say(say(2))
            link.heal()
        group.cancel_scope.cancel()
    assert ids(await read(speakers.channel)) == (["test-1", "test-2"] if accepted else ["test-2"])
    assert (position[0] is not None) is accepted
