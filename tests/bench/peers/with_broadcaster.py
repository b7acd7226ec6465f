"""encode/broadcaster on Starlette, as in the library's documentation, on uvicorn and uvloop."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

PORT, REDIS_PORT = map(int, sys.argv[1:])
broadcast = Broadcast(f"redis://127.0.0.1:{REDIS_PORT}")


async def endpoint(websocket: WebSocket) -> None:
    await websocket.accept()
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            async for _ in websocket.iter_text():
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(receive)
        async with broadcast.subscribe(channel="hello") as subscriber:
            async for event in subscriber:
                await websocket.send_text(event.message)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with broadcast:
        yield


app = Starlette(routes=[WebSocketRoute("/ws", endpoint)], lifespan=lifespan)
uvicorn.run(
    app, port=PORT, loop="uvloop", http="httptools", ws_per_message_deflate=False, access_log=False, log_level="warning"
)
