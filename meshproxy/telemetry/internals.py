"""Telemetry room: the proxy's own state as metrics, read when somebody asks; nothing is counted here.

In: live clusters. Out: families. Their names in ``/stats`` are Envoy's. Clusters that were never used are left out: a mesh has
many services, of which a pod calls a few.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from meshproxy.telemetry.family import Family, Row

__all__ = ["cluster_families", "process_families", "resident"]


class _Reading(NamedTuple):
    name: str
    kind: Literal["counter", "gauge"]
    help: str
    stat: str
    read: Callable[[Any], float]


def _detector(field: str) -> Callable[[Any], float]:
    return lambda cluster: getattr(cluster.detector, field) if cluster.detector is not None else 0


_READINGS = (
    _Reading("connections", "gauge", "Upstream connections.", "upstream_cx_active", lambda c: c.limits.connections),
    _Reading("requests", "gauge", "Requests in flight.", "upstream_rq_active", lambda c: c.limits.requests),
    _Reading("pending", "gauge", "Requests waiting for a connection.", "upstream_rq_pending_active", lambda c: c.limits.pending),
    _Reading("retrying", "gauge", "Retries in progress.", "upstream_rq_retry_active", lambda c: c.limits.retries),
    _Reading(
        "connection_overflow_total",
        "counter",
        "Times that maxConnections kept a connection from being opened.",
        "upstream_cx_overflow",
        lambda c: c.limits.connection_overflow,
    ),
    _Reading(
        "pending_overflow_total",
        "counter",
        "Requests refused by http1MaxPendingRequests.",
        "upstream_rq_pending_overflow",
        lambda c: c.limits.pending_overflow,
    ),
    _Reading(
        "request_overflow_total",
        "counter",
        "Requests refused by http2MaxRequests.",
        "upstream_rq_overflow",
        lambda c: c.limits.request_overflow,
    ),
    _Reading("retries_total", "counter", "Tries after the first.", "upstream_rq_retry", lambda c: c.limits.retried),
    _Reading(
        "retry_overflow_total",
        "counter",
        "Retries refused by maxRetries or the retry budget.",
        "upstream_rq_retry_overflow",
        lambda c: c.limits.retry_overflow,
    ),
    _Reading(
        "no_healthy_total", "counter", "Tries that found no healthy endpoint.", "upstream_cx_none_healthy", lambda c: c.no_healthy
    ),
    _Reading("tries_total", "counter", "Requests and retries that had a result.", "upstream_rq_total", lambda c: c.tries),
    _Reading("connects_total", "counter", "Upstream connections opened.", "upstream_cx_total", lambda c: c.connects),
    _Reading(
        "connect_failures_total",
        "counter",
        "Dials and handshakes that failed.",
        "upstream_cx_connect_fail",
        lambda c: c.connect_failures,
    ),
    _Reading(
        "connections_limited",
        "gauge",
        "1: maxConnections is reached.",
        "circuit_breakers.default.cx_open",
        lambda c: c.limits.connections >= c.limits.max_connections,
    ),
    _Reading(
        "pending_limited",
        "gauge",
        "1: http1MaxPendingRequests is reached.",
        "circuit_breakers.default.rq_pending_open",
        lambda c: c.limits.pending >= c.limits.max_pending,
    ),
    _Reading(
        "requests_limited",
        "gauge",
        "1: http2MaxRequests is reached.",
        "circuit_breakers.default.rq_open",
        lambda c: c.limits.requests >= c.limits.max_requests,
    ),
    _Reading(
        "retries_limited",
        "gauge",
        "1: maxRetries or the retry budget is used up.",
        "circuit_breakers.default.rq_retry_open",
        lambda c: c.limits.retries >= c.limits.retry_ceiling(),
    ),
    _Reading(
        "retries_max",
        "gauge",
        "How many retries there may be now: maxRetries, or the retry budget's share of what is in flight.",
        "circuit_breakers.default.rq_retry_max",
        lambda c: c.limits.retry_ceiling(),
    ),
    _Reading("endpoints", "gauge", "Endpoints.", "membership_total", lambda c: len(c.endpoints)),
    _Reading(
        "endpoints_healthy",
        "gauge",
        "Endpoints that are not ejected.",
        "membership_healthy",
        lambda c: sum(not endpoint.health.ejected for endpoint in c.endpoints),
    ),
    _Reading("panic", "gauge", "1: ejections are ignored, too few endpoints are healthy.", "lb_healthy_panic", lambda c: c.panic),
    _Reading(
        "ejections_active",
        "gauge",
        "Endpoints ejected now.",
        "outlier_detection.ejections_active",
        _detector("ejected"),
    ),
    _Reading(
        "ejections_total",
        "counter",
        "Ejections.",
        "outlier_detection.ejections_enforced_total",
        _detector("ejections"),
    ),
    _Reading(
        "ejections_overflow_total",
        "counter",
        "Ejections refused by maxEjectionPercent.",
        "outlier_detection.ejections_overflow",
        _detector("overflows"),
    ),
)
# The same set, seen by each worker; and a breaker is open where any of them says so.
_MAX = frozenset(
    {"endpoints", "panic", "ejections_active", "connections_limited", "pending_limited", "requests_limited", "retries_limited"}
)


def cluster_families(clusters: Iterable[Any]) -> list[Family]:
    """What every live ``Cluster`` that was ever used says of itself."""
    found = [cluster for cluster in clusters if cluster.used]
    return [
        Family(
            f"mesh_cluster_{reading.name}",
            reading.kind,
            reading.help,
            ("cluster_name",),
            [Row((cluster.name,), float(reading.read(cluster))) for cluster in found],
            stat=f"cluster.{{}}.{reading.stat}",
            merge="min" if reading.name == "endpoints_healthy" else "max" if reading.name in _MAX else "sum",
        )
        for reading in _READINGS
    ]


def process_families() -> list[Family]:
    """What this process takes. Under names of our own: the app's ``process_...`` are on the same page."""
    used = os.times()
    return [
        Family(
            "mesh_process_resident_memory_bytes",
            "gauge",
            "Memory that the proxy holds, all its workers together.",
            (),
            [Row((), float(resident()))],
            stat="server.memory_resident",
        ),
        Family(
            "mesh_process_cpu_seconds_total",
            "counter",
            "CPU time that the proxy took, all its workers together.",
            (),
            [Row((), used.user + used.system)],
            stat="server.cpu_seconds",
        ),
    ]


def resident() -> int:
    """Bytes that this process holds; 0 where /proc is not Linux'."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
