"""What happens in one history, as values in the order in which it happens; the checker reads nothing else."""

from typing import NamedTuple, TypeAlias

import anyio

from hello.channel import Batch
from hello.message import Entry, Gap, Position

# Of the backend.


class Accepted(NamedTuple):
    """The backend accepted an entry, from a holder of the lease or, with None, without one."""

    entry: Entry
    holder: str | None


class Kept(NamedTuple):
    """The backend was wiped or restored: it has these entries now, and the lease is free."""

    positions: frozenset[Position]


class Acquired(NamedTuple):
    """The backend answered a holder that tried to acquire the lease."""

    holder: str
    granted: bool


class Released(NamedTuple):
    """The backend received the release of a holder."""

    holder: str


# Between the backend and a process.


class Published(NamedTuple):
    """A holder published: `accepted`, `fenced` or, without a reply, `lost`."""

    holder: str
    id: str
    result: str


class Subscribed(NamedTuple):
    """A relay subscribed after this position."""

    relay: str
    after: Position | None


class Read(NamedTuple):
    """The backend gave a batch to the subscription of a relay."""

    relay: str
    batch: Batch


class Delivered(NamedTuple):
    """The relay received the batch."""

    relay: str
    batch: Batch


class Cut(NamedTuple):
    """The connection of a process was cut."""

    process: str


class Hung(NamedTuple):
    """The connection of a process hangs: nothing comes, and nothing is refused either."""

    process: str


class Healed(NamedTuple):
    """The connection of a process works again."""

    process: str


class Stopping(NamedTuple):
    """A process was terminated, and drains."""

    process: str


# Of the clients, by number.


class Connecting(NamedTuple):
    """A client begins to connect to a relay."""

    client: int
    relay: str


class Connected(NamedTuple):
    """The relay admitted the client, which resumes after this position or, with None, asks for all that is kept."""

    client: int
    relay: str
    after: Position | None


class Welcomed(NamedTuple):
    """A client received a welcome, with the newest position."""

    client: int
    head: Position | None


class StatusReceived(NamedTuple):
    """A client received the status of the channel, `up` or `down`, in a welcome or by itself."""

    client: int
    channel: str


class MessageReceived(NamedTuple):
    """A client received a message, with the gap before it; `shown` is False if the client had shown it before."""

    client: int
    position: Position
    id: str
    gap: Gap | None = None
    shown: bool = True


class Reads(NamedTuple):
    """A client reads what comes from now on, or does not read."""

    client: int
    reads: bool


class Disconnected(NamedTuple):
    """The relay closed the stream with a code (`/ws`), ended it without (`/events`), or neither: it broke off."""

    client: int
    code: int | None
    ended: bool


# Of the end.


class AllHealed(NamedTuple):
    """From here on there are no faults, every client stays connected, and reads."""


class Ended(NamedTuple):
    """Since then enough time has passed, or every client has every message."""


Event: TypeAlias = (
    Accepted
    | Kept
    | Acquired
    | Released
    | Published
    | Subscribed
    | Read
    | Delivered
    | Cut
    | Hung
    | Healed
    | Stopping
    | Connecting
    | Connected
    | Welcomed
    | StatusReceived
    | MessageReceived
    | Reads
    | Disconnected
    | AllHealed
    | Ended
)


class Record:
    """All events so far, each with the event loop's time, in seconds."""

    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []

    def note(self, event: Event) -> None:
        self.events.append((anyio.current_time(), event))
