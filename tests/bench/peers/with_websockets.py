"""The `websockets` library: `broadcast()` over the server's own set of connections, on uvloop."""

import sys

import redis.asyncio as redis
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

PORT, REDIS_PORT = map(int, sys.argv[1:])


async def stay(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def main() -> None:
    async with (
        serve(stay, "127.0.0.1", PORT, compression=None, backlog=65535) as server,
        redis.Redis(port=REDIS_PORT, decode_responses=True).pubsub() as pubsub,
    ):
        await pubsub.subscribe("hello")
        async for message in pubsub.listen():
            if message["type"] == "message":
                broadcast(server.connections, message["data"])


uvloop.run(main())
