"""Formats events as lines of text or JSON, and writes them to stdout. It knows neither connections nor rules."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

from hello.client import Lost, Opened, Repeated, Resumed, Shown, StatusChanged
from hello.message import Position
from hello.printable import printable
from hello.watch.connection import Connecting, Disconnected, Event
from hello.watch.tally import Tally

_STATES = {Connecting: "connecting", Opened: "open", Resumed: "resumed"}  # Disconnected has its own


class OutputLost(Exception):
    """Nothing can be written to stdout any more; caused by the OSError."""


def write(line: str) -> None:
    """Write one line to stdout, and flush it.

    Raises OutputLost if that is not possible: an OSError would look like one of the connection.
    """
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        raise OutputLost from error


def as_json(event: Event | Tally, at: int) -> str:
    """Return a JSON object, as hello/watch/__init__.py lists them; `at` is the time of the event.

    It is ASCII, so that nothing in it can control a terminal.
    """
    return json.dumps(_fields(event, at))


def as_text(event: Event | Tally, at: int) -> str:
    """Return one line of printable text, whatever the relay sent; `at` is the time of the event."""
    start = "" if isinstance(event, Shown) else f"-- {local_time(at, at)}  "
    return printable(start + _words(event, at))


def local_time(time: int, now: int) -> str:
    """Return a time (UNIX milliseconds) in the local time zone, with the date unless it is today's."""
    try:
        local, today = (datetime.fromtimestamp(each // 1000, UTC).astimezone() for each in (time, now))
    except (ValueError, OverflowError, OSError):
        return f"{time} ms"  # beyond the year 9999
    return f"{local:{'%H:%M:%S' if local.date() == today.date() else '%Y-%m-%d %H:%M:%S'}}.{time % 1000:03d}"


def _fields(event: Event | Tally, at: int) -> dict[str, Any]:
    match event:
        case Shown() | StatusChanged():
            return event.frame
        case Tally(gaps=gaps):
            counts = {name: value for name, value in vars(event).items() if name[0] != "_"}
            return {"type": "tally", **counts, "gaps": [_fields(gap, at) for gap in gaps]}
        case Lost():
            kind: dict[str, Any] = {"type": "gap"}
        case Repeated():
            kind = {"type": "repeated"}
        case _:
            kind = {"type": "connection", "state": _STATES.get(type(event)), "at": at}
    fields = event._asdict().items()
    return kind | {name: str(value) if isinstance(value, Position) else value for name, value in fields}


def _words(event: Event | Tally, at: int) -> str:
    match event:
        case Shown(message, _, came, frame):
            how = f"{at - message.sent_at} ms" if came == "live" else came
            return (
                f"{local_time(message.sent_at, at)}  {message.text}  {message.broadcaster} -> {frame['relay']}  {how}"
            )
        case Lost(after, before, certain):
            start, end = (local_time(position.milliseconds, at) for position in (after, before or after))
            if certain:
                return f"gap: messages between {start} and {end} are lost"
            return f"gap: messages after {start} may be missing: the relay could not resume from there"
        case Repeated(position, message_id):
            return f"repeated: message {message_id} came again, at {position}, and is not shown"
        case StatusChanged(channel, frame):
            return f"the channel is {channel} since {local_time(frame['since'], at)}"
        case Connecting(url, _, why):
            return f"connecting to {url}" + (f", since {why}" if why else "")
        case Opened(relay, _, channel, transport):
            over = " over server-sent events" if transport == "events" else ""
            return f"connected to {relay}{over}" + (", but its channel is down" if channel == "down" else "")
        case Resumed(missed):
            return f"resumed after {_count(missed, 'missed message')}"
        case Disconnected(reason, detail, _, retry_in):
            return f"{reason}: {detail}; trying again in {retry_in:.1f} s"
        case Tally(delay_median=median, delay_worst=worst):
            events = f"; {_count(event.over_events, 'connection')} over server-sent events" if event.over_events else ""
            return (
                f"tally: {_count(event.shown, 'message')} shown, {event.recovered} of them recovered;"
                f" {_count(event.lost, 'gap')}, {event.repeated} repeated, {_count(event.moves, 'move')},"
                f" {_count(event.reconnects, 'reconnect')}{events}; longest silence {event.longest_silence:.1f} s"
            ) + ("" if worst is None else f"; delay {median} ms (median), {worst} ms (worst)")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
