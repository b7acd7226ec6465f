"""Clients over WebSocket and server-sent events, by the page's own rules (connection.js, client-protocol.js).

They know relays by the ports of their links, and note all that they see; they judge nothing.
"""

import json
import random
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from functools import cache
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from hello.message import Position
from tests.faults.checker import ClientLog, Seen, State, Told

# connection.js, in seconds
SILENCE = 25.0
OPENING = 10.0
STEADY = 10.0
PAUSES = (1.0, 0.5, 1.0, 2.0, 4.0, 5.0)
RECENT = 50  # messages

LONG_AWAY = 0.2  # of the times that a wanderer is away, which share is longer than the history

parse = cache(Position.parse)  # fifty clients see the same positions: one object for all


class PositionRefused(Exception):
    """A relay does not resume from a position that a relay gave: with clocks that only go back this must not be."""


class Client:
    """One client. It `stays`, `hops` from one relay to another, or `wanders`: leaves, and comes back.

    `relays` has the ports of those that serve newcomers, by their names, and changes as they do.
    """

    def __init__(
        self, name: str, relays: Mapping[str, int], *, sse: bool, manner: str, history_seconds: float, seed: int
    ) -> None:
        self.log = ClientLog(name)
        self.dropped = 0  # messages that came and had been shown before
        self._relays = relays
        self._sse = sse
        self._manner = manner
        self._history_seconds = history_seconds
        self._luck = random.Random(f"{seed} {name}")
        self._position: Position | None = None
        self._ids: set[str] = set()
        self._gap: tuple[Position, Position] | None = None
        self._relay = ""

    async def run(self, home: anyio.Event) -> None:
        """Be a client for ever; once `home` is set nobody leaves any more."""
        while True:
            with anyio.CancelScope() as visit:
                if self._manner != "stays" and not home.is_set():
                    visit.deadline = anyio.current_time() + self._luck.uniform(2, 15)
                await self._stay_connected()
            if self._manner == "wanders":
                left = time.time()
                self.log.away.append((left, float("inf")))
                with anyio.move_on_after(self._time_away()):
                    await home.wait()
                self.log.away[-1] = (left, time.time())

    def _time_away(self) -> float:
        if self._luck.random() < LONG_AWAY:
            return self._history_seconds * self._luck.uniform(1, 1.5)
        return self._luck.uniform(0.2, 8)

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            up, reason = await self._listen()
            if up > STEADY:
                attempt = 0
            attempt += 1
            limit = PAUSES[-1 if reason == 1013 else min(attempt, len(PAUSES)) - 1]
            await anyio.sleep(self._luck.uniform(0, limit))

    async def _listen(self) -> tuple[float, int | None]:
        """Connect and take frames until the end; for how long it was up, and the code that it was closed with."""
        opened: float | None = None
        code: int | None = None
        relays = dict(self._relays)  # those that there are now
        names = self._luck.sample(sorted(relays), len(relays))
        if self._manner == "hops":
            names.sort(key=lambda name: name == self._relay)
        try:
            for name in names:  # as a Service would: another one where one refuses
                with suppress(ConnectionRefusedError):
                    async with aclosing(self._frames(relays[name])) as frames:
                        while True:
                            with anyio.fail_after(OPENING if opened is None else SILENCE):
                                frame = await anext(frames)
                            if opened is None:
                                opened = anyio.current_time()
                                self._relay = name
                                self.log.connections += 1
                            self._take(frame)
        except InvalidStatus as refused:
            if refused.response.status_code == 400:
                raise PositionRefused(f"{self.log.name} at {self._position}") from refused
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
        except (OSError, InvalidHandshake, TimeoutError, EOFError, StopAsyncIteration):
            pass
        finally:
            if opened is not None:
                self.log.states.append(State(time.time(), "gone", self._relay))
        return (anyio.current_time() - opened if opened else 0.0), code

    def _frames(self, port: int) -> AsyncGenerator[dict[str, Any], None]:
        start = f"last={RECENT}" if self._position is None else f"after={self._position}"
        return self._events(port, start) if self._sse else self._messages(port, start)

    async def _messages(self, port: int, start: str) -> AsyncGenerator[dict[str, Any], None]:
        socket = await connect(
            f"ws://127.0.0.1:{port}/ws?{start}", open_timeout=None, ping_interval=None, compression=None, proxy=None
        )
        try:
            while True:
                yield json.loads(await socket.recv())
        finally:
            socket.transport.abort()  # left behind, not waited for: the line may be dead

    async def _events(self, port: int, start: str) -> AsyncGenerator[dict[str, Any], None]:
        """An EventSource repeats its first query, and says by a header what it saw last."""
        resumed = f"Last-Event-ID: {self._position}\r\n" if self._position else ""
        request = f"GET /events?{start} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{resumed}\r\n"
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
            async with stream:
                buffered = BufferedByteReceiveStream(stream)
                await stream.send(request.encode())
                head = await buffered.receive_until(b"\r\n\r\n", 65536)
                if not head.startswith(b"HTTP/1.1 200"):
                    if head.startswith(b"HTTP/1.1 400"):
                        raise PositionRefused(f"{self.log.name} at {self._position}")
                    return
                text = ""
                while size := int(await buffered.receive_until(b"\r\n", 100), 16):
                    text += (await buffered.receive_exactly(size)).decode()
                    await buffered.receive_exactly(2)
                    while "\n\n" in text:
                        event, text = text.split("\n\n", 1)
                        for line in event.split("\n"):
                            if line.startswith("data: "):
                                yield json.loads(line[6:])
        except (anyio.BrokenResourceError, anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.EndOfStream) as error:
            raise EOFError from error

    def _take(self, frame: dict[str, Any]) -> None:
        now = time.time()
        match frame["type"]:
            case "welcome" | "status":
                if frame["type"] == "welcome":
                    self._gap = None
                self.log.states.append(State(now, frame["channel"], self._relay))
            case "gap":
                self._gap = (parse(frame["after"]), parse(frame["before"]))
            case "message":
                position, message_id = parse(frame["position"]), sys.intern(frame["id"])
                known = message_id in self._ids
                self.log.seen.append(Seen(now, position, message_id, not known))
                self.dropped += known
                if self._position is None or position > self._position:
                    self._position = position
                if self._gap is not None:
                    self.log.gaps.append(Told(now, *self._gap))
                    self._gap = None
                self._ids.add(message_id)
