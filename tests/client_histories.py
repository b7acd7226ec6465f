"""Frame histories as data: what a client receives, and what it must make of them.

Steps and items are JSON-able, so that the page's modules can be run over the same histories as `hello/client.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hello.client import ClientProtocol, Item

NOON = 1_700_049_600_000  # 15 November 2023, 12:00:00 UTC
Frame = dict[str, object]
BEAT: Frame = {"type": "beat"}
DISCONNECTED = "disconnected"  # a step: the connection ends
REJECTED = "position rejected"  # a step: a relay rejects the position that the client resumes from


def welcome(head: object = None, **fields: object) -> Frame:
    return {"type": "welcome", "relay": "r", "head": head, "channel": "up", **fields}


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


class History(NamedTuple):
    """Steps, and the client after them.

    `items` has a word or a few for each item: "opened", "resumed MISSED", "ID live", "ID history", "ID recovered",
    "lost AFTER BEFORE", "perhaps lost AFTER BEFORE", "repeated ID", "channel up". `finish` has those that follow when
    no frame will come any more. The counts of a tally are those of the items.
    """

    name: str
    steps: Sequence[Frame | str]
    items: Sequence[str]
    query: str  # to resume with
    complete: bool = True  # connected, and has received what it had missed
    finish: Sequence[str] = ()


HISTORIES = (
    History("never connected", [], [], "last=3", complete=False),
    History(
        "positions compare as numbers",
        [welcome(), message("9-0", "a"), message("10-0", "b")],
        ["opened", "a live", "b live"],
        "after=10-0",
    ),
    History(
        "messages up to the first head are history",
        [welcome("2-0"), message("1-0", "a"), message("2-0", "b"), message("3-0", "c")],
        ["opened", "a history", "b history", "c live"],
        "after=3-0",
    ),
    History("without a message the head is the position", [welcome("7-3")], ["opened"], "after=7-3"),
    History("an empty stream resumes from the origin", [welcome()], ["opened"], "after=0-0"),
    History(
        "messages missed up to the new head are recovered",
        [
            *(welcome("1-0"), message("2-0", "a"), DISCONNECTED),
            *(welcome("4-0"), message("3-0", "b"), message("4-0", "c"), message("5-0", "d")),
        ],
        ["opened", "a live", "opened", "b recovered", "c recovered", "resumed 2", "d live"],
        "after=5-0",
    ),
    History(
        "messages missed before the first message are recovered",
        [welcome("1-0"), DISCONNECTED, welcome("2-0"), message("2-0", "a"), DISCONNECTED, welcome("2-0")],
        ["opened", "opened", "a recovered", "resumed 1", "opened", "resumed 0"],
        "after=2-0",
    ),
    History(
        "a client resumes with those that it had missed this time",
        [
            *(welcome("1-0"), message("2-0", "a"), DISCONNECTED, welcome("3-0"), message("3-0", "b"), DISCONNECTED),
            *(welcome("4-0"), message("4-0", "a"), DISCONNECTED, welcome("6-0"), message("7-0", "c")),
        ],
        [
            *("opened", "a live", "opened", "b recovered", "resumed 1"),
            *("opened", "repeated a", "resumed 0", "opened", "c live", "resumed 0"),
        ],
        "after=7-0",
    ),
    History("while disconnected it is not complete", [welcome("1-0"), DISCONNECTED], ["opened"], "after=1-0", False),
    History(
        "before everything missed has come it is not complete",
        [welcome("1-0"), DISCONNECTED, welcome("3-0"), message("2-0", "a")],
        ["opened", "opened", "a recovered"],
        "after=2-0",
        complete=False,
    ),
    History(
        "a gap is reported once, with the message that follows",
        [welcome(), message("1-0", "a"), gap("1-0", "5-0"), BEAT, message("5-0", "b"), message("6-0", "c")],
        ["opened", "a live", "lost 1-0 5-0", "b live", "c live"],
        "after=6-0",
    ),
    History(
        "a gap that nothing follows is reported at the end",
        [welcome(), message("1-0", "a"), gap("1-0", "5-0")],
        ["opened", "a live"],
        "after=1-0",
        finish=["lost 1-0 5-0"],
    ),
    History(
        "a gap is sent again by the next relay",
        [
            *(welcome(), message("1-0", "a"), gap("1-0", "5-0"), DISCONNECTED),
            *(welcome("5-0"), gap("1-0", "5-0"), message("5-0", "b")),
        ],
        ["opened", "a live", "opened", "lost 1-0 5-0", "b recovered", "resumed 1"],
        "after=5-0",
    ),
    History(
        "or the next relay has the messages",
        [welcome(), message("1-0", "a"), gap("1-0", "5-0"), DISCONNECTED, welcome("4-0"), message("4-0", "b")],
        ["opened", "a live", "opened", "b recovered", "resumed 1"],
        "after=4-0",
    ),
    History(
        "known ids and passed positions are repeated",
        [welcome(), message("2-0", "a"), message("3-0", "a"), message("3-0", "b"), message("1-0", "c")],
        ["opened", "a live", "repeated a", "repeated b", "repeated c"],
        "after=3-0",
    ),
    History(
        "after a rejected position nothing is lost where the first message is known",
        [
            *(welcome("8-0"), message("9-0", "a"), DISCONNECTED, REJECTED),
            *(welcome("2-0"), message("1-0", "a"), message("2-0", "b"), message("3-0", "c")),
        ],
        ["opened", "a live", "opened", "b recovered", "resumed 1", "c live"],
        "after=3-0",
    ),
    History(
        "after a rejected position messages may be lost where it is not",
        [welcome("8-0"), message("9-0", "a"), DISCONNECTED, REJECTED, welcome("2-0"), message("2-0", "b")],
        ["opened", "a live", "opened", "perhaps lost 9-0 2-0", "b recovered", "resumed 1"],
        "after=2-0",
    ),
    History(
        "after the first of two rejected positions",
        [
            *(welcome("9-0"), DISCONNECTED, REJECTED, DISCONNECTED, welcome(), DISCONNECTED, REJECTED),
            *(welcome("2-0"), message("2-0", "b")),
        ],
        ["opened", "opened", "resumed 0", "opened", "perhaps lost 9-0 2-0", "b recovered", "resumed 1"],
        "after=2-0",
    ),
    History(
        "a loss after a rejected position that nothing follows is reported at the end",
        [welcome("1-0"), message("2-0", "a"), DISCONNECTED, REJECTED, welcome()],
        ["opened", "a live", "opened", "resumed 0"],
        "after=0-0",
        finish=["perhaps lost 2-0 None"],
    ),
    History(
        "a rejected position leads to recent messages",
        [welcome("8-0"), DISCONNECTED, REJECTED],
        ["opened"],
        "last=50",
        complete=False,
        finish=["perhaps lost 8-0 None"],
    ),
    History(
        "after a rejected position a known message is repeated where it comes live",
        [welcome("8-0"), message("9-0", "a"), DISCONNECTED, REJECTED, welcome("2-0"), message("3-0", "a")],
        ["opened", "a live", "opened", "repeated a", "resumed 0"],
        "after=3-0",
    ),
    History(
        "a status is shown, and a frame of an unknown type is not",
        [welcome(channel="down"), {"type": "status", "channel": "up", "since": NOON}, {"type": "tomorrow's"}],
        ["opened", "channel up"],
        "after=0-0",
    ),
)

# By no relay sent: at the beginning of a connection, and after its welcome.
BAD_BEGINNINGS: Sequence[Any] = (
    *(None, [], "welcome", {}, {"type": ["welcome"]}, {"type": "welcome"}, welcome(7), welcome("7"), welcome(relay=1)),
    *(BEAT, message("1-0", "a"), welcome(channel=None)),
)
BAD_FRAMES: Sequence[Any] = (
    *(welcome(), gap("1-0", "x"), gap("1-0", None), {"type": "gap"}, {"type": "status", "channel": "up"}),
    *({"type": "message"}, message("1", "a"), message("1-0", ""), message("1-0", "a", relay=None)),
    *(message("1-0", "a", sent_at=True), message("1-0", "a", text="x" * 4097), message("1-0", "a", id=7)),
)
