"""One process of the system: which actors run, and in which order. Here alone they are introduced to each other."""

import logging
import uuid
from contextlib import aclosing
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus
from starlette.types import ASGIApp

from hello.audience import Audience
from hello.channel import Channel
from hello.message import Message
from hello.metrics import Metrics
from hello.relay import relay
from hello.settings import Settings
from hello.supervisor import Link, Voice, follow
from hello.web.operators import operators_app
from hello.web.public import public_app

LEAVE_SECONDS = 5.0  # after the drain, for browsers that do not answer the closing frame

log = logging.getLogger(__name__)


class Serve(Protocol):
    """Serves the app of that name (`public` or `operators`) until `stop` is set; started once it can be reached."""

    async def __call__(self, name: str, app: ASGIApp, stop: anyio.Event, *, task_status: TaskStatus[None]) -> None: ...


async def run(
    settings: Settings,
    channel: Channel,
    *,
    serve: Serve,
    stop: anyio.Event,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run the actors that the settings name until `stop` is set, then drain; started once the process is ready.

    An error in an actor or a server ends everything and is raised; a lost channel is none.
    """
    metrics = Metrics()
    audience = Audience(
        history=settings.history, instance=settings.instance, max_clients=settings.max_clients, metrics=metrics
    )
    not_ready: str | None = "starting"
    voice: Voice | None = None
    if "broadcaster" in settings.actors:
        voice = Voice(channel, f"{settings.instance} {uuid.uuid4().hex}", Link("broadcaster", metrics))
        metrics.voice.set_function(lambda: voice.mine)
    servers_stop = anyio.Event()

    async def start_relay(actors: TaskGroup, servers: TaskGroup) -> None:
        link = Link("relay", metrics, audience.channel_turned)

        async def run_relay(*, task_status: TaskStatus[None]) -> None:
            async with aclosing(follow(channel, lambda: audience.head, link)) as inbox:
                await relay(inbox, audience, metrics=metrics, task_status=task_status)

        await actors.start(run_relay)
        actors.start_soon(audience.beat)
        app = public_app(audience, allowed_origins=settings.allowed_origins)
        await servers.start(partial(serve, "public", app, servers_stop))

    async def start_broadcaster(actors: TaskGroup, voice: Voice) -> None:
        async def outbox(message: Message) -> None:
            accepted = await voice.say(message)
            (metrics.fenced if accepted is None else metrics.published).inc()

        async def speak() -> None:
            await settings.speaks(
                voice.turn,
                outbox,
                text=settings.text,
                instance=settings.instance,
                interval=(settings.interval_min, settings.interval_max),
            )
            # It would keep the voice, and nobody would speak any more.
            raise RuntimeError(f"{settings.broadcaster} has returned, and an actor never does")

        await actors.start(voice.keep)
        actors.start_soon(speak)

    async with anyio.create_task_group() as servers:
        await servers.start(partial(serve, "operators", operators_app(metrics, lambda: not_ready), servers_stop))
        async with anyio.create_task_group() as relays:
            async with anyio.create_task_group() as speakers:

                async def start() -> None:
                    nonlocal not_ready
                    # A relay first: what is said from now on is heard.
                    if "relay" in settings.actors:
                        await start_relay(relays, servers)
                    if voice is not None:
                        await start_broadcaster(speakers, voice)
                    if stop.is_set():
                        return  # in this very turn of the loop: it drains, and is not ready any more
                    not_ready = None
                    log.info("ready: %s over %s", " and ".join(settings.actors), settings.channel_for_logs)
                    task_status.started()

                speakers.start_soon(start)
                await stop.wait()
                not_ready = "draining"
                audience.draining = True
                speakers.cancel_scope.cancel()
            if voice is not None:
                await voice.release()
            if len(audience):
                log.info("moving %d browsers away over %g s at most", len(audience), settings.drain_seconds)
            await audience.drain(settings.drain_seconds)
            with anyio.move_on_after(LEAVE_SECONDS):
                await audience.empty.wait()
            relays.cancel_scope.cancel()
        servers_stop.set()
