"""Values and their wire form: what is written is read again, and what is malformed is refused in words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.message import LARGEST_INTEGER, ORIGIN, Entry, Gap, Malformed, Message, Position, told

numbers = st.integers(0, LARGEST_INTEGER)
positions = st.builds(Position, numbers, numbers)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
messages = st.builds(Message, id=texts, text=texts, broadcaster=texts, sent_at=numbers)

GOOD = {"id": "1", "text": "Hello world", "broadcaster": "b-1", "sent_at": 1_700_000_000_000}


@given(positions)
def test_position_reads_what_it_writes(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(positions, numbers)
def test_a_following_position_is_later_and_never_behind_the_clock(position: Position, clock: int) -> None:
    following = position.following(clock)
    assert following > position
    assert following >= Position(clock, 0)


def test_positions_compare_as_integers() -> None:
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
        f"{LARGEST_INTEGER + 1}-0",
        f"0-{LARGEST_INTEGER + 1}",
        "$",
        "0x1-1",
    ],
)
def test_a_malformed_position_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="position"):
        Position.parse(text)


@given(messages)
def test_message_reads_what_it_writes(message: Message) -> None:
    assert Message.from_json(message.to_json()) == message


def test_the_wire_form_of_a_message() -> None:
    message = Message(id="1", text="Hello world", broadcaster="b-1", sent_at=1_700_000_000_000)
    assert json.loads(message.to_json()) == GOOD


@pytest.mark.parametrize(
    ("change", "complaint"),
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
        ({"sent_at": LARGEST_INTEGER + 1}, "milliseconds"),
        ({"more": 1}, "has the fields"),
    ],
)
def test_a_malformed_message_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(Malformed, match=complaint):
        Message.from_json(json.dumps(GOOD | change))


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '"x"', "null", b"\xff", "{}"])
def test_what_is_no_message_at_all_is_refused(text: str | bytes) -> None:
    with pytest.raises(Malformed, match="message"):
        Message.from_json(text)


def entry(number: int, prev: int) -> Entry:
    return Entry(Position(number, 0), Position(prev, 0), Message(str(number), "x", "b", 0))


def test_there_is_a_gap_exactly_when_the_predecessor_was_not_seen() -> None:
    assert entry(5, 3).follows(Position(3, 0))
    assert entry(5, 3).follows(Position(4, 0))
    assert not entry(5, 3).follows(Position(2, 0))
    assert entry(5, 3).follows(None), "a reader without a position is never told of one"
    assert not entry(5, 3).follows(ORIGIN)


def test_each_loss_is_told_before_the_entry_that_comes_after_it() -> None:
    entries = [entry(2, 1), entry(3, 2), entry(7, 6)]
    assert list(told(entries, None)) == [entries[0], entries[1], Gap(Position(3, 0), Position(7, 0)), entries[2]]
    assert list(told(entries[:1], Position(0, 5))) == [Gap(Position(0, 5), Position(2, 0)), entries[0]]
    assert list(told([], Position(1, 0))) == []
