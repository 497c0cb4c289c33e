"""What sidecars report to control of the traffic they counted: Istio's labels, Envoy's buckets, deltas.

The tables are part of the contract: label values and bucket counts travel without their names, in this order.
"""

from __future__ import annotations

from meshproxy.model.base import Model

__all__ = ["BOUNDS", "LABELS", "ROUTE", "Edge", "Report"]

# The labels of Istio's HTTP metrics (semantics A4).
LABELS = (
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
)
ROUTE = 3  # values that may follow them: the route's name, the resource that it comes from, the cluster

# Envoy's default histogram buckets, which Istio's metrics use for milliseconds and for bytes alike.
BOUNDS = (
    *(0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0),
    *(30_000.0, 60_000.0, 300_000.0, 600_000.0, 1_800_000.0, 3_600_000.0),
)


class Edge(Model, frozen=True, array_like=True):
    """What was counted about one kind of call since the last report. ``labels``: index into ``Report.labels``. ``durations``: per
    bucket of ``BOUNDS`` and one more for the rest; ``sum_ms`` their sum.
    """

    labels: int
    requests: int
    durations: tuple[int, ...]
    sum_ms: float
    received: int  # bytes
    sent: int
    retried: int = 0  # tries after the first


class Report(Model, frozen=True):
    """``POST /mesh/v1/config/report``, every few seconds: deltas, so that control adds them up and a lost one loses only itself.

    ``labels``: dictionaries of the values of ``LABELS`` that edges name, and ``ROUTE`` more for the route (name, resource that it
    comes from, cluster; empty where requests come in), each sent when it is first used on this connection
    (``first``: the index of the first of them). ``state``: breakers and ejections, by cluster, that are not at rest. ``boot``
    changes when the process is another one, ``number`` counts up from 0.
    """

    boot: str
    number: int
    seconds: float  # that this report covers
    first: int = 0
    labels: tuple[tuple[str, ...], ...] = ()
    edges: tuple[Edge, ...] = ()
    state: tuple[tuple[str, str, int], ...] = ()  # (cluster, "ejected" | "overflow" | "pending" | "connections", how many)
    gauges: tuple[tuple[str, float], ...] = ()  # "connections", "loop_lag_seconds", "rss_bytes", "cpu_seconds" …
