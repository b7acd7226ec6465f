"""The ops app, for the platform: is this process alive, is it ready, and its metrics. Clients never reach it."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hello.metrics import Metrics


def ops_app(metrics: Metrics, not_ready: Callable[[], str | None]) -> Starlette:
    """Return the app; `not_ready` returns the reason why the process is not ready, or None if it is.

    `/livez` answers as long as the event loop runs. It does not depend on the channel: a restart does not heal Redis.
    """

    async def livez(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(request: Request) -> Response:
        reason = not_ready()
        return PlainTextResponse("ready\n") if reason is None else PlainTextResponse(f"{reason}\n", 503)

    async def metricsz(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metricsz)])
