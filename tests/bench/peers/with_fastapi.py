"""FastAPI as in tutorials: a `ConnectionManager` with a list and a loop of `send_text`, on uvicorn and uvloop."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

PORT, REDIS_PORT = map(int, sys.argv[1:])


class ConnectionManager:
    def __init__(self) -> None:
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        self.active_connections.remove(websocket)

    async def broadcast(self, message: str) -> None:
        for connection in self.active_connections:
            await connection.send_text(message)


manager = ConnectionManager()


async def relay() -> None:
    async with redis.Redis(port=REDIS_PORT, decode_responses=True).pubsub() as pubsub:
        await pubsub.subscribe("hello")
        async for message in pubsub.listen():
            if message["type"] == "message":
                await manager.broadcast(message["data"])


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(relay())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws")
async def endpoint(websocket: WebSocket) -> None:
    await manager.connect(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        manager.disconnect(websocket)


uvicorn.run(
    app, port=PORT, loop="uvloop", http="httptools", ws_per_message_deflate=False, access_log=False, log_level="warning"
)
