"""What the bounded log refuses; test_feed.py and the channel in memory compare what it returns with a model."""

import pytest

from hello.log import Log
from hello.message import Entry, Message, Position


def test_positions_never_go_back() -> None:
    """An entry at or before the head, or with a predecessor before the head, is refused."""
    log: Log[Entry] = Log(3)
    log.append(Entry(Position(2, 0), Position(1, 0), Message("2", "x", "b", 0)))
    for position, prev, error in ((1, 0, "come after"), (2, 1, "come after"), (9, 1, "before the head")):
        with pytest.raises(ValueError, match=error):
            log.append(Entry(Position(position, 0), Position(prev, 0), Message("9", "x", "b", 0)))
