"""Django Channels with the faster of its two Redis layers: one consumer in one group, on uvicorn and uvloop."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import django
import redis.asyncio as redis
import uvicorn
from django.conf import settings

PORT, REDIS_PORT = map(int, sys.argv[1:])
URL = f"redis://127.0.0.1:{REDIS_PORT}"
settings.configure(
    CHANNEL_LAYERS={"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [URL]}}}
)
django.setup()

# Both packages read the settings at import.
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402  # once Django is set up
from channels.layers import get_channel_layer  # noqa: E402  # once Django is set up
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402  # once Django is set up
from django.urls import path  # noqa: E402  # once Django is set up


class Subscriber(AsyncWebsocketConsumer):
    groups = ("hello",)

    async def hello_message(self, event: dict[str, str]) -> None:
        await self.send(text_data=event["text"])


async def relay() -> None:
    layer = get_channel_layer()
    async with redis.Redis.from_url(URL, decode_responses=True).pubsub() as pubsub:
        await pubsub.subscribe("hello")
        async for message in pubsub.listen():
            if message["type"] == "message":
                await layer.group_send("hello", {"type": "hello.message", "text": message["data"]})


async def lifespan(
    _scope: object, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    await receive()
    task = asyncio.create_task(relay())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    task.cancel()
    await send({"type": "lifespan.shutdown.complete"})


app = ProtocolTypeRouter({"lifespan": lifespan, "websocket": URLRouter([path("ws", Subscriber.as_asgi())])})
uvicorn.run(
    app, port=PORT, loop="uvloop", http="httptools", ws_per_message_deflate=False, access_log=False, log_level="warning"
)
