"""python-socketio with its Redis manager, WebSocket transport only, on uvicorn and uvloop."""

import asyncio
import sys

import redis.asyncio as redis
import socketio
import uvicorn

PORT, REDIS_PORT = map(int, sys.argv[1:])
URL = f"redis://127.0.0.1:{REDIS_PORT}"
server = socketio.AsyncServer(
    async_mode="asgi", client_manager=socketio.AsyncRedisManager(URL), transports=["websocket"]
)
tasks: set[asyncio.Task[None]] = set()


async def relay() -> None:
    async with redis.Redis.from_url(URL, decode_responses=True).pubsub() as pubsub:
        await pubsub.subscribe("hello")
        async for message in pubsub.listen():
            if message["type"] == "message":
                await server.emit("message", message["data"])


async def on_startup() -> None:
    tasks.add(asyncio.create_task(relay()))


app = socketio.ASGIApp(server, on_startup=on_startup)
uvicorn.run(
    app, port=PORT, loop="uvloop", http="httptools", ws_per_message_deflate=False, access_log=False, log_level="warning"
)
