"""Traces at the door (room ``serve``): OTLP in, spans out.

In: ``POST /v1/traces`` (alias ``/mesh/v1/traces``) of a sidecar: OTLP over HTTP, protobuf, gzip or not, bounded; refusals are
google.rpc.Status as OTLP asks. ``GET /mesh/v1/traces`` and ``/mesh/v1/traces/{id}`` for people: JSON of ``control.traces``.
Decoding and the disk are kept off the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from weakref import WeakValueDictionary

import msgspec
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.serve.auth import proxy_of_request
from control.serve.kube.status import ApiError, bad_request
from control.serve.stream import read_body
from control.traces.decode import MAX_BODY, PROTOBUF, Unreadable, decode
from control.traces.span import Query
from control.traces.store import TraceStore

__all__ = ["query_of", "routes"]

MAX_AT_ONCE = 4  # bodies that are held and decoded at one time
MOST_TRACES = 1000
PATIENCE = 10.0  # seconds for a body to arrive; sidecars give up sooner
# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_CODES = {400: 3, 408: 4, 413: 8, 415: 3, 503: 14}


class _Counts(Collector):
    """What became of spans, at each scrape."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    def collect(self) -> Iterator[CounterMetricFamily]:
        text = "Spans of sidecars: kept, refused because too many waited, lost because the disk did not take them."
        family = CounterMetricFamily("mesh_trace_spans", text, labels=("outcome",))
        for outcome in ("stored", "refused", "lost"):
            family.add_metric((outcome,), getattr(self._store, outcome))
        yield family


def routes(store: TraceStore, registry: CollectorRegistry | None = None, patience: float = PATIENCE) -> list[Route]:
    """``registry``: gets the counters of what came in."""
    if registry is not None:
        registry.register(_Counts(store))

    turns = asyncio.Semaphore(MAX_AT_ONCE)
    own: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # a sidecar sends one body at a time: it has one turn

    async def export(request: Request) -> Response:
        caller = proxy_of_request(request)
        async with own.setdefault(caller.name, asyncio.Lock()), turns:
            try:
                async with asyncio.timeout(patience):
                    body = await read_body(request, MAX_BODY)
                headers = request.headers
                kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
                decoded = await asyncio.to_thread(decode, body, kind, encoding, caller.name)
            except Unreadable as no:
                return _refused(no.status, str(no))
            except ApiError as no:  # too long
                return _refused(no.code, str(no))
            except TimeoutError:
                return _refused(408, f"the body did not arrive within {patience:g} s")
        if not store.add(decoded.spans):
            return _refused(503, "too many spans wait to be written: send them again later", {"retry-after": "5"})
        answer = ExportTraceServiceResponse()
        if decoded.rejected:
            answer.partial_success.rejected_spans = decoded.rejected
            answer.partial_success.error_message = "spans without ids or with impossible times"
        return Response(answer.SerializeToString(), media_type=PROTOBUF)

    async def search(request: Request) -> Response:
        found = await asyncio.to_thread(store.search, query_of(request))
        return Response(msgspec.json.encode({"traces": found}), media_type="application/json")

    async def one(request: Request) -> Response:
        asked = request.path_params["id"]
        spans = await asyncio.to_thread(store.trace, asked)
        if not spans:
            raise ApiError(404, "NotFound", f"there is no trace {asked[:40]!r}: it is too old, was not sampled, or never was")
        return Response(msgspec.json.encode({"spans": spans}), media_type="application/json")

    return [
        Route("/v1/traces", export, methods=["POST"]),
        Route("/mesh/v1/traces", export, methods=["POST"]),
        Route("/mesh/v1/traces", search, methods=["GET"]),
        Route("/mesh/v1/traces/{id}", one, methods=["GET"]),
    ]


def query_of(request: Request) -> Query:
    """``service, operation, minDuration, maxDuration, status, tag=k=v…, from, to, limit`` of a URL. Raises a 400."""
    params = request.query_params
    given = params.getlist("tag")
    if bad := [tag for tag in given if tag.find("=") < 1]:
        raise bad_request(f"tag: must be KEY=VALUE, not {bad[0][:40]!r}")
    status = params.get("status", "").lower()
    known = status in ("", "ok", "error") or (
        len(status) == 3 and status[0] in "12345" and (status.isdigit() or status[1:] == "xx")
    )
    if not (known and status.isascii()):
        raise bad_request(f"status: must be ok, error, a status such as 503 or a class such as 5xx, not {status[:40]!r}")
    limit = params.get("limit", "100")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST_TRACES):
        raise bad_request(f"limit: must be a number from 1 to {MOST_TRACES}, not {limit[:40]!r}")
    return Query(
        service=params.get("service", ""),
        operation=params.get("operation", ""),
        min_duration=_number(params, "minDuration"),
        max_duration=_number(params, "maxDuration"),
        status=status,
        tags=tuple((key, value) for key, _, value in (tag.partition("=") for tag in given)),
        begin=_number(params, "from"),
        end=_number(params, "to"),
        limit=int(limit),
    )


def _number(params: Mapping[str, str], name: str) -> float | None:
    text = params.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise bad_request(f"{name}: must be seconds, not {text[:40]!r}")
    return value


def _refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    body = Status(code=_CODES.get(status, 2), message=message).SerializeToString()
    return Response(body, status, media_type=PROTOBUF, headers=dict(headers or {}))
