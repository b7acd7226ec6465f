"""Clients over WebSocket (that of `hello watch`) and server-sent events, by the rules of `hello.client`.

They reach any relay at one port, and record all that they receive; they judge nothing.
"""

import json
import random
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Literal, Never

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from hello.client import IDLE_TIMEOUT, OPEN_TIMEOUT, ClientProtocol, Lost, Opened, Repeated, Shown, StatusChanged
from hello.message import Gap, Malformed, Position
from hello.watch.connection import Disconnected, Event, stay_connected
from tests.faults.checker import ClientLog
from tests.promises import Received, State

LONG_AWAY = 0.2  # the share of a leaving client's absences that is longer than the history

# "stays" connected, "moves" from one relay to another, or "leaves" and comes back
Behaviour = Literal["stays", "moves", "leaves"]


class PositionRejected(Exception):
    """A relay does not resume from a position that a relay gave: with clocks that only go back this must not be."""


class Client:
    """One client, which reaches a relay at this port; `history_seconds` is about how long a message is kept."""

    def __init__(
        self, name: str, port: int, *, sse: bool, behaviour: Behaviour, history_seconds: float, seed: int
    ) -> None:
        self.log = ClientLog(name)
        self._port = port
        self._sse = sse
        self._behaviour = behaviour
        self._history_seconds = history_seconds
        self._rng = random.Random(f"{seed} {name}")
        self._protocol = ClientProtocol()
        self._gap: Gap | None = None  # reported, before a message that is yet to come

    async def run(self, last_round: anyio.Event) -> None:
        """Be a client without end; once `last_round` is set it stays connected."""
        while True:
            with anyio.CancelScope() as visit:
                if self._behaviour != "stays" and not last_round.is_set():
                    visit.deadline = anyio.current_time() + self._rng.uniform(2, 15)
                if self._sse:
                    await self._follow_events()
                else:
                    await stay_connected(f"ws://127.0.0.1:{self._port}/ws", self._protocol, self._record, "ws")
            self._disconnected()
            if self._behaviour == "leaves":
                left = time.time()
                self.log.away.append((left, float("inf")))
                with anyio.move_on_after(self._time_away()):
                    await last_round.wait()
                self.log.away[-1] = (left, time.time())

    def _time_away(self) -> float:
        if self._rng.random() < LONG_AWAY:
            return self._history_seconds * self._rng.uniform(1, 1.5)
        return self._rng.uniform(0.2, 8)

    async def _follow_events(self) -> Never:
        while True:
            seconds = OPEN_TIMEOUT
            with suppress(OSError, EOFError, TimeoutError, StopAsyncIteration):
                async with aclosing(self._events()) as frames:
                    while True:
                        with anyio.fail_after(seconds):
                            frame = await anext(frames)
                        seconds = IDLE_TIMEOUT
                        for item in self._protocol.receive(frame):
                            self._record(item)
            self._disconnected()
            await anyio.sleep(self._rng.random())

    async def _events(self) -> AsyncGenerator[dict[str, Any], None]:
        """An EventSource repeats its first query, and sends its position in a header."""
        position = self._protocol.position
        resumed = f"Last-Event-ID: {position}\r\n" if position else ""
        request = f"GET /events?{ClientProtocol().resume_query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{resumed}\r\n"
        try:
            async with await anyio.connect_tcp("127.0.0.1", self._port) as stream:
                buffered = BufferedByteReceiveStream(stream)
                await stream.send(request.encode())
                head = await buffered.receive_until(b"\r\n\r\n", 65536)
                if (status := head.split()[1]) == b"400":
                    raise PositionRejected(f"{self.log.name} at {position}: {(await buffered.receive()).decode()}")
                if status != b"200":
                    return
                text = ""
                while size := int(await buffered.receive_until(b"\r\n", 100), 16):
                    text += (await buffered.receive_exactly(size)).decode()
                    await buffered.receive_exactly(2)
                    *events, text = text.split("\n\n")
                    for line in "\n".join(events).split("\n"):
                        if line.startswith("data: "):
                            yield json.loads(line[6:])
        except (anyio.BrokenResourceError, anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.EndOfStream) as error:
            raise EOFError from error

    def _disconnected(self) -> None:
        self._protocol.disconnected()
        if self.log.states and self.log.states[-1].state != "gone":
            self.log.states.append(State(time.time(), "gone", self.log.states[-1].relay))

    def _record(self, event: Event) -> None:
        now = time.time()
        match event:
            case Opened(relay, _, channel):
                self.log.connections += 1
                self.log.states.append(State(now, channel, relay))
                self.log.start = self.log.start or self._protocol.position
            case StatusChanged(channel):
                self.log.states.append(State(now, channel, self.log.states[-1].relay))
                self.log.start = self.log.start or self._protocol.position
            case Lost(after, before) if before is not None:
                self._gap = Gap(after, before)
            case Shown(message, position):
                self._receive(position, message.id, shown=True)
            case Repeated(position, message_id):
                self._receive(position, message_id, shown=False)
            case Disconnected("garbled", detail):
                raise Malformed(detail)
            case Disconnected(_, detail) if "anew" in detail:
                raise PositionRejected(f"{self.log.name}: {detail}")
            case Disconnected():
                self._disconnected()

    def _receive(self, position: Position, message_id: str, *, shown: bool) -> None:
        gap, self._gap = self._gap, None
        self.log.received.append(Received(time.time(), position, sys.intern(message_id), gap, shown))
