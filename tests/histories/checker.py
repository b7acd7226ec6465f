"""Whether the promise held in a history: a pure function from its record to findings. It knows no channel, no page."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from websockets.frames import CloseCode

from hello.channel import HEARTBEAT_SECONDS, LEASE_SECONDS, Batch
from hello.message import Entry, Gap, Position
from hello.web.websocket import STALL_SECONDS
from tests.histories import record as r

DOWN_SECONDS = HEARTBEAT_SECONDS + 0.5  # within so long of a cut whoever is connected and reads knows of it

KINDS = ("missing", "twice", "out of order", "invented", "false gap", "untold gap", "late", "owed", "status", "voice")


class Finding(NamedTuple):
    """Something that should not have been: one of KINDS, when, and in words."""

    kind: str
    at: float
    text: str


def check(events: Iterable[tuple[float, r.Event]], history: int) -> list[Finding]:
    """All findings in these events, where the backend and each relay keep `history` entries."""
    checker = _Checker(history)
    for at, event in events:
        checker.take(at, event)
    return checker.findings


@dataclass
class _Relay:
    """What a relay has, by what was delivered to it."""

    cursor: Position | None = None  # of its subscription
    start: Position | None = None  # just before the oldest entry that was kept when it subscribed from no position
    log: dict[str, Position] = field(default_factory=dict)  # the last `history` messages, oldest first
    given: dict[Position, str] = field(default_factory=dict)  # every entry that was ever new to it
    dropped: set[Position] = field(default_factory=set)  # and those whose message it had already
    away: bool = False
    hung: bool = False

    @property
    def head(self) -> Position | None:
        return next(reversed(self.log.values()), None)

    @property
    def oldest(self) -> Position | None:
        return next(iter(self.log.values()), None)

    def has(self, entry: Entry) -> bool:
        return self.log.get(entry.message.id) == entry.position


@dataclass
class _Page:
    """What a page was given."""

    relay: str | None = None
    joins_late: bool = False  # its relay had something when it came for the first time
    cursor: Position | None = None  # what comes up to here is no longer owed
    shown: dict[str, Position] = field(default_factory=dict)
    gap: Gap | None = None
    reads: bool = True
    stalled_at: float | None = None  # when it stopped reading, on this connection
    channel: str | None = None
    down_by: float | None = None  # when it should know that the channel is down
    owed: Position | None = None  # up to where, before its relay closes


class _Checker:
    def __init__(self, history: int) -> None:
        self.findings: list[Finding] = []
        self._history = history
        self._at = 0.0
        self._accepted: list[Entry] = []
        self._ids: dict[Position, str] = {}
        self._kept: dict[Position, str] = {}
        self._healed = 0
        self._speaker: str | None = None
        self._lapses = 0.0
        self._answers: dict[str, r.Tried] = {}
        self._relays: dict[str, _Relay] = {}
        self._pages: dict[int, _Page] = {}

    def take(self, at: float, event: r.Event) -> None:
        self._at = at
        for number, page in self._pages.items():
            if page.down_by is not None and page.down_by < at:
                page.down_by = None
                self._find("status", f"page {number} was not told that the channel of {page.relay} is down")
        match event:
            case r.Accepted(entry, holder):
                self._accept(entry, holder)
            case r.Kept(positions):
                self._kept = {
                    entry.position: entry.message.id for entry in self._accepted if entry.position in positions
                }
                self._speaker = None
            case r.Claimed(holder, granted):
                self._claim(holder, granted)
            case r.Released(holder):
                if self._speaker == holder:
                    self._speaker = None
            case r.Tried(holder, message_id, _):
                before = self._answers.get(holder)
                if before is not None and before.answer == "lost" and before.id != message_id:
                    self._find("missing", f"{holder} gave up {before.id} for {message_id}")
                self._answers[holder] = event
            case r.Subscribed(name, after):
                self._subscribe(name, after)
            case r.Read(name, batch):
                self._read(name, batch)
            case r.Delivered(name, batch):
                self._deliver(self._relay(name), batch)
            case r.Away(name) | r.Hung(name) | r.Back(name):
                self._turn(name, event)
            case r.Stopping(name):
                for page in self._pages.values():
                    if page.relay == name:
                        page.owed = self._relay(name).head
            case r.Opening(number, name):
                page = self._pages.setdefault(number, _Page())
                page.joins_late = bool(self._relay(name).log)
            case r.Opened(number, name):
                self._open(self._pages[number], name)
            case r.Reads(number, reads):
                page = self._pages.setdefault(number, _Page())
                page.reads, page.down_by = reads, None
                if not reads:
                    page.stalled_at = at
            case r.Took(number, position, message_id):
                self._show(number, position, message_id)
            case r.Told(number, gap):
                self._tell(number, gap)
            case r.Heard(number, channel):
                page = self._pages[number]
                page.channel = channel
                if channel == "down":
                    page.down_by = None
            case r.Gone(number, code, ended):
                self._close(number, code, ended=ended)
            case r.Healed():
                self._healed = len(self._accepted)
            case r.Ended():
                self._end()

    # The backend.

    def _accept(self, entry: Entry, holder: str | None) -> None:
        position, message_id = entry.position, entry.message.id
        if self._accepted and position <= self._accepted[-1].position:
            self._find("out of order", f"{message_id} was accepted at {position}, after {self._accepted[-1].position}")
        if message_id in self._kept.values():
            self._find("twice", f"{message_id} was accepted at {position} too")
        if holder is not None and not self._has_voice(holder):
            self._find("voice", f"{message_id} was accepted of {holder}, who does not have the voice")
        self._accepted.append(entry)
        self._ids[position] = message_id
        self._kept[position] = message_id
        if len(self._kept) > self._history:
            del self._kept[next(iter(self._kept))]

    def _claim(self, holder: str, granted: bool) -> None:
        free = self._speaker is None or self._at >= self._lapses or self._speaker == holder
        if granted is not free:
            self._find("voice", f"{holder} was {'granted' if granted else 'refused'} the voice of {self._speaker}")
        if granted:
            self._speaker, self._lapses = holder, self._at + LEASE_SECONDS

    def _has_voice(self, holder: str) -> bool:
        return self._speaker == holder and self._at < self._lapses

    # Relays.

    def _subscribe(self, name: str, after: Position | None) -> None:
        relay = self._relay(name)
        if after != relay.head:
            self._find("missing", f"{name} goes on after {after}, and has everything up to {relay.head}")
        relay.cursor = after
        relay.start = _just_before(next(iter(self._kept))) if after is None and self._kept else None

    def _read(self, name: str, batch: Batch) -> None:
        relay = self._relay(name)
        for entry in batch:
            self._known(name, entry.position, entry.message.id)
            if relay.cursor is not None and entry.position <= relay.cursor:
                self._find("twice", f"{name} received {entry.message.id} after {relay.cursor}")
            between = self._between(relay.cursor or relay.start, entry.position)
            kept = [each for each in between if each.position in self._kept]
            for missing in kept:
                self._find("missing", f"{name} did not receive {missing.message.id}")
            follows = entry.follows(relay.cursor)
            if not follows and not between:
                self._find("false gap", f"{name} sees a gap before {entry.message.id}, where nothing was")
            for lost in between if follows and relay.cursor is not None else ():
                if lost not in kept:
                    self._find("untold gap", f"{name} sees no gap where {lost.message.id} is lost")
            relay.cursor = entry.position

    def _deliver(self, relay: _Relay, batch: Batch) -> None:
        for entry in batch:
            if entry.message.id in relay.log:
                relay.dropped.add(entry.position)
                continue
            relay.log[entry.message.id] = entry.position
            relay.given[entry.position] = entry.message.id
            if len(relay.log) > self._history:
                del relay.log[next(iter(relay.log))]

    def _turn(self, name: str, event: r.Away | r.Hung | r.Back) -> None:
        relay = self._relay(name)
        if isinstance(event, r.Away) and not relay.away and not relay.hung:
            for page in self._pages.values():
                if page.relay == name and page.reads and page.channel == "up":
                    page.down_by = self._at + DOWN_SECONDS
        else:
            for page in self._pages.values():
                if page.relay == name:
                    page.down_by = None
        relay.away = relay.away or isinstance(event, r.Away)
        relay.hung = relay.hung or isinstance(event, r.Hung)
        if isinstance(event, r.Back):
            relay.away = relay.hung = False

    # Pages.

    def _open(self, page: _Page, name: str) -> None:
        page.relay, page.gap, page.channel, page.owed = name, None, None, None
        page.stalled_at = None if page.reads else self._at
        if not page.shown:  # what its relay has is owed from the start; one that had nothing has no start
            oldest = self._relay(name).oldest
            page.cursor = _just_before(oldest) if page.joins_late and oldest is not None else None

    def _show(self, number: int, position: Position, message_id: str) -> None:
        page = self._pages[number]
        relay = self._relay(page.relay or "")
        if not self._known(f"page {number}", position, message_id):
            return
        if page.cursor is not None and position <= page.cursor:
            seen = page.shown.get(message_id) == position
            kind = "twice" if seen else "out of order"
            self._find(kind, f"page {number} was given {message_id} at {position} after {page.cursor}")
            return
        if relay.given.get(position) != message_id:
            self._find("twice", f"page {number} was given {message_id} at {position}, which {page.relay} had before")
        if page.gap is not None and page.gap.before != position:
            self._find("false gap", f"page {number} was told {_words(page.gap)}, and then came {position}")
        for entry in self._between(page.cursor, position):
            if relay.has(entry):
                self._find("missing", f"page {number} was not given {entry.message.id}, which {page.relay} has")
            elif entry.message.id != message_id and entry.message.id not in page.shown and not _tells(page.gap, entry):
                self._find("untold gap", f"page {number} was not told that {entry.message.id} is lost")
        page.cursor, page.gap = position, None
        page.shown[message_id] = position

    def _tell(self, number: int, gap: Gap) -> None:
        page = self._pages[number]
        relay = self._relay(page.relay or "")
        inside = self._between(gap.after, gap.before)
        if any(relay.has(entry) for entry in inside):
            self._find("false gap", f"page {number} was told {_words(gap)}, where {page.relay} has {_ids(inside)}")
        if not any(self._is_lost(page, relay, entry) for entry in inside):
            self._find("false gap", f"page {number} was told {_words(gap)}, where nothing is lost")
        if page.shown and gap.after != page.cursor:
            self._find("false gap", f"page {number} was told {_words(gap)}, and it has everything up to {page.cursor}")
        page.gap = gap

    def _is_lost(self, page: _Page, relay: _Relay, entry: Entry) -> bool:
        """Whether a relay cannot give this any more: it never had it, or its log has forgotten it."""
        if entry.position in relay.dropped:
            return entry.message.id not in relay.log and entry.message.id not in page.shown
        return not relay.has(entry)

    def _close(self, number: int, code: int | None, *, ended: bool) -> None:
        page = self._pages[number]
        # Without a code one cannot tell whether it was moved, or closed for not reading.
        read = page.stalled_at is None or self._at - page.stalled_at < STALL_SECONDS
        moved = code == CloseCode.SERVICE_RESTART or (ended and read)
        if page.owed is not None and moved and (page.cursor is None or page.cursor < page.owed):
            self._find("owed", f"page {number} was moved by {page.relay} at {page.cursor}, which owed it {page.owed}")
        page.relay, page.down_by = None, None

    def _end(self) -> None:
        if len(self._accepted) == self._healed:
            self._find("late", "nobody has spoken since everything was healed")
        for number, page in self._pages.items():
            if page.relay is None:
                self._find("late", f"page {number} found no relay")
            elif page.channel != "up":
                self._find("status", f"page {number} was not told that the channel is up")
            elif self._accepted and (page.cursor is None or page.cursor < self._accepted[-1].position):
                last = self._accepted[-1].message.id
                if last not in page.shown:
                    self._find("late", f"page {number} has not seen {last}")

    # All.

    def _relay(self, name: str) -> _Relay:
        return self._relays.setdefault(name, _Relay())

    def _known(self, who: str, position: Position, message_id: str) -> bool:
        known = self._ids.get(position) == message_id
        if not known:
            self._find("invented", f"{who} was given {message_id} at {position}, which was never accepted")
        return known

    def _between(self, after: Position | None, before: Position) -> list[Entry]:
        """The entries that were accepted between the two; a reader without a position has missed none."""
        if after is None:
            return []
        return [entry for entry in self._accepted if after < entry.position < before]

    def _find(self, kind: str, text: str) -> None:
        assert kind in KINDS
        self.findings.append(Finding(kind, self._at, text))


def _just_before(position: Position) -> Position:
    return position._replace(sequence=position.sequence - 1)


def _tells(gap: Gap | None, entry: Entry) -> bool:
    return gap is not None and gap.after < entry.position < gap.before


def _words(gap: Gap) -> str:
    return f"a gap from {gap.after} to {gap.before}"


def _ids(entries: Iterable[Entry]) -> str:
    return ", ".join(entry.message.id for entry in entries) or "nothing"
