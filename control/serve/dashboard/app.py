"""The page and its API, put together (dashboard).

In: what control has. Out: one ASGI application for :15014 beside metrics and health, and the routes of :15012 that belong to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from control.history.history import History
from control.history.prometheus import Prometheus
from control.serve.dashboard import config, files, nodes, reading
from control.serve.dashboard.guard import Guard, problem
from control.serve.dashboard.sessions import Sessions
from control.serve.dashboard.signin import session_routes
from control.serve.hub import Hub
from control.serve.kube.status import ApiError
from control.serve.traces import query_of
from control.store.api import Store, StoreError
from control.traces.span import Span
from control.traces.store import TraceStore

__all__ = ["dashboard"]

MS = 1000.0


def dashboard(
    hub: Hub,
    store: Store,
    kube: Iterable[BaseRoute],
    history: History,
    traces: TraceStore,
    sessions: Sessions,
    names: Iterable[str],
    keys: config.Keys,
    prometheus: Prometheus | None = None,
    clock: Callable[[], float] = time.time,
) -> ASGIApp:
    """``names``: more host names under which the page is ours; ``keys``: the report on key sets."""
    calls = reading.Calls(history, prometheus, clock)
    api = Starlette(routes=list(kube))
    api.router.redirect_slashes = False
    app = Starlette(
        routes=[
            *session_routes(sessions, clock),
            *reading.routes(calls),
            *nodes.routes(hub, calls),
            *config.routes(hub, store, api, keys, clock),
            *_trace_routes(hub, traces),
            Route("/api/{rest:path}", _nothing, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            *files.routes(),
        ],
        exception_handlers={ApiError: _refused, StoreError: _unavailable, ClientDisconnect: _refused},
    )
    app.router.redirect_slashes = False
    return Guard(app, sessions, names, clock)


async def _refused(request: Request, error: Exception) -> Response:
    return problem(error.code if isinstance(error, ApiError) else 400, str(error) or "the request was cut off")


async def _unavailable(request: Request, error: Exception) -> Response:
    return problem(503, str(error))


async def _nothing(request: Request) -> Response:
    return problem(404, "there is nothing here")


def _trace_routes(hub: Hub, store: TraceStore) -> list[Route]:
    """As the page wants them: durations in milliseconds, as everywhere else on it."""

    async def search(request: Request) -> Response:
        try:
            asked = query_of(request)
        except ApiError as error:
            return problem(400, str(error))
        least, most = asked.min_duration, asked.max_duration
        asked = msgspec.structs.replace(
            asked,
            min_duration=least / MS if least is not None else None,
            max_duration=most / MS if most is not None else None,
        )
        found = await asyncio.to_thread(store.search, asked)
        return _json({"traces": [_in_ms(one) for one in found]})

    async def one(request: Request) -> Response:
        spans = await asyncio.to_thread(store.trace, request.path_params["id"])
        if not spans:
            return problem(404, "there is no such trace: it is too old, was not sampled, or never was")
        return _json({"spans": [{**_in_ms(span), "node": _workload(hub, span)} for span in spans]})

    async def services(request: Request) -> Response:
        return _json({"services": await asyncio.to_thread(store.services)})

    return [
        Route("/api/traces", search, methods=["GET"]),
        Route("/api/traces/{id}", one, methods=["GET"]),
        Route("/api/trace-services", services, methods=["GET"]),
    ]


def _workload(hub: Hub, span: Span) -> str:
    """The node of the graph whose sidecar told of the span; "" when it is gone."""
    namespace, _, name = span.tags.get("mesh.reporter", "").partition("/")
    pod = hub.world.pods.get((namespace, name)) if hub.world is not None else None
    return f"workload/{namespace}/{pod.workload.workload}" if pod is not None else ""


def _in_ms(found: Any) -> Any:
    told = msgspec.to_builtins(found)
    told["duration"] *= MS
    return told


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
