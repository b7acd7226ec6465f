"""Frames and sockets by hand: an encoder that can break rules, a decoder, and a client that adds nothing.

It implements RFC 6455, section 5.2, in bytes. It must not know hello, or use a library that corrects mistakes.
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
SECONDS = 30.0  # for an answer, a frame, or the end of a connection that should come at once


class Frame(NamedTuple):
    """One frame that was received, or is to be sent."""

    opcode: int
    payload: bytes = b""
    fin: bool = True

    @property
    def code(self) -> int | None:
        """The code of a close frame, or None if it has none."""
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, length: int | None = None
) -> bytes:
    """Return a frame of a client, which is valid by default; `length` is the declared length of the payload."""
    declared = len(payload) if length is None else length
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if declared < 126:
        head += bytes([mask_bit | declared])
    elif declared < 1 << 16:
        head += struct.pack("!BH", mask_bit | 126, declared)
    else:
        head += struct.pack("!BQ", mask_bit | 127, declared)
    return head + mask(payload) if masked else head + payload


def mask(payload: bytes) -> bytes:
    """Return a masking key, and the payload masked with it."""
    key = os.urandom(4)
    return key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """Return the payload of a close frame."""
    return struct.pack("!H", code) + reason


def decode(buffer: bytearray) -> Iterator[Frame]:
    """Yield the complete frames of a server, and remove them from the buffer."""
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
        assert not first & 0x70, "no extension was negotiated"
        yield Frame(first & 0x0F, payload, bool(first & 0x80))


def request(
    path: str | bytes, *fields: str | bytes, method: str = "GET", version: str = "1.1", host: str | None = "127.0.0.1"
) -> bytes:
    """Return the head of a request with Host and these fields (`"Origin: http://x"`)."""
    lines = [
        b" ".join([method.encode(), path if isinstance(path, bytes) else path.encode(), f"HTTP/{version}".encode()]),
        *([] if host is None else [f"Host: {host}".encode()]),
        *(field if isinstance(field, bytes) else field.encode() for field in fields),
    ]
    return b"\r\n".join([*lines, b"", b""])


def handshake(path: str | bytes = "/ws", *fields: str | bytes, host: str | None = "127.0.0.1") -> bytes:
    """Return the opening handshake of a client, with further fields."""
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    return request(path, *upgrade, b"Sec-WebSocket-Key: " + KEY, *fields, host=host)


class Answer(NamedTuple):
    """The head of an answer, and the bytes received after it; field names are in lower case."""

    status: int
    fields: list[tuple[str, str]]
    rest: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of all fields of this name."""
        return [value for found, value in self.fields if found == name]

    def one(self, name: str) -> str | None:
        """Return the value of the field of this name, or None; raises AssertionError if there are several."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} comes {len(values)} times"
        return values[0] if values else None


def parse_answer(received: bytes) -> Answer:
    """Parse what begins with a status line; raises AssertionError if it does not, or if its head is not complete."""
    head, end, rest = received.partition(b"\r\n\r\n")
    assert end, f"no answer: {received[:200]!r}"
    status, *fields = head.decode("latin-1").split("\r\n")
    assert status.startswith("HTTP/1.1 "), status
    pairs = [line.partition(":") for line in fields]
    return Answer(int(status.split(" ")[1]), [(name.lower(), value.strip()) for name, _, value in pairs], rest)


def ask(port: int, *parts: bytes) -> Answer:
    """Send a request, and return everything until the server closes the connection."""
    with connect(port) as connection:
        send(connection, *parts)
        return parse_answer(b"".join(chunks(connection)))


def ask_head(port: int, *parts: bytes) -> Answer:
    """Send a request, and return the head of its answer; raises AssertionError if none comes within SECONDS."""
    with connect(port) as connection:
        send(connection, *parts)
        return receive_head(connection)


def send(connection: socket.socket, *parts: bytes) -> None:
    """Send each part by itself; the server may have closed the connection before the last one."""
    with suppress(ConnectionError):
        for part in parts:
            connection.sendall(part)


def receive_head(connection: socket.socket) -> Answer:
    """Return the head of an answer, and what came with it; raises AssertionError if none comes within SECONDS."""
    received = bytearray()
    with suppress(TimeoutError):
        for data in chunks(connection):
            received += data
            if b"\r\n\r\n" in received:
                break
    return parse_answer(bytes(received))


def connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Open a connection; with a small `receive_buffer` (bytes) the kernel takes little that is not read."""
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


def chunks(connection: socket.socket, seconds: float = SECONDS) -> Iterator[bytes]:
    """Yield what is received until the connection ends; raises TimeoutError if it does not end in so many seconds."""
    deadline = time.monotonic() + seconds
    with suppress(ConnectionError):
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            data = connection.recv(1 << 16)
            if not data:
                return
            yield data


def reset(connection: socket.socket) -> None:
    """Close the connection with a reset (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Client:
    """A WebSocket client after its handshake. By itself it sends nothing but the reply to a close frame."""

    def __init__(self, port: int, path: str = "/ws", *fields: str, receive_buffer: int | None = None) -> None:
        self.socket = connect(port, receive_buffer=receive_buffer)
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
        """Send the parts in one write; the server may have closed the connection already."""
        send(self.socket, b"".join(parts))

    def frames(self, seconds: float = SECONDS) -> Iterator[Frame]:
        """Yield frames until the connection ends; raises TimeoutError if it does not end in so many seconds."""
        yield from decode(self._buffer)
        for data in chunks(self.socket, seconds):
            self._buffer += data
            yield from decode(self._buffer)

    def receive(self, *opcodes: int) -> Frame:
        """Return the next frame with one of these opcodes; raises AssertionError if the connection ends before."""
        for received in self.frames():
            if received.opcode in opcodes:
                return received
        raise AssertionError("the connection has ended")

    def until_closed(self, seconds: float = SECONDS) -> Frame:
        """Return the close frame once the connection has ended; the close frame is answered.

        Raises AssertionError if there is no close frame, or any frame after it.
        """
        close: Frame | None = None
        for received in self.frames(seconds):
            assert close is None, f"after the close frame: {received}"
            if received.opcode == CLOSE:
                close = received
                self.send(frame(CLOSE, received.payload))
        assert close is not None, "the connection ended without a close frame"
        return close
