"""Each transport keeps the same promises: a WebSocketConnection, a WebSocket by a task, and server-sent events.

The tests use real sockets, and feed the hub directly, without channel and relay. Transports:

    websocket   a WebSocketConnection, on our server
    asgi        a WebSocket with a task that sends, on a stock uvicorn
    events      server-sent events, on our server
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from hello.message import now_ms
from hello.web import stream, websocket
from tests.web import inprocess, raw
from tests.web.conftest import Clock
from tests.web.inprocess import FRIEND, Client, Relay, number_of
from tests.web.measurements import count_descriptors, eventually

pytestmark = pytest.mark.usefixtures("no_errors")

LONG = "x" * 4000

each_transport = pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    [("websocket", "asyncio"), ("websocket", "uvloop"), ("asgi", "uvloop"), ("events", "uvloop")],
    indirect=["anyio_backend"],
)
each_transport_with_clock = pytest.mark.parametrize(
    ("transport", "anyio_backend"),
    [("websocket", "asyncio"), ("asgi", "asyncio"), ("events", "asyncio")],
    indirect=["anyio_backend"],
)


class EventsClient(Client):
    """The same over server-sent events, in the chunks of HTTP/1.1 (RFC 9112, section 7.1)."""

    status = 200
    _events = b""  # of which the last one is not complete

    @staticmethod
    def opening(query: str, *fields: str) -> bytes:
        return raw.request(f"/events{query}", *fields)

    def answered(self, answer: raw.Answer) -> None:
        assert (answer.one("content-type") or "").startswith("text/event-stream")
        assert answer.one("cache-control") == "no-store, no-transform"
        super().answered(answer)

    def parse(self) -> None:
        while b"\r\n" in self.buffer:
            length, _, rest = self.buffer.partition(b"\r\n")
            size = int(length, 16)
            if len(rest) < size + 2:
                return
            self._events += rest[:size]
            del self.buffer[: len(length) + size + 4]
            self._parse_events()
            if size == 0:
                assert self.closed_with is not None, "the events ended without `retry`"
                self.transport.close()

    def _parse_events(self) -> None:
        *events, self._events = self._events.split(b"\n\n")
        for event in events:
            assert self.closed_with is None, f"after `retry`: {event!r}"
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
            if b"retry" in fields:
                self.closed_with = int(fields[b"retry"])
            else:
                self.add_frame(fields[b"data"])
                position = self.frames[-1].get("position", self.frames[-1].get("start"))
                assert fields.get(b"id", b"").decode() == (position or ""), "the id is where a client resumes"

    def send_close(self) -> None:
        self.transport.close()


async def serve_stock(app: ASGIApp, stop: anyio.Event, *, listener: Any, task_status: TaskStatus[None]) -> None:
    """Serve the app by uvicorn as it is, without pings, whose time-out is shorter than ours."""
    config = uvicorn.Config(
        app, http="httptools", ws="websockets-sansio", ws_ping_interval=None, lifespan="off", log_config=None
    )
    stock_server = uvicorn.Server(config)
    running = asyncio.create_task(stock_server.serve(sockets=[listener]))
    task_status.started()
    try:
        await stop.wait()
    finally:
        stock_server.should_exit = True
        with anyio.CancelScope(shield=True):
            await running


TRANSPORTS: Mapping[str, Mapping[str, Any]] = {
    "websocket": {},
    "asgi": {"serve": serve_stock},
    "events": {"client": EventsClient},
}


def served(transport: str, **limits: Any) -> AbstractAsyncContextManager[Relay]:
    return inprocess.served(**TRANSPORTS[transport], **limits)


def end_of(transport: str, code: int) -> int:
    """Return what `Client.closed_with` is to be: events have no close codes, but a time (ms) to reconnect after."""
    return 500 if transport == "events" else code


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
async def test_no_seam_between_history_and_live(transport: str) -> None:
    """Clients that resume from each position, or ask for each number of messages, while messages are published."""
    async with served(transport) as relay, anyio.create_task_group() as group:
        relay.publish(*(f"kept {number}" for number in range(20)))
        opened: list[tuple[Client, int, int]] = []

        async def join(query: str, number: int) -> None:
            head = relay.number
            opened.append((await relay.open(query), head, number))

        for number in range(21):
            group.start_soon(join, f"?after={number}-0", number)
            group.start_soon(join, f"?last={number}", number)
        with anyio.fail_after(raw.SECONDS):
            while len(opened) < 42:
                await anyio.lowlevel.checkpoint()
                relay.publish("live")
        relay.publish("the last")
        assert await relay.gaps_of() == [0] * 42
        for client, head, number in opened:
            if client.after is None:  # counted from the head at some moment between its request and its welcome
                assert head - number < client.numbers[0] <= number_of(client.frames[0]["head"]) - number + 1
        assert relay.gaps() == 0


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
async def test_drain_sends_what_is_pending_and_closes(transport: str) -> None:
    """A drain closes with 1012 after the last message, waits for slow clients alone, and refuses new clients."""
    async with served(transport) as relay:
        relay.publish(*(LONG for _ in range(200)))
        quick = [await relay.open(f"?last={number}") for number in range(0, 200, 20)]
        slow = [await relay.open("?after=0-0", reading=False) for _ in range(3)]
        await relay.all_have(*quick[1:])
        await relay.until_slow(3)
        relay.append(*(LONG for _ in range(20)))
        pending = relay.number
        async with anyio.create_task_group() as group:
            group.start_soon(relay.hub.drain, 0.3)
            await eventually(lambda: any(client.closed_with for client in quick), "the first is closed")
            assert await refusal(relay) == unavailable(transport, 1, "this relay is stopping")
            relay.publish("during the drain")
        await eventually(lambda: all(client.ended for client in quick), "the quick clients are closed")
        assert len(relay.hub) == len(slow)
        assert not relay.hub.empty.is_set()
        for client in slow:
            client.resume()
        await eventually(lambda: all(client.ended for client in slow), "the slow clients are closed")
        with anyio.fail_after(raw.SECONDS):
            await relay.hub.empty.wait()
        assert {client.closed_with for client in relay.clients} == {end_of(transport, 1012)}
        assert await relay.gaps_of(*slow) == [0, 0, 0]
        assert {(relay.check(client), client.numbers[-1] >= pending) for client in quick} == {(0, True)}


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
    opening = relay.client.opening(query, *last, *fields)
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
