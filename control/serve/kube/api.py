"""The walk of a request through the Kubernetes-shaped API: path to target, method to verb, errors to Status.

Room: control/serve/kube; the door of this package. In: a store, the logs folder, a clock. Out: Starlette routes.

  /api, /apis, /api/v1, /apis/G, /apis/G/V   discovery        /openapi/v2, /openapi/v3/…   schemas
  /version /healthz /livez /readyz           the service      /api/v1/…, /apis/G/V/…       resources (``target``)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from control.resources.kinds import Kind
from control.serve.kube import deleting, discovery, openapi, pods, reading, reviews, status, writing
from control.serve.kube.context import Context, Target, target
from control.serve.kube.endpoints_view import EndpointsView
from control.store.api import Store, StoreError

__all__ = ["routes"]

_Endpoint = Callable[[Request], Awaitable[Response]]
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_TUNNELS = ("exec", "attach", "portforward", "proxy")


def routes(
    store: Store,
    *,
    logs_dir: Path | None = None,
    clock: Callable[[], float] = time.time,
    stopping: asyncio.Event | None = None,
    judged: Callable[[Kind, bool], None] = lambda kind, good: None,
) -> list[Route]:
    """The API's routes. ``clock``: wall time in Unix seconds. Set ``stopping`` before the server shuts down: watches and followed
    logs then end, which a graceful shutdown would otherwise wait for. ``judged(kind, good)`` is told of every validation."""
    stop = stopping if stopping is not None else asyncio.Event()
    context = Context(EndpointsView(store), logs_dir, clock, stop, judged=judged)

    async def resource(request: Request) -> Response:
        group, version = request.path_params.get("group", ""), request.path_params["version"]
        rest = request.path_params["rest"]
        if (group, rest) in reviews.REVIEWS and version == "v1":
            return await reviews.review(request, group, rest)
        return await _verb(context, target(group, version, rest), request)

    def get(path: str, endpoint: _Endpoint) -> Route:
        return Route(path, barrier(endpoint), methods=["GET"])

    return [
        get("/version", discovery.version),
        *(get(path, _healthy) for path in ("/healthz", "/livez", "/readyz")),
        get("/api", discovery.api_versions),
        get("/api/", discovery.api_versions),
        get("/api/{version}", discovery.resources),
        get("/apis", discovery.groups),
        get("/apis/", discovery.groups),
        get("/apis/{group}", discovery.groups),
        get("/apis/{group}/{version}", discovery.resources),
        get("/openapi/v2", openapi.v2),
        get("/openapi/v3", openapi.index),
        get("/openapi/v3/{path:path}", openapi.v3),
        Route("/api/{version}/{rest:path}", barrier(resource), methods=_METHODS),
        Route("/apis/{group}/{version}/{rest:path}", barrier(resource), methods=_METHODS),
        Route("/api/{path:path}", barrier(_nothing), methods=_METHODS),
        Route("/apis/{path:path}", barrier(_nothing), methods=_METHODS),
        Route("/openapi/{path:path}", barrier(_nothing), methods=_METHODS),
    ]


def barrier(endpoint: _Endpoint) -> _Endpoint:
    """Nothing but an answer leaves: a refusal as its Status, a fault of ours as an InternalError with an id."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except status.ApiError as error:
            return status.response(error)
        except ClientDisconnect:
            return status.response(status.bad_request("the client closed the connection"))
        except StoreError as error:
            return status.response(status.unavailable(str(error)))
        except Exception as error:
            return status.response(status.internal(error))

    return guarded


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _nothing(request: Request) -> Response:
    raise status.no_such_path()


async def _verb(context: Context, at: Target, request: Request) -> Response:
    method = request.method
    if not at.name:
        if method == "GET":
            return await reading.list_or_watch(context, at, request)
        if method == "POST" and (at.namespace is not None or not at.kind.namespaced):
            return await writing.create(context, at, request)
        if method == "DELETE" and (at.namespace is not None or not at.kind.namespaced):
            return await deleting.delete_collection(context, at, request)
        raise status.method_not_allowed()
    if at.sub == "" or (at.sub == "status" and discovery.has_status(at.kind)):
        if method == "GET":
            return await reading.get(context, at, request)
        if method == "PUT":
            return await writing.replace(context, at, request)
        if method == "PATCH":
            return await writing.patch(context, at, request)
        if method == "DELETE" and not at.sub:
            return await deleting.delete(context, at, request)
        raise status.method_not_allowed()
    return await _subresource(context, at, request)


async def _subresource(context: Context, at: Target, request: Request) -> Response:
    if at.kind.kind == "Pod" and at.sub == "log":
        if request.method != "GET":
            raise status.method_not_allowed()
        return await pods.log(context, at, request)
    if at.kind.kind == "Pod" and at.sub.split("/")[0] in _TUNNELS:
        return await pods.no_tunnel(context, at, request)
    if at.sub == "scale":
        raise status.ApiError(
            404, "NotFound", "nothing scales here: a pod is one process on this machine, start another with meshctl run"
        )
    raise status.no_such_path()
