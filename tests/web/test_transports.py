"""Each transport keeps the same promises, over real sockets: see `each_transport`."""

import json
import os
import random

import anyio
import anyio.lowlevel
import pytest

from hello.message import now_ms
from hello.web import stream, websocket
from tests.web import raw
from tests.web.conftest import Clock
from tests.web.inprocess import FRIEND, LITTLE, Client, EventsClient, Relay, each_transport, end_of, served
from tests.web.measurements import count_descriptors, eventually

pytestmark = pytest.mark.usefixtures("no_errors")

LONG = "x" * 4000
BURST = "x" * 1500  # a message, of which a burst takes several writes
WALKERS, STEPS = 40, 400
PINGS = 80  # on one connection, at most: a hundred frames a minute are allowed

each_transport_with_clock = pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    [("websocket", "asyncio"), ("asgi", "asyncio"), ("events", "asyncio")],
    indirect=["anyio_backend"],
)


class Walker:
    """A client over all its connections, one after the other: it resumes after the last message."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._connections: list[Client] = []

    @property
    def connection(self) -> Client | None:
        """The last connection, or None if the client has left it."""
        return None if not self._connections or self._connections[-1].left else self._connections[-1]

    @property
    def last(self) -> int:
        """The number of the last message that it has received, or 0."""
        return next((each.numbers[-1] for each in reversed(self._connections) if each.numbers), 0)

    def received(self) -> list[int]:
        """Return the numbers of the messages that it has received."""
        return [number for each in self._connections for number in each.numbers]

    async def connect(self, early: bytes = b"", *, cut: int = 0, reading: bool = True) -> Client:
        query = f"?after={self.last}-0"
        self._connections.append(await self._relay.connect(query, early=early, cut=cut, reading=reading))
        return self._connections[-1]


async def step(relay: Relay, walkers: list[Walker], draw: random.Random) -> None:
    """Do one random step of the relay or of a client."""
    walker = draw.choice(walkers)
    connection = walker.connection
    kinds = ("publish", "append", "status", "beat", "pause", "resume", "ping", "leave", "join", "join", "settle")
    match draw.choice(kinds):
        case "publish":
            relay.publish(*["x" * draw.choice((1, 100, 1500))] * draw.randint(1, 30))
        case "append":
            relay.append("x" * draw.randint(1, 1500))
        case "status":
            relay.hub.feed.set_channel_up(draw.random() < 0.5)
            relay.publish(*[BURST] * draw.choice((0, 1, 20)))  # several polls for one notification
        case "beat":
            relay.beat()
        case "settle" if draw.random() < 0.5:
            relay.hub.notify_all()
            reading = [each for each in walkers if each.connection is not None and each.connection.reading]
            await eventually(
                lambda: all(each.last == relay.number for each in reading), "those that read have everything"
            )
        case "join" if connection is None:
            early = raw.frame(raw.TEXT, b"hello?") + raw.frame(raw.PONG)
            early *= relay.client is Client and draw.random() < 0.5
            joined = await walker.connect(early, cut=draw.choice((0, 1, 40)), reading=draw.random() < 0.8)
            if draw.random() < 0.2:
                joined.leave(draw.choice(("close", "end", "reset")))
        case "pause" if connection is not None:
            connection.pause()
        case "resume" if connection is not None:
            connection.resume()
        case "ping" if connection is not None and relay.client is Client and len(connection.pings) < PINGS:
            connection.transport.write(connection.ping(draw.randint(1, 5)))
        case "leave" if connection is not None:
            connection.leave(draw.choice(("close", "end", "reset")))
    for _ in range(draw.choice((0, 0, 1, 2, 5))):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    [("websocket", "asyncio"), ("websocket", "uvloop"), ("events", "uvloop")],
    indirect=["anyio_backend"],
)
async def test_random_walk_delivers_each_message_once(transport: str, seed: int) -> None:
    """Clients that pause, leave and resume receive every message once and in order, every pong, and 1012 at the end."""
    draw = random.Random(seed)
    async with served(transport, history=100_000) as relay:
        if seed % 2:
            relay.set_send_buffer(LITTLE)
        walkers = [Walker(relay) for _ in range(WALKERS)]
        for _ in range(STEPS):
            await step(relay, walkers, draw)
        last = [walker.connection or await walker.connect() for walker in walkers]
        for connection in last:
            draw.choice((connection.pause, connection.resume))()
        for _ in range(20):
            relay.publish(*[BURST] * draw.randint(0, 10))
            await anyio.lowlevel.checkpoint()
        await relay.until_clients(WALKERS)
        head = relay.number
        async with anyio.create_task_group() as group:
            group.start_soon(relay.hub.drain, draw.choice((0, 0.3)))
            for connection in last:
                relay.publish("x" * 100)
                await anyio.lowlevel.checkpoint()
                connection.resume()
            await eventually(lambda: all(connection.ended for connection in last), "all are closed", 60)
        await relay.hub.empty.wait()
    for connection in last:
        assert connection.closed_with == end_of(transport, 1012)
        assert connection.error is None
        assert connection.pongs == connection.pings
    for connection in relay.clients:
        assert "gap" not in connection.types()
        assert not connection.frames or relay.check(connection) == 0
    for walker in walkers:
        assert walker.received() == [*range(1, walker.last + 1)]
        assert walker.last >= head


async def ends_with(kind: str, *clients: Client) -> None:
    """Return once the last frame of each client is of this type."""
    await eventually(lambda: all(client.types()[-1:] == [kind] for client in clients), kind)


@each_transport
async def test_frames_have_the_documented_fields(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame has just the fields of the contract, times are UNIX milliseconds, and beats come by a timer."""
    monkeypatch.setattr("hello.hub.BEAT_SECONDS", 0.05)
    start = now_ms()
    async with served(transport) as relay, anyio.create_task_group() as group:
        relay.publish("before", 'ÿ"\n\u2028😀')
        client = await relay.open("?last=1")
        relay.lose()
        relay.publish("after a loss")
        await relay.all_have()
        relay.hub.set_channel_up(False)
        await ends_with("status", client)
        group.start_soon(relay.hub.beat)
        await eventually(lambda: client.types()[5:] == ["beat", "beat"], "two beats")
        group.cancel_scope.cancel()
    times = [each.pop(field) for each in client.frames for field in ("relayed_at", "since") if field in each]
    common = {"type": "message", "broadcaster": "there", "sent_at": 7, "relay": "here"}
    assert client.frames[:6] == [
        {"type": "welcome", "relay": "here", "channel": "up", "start": "1-0", "head": "2-0"},
        {**common, "position": "2-0", "id": "id-2", "text": 'ÿ"\n\u2028😀'},
        {"type": "gap", "after": "2-0", "before": "4-0"},
        {**common, "position": "4-0", "id": "id-4", "text": "after a loss"},
        {"type": "status", "channel": "down"},
        {"type": "beat"},
    ]
    assert len(times) == 3
    assert all(type(each) is int and start <= each <= now_ms() for each in times)


@each_transport
async def test_gap_is_sent_once_before_the_next_message(transport: str) -> None:
    """A client is sent a gap where its position was trimmed, or the channel lost messages; the metric counts each."""
    async with served(transport, history=10) as relay:
        relay.publish(*(str(number) for number in range(30)))
        clients = [await relay.open(f"?after={number}-0") for number in (5, 19, 20, 30, 30, 30)]
        assert await relay.gaps_of(*clients[:3]) == [1, 1, 0]
        relay.lose()
        await relay.open("?after=30-0")
        assert relay.gaps() == 2  # the loss is reported before the next message, and there is none yet
        relay.publish("after the loss")
        relay.publish("and so on")
        assert await relay.gaps_of() == [2, 2, 1, 1, 1, 1, 1]
        assert relay.gaps() == 9


@each_transport
@pytest.mark.parametrize("history", [1000, 200], ids=["kept", "trimmed"])
async def test_slow_client_receives_what_is_kept(transport: str, history: int) -> None:
    """A client that stops and reads again receives all that is kept, and a gap for the rest; others are not delayed."""
    async with served(transport, history=history) as relay:
        slow = await relay.open("?after=0-0", reading=False)
        others = [await relay.open("?after=0-0") for _ in range(3)]
        for _ in range(4):
            relay.publish(*(LONG for _ in range(120)))
            await relay.all_have(*others)
        await relay.until_slow()
        assert len(slow.frames) < 50
        assert min(history, 430) <= (relay.metric("hello_client_lag_messages") or 0) < 480
        slow.resume()
        gap = int(history < 480)
        assert await relay.gaps_of() == [gap, 0, 0, 0]
        assert relay.gaps() == gap
        assert slow.types()[-history - 1 :] == ["gap" if gap else "welcome", *["message"] * min(history, 480)]
        assert gap == 0 or slow.types().index("gap") < 60  # messages of 4 KB that the kernel took before
        relay.publish("it goes on")
        assert await relay.gaps_of() == [gap, 0, 0, 0]


@each_transport_with_clock
async def test_stalled_client_is_closed(transport: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no byte for 30 s is closed with 1013, and aborted if it does not read that either."""
    monkeypatch.setattr("hello.hub.SLOW_SECONDS", 0.5)  # then no byte is in flight any more
    monkeypatch.setattr(websocket, "ABORT_SECONDS", 100)
    monkeypatch.setattr(stream, "CLOSE_SECONDS", 100)
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(200)))
        reading = await relay.open()
        late = await relay.open("?after=0-0", reading=False)
        descriptors = count_descriptors(os.getpid())  # of both ends
        never = await relay.open("?after=0-0", reading=False)
        await relay.until_slow(2)
        await clock.advance(29)
        assert len(relay.hub) == 3
        await clock.advance(36)  # a check that found progress may have come late
        late.resume()
        await eventually(lambda: late.ended, "the connection ends")
        assert late.closed_with == end_of(transport, 1013)
        assert late.numbers == list(range(1, len(late.numbers) + 1))
        assert 0 < len(late.numbers) < 200
        await clock.advance(106)
        await relay.until_clients(1)
        if transport != "asgi":  # a stock uvicorn waits for unsent bytes
            await eventually(lambda: count_descriptors(os.getpid()) == descriptors - 2 + 1, "it is aborted")
        assert never.closed_with is None
        relay.publish("it goes on")
        assert await relay.gaps_of(reading) == [0]
        assert reading.closed_with is None


@each_transport_with_clock
async def test_slowly_reading_client_is_kept(transport: str, clock: Clock) -> None:
    """A client that reads a little every 20 s receives everything."""
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(300)))
        slow = await relay.open("?after=0-0", reading=False)
        await relay.until_slow()
        for _ in range(8):
            await clock.advance(20, step=1.0)
            goal = len(slow.frames) + 20  # more than the kernel holds
            slow.resume()
            await eventually(lambda: len(slow.frames) >= goal, "some frames")  # noqa: B023  # awaited here
            slow.pause()
        assert len(slow.frames) < 300
        slow.resume()
        assert await relay.gaps_of() == [0]
        assert slow.closed_with is None


@each_transport
async def test_drain_ends_under_a_flood(transport: str) -> None:
    """A client that is slower than the channel is closed once it has what was pending when the drain came to it."""
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(50)))
        slow = await relay.open("?after=0-0", reading=False)
        await relay.until_slow()
        await relay.hub.drain(0)
        pending, rounds = relay.number, 0
        while not slow.ended:
            assert (rounds := rounds + 1) < 500, f"{len(slow.frames)} frames are received, {relay.number} published"
            received = len(slow.frames)
            slow.resume()
            await eventually(lambda: len(slow.frames) > received or slow.ended, "some frames")  # noqa: B023  # awaited here
            slow.pause()
            relay.publish(*(LONG for _ in range(len(slow.frames) - received + 5)))
        assert slow.closed_with == end_of(transport, 1012)
        assert (relay.check(slow), slow.numbers[-1] >= pending) == (0, True)


async def refusal(relay: Relay, query: str = "", *fields: str) -> tuple[int, str | None, str]:
    """Return status, Retry-After and text of the answer to a client that is refused."""
    last = ("Connection: close",) if relay.client is EventsClient else ()  # a refused WebSocket is closed anyway
    opening = relay.client.opening(relay.client.path + query, *last, *fields)
    answer = await anyio.to_thread.run_sync(raw.ask, relay.port, opening)
    assert answer.one("upgrade") is None
    return answer.status, answer.one("retry-after"), answer.rest.decode()


def unavailable(transport: str, seconds: int, reason: str) -> tuple[int, str, str]:
    """Return status, Retry-After and text of a refusal: an EventSource gives up on anything but 200."""
    if transport == "events":
        return 200, str(seconds), f"retry: {seconds * 1000}\n: {reason}\n\n"
    return 503, str(seconds), f"{reason}\n"


@each_transport
async def test_full_relay_refuses_until_a_client_leaves(transport: str) -> None:
    """A client's place is free again after a close, an end or a reset."""
    async with served(transport, max_clients=3) as relay:
        clients = [await relay.open() for _ in range(3)]
        for how in ("close", "end", "reset"):
            assert await refusal(relay) == unavailable(transport, 10, "this relay is full (3 clients)")
            clients.pop(0).leave(how)
            await relay.until_clients(2)
            clients.append(await relay.open())
            await ends_with("welcome", clients[-1])


@pytest.mark.parametrize("anyio_backend", ["uvloop"], indirect=True)
async def test_plain_request_is_told_why() -> None:
    """A plain GET of /ws gets the Host that the relay received, and what would keep a page's WebSocket from opening."""
    async with served("websocket", max_clients=1) as relay:

        async def ask(query: str, host: str = "hello.test:80") -> list[object]:
            sent = raw.request(f"/ws{query}", "Connection: close", host=host)
            answer = await anyio.to_thread.run_sync(raw.ask, relay.port, sent)
            assert (answer.status, answer.one("content-type")) == (426, "application/json")
            return [json.loads(answer.rest)[name] for name in ("host", "may_open", "refusal")]

        assert await ask("?origin=https://hello.test:80") == ["hello.test:80", True, None]
        assert await ask("?origin=http://evil.example") == ["hello.test:80", False, None]
        assert await ask("?origin=" + FRIEND, 'x"<>' * 99) == [('x"<>' * 99)[:255], True, None]
        await relay.open()
        assert await ask("") == ["hello.test:80", True, "this relay is full (1 clients)"]
        await relay.hub.drain(0)
        assert await ask("") == ["hello.test:80", True, "this relay is stopping"]


BAD_STARTS = {
    "?after=yesterday": "a position is MILLISECONDS-SEQUENCE",
    "?after=": "a position is MILLISECONDS-SEQUENCE",
    "?after=99999999999999-0": "ahead of this relay's clock",
    "?last=many": "`last` is a number",
    "?last=-1": "`last` is a number",
    "?last=": "`last` is a number",
    "?last=99999999": "`last` is a number",
    "?after=1-0&last=1": "not both",
}


@each_transport
async def test_foreign_origin_and_bad_start_are_refused(transport: str) -> None:
    """The answer is 403 or 400 with a reason, before any upgrade, and takes no place; friends are admitted."""
    async with served(transport, max_clients=1) as relay:
        foreign = [["http://evil.example"], [FRIEND, "http://evil.example"], ["http://evil.example", FRIEND]]
        for query in ("", "?after=x"):
            for origins in foreign[: 1 if transport == "asgi" else 3]:  # a stock uvicorn refuses two Origins by itself
                status, _, text = await refusal(relay, query, *(f"Origin: {origin}" for origin in origins))
                assert (status, "HELLO_ALLOWED_ORIGINS" in text) == (403, True)
        for query, complaint in BAD_STARTS.items():
            status, _, text = await refusal(relay, query)
            assert (query, status, complaint in text) == (query, 400, True)
        assert len(relay.hub) == 0
        for origin in (FRIEND, "http://127.0.0.1"):
            friend = await relay.open("", f"Origin: {origin}")
            friend.leave("close")
            await relay.until_clients(0)
