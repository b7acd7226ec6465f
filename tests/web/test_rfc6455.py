"""Our part of RFC 6455, over a raw socket: the handshake, limits, close codes and UTF-8. `websockets` parses frames."""

from collections.abc import Iterator

import pytest

from hello.web.websocket import ABORT_SECONDS
from tests.processes import HelloProcess
from tests.web import raw
from tests.web.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Client, Frame, close_payload, frame, handshake

BROKEN, INVALID, TOO_BIG = 1002, 1007, 1009  # RFC 6455, section 7.4.1
EURO = "€".encode()  # three bytes

INVALID_FRAMES: dict[str, tuple[bytes, int]] = {
    "unmasked": (frame(TEXT, b"hello", masked=False), BROKEN),
    "not UTF-8": (frame(TEXT, b"hello \xff"), INVALID),
    "not UTF-8 in a fragment": (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xff"), INVALID),
    "not UTF-8 over fragments": (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x28\xa1"), INVALID),
    "over 4 KiB": (frame(BINARY, b"x" * 4097), TOO_BIG),
    "over 4 KiB in fragments": (frame(TEXT, b"x" * 4096, fin=False) + frame(CONTINUATION, b"x"), TOO_BIG),
    "far over 4 KiB declared": (frame(TEXT, length=2**63 - 1), TOO_BIG),
}


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    """Whatever the clients of all these tests send, it leaves no error in the log."""
    with HelloProcess(interval_min="0.001", interval_max="0.002", text="x" * 1000) as running:
        yield running
        assert running.terminate() == 0
        assert '"error"' not in running.output
        assert "Traceback" not in running.output


@pytest.mark.parametrize(("sent", "code"), INVALID_FRAMES.values(), ids=INVALID_FRAMES.keys())
def test_invalid_frame_closes(process: HelloProcess, sent: bytes, code: int) -> None:
    """The close code is that of the RFC, and then the connection ends, during a broadcast and byte by byte too."""
    with Client(process.port, "/ws?last=50") as complete, Client(process.port, "/ws?last=50") as by_byte:
        for place in range(len(sent[:40])):
            by_byte.send(sent[place : place + 1])
        by_byte.send(sent[40:], frame(PING), frame(TEXT, b"more"))
        complete.send(sent)
        assert complete.until_closed().code == by_byte.until_closed().code == code
    hasty = Client(process.port)
    hasty.send(sent, frame(CLOSE, close_payload(1000)))
    raw.reset(hasty.socket)


@pytest.mark.parametrize("payload", [b"", close_payload(4999, b"x" * 123)], ids=len)
def test_close_is_answered(process: HelloProcess, payload: bytes) -> None:
    """The reply has the same code, nothing after the close is read, and the connection ends."""
    with Client(process.port) as client:
        client.send(frame(CLOSE, payload), frame(PING, b"late"), frame(3), frame(TEXT, b"\xff"))
        assert client.until_closed(ABORT_SECONDS - 1).payload[:2] == payload[:2]


VALID_FRAMES = {
    "4 KiB that are not UTF-8": frame(BINARY, b"\xff" * 4096),
    "4 KiB in fragments": frame(TEXT, b"x" * 2048, fin=False) + frame(CONTINUATION, b"x" * 2048),
    "bytes in fragments": frame(BINARY, fin=False) + frame(CONTINUATION, b"\xff"),
    "a letter around a ping": frame(TEXT, EURO[:1], fin=False) + frame(PING) + frame(CONTINUATION, EURO[1:]),
    "pings in a long message": frame(TEXT, b"x" * 3900, fin=False) + frame(PING, b"x" * 125) * 2,
}


@pytest.mark.parametrize("sent", VALID_FRAMES.values(), ids=VALID_FRAMES.keys())
def test_valid_frames_are_ignored(process: HelloProcess, sent: bytes) -> None:
    """A client has nothing to send, but may: pings get their pong, and the stream goes on."""
    with Client(process.port) as client:
        client.send(sent, frame(PING, b"still there?"))
        while (received := client.receive(PONG, CLOSE)) != Frame(PONG, b"still there?"):
            assert received.opcode == PONG
        client.receive(TEXT)


def test_handshake_selects_nothing(process: HelloProcess) -> None:
    """The answer has neither subprotocol nor extension, and the stream begins."""
    extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    fields = ("Sec-WebSocket-Protocol: chat, superchat", extension, "Connection: keep-alive")
    with Client(process.port, "/ws", *fields) as client:
        assert client.answer.one("sec-websocket-accept") == raw.ACCEPT.decode()
        assert (client.answer.one("upgrade") or "").lower() == "websocket"
        assert (client.answer.one("connection") or "").lower() == "upgrade"
        assert client.answer.one("sec-websocket-protocol") is None
        assert client.answer.one("sec-websocket-extensions") is None
        assert b'"welcome"' in client.receive(TEXT).payload


VERSION, VALID_KEY = "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {raw.KEY.decode()}"
UPGRADE, CONNECTION = "Upgrade: websocket", "Connection: Upgrade"

BAD_HANDSHAKES: dict[str, tuple[bytes, int]] = {
    "no key": (raw.request("/ws", CONNECTION, UPGRADE, VERSION), 400),
    "short key": (raw.request("/ws", CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: c2hvcnQ="), 400),
    "long key": (raw.request("/ws", CONNECTION, UPGRADE, VERSION, f"Sec-WebSocket-Key: {'QUJD' * 8}"), 400),
    "key that is not base64": (raw.request("/ws", CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: " + "?" * 24), 400),
    "two keys": (raw.request("/ws", CONNECTION, UPGRADE, VERSION, VALID_KEY, VALID_KEY), 400),
    "version 8": (raw.request("/ws", CONNECTION, UPGRADE, VALID_KEY, "Sec-WebSocket-Version: 8"), 426),
    "no version": (raw.request("/ws", CONNECTION, UPGRADE, VALID_KEY), 426),
    "two versions": (raw.request("/ws", CONNECTION, UPGRADE, VALID_KEY, VERSION, "Sec-WebSocket-Version: 8"), 426),
    "no Upgrade": (raw.request("/ws", CONNECTION, VERSION, VALID_KEY), 426),
    "no Connection": (raw.request("/ws", UPGRADE, VERSION, VALID_KEY), 426),
    "another Upgrade": (raw.request("/ws", CONNECTION, "Upgrade: h2c", VERSION, VALID_KEY), 426),
    "POST": (raw.request("/ws", CONNECTION, UPGRADE, VERSION, VALID_KEY, method="POST"), 405),
    "HTTP/1.0": (raw.request("/ws", CONNECTION, UPGRADE, VERSION, VALID_KEY, version="1.0"), 426),
    "path that is not ASCII": (handshake("/wß"), 400),
    "bad escape in the path": (handshake("/%ff%zz"), 404),
    "body": (handshake("/ws", "Content-Length: 5") + b"hello", 413),
    "body in chunks": (handshake("/ws", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 413),
}


@pytest.mark.parametrize(("sent", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES.keys())
def test_bad_handshake_is_refused(process: HelloProcess, sent: bytes, status: int) -> None:
    """The answer is an HTTP error; where the version is wrong, it has the right one (section 4.4)."""
    answer = raw.ask_head(process.port, sent)
    assert answer.status == status
    is_handshake = answer.one("upgrade") is None  # else the app answered a plain request
    assert answer.one("sec-websocket-version") == ("13" if is_handshake and status == 426 else None)


ANY_CASE = [CONNECTION.upper() + ", x", "upgrade: WebSocket", VERSION.upper(), VALID_KEY.replace(": ", ":")]
HANDSHAKES: dict[str, list[bytes]] = {
    "any case": [raw.request("/ws", *ANY_CASE)],
    "byte by byte": [handshake()[place : place + 1] for place in range(len(handshake()))],
    "after a request": [raw.request("/nothing", method="HEAD"), handshake()],
}


@pytest.mark.parametrize("parts", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_handshake_may_come_in_any_form(process: HelloProcess, parts: list[bytes]) -> None:
    """As clients and proxies send it."""
    with raw.connect(process.port) as connection:
        for part in parts:
            connection.sendall(part)
            if part.startswith(b"HEAD"):
                assert raw.receive_head(connection).status == 404
        assert raw.receive_head(connection).status == 101
