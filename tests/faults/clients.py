"""Clients over WebSocket and server-sent events, by the rules of `hello.client`, on real connections.

They know relays by the ports of their proxies, and record all that they receive; they judge nothing.
"""

import json
import random
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Literal

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from hello.client import (
    IDLE_TIMEOUT,
    OPEN_TIMEOUT,
    ClientProtocol,
    Lost,
    Opened,
    Repeated,
    Shown,
    StatusChanged,
    backoff_delay,
    close_reason,
    next_attempt,
)
from hello.message import Gap, Position
from tests.faults.checker import ClientLog
from tests.promises import Received, State

LONG_AWAY = 0.2  # the share of a leaving client's absences that is longer than the history

# "stays" connected, "moves" from one relay to another, or "leaves" and comes back
Behaviour = Literal["stays", "moves", "leaves"]


class PositionRejected(Exception):
    """A relay does not resume from a position that a relay gave: with clocks that only go back this must not be."""


class Client:
    """One client. `relays` has the ports of those relays that serve new clients, by name, and changes as they do."""

    def __init__(
        self,
        name: str,
        relays: Mapping[str, int],
        *,
        sse: bool,
        behaviour: Behaviour,
        history_seconds: float,
        seed: int,
    ) -> None:
        self.log = ClientLog(name)
        self._relays = relays
        self._sse = sse
        self._behaviour = behaviour
        self._history_seconds = history_seconds
        self._rng = random.Random(f"{seed} {name}")
        self._protocol = ClientProtocol()
        self._relay = ""

    async def run(self, last_round: anyio.Event) -> None:
        """Be a client without end; once `last_round` is set it stays connected."""
        while True:
            with anyio.CancelScope() as visit:
                if self._behaviour != "stays" and not last_round.is_set():
                    visit.deadline = anyio.current_time() + self._rng.uniform(2, 15)
                await self._stay_connected()
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

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            seconds_open, reason = await self._receive_until_closed()
            attempt = next_attempt(attempt, seconds_open)
            await anyio.sleep(backoff_delay(reason, attempt, self._rng.random()))

    async def _receive_until_closed(self) -> tuple[float | None, str]:
        """Connect and receive until the end; return how many seconds the connection was open, and why it closed."""
        opened: float | None = None
        code: int | None = None
        relays = dict(self._relays)  # as they are now
        names = self._rng.sample(sorted(relays), len(relays))
        if self._behaviour == "moves":
            names.sort(key=lambda name: name == self._relay)
        try:
            for name in names:  # as a Service would: another one if one refuses
                with suppress(ConnectionRefusedError):
                    async with aclosing(self._frames(relays[name])) as frames:
                        while True:
                            with anyio.fail_after(OPEN_TIMEOUT if opened is None else IDLE_TIMEOUT):
                                frame = await anext(frames)
                            if opened is None:
                                opened = anyio.current_time()
                                self._relay = name
                                self.log.connections += 1
                            self._record(frame)
        except InvalidStatus as refused:
            self._check_refusal(refused.response.status_code, (refused.response.body or b"").decode())
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
        except (OSError, InvalidHandshake, TimeoutError, EOFError, StopAsyncIteration):
            pass
        finally:
            self._protocol.disconnected()
            if opened is not None:
                self.log.states.append(State(time.time(), "gone", self._relay))
        seconds_open = None if opened is None else anyio.current_time() - opened
        return seconds_open, close_reason(code, opened is not None)

    def _frames(self, port: int) -> AsyncGenerator[dict[str, Any], None]:
        return self._events(port) if self._sse else self._websocket(port)

    async def _websocket(self, port: int) -> AsyncGenerator[dict[str, Any], None]:
        url = f"ws://127.0.0.1:{port}/ws?{self._protocol.resume_query}"
        socket = await connect(url, open_timeout=None, ping_interval=None, compression=None, proxy=None)
        try:
            while True:
                yield json.loads(await socket.recv())
        finally:
            socket.transport.abort()  # without a close handshake: the connection may hang

    async def _events(self, port: int) -> AsyncGenerator[dict[str, Any], None]:
        """An EventSource repeats its first query, and sends its position in a header."""
        position = self._protocol.position
        resumed = f"Last-Event-ID: {position}\r\n" if position else ""
        request = f"GET /events?{ClientProtocol().resume_query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{resumed}\r\n"
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
            async with stream:
                buffered = BufferedByteReceiveStream(stream)
                await stream.send(request.encode())
                head = (await buffered.receive_until(b"\r\n\r\n", 65536)).decode()
                if (status := int(head.split()[1])) != 200:
                    self._check_refusal(status, (await buffered.receive()).decode())
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

    def _check_refusal(self, status: int, body: str) -> None:
        if status == 400:
            raise PositionRejected(f"{self.log.name} at {self._protocol.position}: {body}")

    def _record(self, frame: dict[str, Any]) -> None:
        now = time.time()
        gap: Gap | None = None
        if self._protocol.position is None and "start" in frame:
            self.log.start = Position.parse(frame["start"])
        for item in self._protocol.receive(frame):
            match item:
                case Opened() | StatusChanged():
                    self.log.states.append(State(now, item.channel, self._relay))
                case Lost(after, before) if before is not None:
                    gap = Gap(after, before)
                case Shown():
                    message_id = sys.intern(item.message.id)
                    self.log.received.append(Received(now, item.position, message_id, gap, shown=True))
                case Repeated():
                    self.log.received.append(Received(now, item.position, sys.intern(item.id), gap, shown=False))
