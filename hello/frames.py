"""The frames that a relay sends to its clients, as JSON. It must not know when or how they are sent."""

from json import JSONEncoder
from typing import NamedTuple

from hello.message import Entry, Gap, Position

_encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Frame(NamedTuple):
    """One frame: a JSON object in UTF-8, whose fields hello/web/README.md lists."""

    json: bytes
    resume: Position | None = None  # where a client that has this frame resumes; None: where it did before


def welcome_frame(process: dict[str, object], *, channel: str, start: Position | None, head: Position | None) -> Frame:
    """Return the first frame of a stream.

    `process` has the fields that describe the relay's process: `relay`, `actors` and `backend`. `channel` is `up` or
    `down`. The stream has all messages after `start`: a client that has no message yet resumes there. It is None if
    this relay has not read its channel yet. `head` is the newest position, None if there is none.
    """
    return _frame("welcome", start, **process, channel=channel, **_start_and_head(start, head))


def message_frame(entry: Entry, *, relay: str, relayed_at: int) -> Frame:
    """Return the frame of a message; `relayed_at` is UNIX time in milliseconds."""
    message = entry.message
    return _frame(
        "message",
        entry.position,
        position=str(entry.position),
        id=message.id,
        text=message.text,
        broadcaster=message.broadcaster,
        sent_at=message.sent_at,
        relayed_at=relayed_at,
        relay=relay,
    )


def gap_frame(gap: Gap) -> Frame:
    """Return the frame that reports a loss."""
    return _frame("gap", after=str(gap.after), before=str(gap.before))


def status_frame(*, channel: str, since: int, start: Position | None, head: Position | None) -> Frame:
    """Return the frame that reports the channel as `up` or `down`.

    `since` is UNIX time in milliseconds. `start` and `head` are in it only if the client had its welcome before the
    relay had read its channel.
    """
    return _frame("status", start, channel=channel, since=since, **_start_and_head(start, head))


def _start_and_head(start: Position | None, head: Position | None) -> dict[str, str | None]:
    return {} if start is None else {"start": str(start), "head": None if head is None else str(head)}


def _frame(kind: str, resume: Position | None = None, **fields: object) -> Frame:
    return Frame(_encode({"type": kind, **fields}).encode(), resume)


BEAT = _frame("beat")  # sent at intervals, so that a client can recognise a dead connection
