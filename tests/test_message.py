"""Messages and positions: every value reads its own output, and refuses malformed input. test_log.py has gaps."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.message import MAX_SAFE_INTEGER, MAX_TIME, Malformed, Message, Position

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


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1-", "-1", "1-2-3", "01-1", "1-01", "+1-1", " 1-1", "1-1\n", "1.0-1", "x-1", "१-१", "$", "0x1-1"),
        *("9" * 40 + "-0", f"{MAX_SAFE_INTEGER + 1}-0", f"0-{MAX_SAFE_INTEGER + 1}"),
    ],
)
def test_malformed_position(text: str) -> None:
    """Only two decimal integers without leading zeros are a position."""
    with pytest.raises(Malformed, match="position"):
        Position.parse(text)


@given(messages)
def test_message_round_trip(message: Message) -> None:
    """The JSON of a message has its fields and no others, whatever characters they have."""
    assert Message(**json.loads(message.to_json())) == message


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
    ],
)
def test_malformed_message(change: dict[str, object], error: str) -> None:
    """A field of another type or length is refused, and the error names it."""
    with pytest.raises(Malformed, match=error):
        Message(**(GOOD | change))  # type: ignore[arg-type]  # wrong types are what this is about


def test_last_moment() -> None:
    """The last moment that a page can show is accepted; a page would refuse a whole frame with a later one."""
    assert MAX_TIME == 8.64e15
    assert Message("1", "Hello world", "b-1", MAX_TIME).sent_at == MAX_TIME
