"""The client's rules, sans I/O: decoded frames in, items out. It knows neither sockets nor clocks nor output.

A client over WebSocket and one over server-sent events use it alike:

    protocol = ClientProtocol(last=10)
    protocol.resume_query                             # "last=10": open /ws?last=10
    protocol.receive({"type": "welcome", "relay": "relay-1", "channel": "up", "start": "7-0", "head": "7-0"})
                                                      # [Opened("relay-1", 7-0, "up")]
    protocol.receive({"type": "message", "position": "9-0", "id": "a", ...})
                                                      # [Shown(a, 9-0, "live", frame)]
    protocol.disconnected()                           # wait for backoff_delay(...) seconds
    protocol.resume_query                             # "after=9-0": open /ws?after=9-0
    protocol.receive({"type": "welcome", "relay": "relay-2", "channel": "up", "start": "9-0", "head": "12-0"})
                                                      # [Opened("relay-2", 12-0, "up")]
    protocol.receive({"type": "gap", "after": "9-0", "before": "12-0"})
                                                      # []: the gap is reported with the message that follows
    protocol.receive({"type": "message", "position": "12-0", "id": "b", ...})
                                                      # [Lost(9-0, 12-0, True), Shown(b, 12-0, "recovered", frame),
                                                      #  Resumed(1)]

A client resumes after the last message that it received. If it has received none, it resumes after the first `start`
that a relay sent it, where its stream starts: before the recent messages that it asked for, or where an empty channel
begins. So nothing is lost if the connection breaks right after the welcome. A relay that has not read its channel yet
sends `start` and `head` later, with the first status "up"; without a `start` the client asks for recent messages again.

The page follows the same rules (connection.js, client-protocol.js).
"""

from typing import Any, Literal, NamedTuple

from websockets.frames import CloseCode

from hello.message import Malformed, Message, Position

IDLE_TIMEOUT = 25.0  # seconds without a frame until a connection is dead: a relay sends a beat every 10 s
OPEN_TIMEOUT = 10.0  # seconds from the start of an attempt to the first frame; a kernel waits for minutes
STABLE = 10.0  # seconds open until attempts count from 1 again: a relay that closes at once is not flooded
MAX_DELAYS = (1.0, 0.5, 1.0, 2.0, 4.0, 5.0)  # seconds, by attempt; the last for all others
RECENT = 50  # messages to begin with, as many as the page
KEPT_IDS = 500  # message ids remembered: a client that runs for a week does not grow
REASONS: dict[int, str] = {CloseCode.SERVICE_RESTART: "moved", CloseCode.TRY_AGAIN_LATER: "slow"}  # by close code


class Opened(NamedTuple):
    """A connection began with a welcome. `head` is the newest position, or None if the relay has, or knows, none."""

    relay: str
    head: Position | None
    channel: str
    transport: str = "websocket"  # a client that uses another one replaces it


class Resumed(NamedTuple):
    """A client that reconnected has everything up to the relay's head; `missed` counts the messages recovered."""

    missed: int


class Shown(NamedTuple):
    """A message to show.

    It came "live", as "history" (it was in the stream at the first connection) or "recovered" (missed while
    disconnected). `frame` is the message as the relay sent it, with `relay` and the fields of newer relays.
    """

    message: Message
    position: Position
    came: Literal["live", "history", "recovered"]
    frame: dict[str, Any]


class Lost(NamedTuple):
    """Messages after `after` and before `before` are lost; `before` is None if nothing has followed.

    `certain` is False where messages may be lost: a relay rejected the position `after`.
    """

    after: Position
    before: Position | None
    certain: bool


class Repeated(NamedTuple):
    """A message came again, and is not shown again."""

    position: Position
    id: str


class StatusChanged(NamedTuple):
    """The relay's channel is `up` or `down`. `frame` is the status as the relay sent it, with `since`."""

    channel: str
    frame: dict[str, Any]


Item = Opened | Resumed | Shown | Lost | Repeated | StatusChanged


class ClientProtocol:
    """One client over all its connections, in bounded memory; `last` is how many recent messages it begins with."""

    def __init__(self, last: int = RECENT) -> None:
        self._last = last
        self.connections = 0  # that opened
        self._connected = False
        self._behind = False  # True until this connection has a start and, if it is not the first, all up to `_head`
        self._missed = 0  # messages missed while disconnected and shown since this connection opened
        self._head: Position | None = None  # the newest position when this connection opened, or its channel came up
        self._history_end: Position | None = None  # the first head: messages up to it are history
        self._known_end: Position | None = None  # up to which known messages come again, once we have begun anew
        self._start: Position | None = None  # where to resume until there is a first message
        self._newest: Position | None = None  # of the last message received
        self._ids: dict[str, None] = {}  # in the order of arrival
        self._gap: Lost | None = None  # received, and reported with the message that follows
        self._rejected: Position | None = None  # the position that a relay would not resume from

    @property
    def position(self) -> Position | None:
        """Where to resume: after the last message, or where the stream starts; None before the first `start`."""
        return self._start if self._newest is None else self._newest

    @property
    def resume_query(self) -> str:
        """The query to connect with: `after=POSITION` or `last=N`."""
        return f"last={self._last}" if self.position is None else f"after={self.position}"

    @property
    def complete(self) -> bool:
        """True if the client is connected and has received what it had missed."""
        return self._connected and not self._behind

    def receive(self, frame: object) -> list[Item]:
        """Return the items that a decoded frame gives, often none. A frame of an unknown type gives none.

        Raises Malformed if no relay sends such a frame: close the connection, since to go on would skip the frame
        silently; the next connection asks for it again.
        """
        if not isinstance(frame, dict):
            raise Malformed(f"a frame is a JSON object, not {type(frame).__name__}")
        kind = frame.get("type")
        if (kind == "welcome") is self._connected:
            raise Malformed("a connection begins with a welcome, and has no other")
        match kind:
            case "welcome":
                return self._welcome(frame)
            case "message":
                return self._message(frame)
            case "status":
                _check(frame, channel=str, since=int)
                start = _start(frame)
                return [StatusChanged(frame["channel"], frame), *(self._begin(*start) if start else ())]
            case "gap":
                self._gap = Lost(_position(frame, "after"), _position(frame, "before"), certain=True)
        return []

    def disconnected(self) -> None:
        """Note that the connection has ended."""
        self._connected = False

    def rejects_position(self, status: int, reason: str) -> bool:
        """True if this HTTP response rejects our position; a 400 that does not name it may come from any proxy."""
        return status == 400 and self.position is not None and str(self.position) in reason

    def reset_position(self) -> None:
        """Begin anew with recent messages, since a relay rejected our position. If the first is known, none is lost."""
        self._rejected = self._rejected or self.position
        self._start = self._newest = None
        self._last = RECENT
        self._history_end = None

    def finish(self) -> list[Item]:
        """Return the loss that no message has followed, if there is one. Call it when no frame will come any more."""
        return self._take_loss(None, known=False)

    def _welcome(self, frame: dict[str, Any]) -> list[Item]:
        _check(frame, relay=str, channel=str)
        start = _start(frame)
        self.connections += 1
        self._connected = self._behind = True
        self._gap = None  # from a connection that ended: this relay sends it again, or has the messages
        self._missed = 0
        self._head = None
        items = self._begin(*start) if start else []
        return [Opened(frame["relay"], self._head, frame["channel"]), *items]

    def _begin(self, start: Position, head: Position | None) -> list[Item]:
        """Take the positions where the stream of this connection starts, and where the relay's messages end."""
        self._head = head
        if self.position is None:
            self._start = start
            if self._rejected is None:
                self._history_end = head
            else:
                self._known_end = max(head or self._rejected, self._rejected)
        reconnected = self.connections > 1
        self._behind = reconnected and head is not None and head > (self.position or start)
        return [Resumed(0)] if reconnected and not self._behind else []

    def _message(self, frame: dict[str, Any]) -> list[Item]:
        _check(frame, relay=str)
        message = Message(**{name: frame.get(name) for name in Message.__annotations__})  # type: ignore[arg-type]  # Message checks them
        position = _position(frame, "position")
        if self._newest is not None and position <= self._newest:
            return [Repeated(position, message.id)]
        self._newest = position
        live = self._head is None or position > self._head
        known = message.id in self._ids
        items = self._take_loss(position, known)
        if not known:
            items.append(self._show(frame, message, position, live))
        elif self._known_end is None or position > self._known_end:
            items.append(Repeated(position, message.id))
        if self._behind and self._head is not None and position >= self._head:
            self._behind = False
            items.append(Resumed(self._missed))
        return items

    def _show(self, frame: dict[str, Any], message: Message, position: Position, live: bool) -> Shown:
        self._ids[message.id] = None
        if len(self._ids) > KEPT_IDS:
            del self._ids[next(iter(self._ids))]
        recovered = not live and (self._history_end is None or position > self._history_end)
        self._missed += recovered
        return Shown(message, position, "live" if live else "recovered" if recovered else "history", frame)

    def _take_loss(self, before: Position | None, known: bool) -> list[Item]:
        """Return the pending loss, if there is one; `known` is True if the message at `before` was shown already."""
        loss = self._gap
        if self._rejected is not None:  # a gap where the stream begins anew is not one after our former position
            loss = None if known else Lost(self._rejected, before, certain=False)
        self._gap = self._rejected = None
        return [] if loss is None else [loss]


def close_reason(code: int | None, opened: bool) -> str:
    """Return why a relay closed, in one word; `code` is None without a close frame, `opened` True after a frame."""
    return REASONS.get(code or 0, "lost" if opened else "unreachable")


def next_attempt(attempt: int, seconds_open: float | None) -> int:
    """Return the number of the next attempt, from 1, after a connection that was open so long (None: no frame came)."""
    return 1 if seconds_open is not None and seconds_open >= STABLE else attempt + 1


def backoff_delay(reason: str, attempt: int, jitter: float) -> float:
    """Return the seconds to wait before an attempt, counted from 1, after a connection that ended for `reason`.

    `jitter` is a random number from 0 to 1 ("full jitter"): clients that are lost together do not return together. A
    client that was too slow waits for the longest delay, so that it does not fall behind again at once.
    """
    return jitter * MAX_DELAYS[-1 if reason == "slow" else min(attempt, len(MAX_DELAYS)) - 1]


def _start(frame: dict[str, Any]) -> tuple[Position, Position | None] | None:
    """Return `start` and `head` of a frame, or None if it has none: the relay has not read its channel yet."""
    if "start" not in frame:
        return None
    return _position(frame, "start"), None if frame.get("head") is None else _position(frame, "head")


def _position(frame: dict[str, Any], name: str) -> Position:
    _check(frame, **{name: str})
    return Position.parse(frame[name])


def _check(frame: dict[str, Any], **types: type) -> None:
    for name, wanted in types.items():
        if type(frame.get(name)) is not wanted:
            raise Malformed(f"a {frame['type']}'s {name} is {wanted.__name__}, not {type(frame.get(name)).__name__}")
