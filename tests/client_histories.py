"""Frame histories: what a client receives, and what it must make of them.

client_histories.json has them as data, since `hello/client.py` and the page's modules follow the same rules.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hello.client import ClientProtocol, Item, Lost, Opened, Repeated, Resumed, Shown, StatusChanged

NOON = 1_700_049_600_000  # 15 November 2023, 12:00:00 UTC
Frame = dict[str, object]
BEAT: Frame = {"type": "beat"}
DISCONNECTED = "disconnected"  # a step: the connection ends
REJECTED = "position rejected"  # a step: a relay rejects the position that the client resumes from


def welcome(head: object = None, **fields: object) -> Frame:
    return {"type": "welcome", "relay": "r", "channel": "up", "start": head or "0-0", "head": head, **fields}


def message(position: str, message_id: str, **fields: object) -> Frame:
    named = {"text": "Hello world", "broadcaster": "b", "relay": "r", "sent_at": NOON, "relayed_at": NOON}
    return {"type": "message", "position": position, "id": message_id, **named, **fields}


def gap(after: object, before: object) -> Frame:
    return {"type": "gap", "after": after, "before": before}


def play(protocol: ClientProtocol, steps: Iterable[Frame | str]) -> list[Item]:
    """Take steps (frames, DISCONNECTED, REJECTED), and return all their items."""
    items: list[Item] = []
    for step in steps:
        if step == DISCONNECTED:
            protocol.disconnected()
        elif step == REJECTED:
            protocol.reset_position()
        else:
            items += protocol.receive(step)
    return items


def words(items: Iterable[object]) -> list[str]:
    """Items in the words of a History."""
    found = []
    for item in items:
        match item:
            case Opened():
                found.append("opened")
            case Resumed(missed):
                found.append(f"resumed {missed}")
            case Shown(shown, _, came):
                found.append(f"{shown.id} {came}")
            case Lost(after, before, certain):
                found.append(f"{'lost' if certain else 'perhaps lost'} {after} {before}")
            case Repeated(_, message_id):
                found.append(f"repeated {message_id}")
            case StatusChanged(channel):
                found.append(f"channel {channel}")
    return found


class History(NamedTuple):
    """Steps, and the client after them.

    `items` has a word or a few for each item: "opened", "resumed MISSED", "ID live", "ID history", "ID recovered",
    "lost AFTER BEFORE", "perhaps lost AFTER BEFORE", "repeated ID", "channel up". `finish` has those that follow when
    no frame will come any more. The counts of a tally are those of the items.
    """

    name: str
    steps: Sequence[Frame | str]
    items: Sequence[str]
    query: str  # to resume with, for a client that began with `last=3`
    complete: bool  # connected, and has received what it had missed
    finish: Sequence[str]


def _filled(step: Any) -> Frame | str:
    """In the file a welcome and a message have only the fields that differ from history to history."""
    match step:
        case {"type": "welcome"}:
            return {"relay": "r", "channel": "up", **step}
        case {"type": "message", "position": position, "id": message_id}:
            return message(position, message_id)
    return step  # type: ignore[no-any-return]  # the file has frames and words


HISTORIES = [
    History(**{**history, "steps": [_filled(step) for step in history["steps"]]})
    for history in json.loads(Path(__file__).with_suffix(".json").read_text())
]

# By no relay sent: at the beginning of a connection, and after its welcome.
BAD_BEGINNINGS: Sequence[Any] = (
    *(None, [], "welcome", {}, {"type": ["welcome"]}, {"type": "welcome"}, welcome(7), welcome("7"), welcome(relay=1)),
    *(BEAT, message("1-0", "a"), welcome(channel=None), welcome(start=None), welcome(7, start="7-0")),
)
BAD_FRAMES: Sequence[Any] = (
    *(welcome(), gap("1-0", "x"), gap("1-0", None), {"type": "gap"}, {"type": "status", "channel": "up"}),
    *({"type": "message"}, message("1", "a"), message("1-0", ""), message("1-0", "a", relay=None)),
    *(message("1-0", "a", sent_at=True), message("1-0", "a", text="x" * 4097), message("1-0", "a", id=7)),
)
