"""A WebSocket after its handshake: frames go straight to the kernel. This file knows nothing of HTTP.

    HttpProtocol ──hands over──▶ WebSocketConnection ◀──notify── Hub
                                         └──write──▶ kernel

A connection has no task and no queue, and a timer only while its client does not read. Frames are encoded once, and
the same bytes are written to all clients with the same cursor; frames that came during a round of writes go out in one
write. When the kernel's buffer is full, the connection is skipped until there is room: its cursor stays where it is,
and it gets what it missed from the log.
"""

import asyncio
from array import array
from typing import Any, cast

from websockets.frames import CloseCode, Opcode
from websockets.frames import Frame as WireFrame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from hello.feed import Pending
from hello.hub import Client, Hub, Subscriber

EXTENSION = "hello.websocket"  # an ASGI extension: `hand_over` gives the connection to a WebSocketConnection

STALL_SECONDS = 30.0  # without a byte taken before a client is closed
STALL_CHECKS = 6  # in STALL_SECONDS, whether bytes were taken
ABORT_SECONDS = 5.0  # after the close frame was sent, for unsent bytes and for the client's own close frame
MAX_FRAME = 4096  # bytes in a frame from a client
READ_BYTES = 512  # bytes that are parsed before the frames in them are counted
MAX_UNREAD = 64 * 1024  # bytes of pongs and the like that wait for a client that sends frames and does not read
FRAMES_PER_MINUTE = 100  # in any 60 s: a client has nothing to send but pongs; one that sends more is broken or hostile


class CaughtUp(Subscriber):
    """The connections that were sent everything. They share one cursor, so that a message costs each just its write.

    The cursor of a member itself is not used while it is a member. A transport calls `pause_writing` from within
    `write` if the kernel's buffer is full, so that a connection may leave during a round of writes; none can join in
    one. `write` does not raise: a connection that is lost gets `connection_lost` later.
    """

    __slots__ = ("_leaving", "_members", "_writing")

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._members: dict[WebSocketConnection, asyncio.Transport] = {}
        self._leaving: list[WebSocketConnection] = []  # the members that left during a round of writes
        self._writing = False
        hub.subscribe(self)

    def notify(self) -> None:
        while self._members and (pending := self.poll(len(self._members))) is not None:
            data = _encoded(pending)
            self._writing = True
            for transport in self._members.values():
                transport.write(data)
            self._writing = False
            for connection in self._leaving:
                self._members.pop(connection, None)
            self._leaving.clear()

    def join(self, connection: "WebSocketConnection") -> None:
        """Take the connection in if it was sent everything; it is then notified as a member only."""
        if not self._members:
            self.cursor = connection.cursor
        if connection.cursor == self.cursor == self.hub.feed.caught_up:
            self._members[connection] = connection.transport
            self.hub.unsubscribe(connection)

    def leave(self, connection: "WebSocketConnection") -> None:
        """Let a member continue by itself, from what it was sent; nothing happens if it is not a member."""
        if connection in self._members:
            connection.cursor = self.cursor
            self.hub.subscribe(connection)
            if self._writing:
                self._leaving.append(connection)
            else:
                del self._members[connection]


class WebSocketConnection(Client, asyncio.Protocol):
    """A client, and the asyncio protocol of its connection."""

    __slots__ = ("_caught_up", "_closing", "_connections", "_incoming", "_paused", "_timer", "transport")

    transport: asyncio.Transport
    _connections: set[Any]  # all connections of the server, of several protocols

    def __init__(self, caught_up: CaughtUp) -> None:
        super().__init__(caught_up.hub)
        self._caught_up = caught_up
        self._paused = False  # no message is written: the kernel's buffer is full, others come first, or it closes
        self._closing = False  # no message is written ever again
        self._incoming: _Incoming | None = None  # made when there is something to read, or to close
        self._timer: asyncio.TimerHandle | None = None  # while the client does not read, and while it closes

    def begin(self, transport: asyncio.Transport, connections: set[Any], answer: bytes) -> None:
        """Take over the transport, and write the answer to the handshake; incoming data comes here from now on."""
        if transport.is_closing():  # the client disconnected during its handshake
            self.hub.leave(self)
            return
        self.transport = transport
        self._connections = connections
        connections.add(self)
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=0)  # calls `pause_writing` as soon as the kernel's buffer is full
        if transport.get_write_buffer_size() and self.blocked_since is None:
            self.pause_writing()  # the transport has notified HttpProtocol only, at an earlier answer
        pending = self.poll()  # a welcome at least
        transport.write(answer + _encoded(pending) if pending else answer)
        self._continue()

    def notify(self) -> None:
        self._caught_up.leave(self)
        if not self._paused and not self.drained and (pending := self.poll()) is not None:
            self.transport.write(_encoded(pending))
            if pending.more and not self._paused:
                self._paused = True  # until the other connections were notified
                asyncio.get_running_loop().call_soon(self._continue)
        if self._paused:
            return
        if self.drained:
            self._close(CloseCode.SERVICE_RESTART)
        else:
            self._caught_up.join(self)

    def _continue(self) -> None:
        if self.blocked_since is None and not self._closing:
            self._paused = False
            self.notify()

    # Calls of the transport.

    def pause_writing(self) -> None:
        self._caught_up.leave(self)
        self._paused = True
        self.blocked_since = asyncio.get_running_loop().time()
        if not self._closing:
            self._schedule_stall_check(self.blocked_since, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self.blocked_since = None
        if not self._closing:
            self._cancel_timer()
            self._continue()

    def data_received(self, data: bytes) -> None:
        incoming = self._parser()
        incoming.receive(data, asyncio.get_running_loop().time())
        self._reply(incoming)

    def eof_received(self) -> None:
        """The client has shut down its side; the transport closes itself once it has sent what was written."""
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._cancel_timer()  # a transport of asyncio's own loop raises on `abort` after this
        self._connections.discard(self)
        self.hub.leave(self)
        if self._incoming is not None:
            self._incoming.parser.parser.close()  # a generator that holds its parser in a reference cycle

    # Calls of the server, once all clients are drained.

    @property
    def stuck(self) -> bool:
        """True if it could not even be sent the close frame."""
        return not self._closing

    def shutdown(self) -> None:
        """Close without waiting for the client's close frame."""
        self.transport.close()

    # A client that does not read.

    def _schedule_stall_check(self, since: float, unsent: int) -> None:
        delay = STALL_SECONDS / STALL_CHECKS
        self._timer = asyncio.get_running_loop().call_later(delay, self._check_stall, since, unsent)

    def _check_stall(self, since: float, unsent: int) -> None:
        """Close the connection if no byte was taken since the loop time `since`, when `unsent` bytes were left."""
        now, left = asyncio.get_running_loop().time(), self.transport.get_write_buffer_size()
        if left < unsent:
            self._schedule_stall_check(now, left)
        elif now - since < STALL_SECONDS:
            self._schedule_stall_check(since, left)
        else:
            self._close(CloseCode.TRY_AGAIN_LATER)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Closing, and the replies to what a client sends.

    def _close(self, code: CloseCode) -> None:
        if not self._closing:
            incoming = self._parser()
            incoming.parser.send_close(code)
            self._reply(incoming)

    def _end(self) -> None:
        """Write no more messages; abort after ABORT_SECONDS, unless the client takes the rest and closes before."""
        if not self._closing:
            self._caught_up.leave(self)
            self._paused = self._closing = True
            self._cancel_timer()
            self._timer = asyncio.get_running_loop().call_later(ABORT_SECONDS, self.transport.abort)

    def _parser(self) -> "_Incoming":
        if self._incoming is None:
            self._incoming = _Incoming()
        return self._incoming

    def _reply(self, incoming: "_Incoming") -> None:
        if incoming.parser.state is not OPEN:
            self._end()
        reply = incoming.parser.data_to_send()
        self.transport.write(b"".join(reply))
        if self.transport.get_write_buffer_size() > MAX_UNREAD:
            self.transport.abort()
        if b"" in reply:  # by which the parser marks the end of the connection
            self.transport.close()


class _Incoming:
    """What a client sends, within its limits; of its frames only pings and its close frame have an effect."""

    __slots__ = ("_text", "_times", "parser")

    def __init__(self) -> None:
        self.parser = ServerProtocol(state=OPEN, max_size=MAX_FRAME)
        self._times = array("d")  # loop times of the frames of the last minute
        self._text: bytes | None = None  # the first frames of a text message that is not complete

    def receive(self, data: bytes, now: float) -> None:
        """Parse the data, received at the loop time `now`; afterwards the parser has the replies to it."""
        self._times = array("d", [each for each in self._times if now - each < 60])
        for start in range(0, len(data), READ_BYTES):
            if self.parser.eof_sent:
                break  # the connection has ended
            self.parser.receive_data(data[start : start + READ_BYTES])
            self._check_frames(now)

    def _check_frames(self, now: float) -> None:
        # The only other event is a handshake, which is over.
        for frame in cast(list[WireFrame], self.parser.events_received()):
            self._times.append(now)
            if len(self._times) > FRAMES_PER_MINUTE:
                self.parser.fail(CloseCode.POLICY_VIOLATION, f"over {FRAMES_PER_MINUTE} frames a minute")
            elif not self._is_utf8(frame):
                self.parser.fail(CloseCode.INVALID_DATA, "not UTF-8")  # RFC 6455, section 8.1

    def _is_utf8(self, frame: WireFrame) -> bool:
        """Return False if this frame completes a text message that is not UTF-8."""
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


def _encoded(pending: Pending) -> bytes:
    """Return the frames as a server's text frames (RFC 6455, section 5.2), encoded once for all clients."""
    if pending.websocket is None:
        frames = (WireFrame(Opcode.TEXT, frame.json).serialize(mask=False) for frame in pending.frames)
        pending.websocket = b"".join(frames)
    return pending.websocket
