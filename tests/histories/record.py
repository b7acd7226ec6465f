"""What happens in one history, as values in the order in which it happens; the checker reads nothing else."""

from typing import NamedTuple, TypeAlias

import anyio

from hello.channel import Batch
from hello.message import Entry, Gap, Position

# Of the backend.


class Accepted(NamedTuple):
    """The backend took an entry, from a holder of the voice or, with None, from anybody."""

    entry: Entry
    holder: str | None


class Kept(NamedTuple):
    """The backend was wiped, or went back to a snapshot: it has these entries now, and has forgotten the voice."""

    positions: frozenset[Position]


class Claimed(NamedTuple):
    """The backend answered a claim of the voice."""

    holder: str
    granted: bool


class Released(NamedTuple):
    """The backend was told that a holder lets the voice go."""

    holder: str


# Between the backend and a process.


class Tried(NamedTuple):
    """What a holder was answered when it published: `accepted`, `fenced` or `lost` (the channel)."""

    holder: str
    id: str
    answer: str


class Subscribed(NamedTuple):
    """A relay follows the backend from here."""

    relay: str
    after: Position | None


class Read(NamedTuple):
    """The backend gave this to a relay's subscription."""

    relay: str
    batch: Batch


class Delivered(NamedTuple):
    """And now the relay has it."""

    relay: str
    batch: Batch


class Away(NamedTuple):
    """A process's link was cut."""

    process: str


class Hung(NamedTuple):
    """A process's link fell silent: nothing comes, and nothing is refused either."""

    process: str


class Back(NamedTuple):
    """A process's link works again."""

    process: str


class Stopping(NamedTuple):
    """A process was told to stop."""

    process: str


# Of the pages.


class Opening(NamedTuple):
    """A page begins to connect to a relay."""

    page: int
    relay: str


class Opened(NamedTuple):
    """It was let in."""

    page: int
    relay: str


class Reads(NamedTuple):
    """It takes what comes, or does not any more for now."""

    page: int
    reads: bool


class Took(NamedTuple):
    """It took a message. One whose id it knows is not shown again; that is for the checker to see."""

    page: int
    position: Position
    id: str


class Told(NamedTuple):
    """It was told a gap, which it shows before the next message."""

    page: int
    gap: Gap


class Heard(NamedTuple):
    """It was told that the channel is `up` or `down`."""

    page: int
    channel: str


class Gone(NamedTuple):
    """It has no stream any more: the relay closed it with a code (`/ws`), ended it without (`/events`), or neither."""

    page: int
    code: int | None
    ended: bool


# Of the end.


class Healed(NamedTuple):
    """From here on nothing is done to anybody, every page wants to be connected, and reads."""


class Ended(NamedTuple):
    """That was long ago, or everybody has everything already."""


Event: TypeAlias = (
    Accepted
    | Kept
    | Claimed
    | Released
    | Tried
    | Subscribed
    | Read
    | Delivered
    | Away
    | Hung
    | Back
    | Stopping
    | Opening
    | Opened
    | Reads
    | Took
    | Told
    | Heard
    | Gone
    | Healed
    | Ended
)


class Record:
    """All events so far, each with the event loop's time, in seconds."""

    def __init__(self) -> None:
        self.events: list[tuple[float, Event]] = []

    def note(self, event: Event) -> None:
        self.events.append((anyio.current_time(), event))
