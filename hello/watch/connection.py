"""Stays connected to a relay by the client's rules: over WebSocket, or else by server-sent events.

It knows neither what frames mean nor how items look.
"""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple, Never

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from hello.client import IDLE_TIMEOUT, OPEN_TIMEOUT, ClientProtocol, Item, Opened, backoff_delay, next_attempt
from hello.message import Malformed
from hello.watch.events import Events
from hello.watch.transport import MAX_DETAIL, Closed, Transport, events_address, without_credentials
from hello.watch.websocket import WebSocket

FIRST_OPEN_TIMEOUT = 4.0  # seconds for a WebSocket, until one has opened: some proxies do not answer it at all
PROBE_INTERVAL = 60.0  # seconds, on average, between two attempts to return to WebSocket

Via = Literal["auto", "ws", "sse"]


class Connecting(NamedTuple):
    """The first attempt begins, or the transport changes, and why; `url` is without user and password."""

    url: str
    transport: str
    why: str


class Disconnected(NamedTuple):
    """A connection ended, or an attempt failed: why, in one word and in more, and when the next `attempt` begins."""

    state: str  # the reason
    detail: str
    attempt: int
    retry_in: float  # seconds


class Ended(NamedTuple):
    """How a connection or an attempt ended: the reason, in one word and in more."""

    reason: str
    detail: str
    seconds_open: float | None  # None if no frame came
    may_open_events: bool  # True if a stream of events may open where this WebSocket did not


Event = Item | Connecting | Disconnected


async def stay_connected(
    address: str, protocol: ClientProtocol, show: Callable[[Event], None], via: Via = "auto"
) -> Never:
    """Follow the stream at `address`, and reconnect until cancelled. `show` gets items and changes of the connection.

    It receives nothing more once `show` has cancelled it.
    """
    connector, attempt = _Connector(address, protocol, show), 0
    connector.show_connecting(Events if via == "sse" else WebSocket)
    while True:
        ended = await connector.connect(via)
        protocol.disconnected()
        if ended is None:
            connector.show_connecting(WebSocket, "a WebSocket opens again")
            continue
        attempt = next_attempt(attempt, ended.seconds_open)
        delay = backoff_delay(ended.reason, attempt, random.random())
        show(Disconnected(ended.reason, ended.detail, attempt, round(delay, 3)))
        await anyio.sleep(delay)


class _Connector:
    """Makes attempts, over one transport or two; it remembers what of them an attempt depends on."""

    def __init__(self, address: str, protocol: ClientProtocol, show: Callable[[Event], None]) -> None:
        self._addresses: dict[type[Transport], str] = {WebSocket: address, Events: events_address(address)}
        self._protocol = protocol
        self._show = show
        self._has_used_websocket = False
        self._obstacle = ""  # to a WebSocket, as it was shown

    def show_connecting(self, transport: type[Transport], why: str = "") -> None:
        """Show the address of this transport, and why it is used now."""
        self._show(Connecting(without_credentials(self._addresses[transport]), transport.name, why))

    async def connect(self, via: Via) -> Ended | None:
        """Make one attempt: by a WebSocket, and by server-sent events if that does not open and a server answers.

        Return None if a WebSocket opens again meanwhile.
        """
        if via != "sse":
            is_first = via == "auto" and not self._has_used_websocket
            ended = await self._follow(WebSocket, FIRST_OPEN_TIMEOUT if is_first else OPEN_TIMEOUT)
            if via == "ws" or not ended.may_open_events:
                return ended
            if ended.detail != self._obstacle:
                self._obstacle = ended.detail
                self.show_connecting(Events, f"no WebSocket opens: {ended.detail}")
        result = None
        async with anyio.create_task_group() as group:
            if via == "auto":
                group.start_soon(self._probe_websocket, group.cancel_scope)
            result = await self._follow(Events, OPEN_TIMEOUT)
            group.cancel_scope.cancel()
        return result

    async def _probe_websocket(self, following: anyio.CancelScope) -> None:
        """Open a WebSocket now and then; its first frame cancels `following`."""

        async def end(_: str | bytes) -> None:
            following.cancel()

        while True:
            await anyio.sleep(PROBE_INTERVAL * random.uniform(0.5, 1.5))
            with anyio.move_on_after(OPEN_TIMEOUT), suppress(Closed, Malformed):
                await WebSocket(f"{self._addresses[WebSocket]}?last=0").receive(end)

    async def _follow(self, kind: type[Transport], open_timeout: float) -> Ended:
        """Connect, and receive frames until the connection ends."""
        transport = kind(f"{self._addresses[kind]}?{self._protocol.resume_query}")
        opened: float | None = None
        status, answered = 0, True
        reason, detail = "unreachable", f"no frame within {open_timeout:g} s"

        async def receive(data: str | bytes) -> None:
            nonlocal opened, reason, detail
            for item in self._protocol.receive(_decode(data)):
                self._show(item._replace(transport=kind.name) if isinstance(item, Opened) else item)
            if opened is None and kind is WebSocket:
                self._has_used_websocket, self._obstacle = True, ""
            opened = opened or anyio.current_time()
            reason, detail = "dead", f"no frame for {IDLE_TIMEOUT:g} s"
            timeout.deadline = anyio.current_time() + IDLE_TIMEOUT
            await checkpoint_if_cancelled()  # since a transport may have read several frames at once

        try:
            with anyio.move_on_after(open_timeout) as timeout:
                await transport.receive(receive)
        except Malformed as error:
            reason, detail = "garbled", str(error)
        except Closed as closed:
            reason = "unreachable" if opened is None and closed.reason == "lost" else closed.reason
            detail = closed.detail
            status, answered = closed.status, closed.answered
            if self._protocol.rejects_position(status, detail):
                self._protocol.reset_position()
                detail, status, answered = f"beginning anew with recent messages, after {detail}", 0, False
        may_open_events = False
        if reason == "unreachable":
            detail = transport.route() + detail[:MAX_DETAIL]
            # A proxy answers 502 if the relay behind it is away; a relay that is lost again answers nothing.
            may_open_events = status < 500 if status else answered and not self._has_used_websocket
        seconds_open = None if opened is None else anyio.current_time() - opened
        return Ended(reason, detail[:MAX_DETAIL], seconds_open, may_open_events)


def _decode(data: str | bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a frame is a JSON object: {error}") from error
