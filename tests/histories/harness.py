"""Processes and clients over a backend that can lose its entries, and every fault of a history."""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import anyio
from anyio.abc import TaskGroup

from hello.broadcaster import Publisher
from hello.client import ClientProtocol, Lost, Opened, Repeated, Shown, StatusChanged
from hello.message import Gap, Position
from hello.testing import SHAPES, Closed, Process, Refused
from tests.histories.backend import Backend, Connection
from tests.histories.checker import Checker

RECONNECT_SECONDS = 0.5  # until a client connects again
QUIET_SECONDS = 10.0  # after healing; every client has every message well within
POLL_SECONDS = 0.1  # between two checks whether they have
CLIENTS = 2
MAX_PROCESSES = 6  # at once
ALL = 1_000_000  # messages: more than are kept
ON_DEMAND = f"{__name__}:publish_on_demand"  # the setting `broadcaster` of processes that publish by a step alone


# What the broadcaster of a process waits for: a message to publish for each count of the semaphore.
_orders: ContextVar[anyio.Semaphore] = ContextVar("orders")


async def publish_on_demand(publisher: Publisher) -> None:
    """A broadcaster without intervals: it publishes what the harness demands, once it is the leader."""
    orders = _orders.get()
    while True:
        await orders.acquire()
        await publisher.leader()
        await publisher.publish("Hello")


class Client:
    """A client by the rules of `hello.client`: connected while it is to be, to each relay in turn."""

    def __init__(self, number: int, relays: Callable[[], Sequence[Process]], checker: Checker) -> None:
        self.relay: str | None = None  # that it is connected to
        self.channel: str | None = None
        self.shown: set[str] = set()  # message ids
        self.next_relay = number
        self._number = number
        self._relays = relays
        self._checker = checker
        self._protocol = ClientProtocol(last=ALL)
        self._attempts = 0
        self._visit = anyio.CancelScope()
        self._cut_after_welcome = False
        self._may_connect = anyio.Event()
        self._may_read = anyio.Event()
        self._may_connect.set()
        self._may_read.set()

    def leave(self) -> None:
        """Disconnect, until `resume`."""
        if self._may_connect.is_set():
            self._may_connect = anyio.Event()
            self._visit.cancel()

    def resume(self, relay: int = 0) -> None:
        """Connect again, to this relay."""
        self.next_relay = relay
        self._may_connect.set()

    def reload(self) -> None:
        """Begin anew, with all that is kept."""
        self._protocol = ClientProtocol(last=ALL)
        self.shown = set()
        self._checker.reloaded(self._number)
        self._visit.cancel()

    def refuse_position(self) -> None:
        """Reconnect to a relay that rejects the position."""
        if self._protocol.position is not None:
            self._protocol.reset_position()
            self._checker.position_refused(self._number)
        self._visit.cancel()

    def cut_after_welcome(self) -> None:
        """Reconnect, and lose the connection right after its welcome."""
        self._cut_after_welcome = True
        self._visit.cancel()

    def lag(self) -> None:
        """Read nothing, until `catch_up`."""
        if self._may_read.is_set():
            self._may_read = anyio.Event()
            self._checker.reads(self._number, False)

    def catch_up(self) -> None:
        self._may_read.set()
        self._checker.reads(self._number, True)

    async def run(self) -> None:
        while True:
            await self._may_connect.wait()
            with anyio.CancelScope() as self._visit:
                if relays := self._relays():
                    await self._connect(relays[self.next_relay % len(relays)])
            await anyio.sleep(RECONNECT_SECONDS)

    async def _connect(self, process: Process) -> None:
        self.next_relay += 1
        self._attempts += 1
        path, query, headers = ("/ws", "/events")[(self._number + self._attempts) % 2], self._protocol.resume_query, {}
        after = self._protocol.position
        if after is not None and path == "/events":  # an EventSource repeats its first query beside the header
            query, headers["Last-Event-ID"] = f"last={ALL}", str(after)
        code, ended = None, False
        try:
            async with process.open(f"{path}?{query}", headers) as stream:
                self._checker.connected(self._number, process.instance, after)
                self.relay = process.instance
                try:
                    while True:
                        await self._may_read.wait()
                        self._receive(await stream.receive())
                except Closed as closed:
                    code, ended = closed.code, closed.code is None
        except* (Refused, anyio.EndOfStream):
            pass  # the relay drains, or was killed at this very moment
        finally:
            self._protocol.disconnected()
            self.relay = self.channel = None
            self._checker.disconnected(self._number, code, ended=ended)

    def _receive(self, frame: dict[str, Any]) -> None:
        gap: Gap | None = None
        certain = True
        items = self._protocol.receive(frame)
        if frame["type"] == "message" and not any(isinstance(item, Shown | Repeated) for item in items):
            self._checker.received_again(self._number, Position.parse(frame["position"]))
        for item in items:
            match item:
                case Opened() | StatusChanged():
                    self.channel = item.channel
                    if "start" in frame:
                        self._checker.started(self._number, Position.parse(frame["start"]))
                    self._checker.status_received(self._number, item.channel)
                case Lost(after, before, certain) if before is not None:
                    gap = Gap(after, before)
                case Shown(message, position):
                    self.shown.add(message.id)
                    self._checker.message_received(self._number, position, message.id, gap, certain=certain)
                case Repeated(position, message_id):
                    self._checker.message_received(
                        self._number, position, message_id, gap, shown=False, certain=certain
                    )
        if frame["type"] == "welcome" and self._cut_after_welcome:
            self._cut_after_welcome = False
            self._visit.cancel()


class Harness:
    """All processes and clients of one history. The methods of the last part are its steps, see `steps.py`.

    There `process` counts the living processes, and wraps round; None is all of them.
    """

    def __init__(self, history: int, group: TaskGroup, flags: Mapping[str, object]) -> None:
        self.checker = Checker(history)
        self.backend = Backend(history, self.checker)
        self.clients = [Client(number, self._relays, self.checker) for number in range(CLIENTS)]
        self._is_cut = False  # True: for every process, and so for those that start now
        self._all: list[tuple[Process, Connection]] = []
        self._group = group
        self._flags = {"history": str(history), **{name: str(value) for name, value in flags.items()}}
        self._orders: dict[Process, anyio.Semaphore] = {}
        self._stopping: set[Process] = set()
        self._killed: set[Process] = set()

    async def begin(self, shape: str) -> None:
        """Start the processes of a shape, and the clients."""
        for actors in SHAPES[shape]:
            await self._start(actors).ready.wait()
        for client in self.clients:
            self._group.start_soon(client.run)
        await anyio.wait_all_tasks_blocked()

    async def end(self) -> None:
        """Heal everything, publish, and wait until every client has the last message, but not without end."""
        self.heal()
        for client in self.clients:
            client.resume()
            client.catch_up()
        for actor in ("relay", "broadcaster"):
            if not any(actor in process.actors and process not in self._stopping for process, _ in self._living):
                self._start(actor)
        before = self.backend.last
        self.checker.all_healed()
        for number in range(len(self._living)):
            self.publish(1, number)
        with anyio.move_on_after(QUIET_SECONDS):
            # Polling costs nothing in virtual time, and no single event sets this condition.
            while self.backend.last == before or not all(map(self._has_all, self.clients)):  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        self.checker.end()

    def _has_all(self, client: Client) -> bool:
        return client.channel == "up" and self.backend.last_id in client.shown

    def _start(self, actors: str) -> Process:
        process = Process(actors, f"{actors.replace(',', '-')}-{len(self._all)}")
        self._orders[process] = anyio.Semaphore(0)
        _orders.set(self._orders[process])  # for the task of the process, which begins with a copy of this context
        connection = Connection(self.backend, process.instance, self.checker)
        if self._is_cut:
            connection.cut()
        self._all.append((process, connection))
        self._group.start_soon(process.run, connection, self._flags)
        return process

    @property
    def _living(self) -> list[tuple[Process, Connection]]:
        return [each for each in self._all if each[0] not in self._killed and not each[0].ended.is_set()]

    def _relays(self) -> list[Process]:
        return [process for process, _ in self._living if "public" in process.apps]

    def _chosen(self, process: int | None) -> list[tuple[Process, Connection]]:
        living = self._living
        return living if process is None else [living[process % len(living)]] if living else []

    # Steps.

    def publish(self, count: int, by: int) -> None:
        """A broadcaster on demand gets so many messages to publish."""
        if broadcasters := [process for process, _ in self._living if "broadcaster" in process.actors]:
            for _ in range(count):
                self._orders[broadcasters[by % len(broadcasters)]].release()

    def cut(self, process: int | None = None) -> None:
        self._is_cut = self._is_cut or process is None
        for _, connection in self._chosen(process):
            connection.cut()

    def hang(self, process: int) -> None:
        for _, connection in self._chosen(process):
            connection.hang()

    def heal(self, process: int | None = None) -> None:
        if process is None:
            self._is_cut = False
            self.backend.loses_reply_to = None
        for _, connection in self._chosen(process):
            connection.heal()

    def lose_reply(self, to: str, cut: bool) -> None:
        """The next `publish` or `acquire` of any process is executed without a reply, and its connection may be cut."""
        self.backend.loses_reply_to, self.backend.cuts_with_reply = to, cut

    def break_subscription(self, process: int, batches: int) -> None:
        """The subscription of a process ends after so many more batches."""
        for _, connection in self._chosen(process):
            connection.breaks_after = batches

    def start(self, actors: str) -> None:
        if len(self._living) < MAX_PROCESSES:
            self._start(actors)

    def kill(self, process: int) -> None:
        for each, connection in self._chosen(process):
            self._killed.add(each)
            each.kill()
            connection.end()

    def stop(self, process: int) -> None:
        for each, _ in self._chosen(process):
            self._stop(each)

    def stop_relay_of(self, client: int) -> None:
        for process, _ in self._living:
            if process.instance == self.clients[client].relay:
                self._stop(process)

    def _stop(self, process: Process) -> None:
        self._stopping.add(process)
        self.checker.stopping(process.instance)
        process.terminate()

    def restore_unknown(self) -> None:
        """The backend is restored, and nobody who publishes knows what it has lost; every relay has read that."""
        self.backend.restore(known=not self.checker.all_have_everything(process.instance for process in self._relays()))

    def client(self, number: int, step: str, *arguments: object) -> None:
        """Call a method of a client: one of those between its `__init__` and `run`."""
        getattr(self.clients[number], step)(*arguments)
