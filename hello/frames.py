"""The frames that a relay sends to its clients, as JSON. It must not know when or how they are sent."""

from json import JSONEncoder
from typing import NamedTuple

from hello.message import Entry, Gap, Position

_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Frame(NamedTuple):
    """One frame: a JSON object in UTF-8, whose fields hello/web/README.md lists."""

    json: bytes
    position: Position | None = None  # of a message, for the id of a server-sent event; None for other frames


def welcome_frame(*, relay: str, head: Position | None, channel: str) -> Frame:
    """Return the first frame of a stream.

    `head` is the newest position, or None if the channel is empty; `channel` is `up` or `down`.
    """
    return _frame("welcome", relay=relay, head=None if head is None else str(head), channel=channel)


def message_frame(entry: Entry, *, relay: str, relayed_at: int) -> Frame:
    """Return the frame of a message; `relayed_at` is UNIX time in milliseconds."""
    message = entry.message
    frame = _frame(
        "message",
        position=str(entry.position),
        id=message.id,
        text=message.text,
        broadcaster=message.broadcaster,
        sent_at=message.sent_at,
        relayed_at=relayed_at,
        relay=relay,
    )
    return frame._replace(position=entry.position)


def gap_frame(gap: Gap) -> Frame:
    """Return the frame that reports a loss."""
    return _frame("gap", after=str(gap.after), before=str(gap.before))


def status_frame(*, channel: str, since: int) -> Frame:
    """Return the frame that reports the channel as `up` or `down`; `since` is UNIX time in milliseconds."""
    return _frame("status", channel=channel, since=since)


def _frame(kind: str, **fields: object) -> Frame:
    return Frame(_encode({"type": kind, **fields}).encode())


BEAT = _frame("beat")  # sent at intervals, so that a client can recognise a dead connection
