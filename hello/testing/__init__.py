"""For tests: the whole system in one event loop, and the checks that every channel passes. It opens no socket.

    async with running("split", channel) as system, system.relays[0].open("/ws?last=10") as stream:
        assert (await stream.receive())["type"] == "welcome"

The system runs on asyncio and, with a channel in memory, on trio, whose clock may jump. `check_channel` is for the
author of another backend:

    @pytest.mark.parametrize("promise", PROMISES)
    async def test_channel(promise):
        await check_channel(promise, MyBackend())

    harness.py       processes and shapes, and a channel that can be cut off
    clients.py       streams and a client, connected by ASGI
    conformance.py   the promises of `hello.channel`, one check each
"""

from hello.testing.clients import Answer, Client, Closed, Refused, Stream
from hello.testing.conformance import PROMISES, Backend, check_channel
from hello.testing.harness import SHAPES, CuttableChannel, Process, System, running

__all__ = [
    "PROMISES",
    "SHAPES",
    "Answer",
    "Backend",
    "Client",
    "Closed",
    "CuttableChannel",
    "Process",
    "Refused",
    "Stream",
    "System",
    "check_channel",
    "running",
]
