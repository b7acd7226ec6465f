"""One process: its actors, from start to drain, and what each of them gets. Only this file knows all actors."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskStatus
from starlette.types import ASGIApp

from hello.broadcaster import broadcaster
from hello.channel import Channel
from hello.failures import failures_raised
from hello.hub import Hub
from hello.lease import Lease
from hello.metrics import Metrics
from hello.relay import relay
from hello.settings import ActorName, Settings
from hello.supervisor import ChannelStatus, follow
from hello.web.ops import ops_app
from hello.web.public import public_app
from hello.web.refusals import OnRefused, Refusals, ignore

LOAD_SECONDS = 1.0  # for a relay to read its channel; after that, clients that come anyway are served without it
CLOSE_SECONDS = 5.0  # after the drain, for clients that do not answer the close frame

log = logging.getLogger(__name__)


class Serve(Protocol):
    """Serves the app of that name (`public` or `ops`) until `stop` is set; started once it accepts connections."""

    async def __call__(
        self, name: str, app: ASGIApp, stop: anyio.Event, *, on_refused: OnRefused, task_status: TaskStatus[None]
    ) -> None: ...


async def run(
    settings: Settings,
    channel: Channel,
    *,
    serve: Serve,
    stop: anyio.Event,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run the actors that the settings name until `stop` is set, then drain; started once the process is ready.

    Between `stop` and the drain it serves on for `drain_delay` and is not ready, so that balancers stop routing to it.
    An error in an actor is raised after the drain, and an error in a server at once; a lost channel is not an error.
    """
    metrics = Metrics()
    hub = Hub(history=settings.history, instance=settings.instance, max_clients=settings.max_clients, metrics=metrics)
    hub.feed.process |= {"actors": sorted(settings.actors), "backend": settings.backend}
    lease: Lease | None = None
    statuses: dict[ActorName, ChannelStatus] = {}  # of the actors that use the channel
    ready = False
    servers_stop = anyio.Event()
    drained = False

    @asynccontextmanager
    async def draining() -> AsyncIterator[None]:
        """Drain on leaving, after an error too, so that clients move before it ends the process.

        There are two, of which one drains: the inner one cannot after an error of a relay, which cancels it.
        """
        nonlocal drained
        try:
            yield
        finally:
            if not drained:
                hub.draining = True
                if lease is not None:
                    await lease.release()
                await _drain(hub, settings.drain_seconds)
                drained = True

    def not_ready() -> str | None:
        if stop.is_set() or hub.draining:
            return "draining"
        waiting = [f", {actor}: {status.reason}" for actor, status in statuses.items() if not status.ready.is_set()]
        return None if ready else "starting" + "".join(waiting)

    async with anyio.create_task_group() as servers:
        await servers.start(partial(serve, "ops", ops_app(metrics, not_ready), servers_stop, on_refused=ignore))
        async with draining(), anyio.create_task_group() as relays:
            async with draining(), anyio.create_task_group() as broadcasters:

                async def start_relay() -> None:
                    statuses["relay"] = ChannelStatus("relay", metrics, hub.set_channel_up)
                    relays.start_soon(_run_relay, channel, hub, statuses["relay"], metrics)
                    relays.start_soon(hub.beat)
                    with anyio.move_on_after(LOAD_SECONDS):
                        await statuses["relay"].ready.wait()
                    origins, hosts = settings.allowed_origins, settings.allowed_hosts
                    app = public_app(hub, allowed_origins=origins, allowed_hosts=hosts)
                    refusals = Refusals(metrics.refused, settings.trusted_proxies)
                    await servers.start(partial(serve, "public", app, servers_stop, on_refused=refusals.add))

                async def start_broadcaster() -> None:
                    nonlocal lease
                    lease = Lease(channel, settings.instance, metrics)
                    statuses["broadcaster"] = lease.status
                    broadcasters.start_soon(lease.renew)
                    broadcasters.start_soon(_run_broadcaster, settings, lease)

                # Every actor has its row here, in the order of their start. None waits for the channel for long: a
                # relay serves its clients without it, and readiness alone waits without an end. A new actor takes its
                # name in `settings.ActorName`, and a row.
                actors: Mapping[ActorName, Callable[[], Awaitable[None]]] = {
                    "relay": start_relay,
                    "broadcaster": start_broadcaster,
                }

                async def start() -> None:
                    nonlocal ready
                    for name, start_actor in actors.items():
                        if name in settings.actors:
                            await start_actor()
                    for status in statuses.values():
                        await status.ready.wait()
                    if stop.is_set():
                        return  # it was set in this very step of the event loop: the process drains, and is not ready
                    ready = True
                    log.info("ready: %s over %s", " and ".join(settings.actors), settings.channel_for_logs)
                    task_status.started()

                broadcasters.start_soon(start)
                await stop.wait()
                if settings.drain_delay:
                    log.info("not ready any more; the drain begins in %g s", settings.drain_delay)
                    await anyio.sleep(settings.drain_delay)
                hub.draining = True
                broadcasters.cancel_scope.cancel()
            relays.cancel_scope.cancel()
        servers_stop.set()


async def _run_relay(channel: Channel, hub: Hub, status: ChannelStatus, metrics: Metrics) -> None:
    with failures_raised("relay", relay):
        async with aclosing(follow(channel, lambda: hub.feed.head, status, hub.feed.set_high_watermark)) as batches:
            await relay(batches, hub, metrics=metrics, task_status=status)


async def _run_broadcaster(settings: Settings, lease: Lease) -> None:
    actor = settings.broadcaster_function
    if actor is broadcaster:  # an actor of a person's own has settings of its own
        actor = partial(actor, text=settings.text, interval=(settings.interval_min, settings.interval_max))
    with failures_raised(settings.broadcaster, actor):
        await actor(lease)
        # This process would stay the leader, and no process would publish any more.
        raise RuntimeError("it has returned, and an actor never does")


async def _drain(hub: Hub, seconds: float) -> None:
    """Move all clients to other relays, and wait until their connections are closed."""
    if len(hub):
        log.info("draining %d clients over %g s at most", len(hub), seconds)
    await hub.drain(seconds)
    with anyio.move_on_after(CLOSE_SECONDS):
        await hub.empty.wait()
