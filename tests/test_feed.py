"""The feed against a model without caches: each client gets its frames, whatever other clients polled before."""

import json
import random
import tracemalloc
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hello.feed import BLOCK_BYTES, CACHE_SIZE, Cursor, Feed, Pending
from hello.frames import Frame
from hello.message import ORIGIN, Entry, Message, Position

LONGEST = 4096  # characters of a message's text
MIB = 1024 * 1024
CURSORS = 10_000  # at 16 KiB each they would take 160 MiB


@dataclass
class Client:
    """A client: its cursor, and what it was sent so far."""

    cursor: Cursor
    position: Position | int  # of the last message, or where it starts
    beats: int
    statuses: int | None = None  # of the channel when it was sent the last one; None before the welcome
    at_head: bool = False  # it had everything when it was last sent something


class Model:
    """A feed, and what it should return: the kept entries, counters of statuses and beats, and the rule for gaps."""

    def __init__(self, history: int) -> None:
        self.feed = Feed(history=history, instance="relay-1")
        self.history = history
        self.loaded: int | None = None  # the number of the status that came then
        self.kept: list[Entry] = []
        self.dropped: dict[Position, Position] = {}  # the predecessors of the entries that came twice
        self.channel, self.statuses, self.beats = "down", 0, 0
        self.newest = 0  # the position of the channel's last entry, dropped or not
        self.high_watermark = ORIGIN  # where the channel begins if it is empty
        self.clients: list[Client] = []

    @property
    def head(self) -> Position | None:
        return self.kept[-1].position if self.kept else None

    def append(self, size: int, message_id: str | None = None, lost: int = 0) -> None:
        """Append an entry after so many lost ones; it is a copy if a kept entry has its id."""
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

    def load(self) -> None:
        if self.loaded is None:
            self.feed.set_loaded()
            self.statuses += 1
            self.loaded, self.channel = self.statuses, "up"

    def append_some(self, count: int, longest: int, seed: int) -> None:
        """Append so many entries of at most this size; some after a loss, some a second time."""
        dice = random.Random(seed)
        for _ in range(count):
            copied = dice.choice(self.kept).message.id if self.kept and dice.random() < 0.1 else None
            lost = dice.randint(1, 3) if dice.random() < 0.1 else 0
            self.append(dice.randint(1, longest), copied, lost)

    def set_channel_up(self, up: bool) -> None:
        self.feed.set_channel_up(up)
        if self.loaded is not None:
            self.statuses += 1
            self.channel = "up" if up else "down"

    def set_high_watermark(self, position: int) -> None:
        """Subscribe, and learn the high watermark; it counts once the relay has read an empty channel."""
        self.feed.set_high_watermark(Position(position, 0))
        if self.loaded is None:
            self.high_watermark = Position(position, 0)
            self.newest = max(self.newest, position)

    def beat(self) -> None:
        self.feed.beat()
        self.beats += 1

    def join(self, start: Position | int) -> None:
        """Add two clients at one position, or with so many messages."""
        self.clients += [Client(self.feed.cursor_at(start), start, self.beats) for _ in range(2)]

    def join_before(self, count: int) -> None:
        """Add two clients at one position: so many before the newest, or after it."""
        self.join(Position(max(0, self.newest - count), 0))

    def resolved(self, start: Position | int) -> Position:
        """Return where a client starts now, that resumes there or wants so many messages."""
        if isinstance(start, Position):
            return start
        return self.kept[-start:][0].prev if start > 0 and self.kept else self.head or self.high_watermark

    def expected(self, client: Client) -> list[dict[str, Any]]:
        """Return all frames that the client is to get now."""
        frames: list[dict[str, Any]] = []
        position = self.resolved(client.position)
        starts: dict[str, Any] = {}
        if self.loaded is not None and (client.statuses is None or client.statuses < self.loaded):
            starts = {"start": str(position), "head": str(self.head) if self.head else None}
        if client.statuses is None:
            frames.append({"type": "welcome", "relay": "relay-1", "channel": self.channel, **starts})
        elif client.statuses != self.statuses:
            frames.append({"type": "status", "channel": self.channel, **starts})
        if client.beats != self.beats:
            frames.append({"type": "beat"})
        for entry in self.kept if self.loaded is not None else ():
            if entry.position > position:
                if not entry.follows(position):
                    frames.append({"type": "gap", "after": str(position), "before": str(entry.position)})
                frames.append({"type": "message", "position": str(entry.position), "id": entry.message.id})
                position = entry.position
        return frames

    def poll(self, client: Client) -> bool:
        """Poll for the client, and compare; True if there were frames."""
        expected = self.expected(client)
        kinds = [frame["type"] for frame in expected]
        assert self.feed.count_after(client.cursor) == kinds.count("message")
        pending = self.feed.poll(client.cursor)
        if pending is None:
            assert expected == []
            return False
        count = len(pending.frames)
        assert [plain(frame) for frame in pending.frames] == expected[:count]
        assert count > 0
        assert pending.more == (count < len(expected))
        assert pending.gaps == kinds[:count].count("gap")
        assert sum(message_sizes(pending)[:-1]) < BLOCK_BYTES
        client.cursor, client.statuses, client.beats = pending.next, self.statuses, self.beats
        resumes = [frame.resume for frame in pending.frames if frame.resume]
        client.position = resumes[-1] if resumes else client.position
        client.at_head = client.position == self.head
        return True

    def poll_one(self, number: int, everything: bool) -> None:
        if self.clients:
            client = self.clients[number % len(self.clients)]
            while self.poll(client) and everything:
                pass


def plain(frame: Frame) -> dict[str, Any]:
    """Return the fields of a frame that the model knows."""
    fields: dict[str, Any] = json.loads(frame.json)
    assert frame.resume is None or str(frame.resume) == fields.get("position", fields.get("start"))
    if fields["type"] == "message":
        return {name: fields[name] for name in ("type", "position", "id")}
    fields.pop("since", None)
    return fields


def message_sizes(pending: Pending) -> list[int]:
    return [len(frame.json) for frame in pending.frames if plain(frame)["type"] == "message"]


Step = methodcaller  # a call of a method of the model, which hypothesis prints


def drawn(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """Return calls of this method."""
    return st.builds(Step, st.just(name), *arguments)


counts = st.integers(1, 60)
appends = drawn("append_some", counts, st.sampled_from([1, 300, LONGEST]), st.integers(0, 1 << 16))
joins = drawn("join_before", st.integers(-5, 100) | st.integers(0, 1000)) | drawn("join", st.integers(0, 60))
polls = drawn("poll_one", st.integers(0, 7), st.sampled_from([False, False, True]))
news = drawn("set_channel_up", st.booleans()) | drawn("beat")
before_load = st.lists(appends | joins | polls | news | drawn("set_high_watermark", st.integers(0, 99)), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 40) | st.sampled_from([40, 500]),
    before_load,
    st.integers(0, 60),
    st.lists(appends | joins | joins | polls | polls | polls | polls | news, min_size=1, max_size=40),
)
@example(  # messages before the start
    3, [Step("join", 2), Step("poll_one", 0, True), Step("append_some", 3, 1, 0), Step("poll_one", 0, True)], 0, []
)
@example(3, [], 1, [Step("join_before", -3), Step("poll_one", 0, True), Step("append_some", 3, 1, 0)])  # a client ahead
def test_each_client_gets_its_frames(history: int, first: list[Step], count: int, steps: list[Step]) -> None:
    """At every cursor: the welcome, the last status and beat, each kept message once in order, and each gap once.

    Before the relay has read its channel a client gets no message, and then where it starts. No poll returns more than
    a block, and `more` is right. Clients that have everything share one cursor.
    """
    model = Model(history)
    for step in (*first, Step("load"), Step("append_some", count, LONGEST, 0), *steps):
        step(model)
    for client in model.clients:
        while model.poll(client):
            pass
    assert {client.cursor for client in model.clients if client.at_head} <= {model.feed.caught_up}
    for client in model.clients:
        assert client.at_head or model.resolved(client.position) >= (model.head or ORIGIN)


@pytest.mark.parametrize(
    "meanwhile",
    [
        *(Step("append_some", *each) for each in ((1, 1, 1), (2, 1, 1), (40, 300, 1))),
        *(Step("set_channel_up", True), Step("beat")),
    ],
    ids=repr,
)
def test_cached_block_expires(meanwhile: Step) -> None:
    """A cached block is not used once its first message is trimmed, or a status or beat comes first."""
    model = Model(100)
    model.load()
    for _ in range(100):
        model.append(500)
    model.join_before(200)
    for client in (0, 0, 1):  # the welcome, and a block
        model.poll_one(client, everything=False)
    first, second = model.clients
    pending = model.feed.poll(second.cursor)
    assert pending is not None
    assert pending.next is first.cursor
    meanwhile(model)
    while model.poll(second):
        pass


@pytest.mark.parametrize("kept", [1, 2, 9])
def test_restored_channel(kept: int) -> None:
    """A channel restored from an older snapshot names an old predecessor: no client gets a false gap or misses one."""
    feed = Feed(history=kept, instance="relay-1")
    feed.set_loaded()
    for number, prev in ((1, 0), (2, 1), (3, 2), (4, 1), (5, 4)):
        feed.append(Entry(Position(number, 0), Position(prev, 0), Message(str(number), "x", "b", 0)))

    def kinds(start: Position | int) -> list[str]:
        return [plain(frame).get("id", plain(frame)["type"]) for each in follow(feed, start) for frame in each.frames]

    newest = [str(number) for number in range(6 - kept if kept < 5 else 1, 6)]
    assert kinds(9) == newest
    assert kinds(1) == ["5"]
    assert kinds(Position(3, 0)) == (["gap", "5"] if kept == 1 else ["4", "5"])
    assert kinds(Position(1, 0)) == (newest[1:] if kept == 9 else ["gap", *newest])


def follow(feed: Feed, start: Position | int) -> list[Pending]:
    """Return all that a client gets from there, but for the welcome."""
    blocks, cursor = [], feed.cursor_at(start)
    while (pending := feed.poll(cursor)) is not None:
        blocks.append(pending)
        cursor = pending.next
    return blocks[1:]


@settings(max_examples=40, deadline=None)
@given(st.integers(16, 24), st.sampled_from([400, 1500, LONGEST]), st.integers(0, 1 << 16), st.booleans())
def test_resuming_clients_share_blocks(blocks: int, longest: int, seed: int, trimmed: bool) -> None:
    """From any position, even before the oldest message, clients share all blocks but their first one."""
    dice = random.Random(seed)
    sizes = [dice.randint(longest // 2, longest) for _ in range(blocks * BLOCK_BYTES // longest)]
    model = Model(len(sizes) * 3 // 4 if trimmed else len(sizes))
    model.load()
    for size in sizes:
        model.append(size)
    far = model.kept[: len(model.kept) // 4]
    starts = [ORIGIN, *(dice.choice(far).position for _ in range(5))]
    followers = [follow(model.feed, start) for start in starts]
    longest_run = max(followers, key=len)
    largest = max(size for block in longest_run for size in message_sizes(block))
    for own in followers:
        shared = len(own) - 1
        assert shared >= 3
        assert all(one is other for one, other in zip(own[1:], longest_run[-shared:], strict=True))
        assert all(sum(message_sizes(block)) > BLOCK_BYTES - largest for block in own[1:-1])


@pytest.mark.slow
def test_caches_are_bounded() -> None:
    """Clients at ever so many positions do not let the caches grow, and the next beat empties them."""
    model = Model(500)
    model.load()
    for _ in range(500):
        model.newest += CURSORS // 500
        model.append(300)
    oldest = model.kept[0].position.milliseconds
    tracemalloc.start()
    try:
        for number in range(CURSORS):
            cursor = model.feed.cursor_at(Position(oldest + number, 0))
            for _ in range(2 if number % 5 == 0 else 1):
                pending = model.feed.poll(cursor)
                assert pending is not None
                pending.websocket, cursor = bytes(BLOCK_BYTES), pending.next
        del pending
        _, peak = tracemalloc.get_traced_memory()
        model.feed.beat()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * CACHE_SIZE * BLOCK_BYTES, f"{peak / MIB:.1f} MiB"
    assert left < MIB / 4, f"{left / MIB:.1f} MiB"
