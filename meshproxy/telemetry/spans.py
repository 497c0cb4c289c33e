"""Telemetry room: what the span of one sampled request says, in Istio's names. Pure; run once per sampled request, at its end.

In: a finished record with its ``trace``, our own workload. Out: ``Span``, plain values; another thread makes OTLP of them.
Sources: Envoy's ``HttpTracerUtility::finalizeDownstreamSpan`` for the tags and when they are there, Istio's ``TraceOperation``,
``getRouteOperation`` for the name, ``buildOptionalTags``. Unlike Envoy's, URLs come without the credentials in them: people who
may read traces may not be everybody whose token passes. Istio names a route with several destinations by its
VirtualService; here it is the service that the request went to.
"""

from __future__ import annotations

from typing import NamedTuple

from meshproxy.message.head import Headers
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.traced import Traced
from meshproxy.model.cluster import Workload
from meshproxy.model.route import Forward
from meshproxy.policy.shown import shown_target
from meshproxy.telemetry.labels import grpc_status

__all__ = ["Span", "operation", "span_of"]

_PROTOCOLS = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}
_LONGEST_NAME = 512
_READ = frozenset(
    (
        b"content-type",
        b"grpc-message",
        b"user-agent",
        b"x-client-trace-id",
        b"x-envoy-downstream-service-cluster",
        b"x-forwarded-proto",
        b"x-request-id",
    )
)
# Of gRPC's statuses those that Envoy takes for the server's fault, by number.
_GRPC_ERRORS = frozenset(("2", "4", "12", "13", "14", "15"))


class Span(NamedTuple):
    """Times are Unix nanoseconds, ids lower-case hex. ``server``: else it is a client's span. ``events``: (time, name, tags)."""

    name: str
    server: bool
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    start: int
    end: int
    tags: dict[str, str]
    events: tuple[tuple[int, str, dict[str, str]], ...]
    error: bool


def operation(record: ExchangeRecord, trace: Traced) -> str:
    """``host:port/path*``: where the request went, and the path that its route asks for."""
    model = trace.route.model if trace.route is not None else None
    cluster = record.cluster_name
    if not cluster and model is not None and isinstance(model.action, Forward) and len(model.action.clusters) == 1:
        cluster = model.action.clusters[0].cluster  # answered before it was drawn, such as by a fault
    parts = cluster.split("|")
    host = record.service.host if record.service is not None else ""
    if len(parts) == 4 and (host or parts[3]):
        where = f"{host or parts[3]}:{parts[1]}"
    else:
        where = record.authority.rpartition(b"@")[2].decode("utf-8", "backslashreplace")
    path = "/*"
    match = model.match.path if model is not None else None
    if match is not None and match.value:
        path = match.value + "*" if match.kind == "prefix" else match.value
    return (where + path)[:_LONGEST_NAME]


def span_of(record: ExchangeRecord, own: Workload, node: str, mesh: str, ended: int = 0) -> Span:
    """``node``: Envoy's node id; ``mesh``: the mesh's id; ``ended``: Unix nanoseconds, 0: as the record says."""
    trace = record.trace
    assert trace is not None
    model = trace.tracing.model
    longest = model.max_tag_length

    def text(value: bytes) -> str:
        return value.decode("utf-8", "backslashreplace")[:longest]

    asked, answered = _of_interest(record.request_headers), _of_interest(record.response_headers)
    path, authority = shown_target(record.path), record.authority.rpartition(b"@")[2]  # user information is no host
    error = record.status == 0 or record.status >= 500
    tags = {
        "component": "proxy",
        "node_id": node,
        "http.method": text(record.method),
        "http.url": text(asked.get(b"x-forwarded-proto", b"http") + b"://" + authority + (path if path[:1] == b"/" else b"")),
        "http.protocol": _PROTOCOLS.get(record.protocol, ""),
        "http.status_code": str(record.status),
        "downstream_cluster": text(asked.get(b"x-envoy-downstream-service-cluster", b"-")),
        "user_agent": text(asked.get(b"user-agent", b"-")),
        "request_size": str(record.body_received),
        "response_size": str(record.body_sent),
        "response_flags": ",".join(reason.flag for reason in record.flags if reason.flag) or "-",
    }
    if b"x-request-id" in asked:
        tags["guid:x-request-id"] = text(asked[b"x-request-id"])
    if b"x-client-trace-id" in asked:
        tags["guid:x-client-trace-id"] = text(asked[b"x-client-trace-id"])
    if record.downstream_remote is not None:
        tags["peer.address"] = record.downstream_remote[0]
    if record.cluster_name:
        tags["upstream_cluster"] = tags["upstream_cluster.name"] = record.cluster_name
    if record.endpoint is not None:
        tags["upstream_address"] = f"{record.endpoint.address}:{record.endpoint.port}"
    if record.grpc is not None:
        tags["grpc.path"], tags["grpc.authority"] = text(path), text(authority)
        tags["grpc.content_type"] = text(asked.get(b"content-type", b"-"))
        if status := grpc_status(record):
            tags["grpc.status_code"] = status
            error = error or status in _GRPC_ERRORS
        if b"grpc-message" in answered:  # of an answer without a body; else it stood in the trailers
            tags["grpc.message"] = text(answered[b"grpc-message"])
    if record.attempts > 1:
        tags["retries"] = str(record.attempts - 1)
    if record.detail and record.detail != "via_upstream":
        tags["response_code_details"] = record.detail[:longest]
    if model.istio_tags:
        tags["istio.canonical_service"] = own.canonical_service
        tags["istio.canonical_revision"] = own.canonical_revision
        tags["istio.mesh_id"] = mesh
        tags["istio.namespace"] = own.namespace
    if error:
        tags["error"] = "true"
    for name, read in trace.tracing.tags:
        if value := read(record):
            tags[name] = text(value)
    start = trace.began or int(record.wall * 1e9)

    def at(moment: float) -> int:
        return start + int((moment - record.started) * 1e9)

    return Span(
        operation(record, trace),
        record.listener.direction != "outbound",
        trace.trace_id.decode(),
        trace.span_id.decode(),
        trace.parent_id.decode(),
        trace.state.decode("ascii", "replace"),
        start,
        max(start, ended) if ended else at(record.ended),
        tags,
        tuple((at(moment), name, about) for moment, name, about in trace.events),
        error,
    )


def _of_interest(headers: Headers) -> dict[bytes, bytes]:
    return {name: value for name, value in headers if name in _READ}
