"""Messages, positions and the rule for gaps: every value reads its own output, and refuses malformed input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.message import (
    MAX_SAFE_INTEGER,
    MAX_TIME,
    ORIGIN,
    Entry,
    Gap,
    Malformed,
    Message,
    Position,
    now_ms,
    with_gaps,
)

numbers = st.integers(0, MAX_SAFE_INTEGER)
positions = st.builds(Position, numbers, numbers)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
messages = st.builds(Message, id=texts, text=texts, broadcaster=texts, sent_at=st.integers(0, MAX_TIME))

GOOD = {"id": "1", "text": "Hello world", "broadcaster": "b-1", "sent_at": 1_700_000_000_000}


@given(positions)
def test_position_round_trip(position: Position) -> None:
    """A position reads its own text."""
    assert Position.parse(str(position)) == position


@given(positions, numbers)
def test_successor(position: Position, clock: int) -> None:
    """The next position is later than this one, and never behind the clock."""
    successor = position.successor(clock)
    assert successor > position
    assert successor >= Position(clock, 0)


def test_positions_compare_as_integers() -> None:
    """The text 10-0 sorts before 9-0, and the position does not."""
    assert Position.parse("9-10") > Position.parse("9-9")
    assert Position.parse("10-0") > Position.parse("9-99")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "01-1",
        "1-01",
        "+1-1",
        " 1-1",
        "1-1\n",
        "1.0-1",
        "x-1",
        "१-१",
        "9" * 40 + "-0",
        f"{MAX_SAFE_INTEGER + 1}-0",
        f"0-{MAX_SAFE_INTEGER + 1}",
        "$",
        "0x1-1",
    ],
)
def test_malformed_position(text: str) -> None:
    """Only two decimal integers without leading zeros are a position."""
    with pytest.raises(Malformed, match="position"):
        Position.parse(text)


@given(messages)
def test_message_round_trip(message: Message) -> None:
    """A message reads its own JSON."""
    assert Message.from_json(message.to_json()) == message


def test_message_json() -> None:
    """The JSON of a message has these fields: other programs read it from Redis."""
    message = Message(id="1", text="Hello world", broadcaster="b-1", sent_at=1_700_000_000_000)
    assert json.loads(message.to_json()) == GOOD


def test_new_message() -> None:
    """A new message has an id of its own, and the time."""
    one, two = (Message.new("Hello world", broadcaster="b-1") for _ in range(2))
    assert one.id != two.id
    assert abs(one.sent_at - now_ms()) < 60_000
    assert (one.text, one.broadcaster) == ("Hello world", "b-1")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"id": ""}, "id has 1 to"),
        ({"id": 1}, "id is text, not int"),
        ({"id": "x" * 129}, "not 129"),
        ({"text": ""}, "text has 1 to"),
        ({"text": "x" * 4097}, "not 4097"),
        ({"text": "\ud800"}, "surrogates"),
        ({"broadcaster": None}, "broadcaster is text, not NoneType"),
        ({"sent_at": -1}, "milliseconds"),
        ({"sent_at": 1.5}, "milliseconds"),
        ({"sent_at": True}, "milliseconds"),
        ({"sent_at": "1"}, "milliseconds"),
        ({"sent_at": MAX_TIME + 1}, "milliseconds"),
        ({"more": 1}, "has the fields"),
    ],
)
def test_malformed_message(change: dict[str, object], error: str) -> None:
    """A field of another type or length is refused, and the error names it."""
    with pytest.raises(Malformed, match=error):
        Message.from_json(json.dumps(GOOD | change))


def test_last_moment() -> None:
    """The last moment that a page can show is accepted, and no later one: a page would refuse the whole frame."""
    assert MAX_TIME == 8.64e15
    assert Message.from_json(json.dumps(GOOD | {"sent_at": MAX_TIME})).sent_at == MAX_TIME
    with pytest.raises(Malformed, match="milliseconds"):
        Message("1", "x", "b", MAX_TIME + 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '"x"', "null", b"\xff", "{}"])
def test_no_message(text: str | bytes) -> None:
    """Anything but a JSON object is refused."""
    with pytest.raises(Malformed, match="message"):
        Message.from_json(text)


def entry(number: int, prev: int) -> Entry:
    return Entry(Position(number, 0), Position(prev, 0), Message(str(number), "x", "b", 0))


def test_gap_rule() -> None:
    """There is a gap exactly where the predecessor is after the reader's position."""
    assert entry(5, 3).follows(Position(3, 0))
    assert entry(5, 3).follows(Position(4, 0))
    assert not entry(5, 3).follows(Position(2, 0))
    assert entry(5, 3).follows(None), "a reader without a position misses nothing"
    assert not entry(5, 3).follows(ORIGIN)


def test_with_gaps() -> None:
    """Each gap comes before the entry that does not follow."""
    entries = [entry(2, 1), entry(3, 2), entry(7, 6)]
    assert list(with_gaps(entries, None)) == [entries[0], entries[1], Gap(Position(3, 0), Position(7, 0)), entries[2]]
    assert list(with_gaps(entries[:1], Position(0, 5))) == [Gap(Position(0, 5), Position(2, 0)), entries[0]]
    assert list(with_gaps([], Position(1, 0))) == []
