"""Telemetry room: the proxy's own state as metrics, read when somebody asks; nothing is counted here.

In: live clusters and a few numbers of the process. Out: families. Their names in ``/stats`` are Envoy's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from meshproxy.telemetry.family import Family, Row

__all__ = ["ProcessState", "cluster_families", "process_families"]


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
_MAX = frozenset({"endpoints", "endpoints_healthy", "panic", "ejections_active"})  # the same set, seen by each worker


def cluster_families(clusters: Iterable[Any]) -> list[Family]:
    """What every live ``Cluster`` says of itself."""
    found = list(clusters)
    return [
        Family(
            f"mesh_cluster_{reading.name}",
            reading.kind,
            reading.help,
            ("cluster_name",),
            [Row((cluster.name,), float(reading.read(cluster))) for cluster in found],
            stat=f"cluster.{{}}.{reading.stat}",
            merge="max" if reading.name in _MAX else "sum",
        )
        for reading in _READINGS
    ]


class ProcessState(NamedTuple):
    """``uptime``: seconds; ``loop_lag``: seconds that the loop's tick came late; ``config_rejected``: pushes refused."""

    uptime: float
    config_rejected: int
    connections: int
    loop_lag: float
    bugs: int
    connected: bool
    draining: bool


def process_families(state: ProcessState) -> list[Family]:
    """What the process says of itself."""

    def one(name: str, kind: Literal["counter", "gauge"], text: str, stat: str, value: float, most: bool = False) -> Family:
        return Family(f"mesh_{name}", kind, text, (), [Row((), value)], stat=stat, merge="max" if most else "sum")

    return [
        one("uptime_seconds", "gauge", "Since the process started.", "server.uptime", state.uptime, True),
        one(
            "config_rejected_total", "counter", "Configurations refused.", "control.update_rejected", state.config_rejected, True
        ),
        one("control_connected", "gauge", "1: the stream to control is open.", "control.connected_state", state.connected, True),
        one("downstream_connections", "gauge", "Connections of clients.", "http.downstream_cx_active", state.connections),
        one("loop_lag_seconds", "gauge", "How late the event loop's tick was.", "server.loop_lag_seconds", state.loop_lag, True),
        one("bugs_total", "counter", "Crashes caught at the barrier.", "server.bugs", state.bugs),
        one("draining", "gauge", "1: stopping.", "server.draining", state.draining, True),
    ]
