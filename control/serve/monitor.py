"""Control's own metrics and health on :15014 (room ``serve``), plain HTTP, no token: nothing here is secret.

In: ``Metrics``, a readiness question. Out: a Starlette application with /metrics, /healthz, /readyz and, when a file is given,
/demo/jwks.json (read anew for each request, so that a rotated key set is served), and what else is handed in (/targets).
Everything else is the page's, which has a door of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from control.serve.metrics import Metrics

__all__ = ["monitor"]


def monitor(
    metrics: Metrics,
    why_not_ready: Callable[[], str],
    jwks: Path | None = None,
    page: ASGIApp | None = None,
    more: Iterable[BaseRoute] = (),
) -> Starlette:
    """``why_not_ready()`` is empty when control is ready."""

    async def exposition(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        why = why_not_ready()
        return PlainTextResponse(f"{why or 'ok'}\n", 503 if why else 200)

    async def keys(request: Request) -> Response:
        assert jwks is not None
        try:
            return Response(jwks.read_bytes(), media_type="application/json")
        except OSError as error:
            return PlainTextResponse(f"{jwks}: {error.strerror}\n", 503)

    own: list[BaseRoute] = [Route("/metrics", exposition), Route("/healthz", healthy), Route("/readyz", ready), *more]
    if jwks is not None:
        own.append(Route("/demo/jwks.json", keys))
    if page is not None:
        own.append(Mount("/", page))
    app = Starlette(routes=own)
    app.router.redirect_slashes = False
    return app
