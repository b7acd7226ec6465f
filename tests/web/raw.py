"""Frames and sockets by hand: an encoder that can lie, a decoder, and a client that does no more than it is told.

RFC 6455, section 5.2, as bytes. It knows nothing of hello, and no library that would put things right on the way.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the sample of RFC 6455, section 1.3
SECONDS = 10.0  # for what should come at once: an answer, a frame, the end of a connection


class Frame(NamedTuple):
    """One frame as it came, or is to be sent."""

    opcode: int
    payload: bytes = b""
    fin: bool = True

    @property
    def code(self) -> int | None:
        """The code in a closing frame; None if there is none."""
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """A frame of a client, correct unless told otherwise.

    `reserved` are the three bits after FIN (4 is RSV1), `length` is what it declares, whatever the payload has, and
    `width` how many bytes say so (0, 2 or 8) where fewer would do.
    """
    declared = len(payload) if length is None else length
    if width is None:
        width = 0 if declared < 126 else 2 if declared < 1 << 16 else 8
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    match width:
        case 0:
            head += bytes([mask_bit | declared])
        case 2:
            head += struct.pack("!BH", mask_bit | 126, declared)
        case _:
            head += struct.pack("!BQ", mask_bit | 127, declared)
    return head + mask(payload) if masked else head + payload


def mask(payload: bytes) -> bytes:
    """A masking key, and the payload under it."""
    key = os.urandom(4)
    return key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def closing(code: int, reason: bytes = b"") -> bytes:
    """The payload of a closing frame."""
    return struct.pack("!H", code) + reason


def decode(buffer: bytearray) -> Iterator[Frame]:
    """The frames of a server that are whole; they are taken out of the buffer."""
    while len(buffer) >= 2:
        assert not buffer[1] & 0x80, "a server does not mask"
        length, start = buffer[1] & 0x7F, 2
        if length >= 126:
            width = 2 if length == 126 else 8
            start += width
            if len(buffer) < start:
                return
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return
        first, payload = buffer[0], bytes(buffer[start : start + length])
        del buffer[: start + length]
        assert not first & 0x70, "no extension has been agreed on"
        yield Frame(first & 0x0F, payload, bool(first & 0x80))


def request(
    path: str | bytes = "/ws",
    *fields: str | bytes,
    method: str = "GET",
    version: str = "1.1",
    host: str | None = "127.0.0.1",
) -> bytes:
    """The head of a request with these fields (`"Origin: http://x"`) and no others but Host."""
    lines = [
        b" ".join([method.encode(), path if isinstance(path, bytes) else path.encode(), f"HTTP/{version}".encode()]),
        *([] if host is None else [f"Host: {host}".encode()]),
        *(field if isinstance(field, bytes) else field.encode() for field in fields),
    ]
    return b"\r\n".join([*lines, b"", b""])


def handshake(path: str | bytes = "/ws", *fields: str | bytes, host: str | None = "127.0.0.1") -> bytes:
    """The opening handshake of a client, and further fields."""
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    return request(path, *upgrade, b"Sec-WebSocket-Key: " + KEY, *fields, host=host)


class Answer(NamedTuple):
    """The head of an answer, and what came behind it."""

    status: int
    fields: list[tuple[str, str]]
    rest: bytes

    def all(self, name: str) -> list[str]:
        """Each value of a field of this name (in lower case)."""
        return [value for found, value in self.fields if found == name]

    def one(self, name: str) -> str | None:
        """The value of a field that comes once at most."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} comes {len(values)} times"
        return values[0] if values else None


def parse_answer(received: bytes) -> Answer:
    """What begins with a status line.

    Raises AssertionError if it does not, or has no end of its head.
    """
    head, end, rest = received.partition(b"\r\n\r\n")
    assert end, f"no answer: {received[:200]!r}"
    status, *fields = head.decode("latin-1").split("\r\n")
    assert status.startswith("HTTP/1.1 "), status
    pairs = [line.partition(":") for line in fields]
    return Answer(int(status.split(" ")[1]), [(name.lower(), value.strip()) for name, _, value in pairs], rest)


def ask(port: int, *parts: bytes) -> Answer:
    """What comes back until the server hangs up; it may do so before it has read everything."""
    with connected(port) as connection:
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        return parse_answer(read_all(connection))


def ask_head(port: int, *parts: bytes) -> Answer:
    """The head of the answer, for one that may have no end; raises AssertionError if none comes in SECONDS."""
    with connected(port) as connection:
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        return receive_head(connection)


def receive_head(connection: socket.socket) -> Answer:
    """The head of an answer, and what came with it; raises AssertionError if none comes in SECONDS."""
    received = bytearray()
    with suppress(TimeoutError):
        for data in pieces(connection):
            received += data
            if b"\r\n\r\n" in received:
                break
    return parse_answer(bytes(received))


def connected(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """A connection; with a small `receive_buffer` the kernel takes in little that is not read."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(SECONDS)
    try:
        connection.connect(("127.0.0.1", port))
    except OSError:
        connection.close()
        raise
    return connection


def pieces(connection: socket.socket, seconds: float = SECONDS) -> Iterator[bytes]:
    """What comes, to the end of the connection, however it ends.

    Raises TimeoutError if it does not end in so many seconds.
    """
    deadline = time.monotonic() + seconds
    with suppress(ConnectionError):
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            data = connection.recv(1 << 16)
            if not data:
                return
            yield data


def read_all(connection: socket.socket, seconds: float = SECONDS) -> bytes:
    """Everything to the end of the connection; raises TimeoutError as `pieces` does."""
    return b"".join(pieces(connection, seconds))


def reset(connection: socket.socket) -> None:
    """Close it with a reset rather than with an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Client:
    """A WebSocket after its handshake. It sends what it is given, and nothing by itself but the answer to a close."""

    def __init__(self, port: int, path: str = "/ws", *fields: str, receive_buffer: int | None = None) -> None:
        self.socket = connected(port, receive_buffer=receive_buffer)
        try:
            self.socket.sendall(handshake(path, *fields))
            self.answer = receive_head(self.socket)
            assert self.answer.status == 101, self.answer
        except BaseException:
            self.socket.close()
            raise
        self._buffer = bytearray(self.answer.rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """In one piece; a server that has hung up already is no error."""
        with suppress(ConnectionError):
            self.socket.sendall(b"".join(parts))

    def frames(self, seconds: float = SECONDS) -> Iterator[Frame]:
        """What comes, to the end of the connection.

        Raises TimeoutError if it has not ended after so many seconds.
        """
        yield from decode(self._buffer)
        for data in pieces(self.socket, seconds):
            self._buffer += data
            yield from decode(self._buffer)

    def next(self, *opcodes: int) -> Frame:
        """The next frame of one of these kinds.

        Raises AssertionError if the connection ends before.
        """
        for came in self.frames():
            if came.opcode in opcodes:
                return came
        raise AssertionError("the connection has ended")

    def closed(self, seconds: float = SECONDS) -> Frame:
        """The closing frame; it is answered, and this returns once the connection has ended too.

        Raises AssertionError if there is none, more than one, or anything behind it.
        """
        close: Frame | None = None
        for came in self.frames(seconds):
            assert close is None, f"behind the closing frame: {came}"
            if came.opcode == CLOSE:
                close = came
                self.send(frame(CLOSE, came.payload))
        assert close is not None, "ended without a closing frame"
        return close
