"""What was wrong in a history: a pure function from its record to findings. It knows no channel and no client.

What a reader must receive is in tests/promises.py. Here stands what only a record in virtual time can prove: what each
relay has, what the backend keeps, who has the lease, and that a relay that drains sends what is pending.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from websockets.frames import CloseCode

from hello.channel import HEARTBEAT_SECONDS, LEASE_SECONDS, Batch
from hello.message import ORIGIN, Entry, Gap, Position
from hello.web.websocket import STALL_SECONDS
from tests import promises
from tests.histories import record as r
from tests.promises import Accepted, AcceptedLog, Finding, Reader, Received, State, seconds_to_down

DOWN_SECONDS = HEARTBEAT_SECONDS + 0.5  # from a cut until a connected client that reads knows of it

KINDS = (*promises.KINDS, "pending")


def check(events: Iterable[tuple[float, r.Event]], history: int) -> list[Finding]:
    """Return all findings in these events, where the backend and each relay keep `history` entries."""
    checker = _Checker(history)
    for at, event in events:
        checker.take(at, event)
    return checker.findings


class _Relay:
    """What a relay has, by what was delivered to it."""

    def __init__(self) -> None:
        self.subscription: Reader | None = None
        self.log: dict[str, Position] = {}  # the last `history` messages, oldest first
        self.appended: dict[Position, str] = {}  # every entry that was ever new to it
        self.dropped: set[Position] = set()  # entries whose message it had already
        self.cut_at: float | None = None  # when an outage began that its clients must know of, if they do not yet
        self.hung = False

    @property
    def head(self) -> Position | None:
        return next(reversed(self.log.values()), None)

    @property
    def start(self) -> Position | None:
        """Just before the oldest message."""
        return _just_before(next(iter(self.log.values()), None))


@dataclass
class _Client:
    reader: Reader
    relay: _Relay = field(default_factory=_Relay)
    connected_to: str | None = None
    had_messages: bool = False  # the relay, when the client began to connect to it
    position: Position | None = None  # to resume after
    reads: bool = True
    stalled_at: float | None = None  # when it stopped reading, on this connection
    channel: str | None = None
    states: list[State] = field(default_factory=list)
    pending: Position | None = None  # up to where the relay must send before it closes

    def is_lost(self, entry: Accepted, _: float) -> bool:
        """True if its relay never had the entry, or has trimmed it."""
        if entry.position in self.relay.dropped:
            return entry.id not in self.relay.log and entry.id not in self.reader.shown
        return self.relay.log.get(entry.id) != entry.position


class _Checker:
    def __init__(self, history: int) -> None:
        self.findings: list[Finding] = []
        self._history = history
        self._at = 0.0
        self._accepted = AcceptedLog()
        self._kept: dict[Position, str] = {}
        self._count_at_healing = 0  # of accepted entries
        self._holder: str | None = None
        self._expires = 0.0
        self._published: dict[str, r.Published] = {}  # the last by each holder
        self._relays: dict[str, _Relay] = {}
        self._clients: dict[int, _Client] = {}

    def take(self, at: float, event: r.Event) -> None:
        self._at = at
        self._check_outages()
        match event:
            case r.Accepted(entry, holder):
                self._accept(entry, holder)
            case r.Kept(positions):
                entries = self._accepted.entries
                self._kept = {entry.position: entry.id for entry in entries if entry.position in positions}
                self._holder = None
            case r.Acquired(holder, granted):
                self._acquire(holder, granted)
            case r.Released(holder):
                self._holder = None if self._holder == holder else self._holder
            case r.Published(holder, message_id, _):
                before = self._published.get(holder)
                if before is not None and before.result == "lost" and before.id != message_id:
                    self._find("missing", f"{holder} gave up {before.id} for {message_id}")
                self._published[holder] = event
            case r.Subscribed(name, after):
                relay = self._relay(name)
                if after != relay.head:
                    self._find("missing", f"{name} subscribes after {after}, and has everything up to {relay.head}")
                relay.subscription = Reader(name, self._accepted, self._is_gone, after)
            case r.Read(name, batch):
                self._read(self._relay(name), batch)
            case r.Delivered(name, batch):
                self._deliver(self._relay(name), batch)
            case r.Cut(name):
                relay = self._relay(name)
                if relay.cut_at is None and not relay.hung:
                    relay.cut_at = at
            case r.Hung(name) | r.Healed(name):
                relay = self._relay(name)
                relay.cut_at, relay.hung = None, isinstance(event, r.Hung)
            case r.Stopping(name):
                for client in self._clients.values():
                    if client.connected_to == name:
                        client.pending = client.relay.head
            case r.AllHealed():
                self._count_at_healing = len(self._accepted.entries)
            case r.Ended():
                self._end()
            case _:
                self._take_of_client(self._client(event.client), event)

    # The backend.

    def _accept(self, entry: Entry, holder: str | None) -> None:
        position, message_id = entry.position, entry.message.id
        entries = self._accepted.entries
        if entries and position <= entries[-1].position:
            self._find("out of order", f"{message_id} was accepted at {position}, after {entries[-1].position}")
        if message_id in self._kept.values():
            self._find("repeated", f"{message_id} was accepted at {position} too")
        if holder is not None and not (self._holder == holder and self._at < self._expires):
            self._find("leader", f"{message_id} was accepted from {holder}, which does not have the lease")
        self._accepted.append(Accepted(self._at, position, message_id, holder))
        self._kept[position] = message_id
        if len(self._kept) > self._history:
            del self._kept[next(iter(self._kept))]

    def _acquire(self, holder: str, granted: bool) -> None:
        free = self._holder in (None, holder) or self._at >= self._expires
        if granted is not free:
            self._find("leader", f"{holder} was {'granted' if granted else 'refused'} the lease of {self._holder}")
        if granted:
            self._holder, self._expires = holder, self._at + LEASE_SECONDS

    def _is_gone(self, entry: Accepted, _: float) -> bool:
        return entry.position not in self._kept

    # Relays.

    def _read(self, relay: _Relay, batch: Batch) -> None:
        reader = relay.subscription
        assert reader is not None
        for entry in batch:
            if reader.cursor is None:  # it must receive all that is kept
                reader.cursor = _just_before(next(iter(self._kept), None))
            gap = None
            if reader.cursor is not None and not entry.follows(reader.cursor):
                gap = Gap(reader.cursor, entry.position)
            self.findings += reader.receive(Received(self._at, entry.position, entry.message.id, gap, shown=None))

    def _deliver(self, relay: _Relay, batch: Batch) -> None:
        for entry in batch:
            if entry.message.id in relay.log:
                relay.dropped.add(entry.position)
                continue
            relay.log[entry.message.id] = entry.position
            relay.appended[entry.position] = entry.message.id
            if len(relay.log) > self._history:
                del relay.log[next(iter(relay.log))]

    # Clients.

    def _take_of_client(self, client: _Client, event: r.Event) -> None:
        match event:
            case r.Connecting(_, name):
                client.had_messages = bool(self._relay(name).log)
            case r.Connected(_, name, after):
                self._connect(client, name, after)
            case r.Welcomed(_, head):
                client.position = client.position or head or ORIGIN
            case r.StatusReceived(_, channel):
                client.channel = channel
                client.states.append(State(self._at, channel, client.connected_to or ""))
            case r.MessageReceived(_, position, message_id, gap, shown):
                if client.relay.appended.get(position) != message_id and self._accepted.has(position, message_id):
                    self._find("repeated", f"{client.reader.name}: {message_id} at {position} is no entry of its relay")
                self.findings += client.reader.receive(Received(self._at, position, message_id, gap, shown))
                client.position = max(client.position or ORIGIN, position)
            case r.Reads(_, reads):
                client.reads = reads
                client.stalled_at = client.stalled_at if reads else self._at
                state = client.channel if reads and client.connected_to else None
                client.states.append(State(self._at, state or "gone", client.connected_to or ""))
            case r.Disconnected(_, code, ended):
                self._disconnect(client, code, ended=ended)

    def _connect(self, client: _Client, name: str, after: Position | None) -> None:
        if after != client.position:
            self._find("missing", f"{client.reader.name} resumes after {after}, and not after {client.position}")
        client.connected_to, client.relay = name, self._relay(name)
        client.channel, client.pending = None, None
        client.stalled_at = None if client.reads else self._at
        # Without a position it must receive what its relay has; if its relay has nothing, any message may be the first.
        client.reader.cursor = after or (client.relay.start if client.had_messages else None)

    def _disconnect(self, client: _Client, code: int | None, *, ended: bool) -> None:
        # Without a code a stream may also have ended since its client did not read.
        stalled = client.stalled_at is not None and self._at - client.stalled_at >= STALL_SECONDS
        drained = code == CloseCode.SERVICE_RESTART or (ended and not stalled)
        cursor, pending = client.reader.cursor, client.pending
        if drained and pending is not None and (cursor is None or cursor < pending):
            self._find("pending", f"{client.connected_to} closed {client.reader.name} at {cursor}, before {pending}")
        client.states.append(State(self._at, "gone", ""))
        client.connected_to = client.channel = None

    def _check_outages(self) -> None:
        """Find clients that do not know of an outage once there has been enough time."""
        for name, relay in self._relays.items():
            if relay.cut_at is None or self._at <= relay.cut_at + DOWN_SECONDS:
                continue
            for client in self._clients.values():
                if seconds_to_down(client.states, name, relay.cut_at, DOWN_SECONDS) == inf:
                    self._find("status", f"{client.reader.name} does not know that the channel of {name} is down")
            relay.cut_at = inf  # it is checked once

    def _end(self) -> None:
        entries = self._accepted.entries
        if len(entries) == self._count_at_healing:
            self._find("late", "no message was accepted since everything was healed")
        for client in self._clients.values():
            reader = client.reader
            if client.connected_to is None:
                self._find("late", f"{reader.name} is connected to no relay")
            elif client.channel != "up":
                self._find("status", f"{reader.name} does not know that the channel is up")
            elif entries and (reader.cursor or ORIGIN) < entries[-1].position and entries[-1].id not in reader.shown:
                self._find("late", f"{reader.name} has not received {entries[-1].id}")

    # All.

    def _relay(self, name: str) -> _Relay:
        return self._relays.setdefault(name, _Relay())

    def _client(self, number: int) -> _Client:
        if number not in self._clients:
            client = _Client(Reader(f"client {number}", self._accepted, lambda entry, at: client.is_lost(entry, at)))
            self._clients[number] = client
        return self._clients[number]

    def _find(self, kind: str, text: str) -> None:
        assert kind in KINDS
        self.findings.append(Finding(kind, self._at, text))


def _just_before(position: Position | None) -> Position | None:
    return position and position._replace(sequence=position.sequence - 1)
