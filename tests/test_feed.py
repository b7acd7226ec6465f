"""The feed against a model that keeps nothing for later: what each reader is owed, whatever was put together before."""

import json
import random
import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hello.feed import BLOCK, SHARED, Cursor, Feed, Frame, Owed
from hello.message import ORIGIN, Entry, Message, Position

LONGEST = 4096  # bytes of a message's text
MIB = 1024 * 1024
CURSORS = 10_000  # with 16 KiB for each there would be 160 MiB


@dataclass
class Reader:
    """What one reader has been given, and its cursor."""

    cursor: Cursor
    position: Position | None
    beats: int
    turns: int | None = None  # that it has heard of; None before the welcome
    at_head: bool = False  # whether it had everything when it was last given something


class World:
    """A feed, and what it should say: the kept entries, counters of news, and the rule for gaps."""

    def __init__(self, history: int) -> None:
        self.feed = Feed(history=history, instance="relay-1")
        self.history = history
        self.kept: list[Entry] = []
        self.dropped: dict[Position, Position] = {}  # the predecessors of those that came twice
        self.channel, self.turns, self.beats = "down", 0, 0
        self.newest = 0  # the position of the channel's last entry, dropped or not
        self.readers: list[Reader] = []

    @property
    def head(self) -> Position | None:
        return self.kept[-1].position if self.kept else None

    def say(self, size: int, message_id: str | None = None, lost: int = 0) -> None:
        """One more entry, after so many that nobody has seen; or a copy of one, if it has the id of one."""
        prev = Position(self.newest + lost, 0)
        self.newest += lost + 2  # so that there are positions without an entry
        message = Message(message_id or str(self.newest), "x" * size, "b", 0)
        entry = Entry(Position(self.newest, 0), prev, message)
        relayed = self.feed.append(entry)
        if any(each.message.id == message.id for each in self.kept):
            assert relayed is None
            self.dropped[entry.position] = prev
            return
        while prev in self.dropped:
            prev = self.dropped[prev]
        assert relayed is not None
        assert (relayed.position, relayed.prev, relayed.message) == (entry.position, prev, message)
        self.kept = [*self.kept, Entry(entry.position, prev, message)][-self.history :]

    def join(self, start: Position | int) -> None:
        position = start if isinstance(start, Position) else self.head
        if isinstance(start, int) and start > 0 and self.kept:
            position = self.kept[-start:][0].prev
        self.readers.append(Reader(self.feed.start(start), position, self.beats))

    def due(self, reader: Reader) -> list[dict[str, Any]]:
        """All that the reader is to be given now."""
        frames: list[dict[str, Any]] = []
        if reader.turns is None:
            head = str(self.head) if self.head else None
            frames.append({"type": "welcome", "relay": "relay-1", "head": head, "channel": self.channel})
        elif reader.turns != self.turns:
            frames.append({"type": "status", "channel": self.channel})
        if reader.beats != self.beats:
            frames.append({"type": "beat"})
        position = reader.position
        for entry in self.kept:
            if position is None or entry.position > position:
                if not entry.follows(position):
                    frames.append({"type": "gap", "after": str(position), "before": str(entry.position)})
                frames.append({"type": "message", "position": str(entry.position), "id": entry.message.id})
                position = entry.position
        return frames

    def take(self, reader: Reader) -> bool:
        """Give the reader what comes next, and see that it is that; whether it was anything."""
        due = self.due(reader)
        kinds = [frame["type"] for frame in due]
        assert self.feed.behind(reader.cursor) == kinds.count("message")
        owed = self.feed.after(reader.cursor)
        if owed is None:
            assert due == []
            return False
        given = len(owed.frames)
        assert [plain(frame) for frame in owed.frames] == due[:given]
        assert given > 0
        assert owed.more == (given < len(due))
        assert owed.gaps == kinds[:given].count("gap")
        assert sum(message_sizes(owed)[:-1]) < BLOCK
        reader.cursor, reader.turns, reader.beats = owed.cursor, self.turns, self.beats
        reader.position = next((frame.position for frame in reversed(owed.frames) if frame.position), reader.position)
        reader.at_head = reader.position == self.head
        return True


def plain(frame: Frame) -> dict[str, Any]:
    """What is in a frame, but for what the model does not know."""
    fields: dict[str, Any] = json.loads(frame.json)
    if frame.position is not None:
        assert str(frame.position) == fields["position"]
        return {name: fields[name] for name in ("type", "position", "id")}
    fields.pop("since", None)
    return fields


def message_sizes(owed: Owed) -> list[int]:
    return [len(frame.json) for frame in owed.frames if frame.position]


@dataclass(frozen=True)
class Say:
    """So many entries, of at most this size; some after a loss, some come twice."""

    count: int
    longest: int
    seed: int

    def do(self, world: World) -> None:
        dice = random.Random(self.seed)
        for _ in range(self.count):
            copied = dice.choice(world.kept).message.id if world.kept and dice.random() < 0.1 else None
            lost = dice.randint(1, 3) if dice.random() < 0.1 else 0
            world.say(dice.randint(1, self.longest), copied, lost)


@dataclass(frozen=True)
class Turn:
    up: bool

    def do(self, world: World) -> None:
        world.feed.channel_turned(self.up)
        world.turns += 1
        world.channel = "up" if self.up else "down"


@dataclass(frozen=True)
class Beat:
    def do(self, world: World) -> None:
        world.feed.beat()
        world.beats += 1


@dataclass(frozen=True)
class Join:
    """Two readers at one place: so many positions before the newest (or after it), or so many messages."""

    before: int | None = None
    last: int = 0

    def do(self, world: World) -> None:
        for _ in range(2):
            if self.before is None:
                world.join(self.last)
            else:
                world.join(Position(max(0, world.newest - self.before), 0))


@dataclass(frozen=True)
class Take:
    reader: int
    everything: bool

    def do(self, world: World) -> None:
        if world.readers:
            reader = world.readers[self.reader % len(world.readers)]
            while world.take(reader) and self.everything:
                pass


Step = Say | Turn | Beat | Join | Take

counts = st.integers(1, 60)
says = st.builds(Say, counts, st.sampled_from([1, 300, LONGEST]), st.integers(0, 1 << 16))
joins = st.builds(Join, before=st.integers(-5, 100) | st.integers(0, 1000)) | st.builds(Join, last=st.integers(0, 60))
takes = st.builds(Take, st.integers(0, 7), st.sampled_from([False, False, True]))
news = st.builds(Turn, st.booleans()) | st.builds(Beat)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 40) | st.sampled_from([40, 500]),
    st.integers(0, 60),
    st.lists(says | joins | joins | takes | takes | takes | takes | news, min_size=1, max_size=40),
)
def test_every_reader_is_given_what_it_is_owed_and_nothing_else(history: int, count: int, steps: list[Step]) -> None:
    """At every place and whatever others were given: the welcome, the last news, and each kept message once, in order.

    Each loss is told once, right before the message behind it. Pieces are of a block at most, and say truly whether
    there is more. All who have everything share a cursor.
    """
    world = World(history)
    for step in (Say(count, LONGEST, 0), *steps):
        step.do(world)
    for reader in world.readers:
        while world.take(reader):
            pass
    # One that was ahead of the feed, and has been caught up with, comes in with the next thing that it is given.
    assert len({id(reader.cursor) for reader in world.readers if reader.at_head}) <= 1
    for reader in world.readers:
        assert reader.at_head or (reader.position or ORIGIN) >= (world.head or ORIGIN)


@pytest.mark.parametrize(
    "meanwhile", [Say(1, 1, 1), Say(2, 1, 1), Say(40, 300, 1), Turn(True), Beat()], ids=lambda step: str(step)
)
def test_a_piece_is_given_again_only_while_all_of_it_holds(meanwhile: Step) -> None:
    """Once its first message has been forgotten, the next one who comes for it is told the loss; news ends it too."""
    world = World(100)
    for _ in range(100):
        world.say(500)
    for step in (Join(before=200), Take(0, False), Take(0, False), Take(1, False)):  # the welcome, and a piece
        step.do(world)
    first, second = world.readers
    following = world.feed.after(second.cursor)
    assert following is not None
    assert following.cursor is first.cursor
    meanwhile.do(world)
    while world.take(second):
        pass


def follow(feed: Feed, start: Position) -> list[Owed]:
    """All that a reader is given from there, but for the welcome."""
    pieces, cursor = [], feed.start(start)
    while (owed := feed.after(cursor)) is not None:
        pieces.append(owed)
        cursor = owed.cursor
    return pieces[1:]


@settings(max_examples=40, deadline=None)
@given(st.integers(16, 24), st.sampled_from([400, 1500, LONGEST]), st.integers(0, 1 << 16), st.booleans())
def test_those_who_come_back_from_far_away_share_all_but_their_first_piece(
    blocks: int, longest: int, seed: int, forgotten: bool
) -> None:
    """Wherever each of them was, and even if it was before the oldest message: they go on from block to block."""
    dice = random.Random(seed)
    sizes = [dice.randint(longest // 2, longest) for _ in range(blocks * BLOCK // longest)]
    world = World(len(sizes) * 3 // 4 if forgotten else len(sizes))
    for size in sizes:
        world.say(size)
    far = world.kept[: len(world.kept) // 4]
    starts = [ORIGIN, *(dice.choice(far).position for _ in range(5))]
    followers = [follow(world.feed, start) for start in starts]
    longest_way = max(followers, key=len)
    largest = max(size for piece in longest_way for size in message_sizes(piece))
    for pieces in followers:
        shared = len(pieces) - 1
        assert shared >= 3
        assert all(mine is theirs for mine, theirs in zip(pieces[1:], longest_way[-shared:], strict=True))
        assert all(sum(message_sizes(piece)) > BLOCK - largest for piece in pieces[1:-1])


def test_what_is_kept_for_those_who_come_next_does_not_grow_with_their_number() -> None:
    """At as many places as there are, and with the bytes that were written to them; the next news leaves nothing."""
    world = World(500)
    for _ in range(500):
        world.newest += CURSORS // 500
        world.say(300)
    oldest = world.kept[0].position.milliseconds
    tracemalloc.start()
    try:
        for number in range(CURSORS):
            cursor = world.feed.start(Position(oldest + number, 0))
            for _ in range(2 if number % 5 == 0 else 1):
                owed = world.feed.after(cursor)
                assert owed is not None
                owed.wire, cursor = bytes(BLOCK), owed.cursor
        del owed
        _, peak = tracemalloc.get_traced_memory()
        world.feed.beat()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * SHARED * BLOCK, f"{peak / MIB:.1f} MiB"
    assert left < MIB / 4, f"{left / MIB:.1f} MiB"
