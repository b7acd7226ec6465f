"""picows: its core interface without coroutines, one `send()` for each transport, on uvloop."""

import sys

import redis.asyncio as redis
import uvloop
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

PORT, REDIS_PORT = map(int, sys.argv[1:])
transports: set[WSTransport] = set()


class Subscriber(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transports.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        transports.discard(transport)


def subscriber(_request: WSUpgradeRequest) -> Subscriber:
    return Subscriber()


async def main() -> None:
    server = await ws_create_server(subscriber, "127.0.0.1", PORT, enable_auto_ping=True, backlog=65535)
    async with server, redis.Redis(port=REDIS_PORT).pubsub() as pubsub:
        await pubsub.subscribe("hello")
        async for message in pubsub.listen():
            if message["type"] == "message":
                for transport in tuple(transports):
                    transport.send(WSMsgType.TEXT, message["data"])


uvloop.run(main())
