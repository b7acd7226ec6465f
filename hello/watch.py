"""The terminal client: `hello watch URL` shows a relay's stream, comes back by the page's rules, and keeps a tally.

It knows a relay by its outside contract alone (README, "Talk to it"). Its parts: `Tally` knows what frames mean, as the
page's `stream.js` does, `stay_connected` keeps a WebSocket open, as `connection.js` does, and `as_text` and `as_json`
say on stdout what both give to show, a line for each thing.

Moments are UNIX time in milliseconds, as integers; lengths of time are seconds, as floats, but for delays: those are
milliseconds, as integers. With `--json` a line is one of these objects; `message` and `status` are the relay's frames:

    connection  state: connecting (url); open (relay, head, channel); resumed (missed: how many messages were missed and
                have been shown since); or why it is not open: moved, slow, lost, dead, unreachable, garbled (detail,
                attempt, retry_in: seconds); at: moment
    message     position, id, text, broadcaster, sent_at, relayed_at, relay
    gap         after, before: what was said between these positions is lost, or may be (certain: false); before is null
                where nothing has come after it
    repeated    position, id: this message came again, and is not shown
    status      channel, since
    tally       the last line, see `Tally.summary`
"""

import argparse
import json
import math
import os
import random
import re
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.http11 import Response
from websockets.uri import parse_uri

from hello.message import ORIGIN, Malformed, Message, Position, now_ms

# The page's numbers and their reasons stand in connection.js; these are seconds.
SILENCE = 25.0  # without any frame the line is dead
OPENING = 10.0  # from attempt to first frame
STEADY = 10.0  # up for so long, and attempts count anew
PAUSES = (1.0, 0.5, 1.0, 2.0, 4.0, 5.0)  # at most, before each attempt, and the last before all others
RECENT = 50  # messages to begin anew with
REASONS = {1012: "moved", 1013: "slow"}  # by close code; anything else is "lost"

KEPT = 500  # message ids remembered, as in stream.js: a watch of a week must not grow
KEPT_DELAYS = 1000  # the newest, of which the median is told
KEPT_GAPS = 100  # the newest that the tally lists; all are counted
MAX_FRAME = 64 * 1024  # bytes; a message of 4,096 characters, escaped to 6 bytes each, is less than half of it
MAX_DETAIL = 200  # characters of what a stranger gives as a reason
MAX_LAST = 9_999_999  # messages; relays refuse more
MAX_SECONDS = 31_536_000.0  # a year

MISUSED = 2  # exit code
NOT_SHOWN = 1  # exit code: something was lost or repeated, or nobody knows

# C0, DEL and C1 drive a terminal; marks, embeddings and isolates reorder a line; a lone surrogate cannot be written.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Item(NamedTuple):
    """One thing to show: the object that `--json` writes, and what the text adds of how a message came."""

    fields: dict[str, Any]
    came: str = ""


# What frames mean.


class Tally:
    """What a watch has seen so far, in bounded memory. `now` is a moment on a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.shown = 0
        self.recovered = 0  # of those: missed while away, and shown after coming back
        self.lost = 0  # gaps told
        self.repeated = 0  # messages that came again; always 0 unless something is broken
        self.connections = 0
        self._connected = False
        self._behind = False  # what was missed while away has not come yet
        self._missed = 0  # of what was missed while away, shown since this connection opened
        self._begun_anew = False  # this connection was asked for recent messages, known ones among them
        self._head: Position | None = None  # the newest when this connection opened
        self._start: Position | None = None  # from where to resume, as long as there was no message
        self._taken: Position | None = None  # of the last message
        self._ids: dict[str, None] = {}  # in the order of arrival
        self._gap: dict[str, Any] | None = None  # told, but not yet shown
        self._forgotten: Position | None = None  # the position that a relay would not resume from
        self._gaps: deque[dict[str, Any]] = deque(maxlen=KEPT_GAPS)
        self._delays: deque[int] = deque(maxlen=KEPT_DELAYS)
        self._worst_delay: int | None = None
        self._longest_silence = 0.0
        self._silent_since: float | None = None

    @property
    def position(self) -> Position | None:
        """From where to resume: the last message, or what was newest before there was one; None is from no position."""
        return self._start if self._taken is None else self._taken

    @property
    def complete(self) -> bool:
        """Whether it is connected, and has been given what it had missed."""
        return self._connected and not self._behind

    @property
    def good(self) -> bool:
        """Whether it is known that nothing was lost, and nothing repeated."""
        return self.complete and not (self.lost or self.repeated or self._gap or self._forgotten)

    def take(self, frame: object, *, now: float, moment: int) -> list[Item]:
        """What one frame gives to show, often nothing; `moment` is UNIX time in milliseconds.

        Raises Malformed for what no relay says. Frames of an unknown type are for newer clients.
        """
        if not isinstance(frame, dict):
            raise Malformed(f"a frame is a JSON object, not {type(frame).__name__}")
        kind = frame.get("type")
        if (kind == "welcome") is self._connected:
            raise Malformed("a connection begins with a welcome, and has no other")
        match kind:
            case "welcome":
                return self._welcome(frame, now, moment)
            case "message":
                return self._message(frame, now, moment)
            case "status":
                _check(frame, channel=str, since=int)
                return [Item(frame)]
            case "gap":
                self._gap = _gap(_position(frame, "after"), _position(frame, "before"), certain=True)
        return []

    def gone(self) -> None:
        """The connection has ended."""
        self._connected = False

    def forget_position(self) -> None:
        """For a relay that refuses our position: begin anew with its recent messages."""
        self._forgotten = self._forgotten or self.position
        self._start = self._taken = None

    def finish(self) -> list[Item]:
        """Nothing comes any more: what there still is to tell of a loss."""
        return self._settle(None, known=False)

    def summary(self, now: float) -> Item:
        """The tally; `now` ends the silence that lasts.

        `lost` counts gaps, of which `gaps` lists the newest. `complete` is whether it was connected at the end, and had
        been given what it had missed. `longest_silence` (seconds) is the longest time between two messages shown, or
        from the first connection to the first of them, or until now. `delay_median` (of the newest thousand) and
        `delay_worst` (milliseconds, null where there is none) are from `sent_at` to our clock, of messages that came
        live: they compare the clocks of two machines, and may be negative.
        """
        silence = 0.0 if self._silent_since is None else now - self._silent_since
        return Item(
            {
                "type": "tally",
                "shown": self.shown,
                "recovered": self.recovered,
                "lost": self.lost,
                "gaps": list(self._gaps),
                "repeated": self.repeated,
                "reconnects": max(0, self.connections - 1),
                "complete": self.complete,
                "longest_silence": round(max(self._longest_silence, silence), 3),
                "delay_median": round(statistics.median(self._delays)) if self._delays else None,
                "delay_worst": self._worst_delay,
            }
        )

    def _welcome(self, frame: dict[str, Any], now: float, moment: int) -> list[Item]:
        _check(frame, relay=str, channel=str)
        head = None if frame.get("head") is None else _position(frame, "head")
        again, position = self.connections > 0, self.position
        self.connections += 1
        self._connected = True
        self._gap = None  # told by a connection that ended at once: this relay tells it again, or has what was lost
        self._head = head
        self._missed = 0
        self._begun_anew = again and position is None
        self._behind = again and head is not None and (position is None or head > position)
        if position is None:
            self._start = head or ORIGIN  # a stream that never had an entry has no gap before its first
        if self._silent_since is None:
            self._silent_since = now
        told = {name: frame.get(name) for name in ("relay", "head", "channel")}
        opened = Item({"type": "connection", "state": "open", **told, "at": moment})
        return [opened, self._resumed(moment)] if again and not self._behind else [opened]

    def _message(self, frame: dict[str, Any], now: float, moment: int) -> list[Item]:
        _check(frame, relay=str)
        message = Message(**{name: frame.get(name) for name in Message.__annotations__})  # type: ignore[arg-type]  # which checks them
        position = _position(frame, "position")
        if self._taken is not None and position <= self._taken:
            return [self._again(position, message)]
        self._taken = position
        live = self._head is None or position > self._head
        known = message.id in self._ids
        items = self._settle(position, known)
        if not known:
            items.append(Item(frame, self._show(message, live, now, moment)))
        elif live or not self._begun_anew:  # else we have asked for it
            items.append(self._again(position, message))
        if self._behind and self._head is not None and position >= self._head:
            self._behind = False
            items.append(self._resumed(moment))
        return items

    def _show(self, message: Message, live: bool, now: float, moment: int) -> str:
        """Count a message that is to be shown; how it came."""
        self._ids[message.id] = None
        if len(self._ids) > KEPT:
            del self._ids[next(iter(self._ids))]
        self.shown += 1
        if self._silent_since is not None:
            self._longest_silence = max(self._longest_silence, now - self._silent_since)
        self._silent_since = now
        if live:
            delay = moment - message.sent_at
            self._delays.append(delay)
            self._worst_delay = delay if self._worst_delay is None else max(delay, self._worst_delay)
            return f"{delay} ms"
        if self.connections == 1:
            return "history"
        self.recovered += 1
        self._missed += 1
        return "recovered"

    def _settle(self, before: Position | None, known: bool) -> list[Item]:
        """Count and tell the loss before this position (None: before the end), if there is one."""
        gap = self._gap
        if gap is None and self._forgotten is not None and not known:
            gap = _gap(self._forgotten, before, certain=False)
        self._gap = self._forgotten = None
        if gap is None:
            return []
        self.lost += 1
        self._gaps.append(gap)
        return [Item(gap)]

    def _again(self, position: Position, message: Message) -> Item:
        self.repeated += 1
        return Item({"type": "repeated", "position": str(position), "id": message.id})

    def _resumed(self, moment: int) -> Item:
        return Item({"type": "connection", "state": "resumed", "missed": self._missed, "at": moment})


def _gap(after: Position, before: Position | None, *, certain: bool) -> dict[str, Any]:
    return {"type": "gap", "after": str(after), "before": before and str(before), "certain": certain}


def _position(frame: dict[str, Any], field: str) -> Position:
    _check(frame, **{field: str})
    return Position.parse(frame[field])


def _check(frame: dict[str, Any], **types: type) -> None:
    for field, wanted in types.items():
        if type(frame.get(field)) is not wanted:
            raise Malformed(f"a {frame['type']}'s {field} is {wanted.__name__}, not {type(frame.get(field)).__name__}")


# How frames come.


class End(NamedTuple):
    """Why a connection ended, in one word and in more, and for how many seconds it was up (None: it had no frame)."""

    reason: str
    detail: str
    up: float | None


def stream_address(url: str) -> str:
    """The WebSocket address of the stream for a page's address, or for either stream's own: /ws or /events.

    As on the page a path before it is kept. Without a scheme it is http.

    Raises ValueError, in words, for what is no such address.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}[parts.scheme]
        if re.search(r"[\s\x00-\x1f]", url) or parts.query or parts.port == 0:
            raise ValueError
        (parts.hostname or "").encode("idna")  # a name that no resolver can be asked for is a UnicodeError
        path = re.sub(r"/(ws|events)?/*$", "", parts.path) + "/ws"
        address = urlunsplit((scheme, parts.netloc, path, "", ""))
        parse_uri(address)
    except (KeyError, ValueError, InvalidURI):
        raise ValueError(
            f"{_public(url)!r} is not the address of a page: give http://HOST:PORT/ or https://HOST/, with the path"
            " before the page if there is one, and nothing after it"
        ) from None
    return address


def longest_pause(reason: str, attempt: int) -> float:
    """Seconds, at most, before an attempt, counted from 1, after an end for this reason."""
    return PAUSES[-1 if reason == "slow" else min(attempt, len(PAUSES)) - 1]  # the slow come back later, not soon


async def stay_connected(
    address: str, tally: Tally, show: Callable[[Item], None], *, last: int = 0, most: float = math.inf
) -> None:
    """Follow the stream at `address`, beginning with the `last` newest messages, until `most` were shown."""
    show(Item({"type": "connection", "state": "connecting", "url": _public(address), "at": now_ms()}))
    attempt = 0
    while True:
        count = RECENT if tally.connections else last
        start = f"last={count}" if tally.position is None else f"after={tally.position}"
        end = await _listen(f"{address}?{start}", tally, show, most)
        if tally.shown >= most:
            return
        tally.gone()
        if end.up is not None and end.up >= STEADY:
            attempt = 0
        attempt += 1
        pause = random.uniform(0, longest_pause(end.reason, attempt))  # drawn evenly from zero: "full jitter"
        told = {"state": end.reason, "detail": end.detail[:MAX_DETAIL], "attempt": attempt, "retry_in": round(pause, 3)}
        show(Item({"type": "connection", **told, "at": now_ms()}))
        await anyio.sleep(pause)


async def _listen(address: str, tally: Tally, show: Callable[[Item], None], most: float) -> End:
    """Connect, and take frames until the connection ends, or `most` messages were shown."""
    opened: float | None = None
    socket: ClientConnection | None = None
    reason, detail = "unreachable", f"no word within {OPENING:g} s"
    try:
        with anyio.move_on_after(OPENING) as patience:
            # Deadlines, and beats instead of pings, are ours; of a proxy the library hears from the environment.
            socket = await connect(address, open_timeout=None, ping_interval=None, compression=None, max_size=MAX_FRAME)
            while tally.shown < most:
                frame = _read(await socket.recv())
                for item in tally.take(frame, now=time.monotonic(), moment=now_ms()):
                    show(item)
                opened = opened or anyio.current_time()
                reason, detail = "dead", f"no word for {SILENCE:g} s"
                patience.deadline = anyio.current_time() + SILENCE
    except Malformed as error:  # to go on would be to lose this frame in silence
        reason, detail = "garbled", str(error)
    except ConnectionClosed as closed:
        if closed.sent is not None and not closed.rcvd_then_sent:  # we close first for what breaks the protocol alone
            reason, detail = "garbled", f"closed by us with {closed.sent}"
        else:
            code = closed.rcvd.code if closed.rcvd else 0
            reason = REASONS.get(code, "unreachable" if opened is None else "lost")
            detail = f"closed with {closed.rcvd}" if closed.rcvd else "the connection broke"
    except InvalidStatus as refused:
        detail = _refusal(refused.response)
        if refused.response.status_code == 400 and tally.position is not None and str(tally.position) in detail:
            tally.forget_position()
            detail = f"beginning anew with recent messages, after {detail}"
    except (OSError, WebSocketException, ValueError, ImportError) as error:
        if socket is not None:
            raise  # a mistake of ours
        detail = str(error)  # the last two are a redirect to what is no address, and a SOCKS proxy without its library
    finally:
        if socket is not None:
            socket.transport.abort()  # left behind, not waited for: on a dead line its close may take minutes
    return End(reason, detail, None if opened is None else anyio.current_time() - opened)


def _read(data: str | bytes) -> object:
    if isinstance(data, bytes):
        raise Malformed("a frame is text, not binary")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a frame is a JSON object: {error}") from error


def _refusal(response: Response) -> str:
    """What a server says that does not open the WebSocket: its status, and the first line of its reason."""
    lines = bytes(response.body or b"").decode(errors="replace").strip().splitlines()
    return ": ".join([f"{response.status_code} {response.reason_phrase}", *lines[:1]])


def _public(url: str) -> str:
    """The address without user and password."""
    return re.sub(r"(://|^)[^/?#]*@", r"\1", url)


# How it looks.


class OutputLost(Exception):
    """Nobody takes what is written to stdout any more; caused by the OSError."""


def write(line: str) -> None:
    """Write one line to stdout, at once.

    Raises OutputLost if that is not possible; no OSError, which would look like one of the connection.
    """
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        raise OutputLost from error


def as_json(item: Item) -> str:
    """ASCII, so that nothing in it can drive a terminal."""
    return json.dumps(item.fields)


def as_text(item: Item, now: int) -> str:
    """One line of printable text, whatever the relay says; `now` is UNIX time in milliseconds."""
    fields = item.fields
    if fields["type"] == "message":
        path = f"{fields['broadcaster']} -> {fields['relay']}"
        line = f"{local_time(fields['sent_at'], now)}  {fields['text']}  {path}  {item.came}"
    else:
        line = f"-- {local_time(now, now)}  {_words(fields, now)}"
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), line)


def local_time(moment: int, now: int) -> str:
    """A moment (UNIX milliseconds) as a clock here shows it, with the date only where that is not today's."""
    try:
        local, today = (datetime.fromtimestamp(each // 1000, UTC).astimezone() for each in (moment, now))
    except (ValueError, OverflowError, OSError):
        return f"{moment} ms"  # beyond the year 9999
    return f"{local:{'%H:%M:%S' if local.date() == today.date() else '%Y-%m-%d %H:%M:%S'}}.{moment % 1000:03d}"


def _words(fields: dict[str, Any], now: int) -> str:
    match fields:
        case {"type": "gap", "after": after, "certain": False}:
            return f"gap: messages after {_said_at(after, now)} may be missing: the relay could not go on from there"
        case {"type": "gap", "after": after, "before": before}:
            return f"gap: messages between {_said_at(after, now)} and {_said_at(before, now)} are lost"
        case {"type": "repeated"}:
            return f"repeated: message {fields['id']} came again, at {fields['position']}, and is not shown"
        case {"type": "status"}:
            return f"the channel is {fields['channel']} since {local_time(fields['since'], now)}"
        case {"state": "connecting"}:
            return f"connecting to {fields['url']}"
        case {"state": "open", "relay": relay, "channel": channel}:
            return f"connected to {relay}" + (", but its channel is down" if channel == "down" else "")
        case {"state": "resumed"}:
            return f"resumed after {_count(fields['missed'], 'missed message')}"
        case {"state": reason}:
            return f"{reason}: {fields['detail']}; trying again in {fields['retry_in']:.1f} s"
        case tally:
            delay = f"; delay {tally['delay_median']} ms (median), {tally['delay_worst']} ms (worst)"
            return (
                f"tally: {_count(tally['shown'], 'message')} shown, {tally['recovered']} of them recovered;"
                f" {_count(tally['lost'], 'gap')}, {tally['repeated']} repeated,"
                f" {_count(tally['reconnects'], 'reconnect')}; longest silence {tally['longest_silence']:.1f} s"
            ) + ("" if tally["delay_worst"] is None else delay)


def _said_at(position: str, now: int) -> str:
    return local_time(Position.parse(position).milliseconds, now)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# The command.


def main(arguments: Sequence[str]) -> int:
    """Watch until a signal or a limit; the exit code, as the help tells it. It reads no setting of hello."""
    options = _parser().parse_args(arguments)
    try:
        address = stream_address(options.url)
    except ValueError as mistake:
        sys.stderr.write(f"hello watch: {mistake}\n")
        return MISUSED
    if sys.stdout is None:  # as after `>&-`
        sys.stderr.write("hello watch: stdout is closed: give it a terminal, a file or a pipe\n")
        return MISUSED
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what this terminal has no characters for
    tally, complaint = Tally(), ""

    def show(item: Item) -> None:
        write(as_json(item) if options.json else as_text(item, now_ms()))

    try:
        with suppress(KeyboardInterrupt):  # in the moment before signals are received
            anyio.run(_watch, address, tally, show, options)
        for item in (*tally.finish(), tally.summary(time.monotonic())):
            show(item)
        if not tally.connections:
            complaint = "never connected, so that this shows nothing"
        elif not tally.complete:
            complaint = "cut off at the end, so that nobody knows what was said since"
    except* OutputLost as lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries once more at its end
        if not isinstance(cause := lost.exceptions[0].__cause__, BrokenPipeError):  # whose reader has seen enough
            complaint = f"cannot write: {cause}"
    if complaint:
        sys.stderr.write(f"hello watch: {complaint}\n")
    return 0 if tally.good else NOT_SHOWN


async def _watch(address: str, tally: Tally, show: Callable[[Item], None], options: argparse.Namespace) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await anext(aiter(signals))
                group.cancel_scope.cancel()

            group.start_soon(stop)
            with anyio.move_on_after(options.seconds):
                await stay_connected(address, tally, show, last=options.last, most=options.messages)
            group.cancel_scope.cancel()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hello watch",
        description="Shows the stream of a relay in the terminal, live. It reconnects and resumes by the page's rules,"
        " and ends with a tally: run it beside a rollout to see whether anything was lost or repeated.",
        epilog="It ends on Ctrl-C, SIGTERM, --seconds or --messages. Exit code 0: nothing was lost or repeated. 1:"
        " something was, or it never connected, or it was cut off at the end. 2: it was called wrongly. Delays are"
        " from sent_at to the clock of this machine: they compare the clocks of two machines.",
    )
    parser.add_argument("url", metavar="URL", help="the page's address, such as http://127.0.0.1:8000/")
    parser.add_argument("--json", action="store_true", help="one JSON object a line; the last one is the tally")
    for flag, read, default, help_text in (
        ("--last", _within(int, 0, MAX_LAST), 0, "begin with the N newest messages (default: from now on)"),
        ("--seconds", _within(float, 0.1, MAX_SECONDS), math.inf, "watch for so long (default: until it is stopped)"),
        ("--messages", _within(int, 1, sys.maxsize), math.inf, "until so many have been shown"),
    ):
        parser.add_argument(flag, metavar="N", type=read, default=default, help=help_text)
    return parser


def _within(read: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = read(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"give a number from {least:g} to {most:g}, not {text!r}")
        return value

    return parse
