"""How lines look (hello/watch/output.py), and that nothing in them can control a terminal."""

import json
import re
from typing import Any

import pytest

from hello.client import ClientProtocol, Lost, Opened, Repeated, Resumed, Shown, StatusChanged
from hello.message import Position
from hello.watch.connection import Connecting, Disconnected, Event
from hello.watch.output import as_json, as_text, local_time
from hello.watch.tally import Tally
from tests.client_histories import NOON, message, welcome

EVIL = "\x1b]0;x\x07\x9b31m\n\r\x7f\u202etxt\u2066\u2028 👩\u200d💻"
ESCAPED = r"\x1b]0;x\x07\x9b31m\n\r\x7f\u202etxt\u2066\u2028 👩" + "\u200d💻"
ONE, FIVE = Position(1, 0), Position(5, 0)


def shown(came: str = "live", **fields: object) -> Shown:
    protocol = ClientProtocol()
    protocol.receive(welcome("1-0" if came == "history" else None))
    item = protocol.receive(message("1-0", "a", **fields))[0]
    assert isinstance(item, Shown)
    return item


@pytest.mark.parametrize(
    "event",
    [
        *(shown(text=EVIL), shown(broadcaster=EVIL), shown(relay=EVIL), Opened(EVIL, None, "up")),
        *(Disconnected("lost", EVIL, 1, 1.0), Repeated(ONE, EVIL), Connecting(EVIL, EVIL, EVIL)),
        StatusChanged(EVIL, {"type": "status", "channel": EVIL, "since": 0}),
    ],
)
def test_received_text_cannot_control_a_terminal(event: Event) -> None:
    """Control characters, line ends and marks that reorder a line are escaped; joined emoji stay joined."""
    assert ESCAPED in as_text(event, NOON)
    line = as_json(event, NOON)
    assert line.isascii()
    assert line.isprintable()
    assert EVIL in json.loads(line).values()


def test_local_time_has_the_date_unless_it_is_today() -> None:
    hour = 3_600_000
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.007", local_time(NOON + 7, NOON))
    assert re.fullmatch(r"2023-11-1\d \d\d:\d\d:\d\d\.000", local_time(NOON - 25 * hour, NOON))
    assert local_time(2**53 - 1, NOON) == f"{2**53 - 1} ms"


CONNECTION = {"type": "connection", "at": NOON + 12}
STATUS = {"type": "status", "channel": "down", "since": NOON}
OPEN = {"state": "open", "relay": "r", "head": "1-0", "channel": "up", "transport": "websocket"}
CONNECTING = {"state": "connecting", "url": "ws://h/ws", "transport": "websocket"}
OPEN_DOWN = OPEN | {"head": None, "channel": "down"}
LOST = {"state": "lost", "detail": "why", "attempt": 2, "retry_in": 0.456}
REPEATED = {"type": "repeated", "position": "1-0", "id": "a"}
MAYBE_MISSING = r"gap: messages after 1970-.+ may be missing: .+"
GAP = {"type": "gap", "after": "1-0", "before": "5-0", "certain": True}
TALLY = {"type": "tally", "shown": 0, "recovered": 0, "lost": 1, "gaps": [GAP], "repeated": 0, "moves": 0}
TALLY |= {"reconnects": 0, "over_events": 0, "complete": False, "longest_silence": 0.0}
TALLY |= {"delay_median": None, "delay_worst": None}


def tally() -> Tally:
    tally = Tally()
    tally.add(Lost(ONE, FIVE, certain=True), now=0.0, at=NOON)
    return tally


@pytest.mark.parametrize(
    ("event", "words", "fields"),
    [
        (shown(), r"Hello world  b -> r  12 ms", message("1-0", "a")),
        (shown("history"), r"Hello world  b -> r  history", message("1-0", "a")),
        (shown(new=1), r"Hello world  b -> r  12 ms", message("1-0", "a", new=1)),
        (Lost(ONE, FIVE, certain=True), r"gap: messages between 1970-.+\.001 and 1970-.+\.005 are lost", GAP),
        (Lost(ONE, FIVE, certain=False), MAYBE_MISSING, GAP | {"certain": False}),
        (Lost(ONE, None, certain=False), MAYBE_MISSING, GAP | {"before": None, "certain": False}),
        (Repeated(ONE, "a"), r"repeated: message a came again, at 1-0, .+", REPEATED),
        (StatusChanged("down", STATUS), r"the channel is down since .+", STATUS),
        (Connecting("ws://h/ws", "websocket", ""), "connecting to ws://h/ws", CONNECTING | {"why": ""}),
        (
            Connecting("ws://h/ws", "websocket", "why"),
            "connecting to ws://h/ws, since why",
            CONNECTING | {"why": "why"},
        ),
        (Opened("r", ONE, "up"), "connected to r", OPEN),
        (Opened("r", ONE, "up", "events"), "connected to r over server-sent events", OPEN | {"transport": "events"}),
        (Opened("r", None, "down"), "connected to r, but its channel is down", OPEN_DOWN),
        (Resumed(1), "resumed after 1 missed message", {"state": "resumed", "missed": 1}),
        (Disconnected("lost", "why", 2, 0.456), r"lost: why; trying again in 0\.5 s", LOST),
        (tally(), r"tally: 0 .+; 1 gap, 0 repeated, 0 moves, 0 reconnects; longest silence 0\.0 s", TALLY),
    ],
)
def test_lines(event: Event | Tally, words: str, fields: dict[str, Any]) -> None:
    """Each event is a line of text and a JSON object; a message and a status are the relay's frames."""
    time = r"\d\d:\d\d:\d\d\.0" + ("00" if isinstance(event, Shown) else "12")
    start = "" if isinstance(event, Shown) else "-- "
    assert re.fullmatch(f"{start}{time}  {words}", as_text(event, NOON + 12))
    assert json.loads(as_json(event, NOON + 12)) == (CONNECTION if "state" in fields else {}) | fields
