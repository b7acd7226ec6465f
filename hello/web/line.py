"""The fast way to write: whoever has something for a browser gives it to the kernel at once. It knows nothing of HTTP.

    handshake ──hand over──▶ Line ◀──ring── audience
                              └───write──▶ kernel

A line is all that there is of a browser from its handshake to its end: no task, no queue, and no timer while it reads.
What is owed is put in frames once, and the same bytes are written to all who share a cursor; what came while others
were written to goes out in one piece. When the kernel does not take everything, the line is passed over until it has:
the cursor stays where it is meanwhile, and what was missed comes from the log.
"""

import asyncio
import struct
from typing import Any, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from hello.audience import MOVED, Audience, Browser, Reader
from hello.feed import NEW, Owed

EXTENSION = "hello.line"  # of ASGI: `hand_over` takes a Line, and the connection is the line's from then on

STALL_SECONDS = 30.0  # a browser that takes nothing for so long is given up
LOOKS = 6  # in this time, whether it has taken something
ABORT_SECONDS = 5.0  # for what is unsent, and for the peer's part in closing, after we have closed
MAX_FRAME = 4096  # bytes in a browser's message
SLICE = 512  # bytes that are looked into before the frames in them are counted
MAX_UNREAD = 64 * 1024  # bytes that wait for a browser that goes on saying things and reads next to nothing
FRAMES_PER_MINUTE = 100  # a browser has nothing to say; one that says more than this is broken, or means harm

TEXT = 0x81  # the first byte of a text frame that is whole
NOT_TEXT = 1007  # RFC 6455, section 7.4.1
RULES_BROKEN = 1008
TOO_SLOW = 1013  # "try again later" (RFC 6455's registry)


class Crowd(Reader):
    """The lines that have been given everything: they share a cursor, so that a message costs each but its write.

    A member's own cursor is not looked after while it is here. A transport says from within `write` that the kernel
    has not taken everything, so that a line may leave while the others are written to; none can come in then. A write
    does not raise: what goes wrong with a connection is told to its line later, in `connection_lost`.
    """

    __slots__ = ("_leaving", "_members", "_writing")

    def __init__(self, audience: Audience) -> None:
        super().__init__(audience, NEW)
        self._members: dict[Line, asyncio.Transport] = {}
        self._leaving: list[Line] = []  # those that left while the others were written to
        self._writing = False
        audience.tell(self)

    def ring(self) -> None:
        while self._members and (owed := self.take(len(self._members))) is not None:
            wire = owed.wire or _wire(owed)
            self._writing = True
            for transport in self._members.values():
                transport.write(wire)
            self._writing = False
            for line in self._leaving:
                self._members.pop(line, None)
            self._leaving.clear()

    def join(self, line: "Line") -> None:
        """Take the line in, if it has been given everything; the crowd tells it from now on."""
        if not self._members:
            self.cursor = line.cursor
        if line.cursor is self.cursor is self.audience.feed.newest:
            self._members[line] = line.transport
            self.audience.spare(line)

    def leave(self, line: "Line") -> None:
        """Let the line go on for itself, if it was here, from what it has been given."""
        if line in self._members:
            line.cursor = self.cursor
            self.audience.tell(line)
            if self._writing:
                self._leaving.append(line)
            else:
                del self._members[line]


class Line(Browser, asyncio.Protocol):
    """A browser, and the protocol of its connection."""

    __slots__ = ("_closing", "_connections", "_crowd", "_incoming", "_passed_over", "_timer", "transport")

    transport: asyncio.Transport
    _connections: set[Any]  # all of the server's, of several protocols

    def __init__(self, crowd: Crowd) -> None:
        super().__init__(crowd.audience)
        self._crowd = crowd
        self._passed_over = False  # nothing is to be written for now: the kernel is full, others have a turn, it closes
        self._closing = False  # nothing is to be written ever again
        self._incoming: _Incoming | None = None  # made when there is something to read, or to close
        self._timer: asyncio.TimerHandle | None = None  # while it keeps us waiting, and from `_end` on

    def begin(self, transport: asyncio.Transport, connections: set[Any], answer: bytes) -> None:
        """Take the connection over, with the answer to its handshake; what comes on it from now on comes here."""
        if transport.is_closing():  # it went during its handshake
            self.audience.leave(self)
            return
        self.transport = transport
        self._connections = connections
        connections.add(self)
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=0)  # so that we are told as soon as the kernel has not taken everything
        if transport.get_write_buffer_size() and self.waiting_since is None:
            self.pause_writing()  # it was Http that was told, of the answer to an earlier request
        owed = self.take()  # a welcome at least
        transport.write(answer + (owed.wire or _wire(owed)) if owed else answer)
        self._go_on()

    def ring(self) -> None:
        self._crowd.leave(self)
        if not self._passed_over and (owed := self.take()) is not None:
            self.transport.write(owed.wire or _wire(owed))
            if owed.more and not self._passed_over:
                self._passed_over = True  # until the others have had a turn
                asyncio.get_running_loop().call_soon(self._go_on)
        if self._passed_over:
            return
        if self.moving:
            self._close(MOVED)
        else:
            self._crowd.join(self)

    def _go_on(self) -> None:
        if self.waiting_since is None and not self._closing:
            self._passed_over = False
            self.ring()

    # What the transport says.

    def pause_writing(self) -> None:
        self._crowd.leave(self)
        self._passed_over = True
        self.waiting_since = asyncio.get_running_loop().time()
        if not self._closing:
            self._look_again(self.waiting_since, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self.waiting_since = None
        if not self._closing:
            self._stop_timer()
            self._go_on()

    def data_received(self, data: bytes) -> None:
        incoming = self._reader()
        incoming.receive(data, asyncio.get_running_loop().time())
        self._answer(incoming)

    def eof_received(self) -> None:
        """It says nothing more; the transport closes once it has sent what it was given, which is enough."""
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._stop_timer()  # asyncio's transports take no `abort` from then on
        self._connections.discard(self)
        self.audience.leave(self)
        if self._incoming is not None:
            self._incoming.parser.parser.close()  # a generator, which holds its parser in a cycle

    # What the server asks, once everybody has been moved away.

    @property
    def stuck(self) -> bool:
        """Whether it could not even be sent the closing frame."""
        return not self._closing

    def shutdown(self) -> None:
        """Do not wait for the browser's part in closing."""
        self.transport.close()

    # One that keeps us waiting.

    def _look_again(self, since: float, unsent: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS / LOOKS, self._look, since, unsent)

    def _look(self, since: float, unsent: int) -> None:
        now, left = asyncio.get_running_loop().time(), self.transport.get_write_buffer_size()
        if left < unsent:  # every byte that is taken counts as progress
            self._look_again(now, left)
        elif now - since < STALL_SECONDS:
            self._look_again(since, left)
        else:
            self._close(TOO_SLOW)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Closing, and what the browser has to say about it.

    def _close(self, code: int) -> None:
        if not self._closing:
            incoming = self._reader()
            incoming.parser.send_close(code)
            self._answer(incoming)

    def _end(self) -> None:
        """Write no message any more; what is unsent, and the browser's part in closing, are waited for a little."""
        if not self._closing:
            self._crowd.leave(self)
            self._passed_over = self._closing = True
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(ABORT_SECONDS, self.transport.abort)

    def _reader(self) -> "_Incoming":
        if self._incoming is None:
            self._incoming = _Incoming()
        return self._incoming

    def _answer(self, incoming: "_Incoming") -> None:
        if incoming.parser.state is not OPEN:
            self._end()
        answer = incoming.parser.data_to_send()
        self.transport.write(b"".join(answer))
        if self.transport.get_write_buffer_size() > MAX_UNREAD:
            self.transport.abort()
        if b"" in answer:  # which stands for the end
            self.transport.close()


class _Incoming:
    """What a browser says, within its limits: nothing that matters but its answers to pings and its close."""

    __slots__ = ("_frames", "_minute", "_text", "parser")

    def __init__(self) -> None:
        self.parser = ServerProtocol(state=OPEN, max_size=MAX_FRAME)
        self._minute = 0.0  # when it began
        self._frames = 0  # since then
        self._text: bytes | None = None  # the beginning of a message that came in pieces

    def receive(self, data: bytes, now: float) -> None:
        """Take in what came; afterwards the parser has the answers."""
        if now - self._minute > 60:
            self._minute, self._frames = now, 0
        for start in range(0, len(data), SLICE):
            if self.parser.eof_sent:
                break  # it is over
            self.parser.receive_data(data[start : start + SLICE])
            self._look()

    def _look(self) -> None:
        for frame in cast(list[Frame], self.parser.events_received()):  # the handshake, the other event, is over
            self._frames += 1
            if self._frames > FRAMES_PER_MINUTE:
                self.parser.fail(RULES_BROKEN, f"over {FRAMES_PER_MINUTE} frames a minute")
            elif not self._is_text(frame):
                self.parser.fail(NOT_TEXT, "not UTF-8")

    def _is_text(self, frame: Frame) -> bool:
        """Whether it may be so: a text is looked at once it is whole."""
        if frame.opcode is Opcode.TEXT:
            self._text = b""
        if frame.opcode in (Opcode.TEXT, Opcode.CONT) and self._text is not None:
            self._text += frame.data
            if frame.fin:
                text, self._text = self._text, None
                try:
                    text.decode()
                except UnicodeDecodeError:
                    return False
        return True


def _wire(owed: Owed) -> bytes:
    """The frames as a server's text frames (RFC 6455, section 5.2), made once for all who are owed the same."""
    pieces: list[bytes] = []
    for frame in owed.frames:
        size = len(frame.json)
        if size < 126:
            head = bytes((TEXT, size))
        elif size < 1 << 16:
            head = struct.pack("!BBH", TEXT, 126, size)
        else:
            head = struct.pack("!BBQ", TEXT, 127, size)
        pieces += (head, frame.json)
    owed.wire = b"".join(pieces)
    return owed.wire
