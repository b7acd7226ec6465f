"""A Redis that keeps its connections and says nothing: clients hear of it in time, and nothing else changes."""

from typing import Any

import anyio
import pytest

from hello.channel import open_channel
from hello.testing import Client, running
from tests.redis_server import RedisServer

TOLD_SECONDS = 6.0  # from the last sign of life to `status: down`


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


async def test_a_deaf_listener_is_noticed_within_6_seconds(redis_server: RedisServer) -> None:
    """`down` after a silence, `up` again, each message once; a process that was ready stays ready all the while."""
    client = Client()
    async with (
        open_channel(redis_server.url, history=1000) as channel,
        running("combined", channel, interval_min=0.05, interval_max=0.1) as system,
        client.open(system.relays[0]),
    ):
        await client.until_shown(5)
        redis_server.pause()
        with anyio.fail_after(TOLD_SECONDS):
            await client.until_channel("down")
        assert (await system.relays[0].get("/readyz")).status == 200
        redis_server.resume()
        await client.until_channel("up")
        await client.until_shown(len(client.shown) + 5)
        assert not client.gaps
        assert not client.repeated
        assert (await system.relays[0].get("/readyz")).status == 200
