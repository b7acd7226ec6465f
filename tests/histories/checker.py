"""What was wrong in a history: it gets every event as it happens, and returns findings. It knows no channel, no client.

What a reader must receive is in tests/promises.py. Here stands what only a record in virtual time can prove: what each
relay has, what the backend keeps, who has the lease, and that a relay that drains sends what is pending.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf

import anyio
from websockets.frames import CloseCode

from hello.channel import HEARTBEAT_SECONDS, LEASE_SECONDS, Batch
from hello.message import ORIGIN, Entry, Gap, Position
from hello.web.websocket import STALL_SECONDS
from tests import promises
from tests.promises import Accepted, AcceptedLog, Finding, Reader, Received, State, seconds_to_down

DOWN_SECONDS = HEARTBEAT_SECONDS + 0.5  # from a cut until a connected client that reads knows of it

KINDS = (*promises.KINDS, "pending")


class _Relay:
    """What a relay has, by what was delivered to it."""

    def __init__(self) -> None:
        self.subscription: Reader | None = None
        self.log: dict[str, Position] = {}  # the last `history` messages, oldest first
        self.appended: dict[Position, str] = {}  # every entry that was ever new to it
        self.dropped: set[Position] = set()  # entries whose message it had already
        self.cut_at: float | None = None  # when an outage began that its clients must know of
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
    position: Position | None = None  # to resume after
    reads: bool = True
    stalled_at: float | None = None  # when it stopped reading, on this connection
    channel: str | None = None
    states: list[State] = field(default_factory=list)
    pending: Position | None = None  # up to where the relay must send before it closes

    def is_lost(self, entry: Accepted, _: float) -> bool | None:
        """True if its relay never had the entry, or has trimmed it.

        None if its relay dropped the entry as a copy, and the client resumed after the first one: what is not promised.
        """
        if entry.position in self.relay.dropped:
            # The first copy counts when the relay has trimmed it, too: a client may start or resume just after it.
            copies = (position for position, message_id in self.relay.appended.items() if message_id == entry.id)
            first, cursor = next(copies, None), self.reader.cursor
            if first is not None and cursor is not None and cursor >= first:
                return None
            return entry.id not in self.relay.log and entry.id not in self.reader.shown
        return self.relay.log.get(entry.id) != entry.position


class Checker:
    """Checks one history, where the backend and each relay keep `history` entries. Each method but `end` is an event.

    Processes have names, and clients numbers. `now` returns the time in seconds.
    """

    def __init__(self, history: int, now: Callable[[], float] = anyio.current_time) -> None:
        self.findings: list[Finding] = []
        self._history = history
        self._now = now
        self._accepted = AcceptedLog()
        self._kept: dict[Position, str] = {}
        self._count_at_healing = 0  # of accepted entries
        self._holder: str | None = None
        self._expires = 0.0
        self._lost: dict[str, str] = {}  # by holder, the message whose publish has had no reply
        self._relays: dict[str, _Relay] = {}
        self._clients: dict[int, _Client] = {}

    # Events of the backend.

    def accepted(self, entry: Entry, holder: str | None) -> None:
        """The backend accepted an entry, from a holder of the lease or, with None, without one."""
        position, message_id = entry.position, entry.message.id
        entries = self._accepted.entries
        if entries and position <= entries[-1].position:
            self._find("out of order", f"{message_id} was accepted at {position}, after {entries[-1].position}")
        if message_id in self._kept.values():
            self._find("repeated", f"{message_id} was accepted at {position} too")
        if holder is not None and not (self._holder == holder and self._now() < self._expires):
            self._find("leader", f"{message_id} was accepted from {holder}, which does not have the lease")
        self._accepted.append(Accepted(self._now(), position, message_id, holder))
        self._kept[position] = message_id
        if len(self._kept) > self._history:
            del self._kept[next(iter(self._kept))]

    def replaced(self, positions: frozenset[Position], *, known: bool = True) -> None:
        """The backend was wiped or restored: it has these entries now, and the lease is free.

        If what it has lost is not `known` to who publishes next, everybody has that already.
        """
        if not known:
            newest = max(positions, default=ORIGIN)
            self._accepted.had_by_all |= {each.position for each in self._accepted.entries if each.position > newest}
        self._kept = {each.position: each.id for each in self._accepted.entries if each.position in positions}
        self._holder = None

    def acquired(self, holder: str, *, granted: bool) -> None:
        """The backend granted or refused the lease."""
        free = self._holder in (None, holder) or self._now() >= self._expires
        if granted is not free:
            self._find("leader", f"{holder} was {'granted' if granted else 'refused'} the lease of {self._holder}")
        if granted:
            self._holder, self._expires = holder, self._now() + LEASE_SECONDS

    def released(self, holder: str) -> None:
        """The backend received the release of a holder."""
        self._holder = None if self._holder == holder else self._holder

    # Events of processes.

    def published(self, holder: str, message_id: str, result: str) -> None:
        """A holder published: `accepted`, `fenced` or, without a reply, `lost`."""
        if (before := self._lost.pop(holder, message_id)) != message_id:
            self._find("missing", f"{holder} gave up {before} for {message_id}")
        if result == "lost":
            self._lost[holder] = message_id

    def subscribed(self, name: str, after: Position | None) -> None:
        """A relay subscribed after this position."""
        relay = self._relay(name)
        if after != relay.head:
            self._find("missing", f"{name} subscribes after {after}, and has everything up to {relay.head}")
        relay.subscription = Reader(name, self._accepted, lambda entry, _: entry.position not in self._kept, after)

    def read(self, name: str, batch: Batch) -> None:
        """The backend gave a batch to the subscription of a relay."""
        reader = self._relay(name).subscription
        assert reader is not None
        for entry in batch:
            gap = None
            if reader.cursor is None:  # the relay must receive all that is kept, and cannot see a gap
                reader.cursor = _just_before(next(iter(self._kept), None))
            elif not entry.follows(reader.cursor):
                gap = Gap(reader.cursor, entry.position)
            self.findings += reader.receive(Received(self._now(), entry.position, entry.message.id, gap, shown=None))

    def delivered(self, name: str, batch: Batch) -> None:
        """The relay received the batch."""
        relay = self._relay(name)
        for entry in batch:
            if entry.message.id in relay.log:
                relay.dropped.add(entry.position)
                continue
            relay.log[entry.message.id] = entry.position
            relay.appended[entry.position] = entry.message.id
            if len(relay.log) > self._history:
                del relay.log[next(iter(relay.log))]

    def cut(self, name: str) -> None:
        """The connection of a process to the backend was cut."""
        relay = self._relay(name)
        if relay.cut_at is None and not relay.hung:
            relay.cut_at = self._now()

    def hung(self, name: str) -> None:
        """The connection of a process hangs: nothing comes, and nothing is refused either."""
        self._end_outage(name, hung=True)

    def healed(self, name: str) -> None:
        """The connection of a process works again."""
        self._end_outage(name, hung=False)

    def stopping(self, name: str) -> None:
        """A process was terminated, and drains."""
        for client in self._clients.values():
            if client.connected_to == name:
                client.pending = client.relay.head

    # Events of clients.

    def connected(self, number: int, name: str, after: Position | None) -> None:
        """The relay admitted the client, which resumes after this position or, with None, asks for all that is kept."""
        client = self._client(number)
        if after != client.position:
            self._find("missing", f"{client.reader.name} resumes after {after}, and not after {client.position}")
        client.connected_to, client.relay = name, self._relay(name)
        client.channel, client.pending = None, None
        client.stalled_at = None if client.reads else self._now()
        client.reader.cursor = after or client.reader.cursor

    def started(self, number: int, start: Position) -> None:
        """A client was sent where its stream starts; without a position it must receive all that its relay has."""
        client = self._client(number)
        if client.position is None:
            if client.relay.start is not None and start > client.relay.start:
                self._find("missing", f"{client.reader.name} starts at {start}, after {client.relay.start}")
            client.position = start
            client.reader.cursor = client.reader.cursor or start

    def position_refused(self, number: int) -> None:
        """A client begins anew with recent messages, since a relay refused its position: old ones, maybe."""
        client = self._client(number)
        client.position = client.reader.cursor = None

    def reloaded(self, number: int) -> None:
        """A client begins anew, as another one."""
        self._clients.pop(number, None)

    def all_have_everything(self, relays: Iterable[str]) -> bool:
        """Return True if all clients, and these relays, have the newest entry."""
        if not (entries := self._accepted.entries):
            return True
        newest = entries[-1]
        have = [newest.position in self._relay(name).appended for name in relays]
        return all(have) and all(client.reader.cursor == newest.position for client in self._clients.values())

    def status_received(self, number: int, channel: str) -> None:
        """A client received the status of the channel, `up` or `down`, in a welcome or by itself."""
        client = self._client(number)
        client.channel = channel
        if client.reads:  # a client that stops reading still receives the frame that it waits for
            client.states.append(State(self._now(), channel, client.connected_to or ""))

    def message_received(
        self,
        number: int,
        position: Position,
        message_id: str,
        gap: Gap | None = None,
        *,
        shown: bool = True,
        certain: bool = True,
    ) -> None:
        """A client received a message, with the gap before it; `shown` is False if the client had shown it before."""
        client = self._client(number)
        if client.relay.appended.get(position) != message_id and self._accepted.has(position, message_id):
            self._find("repeated", f"{client.reader.name}: {message_id} at {position} is no entry of its relay")
        self.findings += client.reader.receive(Received(self._now(), position, message_id, gap, shown, certain))
        client.position = max(client.position or ORIGIN, position)

    def received_again(self, number: int, position: Position) -> None:
        """A client that has begun anew received a message that it knows, and passed it over."""
        client = self._client(number)
        client.position = client.reader.cursor = position

    def reads(self, number: int, reads: bool) -> None:
        """A client reads what comes from now on, or does not read."""
        client = self._client(number)
        client.reads = reads
        client.stalled_at = client.stalled_at if reads else self._now()
        state = client.channel if reads and client.connected_to else None
        client.states.append(State(self._now(), state or "gone", client.connected_to or ""))

    def disconnected(self, number: int, code: int | None, *, ended: bool) -> None:
        """The relay closed the stream with a code (`/ws`), ended it without (`/events`), or neither: it broke."""
        client = self._client(number)
        # Without a code a stream may also have ended since its client did not read.
        stalled = client.stalled_at is not None and self._now() - client.stalled_at >= STALL_SECONDS
        drained = code == CloseCode.SERVICE_RESTART or (ended and not stalled)
        cursor, pending = client.reader.cursor, client.pending
        if drained and pending is not None and (cursor is None or cursor < pending):
            self._find("pending", f"{client.connected_to} closed {client.reader.name} at {cursor}, before {pending}")
        client.states.append(State(self._now(), "gone", ""))
        client.connected_to = client.channel = None

    # The end.

    def all_healed(self) -> None:
        """From here on there are no faults, every client stays connected, and reads."""
        self._count_at_healing = len(self._accepted.entries)

    def end(self) -> list[Finding]:
        """Return all findings: enough time has passed, or every client has every message."""
        for name in self._relays:
            self._end_outage(name, hung=False)
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
        return self.findings

    def _end_outage(self, name: str, *, hung: bool) -> None:
        """Find clients that do not know of an outage although there was enough time."""
        relay = self._relay(name)
        if relay.cut_at is not None and self._now() > relay.cut_at + DOWN_SECONDS:
            for client in self._clients.values():
                if seconds_to_down(client.states, name, relay.cut_at, DOWN_SECONDS) == inf:
                    self._find("status", f"{client.reader.name} does not know that the channel of {name} is down")
        relay.cut_at, relay.hung = None, hung

    def _relay(self, name: str) -> _Relay:
        return self._relays.setdefault(name, _Relay())

    def _client(self, number: int) -> _Client:
        if number not in self._clients:
            client = _Client(Reader(f"client {number}", self._accepted, lambda entry, at: client.is_lost(entry, at)))
            self._clients[number] = client
        return self._clients[number]

    def _find(self, kind: str, text: str) -> None:
        assert kind in KINDS
        self.findings.append(Finding(kind, self._now(), text))


def _just_before(position: Position | None) -> Position | None:
    return position and position._replace(sequence=position.sequence - 1)
