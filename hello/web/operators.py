"""The operators' app: is this process alive, is it ready, and what does it measure. Browsers never reach it."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hello.metrics import Metrics


def operators_app(metrics: Metrics, not_ready: Callable[[], str | None]) -> Starlette:
    """The app that the platform talks to; `not_ready` says why the process is not ready, or None if it is.

    `/livez` answers as long as the event loop turns. It depends on nothing else: a restart heals no Redis.
    """

    async def livez(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(request: Request) -> Response:
        reason = not_ready()
        return PlainTextResponse("ready\n") if reason is None else PlainTextResponse(f"{reason}\n", 503)

    async def numbers(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", numbers)])
