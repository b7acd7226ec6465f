"""What RFC 6455 asks of a server, frame by frame over a raw socket, while messages are being broadcast."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.processes import HelloProcess
from tests.web.raw import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Client,
    Frame,
    ask,
    ask_head,
    closing,
    connected,
    frame,
    handshake,
    receive_head,
    request,
    reset,
)

BROKEN, INVALID, TOO_BIG = 1002, 1007, 1009  # RFC 6455, section 7.4.1

RESERVED_OPCODES = [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF]
NEVER_SENT = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65535]  # section 7.4
SENT = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]

MALFORMED: dict[str, tuple[bytes, int]] = {
    # 5.1: a client masks
    "unmasked text": (frame(TEXT, b"hello", masked=False), BROKEN),
    "unmasked ping": (frame(PING, masked=False), BROKEN),
    "unmasked close": (frame(CLOSE, closing(1000), masked=False), BROKEN),
    # 5.2: nobody has given the reserved bits a meaning
    **{f"reserved bit {bit}": (frame(TEXT, b"hello", reserved=bit), BROKEN) for bit in (4, 2, 1, 7)},
    "reserved bit in a ping": (frame(PING, reserved=4), BROKEN),
    "reserved bit in a continuation": (frame(TEXT, fin=False) + frame(CONTINUATION, reserved=4), BROKEN),
    **{f"opcode {opcode:X}": (frame(opcode, b"hello"), BROKEN) for opcode in RESERVED_OPCODES},
    "opcode 3 inside a message": (frame(TEXT, fin=False) + frame(3), BROKEN),
    # 5.4: fragments
    "continuation of nothing": (frame(CONTINUATION, b"hello"), BROKEN),
    "unfinished continuation of nothing": (frame(CONTINUATION, b"hello", fin=False), BROKEN),
    "continuation of a whole message": (frame(TEXT, b"a") + frame(CONTINUATION, b"b"), BROKEN),
    "continuation after the last one": (frame(TEXT, fin=False) + frame(CONTINUATION) * 2, BROKEN),
    "text inside a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), BROKEN),
    "binary inside a message": (frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False), BROKEN),
    # 5.5: control frames are short and whole
    "ping in fragments": (frame(PING, b"a", fin=False), BROKEN),
    "pong in fragments": (frame(PONG, b"a", fin=False), BROKEN),
    "close in fragments": (frame(CLOSE, closing(1000), fin=False), BROKEN),
    "long ping": (frame(PING, b"x" * 126), BROKEN),
    "long pong": (frame(PONG, b"x" * 126), BROKEN),
    "long close": (frame(CLOSE, closing(1000, b"x" * 124)), BROKEN),
    # 5.5.1 and 7.4: what a closing frame may say
    "close with half a code": (frame(CLOSE, b"\x03"), BROKEN),
    **{f"close with {code}": (frame(CLOSE, closing(code)), BROKEN) for code in NEVER_SENT},
    "close with a reason that is no UTF-8": (frame(CLOSE, closing(1000, b"\xff")), INVALID),
    "close with half a letter": (frame(CLOSE, closing(1000, "€".encode()[:2])), INVALID),
    # 8.1: text is UTF-8 (RFC 3629)
    "no UTF-8": (frame(TEXT, b"hello \xff"), INVALID),
    "overlong UTF-8": (frame(TEXT, b"\xc0\x80"), INVALID),
    "surrogate": (frame(TEXT, b"\xed\xa0\x80"), INVALID),
    "beyond Unicode": (frame(TEXT, b"\xf4\x90\x80\x80"), INVALID),
    "half a letter": (frame(TEXT, "€".encode()[:2]), INVALID),
    "no UTF-8 in a later fragment": (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xff"), INVALID),
    "no UTF-8 across fragments": (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x28\xa1"), INVALID),
    # 7.4.1: 4 KiB is what is taken here
    "a byte too many": (frame(BINARY, b"x" * 4097), TOO_BIG),
    "too much in fragments": (
        frame(TEXT, b"x" * 1000, fin=False) + frame(CONTINUATION, b"x" * 1000, fin=False) * 4,
        TOO_BIG,
    ),
    "a byte too many in the last fragment": (
        frame(TEXT, b"x" * 4096, fin=False) + frame(CONTINUATION, b"x"),
        TOO_BIG,
    ),
    "too much announced": (frame(TEXT, length=4097), TOO_BIG),
    "far too much announced": (frame(TEXT, length=2**63 - 1), TOO_BIG),
    "too much announced in a fragment": (frame(TEXT, fin=False) + frame(CONTINUATION, length=2**40), TOO_BIG),
}

EITHER: dict[str, tuple[bytes, set[int]]] = {
    "a length with its highest bit set": (frame(TEXT, length=2**63), {BROKEN, TOO_BIG}),
    "a ping that is too big for anything": (frame(PING, length=5000), {BROKEN, TOO_BIG}),
    "a close amid a message": (frame(TEXT, b"a", fin=False) + frame(CLOSE, closing(1000)), {BROKEN, 1000}),
    "no UTF-8 and a close at once": (frame(TEXT, b"\xff") + frame(CLOSE, closing(1000)), {INVALID, 1000}),
}


@pytest.fixture(scope="module")
def process() -> Iterator[HelloProcess]:
    with HelloProcess(interval_min="0.005", interval_max="0.01") as running:
        yield running


@pytest.mark.parametrize(("sent", "code"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_the_rfc_forbids_closes_with_its_code(process: HelloProcess, sent: bytes, code: int) -> None:
    """And then the connection ends."""
    with Client(process.port) as client:
        client.send(sent)
        assert client.closed().code == code


@pytest.mark.parametrize(("sent", "codes"), EITHER.values(), ids=EITHER.keys())
def test_where_two_codes_are_right_one_of_them_closes(process: HelloProcess, sent: bytes, codes: set[int]) -> None:
    """Two rules are broken at once, or the RFC leaves it open."""
    with Client(process.port) as client:
        client.send(sent)
        assert client.closed().code in codes


def test_malformed_frames_amid_a_broadcast_leave_no_trace_in_the_log() -> None:
    """Whatever comes while frames are being written: whole, byte by byte, with a reset behind it, or nothing more."""
    with HelloProcess(interval_min="0.001", interval_max="0.002", text="x" * 1000) as process:
        for sent, _ in [*MALFORMED.values(), *EITHER.values()]:
            with ExitStack() as stack:
                whole, by_byte, hasty = (stack.enter_context(Client(process.port, "/ws?last=50")) for _ in range(3))
                for place in range(len(sent[:40])):
                    by_byte.send(sent[place : place + 1])
                by_byte.send(sent[40:], frame(PING), frame(TEXT, b"more"))
                hasty.send(sent, frame(CLOSE, closing(1000)))
                reset(hasty.socket)
                whole.send(sent)
                whole.closed()
        assert process.status("/livez") == 200
        assert process.terminate() == 0
        assert '"error"' not in process.output
        assert "Traceback" not in process.output


@pytest.mark.parametrize("payload", [closing(code) for code in SENT], ids=map(str, SENT))
def test_a_close_is_echoed(process: HelloProcess, payload: bytes) -> None:
    """With its code; then the connection ends."""
    with Client(process.port) as client:
        client.send(frame(CLOSE, payload))
        assert client.closed().payload[:2] == payload


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="no code"),
        pytest.param(closing(1000, "gefällt".encode()), id="a reason"),
        pytest.param(closing(1000, b"x" * 123), id="the longest reason"),
    ],
)
def test_a_close_with_or_without_a_reason_is_answered(process: HelloProcess, payload: bytes) -> None:
    with Client(process.port) as client:
        client.send(frame(CLOSE, payload))
        assert client.closed().payload[:2] == payload[:2]


def test_nothing_is_read_behind_a_close(process: HelloProcess) -> None:
    """Not even what would be malformed."""
    with Client(process.port) as client:
        client.send(frame(CLOSE, closing(1001)), frame(PING, b"late"), frame(3), frame(TEXT, b"\xff"))
        assert client.closed().code == 1001


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))], ids=["empty", "one byte", "125 bytes"])
def test_a_ping_is_answered_with_its_payload(process: HelloProcess, payload: bytes) -> None:
    with Client(process.port) as client:
        client.send(frame(PING, payload))
        assert client.next(PONG, CLOSE) == Frame(PONG, payload)


def test_pings_are_answered_in_order(process: HelloProcess) -> None:
    """All of them, or the latest (RFC 6455, section 5.5.3)."""
    with Client(process.port) as client:
        client.send(*(frame(PING, b"%d" % number) for number in range(20)))
        numbers: list[int] = []
        while not numbers or numbers[-1] != 19:
            numbers.append(int(client.next(PONG, CLOSE).payload))
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "before",
    [pytest.param(b"hel", id="in a short message"), pytest.param(b"x" * 3900, id="in a long message")],
)
def test_a_ping_between_fragments_is_answered_and_the_message_goes_on(process: HelloProcess, before: bytes) -> None:
    """It is no part of the message, nor of its length."""
    with Client(process.port) as client:
        client.send(frame(TEXT, before, fin=False), frame(PING, b"in between"), frame(PONG), frame(CONTINUATION, b"lo"))
        assert client.next(PONG, CLOSE) == Frame(PONG, b"in between")
        client.send(frame(PING, b"after"))
        assert client.next(PONG, CLOSE) == Frame(PONG, b"after")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frame(PONG), id="an empty pong"),
        pytest.param(frame(PONG, b"x" * 125), id="a long pong"),
        pytest.param(frame(TEXT), id="an empty text"),
        pytest.param(frame(TEXT, "äöü €".encode()), id="a text"),
        pytest.param(frame(BINARY, b"\xff\xfe"), id="bytes that are no UTF-8"),
        pytest.param(frame(BINARY, b"x" * 4096), id="as much as is taken"),
        pytest.param(
            frame(TEXT, b"x" * 2048, fin=False) + frame(CONTINUATION, b"x" * 2048), id="as much in two fragments"
        ),
        pytest.param(
            frame(TEXT, "€".encode()[:1], fin=False)
            + frame(CONTINUATION, fin=False)
            + frame(CONTINUATION, "€".encode()[1:]),
            id="a letter over three fragments",
        ),
        pytest.param(frame(BINARY, fin=False) + frame(CONTINUATION, b"\xff"), id="bytes in fragments"),
    ],
)
def test_what_is_allowed_is_ignored(process: HelloProcess, sent: bytes) -> None:
    """The browser has nothing to say, but may; the stream goes on."""
    with Client(process.port) as client:
        client.send(sent, frame(PING, b"still there?"))
        assert client.next(PONG, CLOSE) == Frame(PONG, b"still there?")
        client.next(TEXT)


@pytest.mark.parametrize("width", [2, 8])
def test_a_length_in_more_bytes_than_it_takes_misleads_nobody(process: HelloProcess, width: int) -> None:
    """It is forbidden (section 5.2) and harmless: refused, or read as what it says."""
    with Client(process.port) as client:
        client.send(frame(BINARY, b"hello", width=width), frame(PING, b"in step"))
        came = client.next(PONG, CLOSE)
        assert came == Frame(PONG, b"in step") or came.code == BROKEN
    with Client(process.port) as client:
        client.send(frame(BINARY, b"x" * 4097, width=8))
        assert client.closed().code in (BROKEN, TOO_BIG)


def test_frames_may_come_byte_by_byte(process: HelloProcess) -> None:
    with Client(process.port) as client:
        sent = frame(TEXT, b"hel", fin=False) + frame(PING, b"slow") + frame(CONTINUATION, b"lo")
        for place in range(len(sent)):
            client.send(sent[place : place + 1])
        assert client.next(PONG, CLOSE) == Frame(PONG, b"slow")


def test_every_frame_of_the_server_is_a_whole_text(process: HelloProcess) -> None:
    """Unmasked, without extensions, UTF-8, in lengths of the shortest form."""
    with Client(process.port, "/ws?last=20") as client:
        for _, came in zip(range(20), client.frames(), strict=False):
            assert came.opcode == TEXT
            assert came.fin
            assert came.payload.decode().startswith('{"type":"')


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((), id="plain"),
        pytest.param(("Sec-WebSocket-Protocol: chat, superchat",), id="subprotocols offered"),
        pytest.param(("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",), id="extension offered"),
        pytest.param(("Sec-WebSocket-Extensions: x-unheard-of; a=1, permessage-deflate",), id="unknown extension"),
        pytest.param(("Connection: keep-alive",), id="two Connection fields"),
        pytest.param(("Cookie: naïve=é",), id="a field that is no ASCII"),
        pytest.param(("X-Empty:",), id="an empty field"),
    ],
)
def test_a_handshake_selects_nothing_that_was_offered(process: HelloProcess, fields: tuple[str, ...]) -> None:
    """Neither a subprotocol nor an extension, and the stream works."""
    with Client(process.port, "/ws", *fields) as client:
        assert client.answer.one("sec-websocket-accept") == ACCEPT.decode()
        assert (client.answer.one("upgrade") or "").lower() == "websocket"
        assert (client.answer.one("connection") or "").lower() == "upgrade"
        assert client.answer.one("sec-websocket-protocol") is None
        assert client.answer.one("sec-websocket-extensions") is None
        assert b'"welcome"' in client.next(TEXT).payload


VERSION, WITH_KEY = "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY.decode()}"
UPGRADE, CONNECTION = "Upgrade: websocket", "Connection: Upgrade"

REFUSED: dict[str, tuple[bytes, set[int]]] = {
    "no key": (request("/ws", CONNECTION, UPGRADE, VERSION), {400}),
    "short key": (request("/ws", CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: c2hvcnQ="), {400}),
    "long key": (request("/ws", CONNECTION, UPGRADE, VERSION, f"Sec-WebSocket-Key: {'QUJD' * 8}"), {400}),
    "key that is no base64": (request("/ws", CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: ?" + "?" * 23), {400}),
    "two keys": (request("/ws", CONNECTION, UPGRADE, VERSION, WITH_KEY, WITH_KEY), {400}),
    "version 8": (request("/ws", CONNECTION, UPGRADE, WITH_KEY, "Sec-WebSocket-Version: 8"), {426}),
    "version 14": (request("/ws", CONNECTION, UPGRADE, WITH_KEY, "Sec-WebSocket-Version: 14"), {426}),
    "no version": (request("/ws", CONNECTION, UPGRADE, WITH_KEY), {400, 426}),
    "two versions": (request("/ws", CONNECTION, UPGRADE, WITH_KEY, VERSION, "Sec-WebSocket-Version: 8"), {400, 426}),
    "no Upgrade": (request("/ws", CONNECTION, VERSION, WITH_KEY), {400, 426}),
    "no Connection": (request("/ws", UPGRADE, VERSION, WITH_KEY), {400, 426}),
    "another Upgrade": (request("/ws", CONNECTION, "Upgrade: h2c", VERSION, WITH_KEY), {400, 426}),
    "POST": (request("/ws", CONNECTION, UPGRADE, VERSION, WITH_KEY, "Content-Length: 0", method="POST"), {400, 405}),
    "HEAD": (request("/ws", CONNECTION, UPGRADE, VERSION, WITH_KEY, method="HEAD"), {400, 405, 426}),
    "HTTP/1.0": (request("/ws", CONNECTION, UPGRADE, VERSION, WITH_KEY, version="1.0"), {400, 426, 505}),
    "wrong address": (handshake("/wsx"), {403, 404}),
    "the page's address": (handshake("/"), {403, 404}),
    "the other stream's address": (handshake("/events"), {403, 404}),
    "an address that is no ASCII": (handshake("/wß"), {400, 403, 404}),
    "a bad escape in the address": (handshake("/%ff%zz"), {400, 403, 404}),
    "a bad start": (handshake("/ws?after=%ff"), {400}),
    "a control character in a field": (handshake("/ws", b"Cookie: a\x01b"), {400}),
    "a body": (handshake("/ws", "Content-Length: 5") + b"hello", {400, 413}),
    "a body in chunks": (handshake("/ws", "Transfer-Encoding: chunked") + b"0\r\n\r\n", {400, 413, 501}),
    "a list in Upgrade": (request("/ws", CONNECTION, "Upgrade: h2c, websocket", VERSION, WITH_KEY), {101, 400, 426}),
    "two Upgrades": (handshake("/ws", UPGRADE), {101, 400, 426}),
    "as many fields as there is room for": (handshake("/ws", *["X: y"] * 1000), {101, 400, 431}),
    "just too many fields for the parser": (handshake("/ws", *["X: y"] * 124), {101, 400, 431}),
    "a line just below the limit": (handshake("/ws", "Cookie: " + "y" * 8186), {101, 400, 431}),
    "an address just below the limit": (handshake("/ws?" + "y" * 8186), {101, 400, 414, 431}),
}


@pytest.mark.parametrize(("sent", "statuses"), REFUSED.values(), ids=REFUSED.keys())
def test_a_handshake_that_is_none_is_refused(process: HelloProcess, sent: bytes, statuses: set[int]) -> None:
    """With an error of HTTP, and never by silence."""
    assert ask_head(process.port, sent).status in statuses


@pytest.mark.parametrize("version", ["0", "8", "14", "thirteen"])
def test_another_version_is_told_which_one_is_spoken(process: HelloProcess, version: str) -> None:
    """426 and the version (RFC 6455, section 4.4), so that the client can try again."""
    answer = ask(process.port, request("/ws", CONNECTION, UPGRADE, WITH_KEY, f"Sec-WebSocket-Version: {version}"))
    assert (answer.status, answer.one("sec-websocket-version")) == (426, "13")


def test_names_and_tokens_of_the_handshake_may_be_spelt_in_any_case(process: HelloProcess) -> None:
    """As some clients and proxies do."""
    sent = request(
        "/ws", "CONNECTION: keep-alive, UPGRADE", "upgrade: WebSocket", "SEC-WEBSOCKET-VERSION: 13",
        f"sec-websocket-key:{KEY.decode()}",
    )  # fmt: skip
    assert ask_head(process.port, sent).status == 101


def test_a_handshake_may_come_byte_by_byte(process: HelloProcess) -> None:
    sent = handshake()
    assert ask_head(process.port, *(sent[place : place + 1] for place in range(len(sent)))).status == 101


def test_a_client_that_does_not_wait_for_the_answer_gets_it_all_the_same(process: HelloProcess) -> None:
    """It should not speak yet (section 4.1)."""
    assert ask_head(process.port, handshake() + frame(PING, b"early")).status == 101


def test_a_second_request_on_a_connection_may_be_the_handshake(process: HelloProcess) -> None:
    """As through a proxy that keeps its connections."""
    with connected(process.port) as connection:
        connection.sendall(request("/nothing", method="HEAD"))
        assert receive_head(connection).status == 404
        connection.sendall(handshake())
        assert receive_head(connection).status == 101
