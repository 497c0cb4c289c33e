"""The dashboard "Mesh / Service" (tools): one service, as its callers or its own sidecars see it; who calls, who answers."""

from __future__ import annotations

from control.tools.boards.panels import Board, Column, Panel, Query, Row, Variable
from control.tools.boards.promql import errors, mutual, quantile, rate, requests, success, total

__all__ = ["SERVICE"]

_MS = "istio_request_duration_milliseconds"
_HERE = 'destination_service_namespace="$namespace", destination_service_name="$service"'
_SEEN = f'reporter="$reporter", {_HERE}'
_CLUSTER = 'cluster_name=~"outbound[|][^|]*[|][^|]*[|]$service[.]$namespace[.]svc[.].*"'
_SOURCE = "source_workload_namespace, source_workload"
_TARGET = "destination_workload_namespace, destination_workload, destination_version"
_CALLER, _SERVER = "{{source_workload}}.{{source_workload_namespace}}", "{{destination_workload}} {{destination_version}}"
_GOOD = ((0.95, "orange"), (0.99, "green"))


def _signals(where: str, by: str) -> tuple[Column, ...]:
    return (
        Column("Requests", requests(where, by), "reqps"),
        Column("Success", success(where, by), "percentunit"),
        Column("p50", quantile(0.5, _MS, where, by), "ms"),
        Column("p95", quantile(0.95, _MS, where, by), "ms"),
        Column("p99", quantile(0.99, _MS, where, by), "ms"),
    )


SERVICE = Board(
    "mesh-service",
    "Mesh / Service",
    "One service: golden signals, its callers, its workloads, and what protects its callers from it. Reporter `source` is what "
    "callers saw, with what never arrived; `destination` what the service's own sidecars did, with callers outside the mesh.",
    [
        Row(
            "Golden signals",
            [
                Panel("Requests", [Query(requests(_SEEN))], "stat", "reqps", width=4, height=4),
                Panel("Success", [Query(success(_SEEN))], "stat", "percentunit", "", 4, 4, thresholds=_GOOD, base="red"),
                *(
                    Panel(f"p{share}", [Query(quantile(share / 100, _MS, _SEEN))], "stat", "ms", width=4, height=4)
                    for share in (50, 95, 99)
                ),
                Panel(
                    "Mutual TLS",
                    [Query(mutual(_HERE))],
                    "stat",
                    "percentunit",
                    "Whatever the reporter: only destinations can tell.",
                    *(4, 4),
                    thresholds=((0.999, "green"),),
                    base="orange",
                ),
                Panel(
                    "Requests by code", [Query(requests(_SEEN, "response_code"), "{{response_code}}")], unit="reqps", stack=True
                ),
                Panel("Failed share", [Query(errors(_SEEN), "failed")], unit="percentunit", most=1, thresholds=((0.05, "red"),)),
                Panel(
                    "Duration",
                    [Query(quantile(share, _MS, _SEEN), f"p{round(share * 100)}") for share in (0.5, 0.9, 0.95, 0.99)],
                    unit="ms",
                ),
                Panel(
                    "Why requests ended early",
                    [Query(requests(f'{_SEEN}, response_flags!="-"', "response_flags"), "{{response_flags}}")],
                    unit="reqps",
                    help="Response flags; a request that ended as its server meant it has none.",
                ),
                Panel(
                    "Size of requests",
                    [Query(quantile(share, "istio_request_bytes", _SEEN), f"p{round(share * 100)}") for share in (0.5, 0.95)],
                    unit="bytes",
                    help="On the wire, heads included.",
                ),
                Panel(
                    "Size of responses",
                    [Query(quantile(share, "istio_response_bytes", _SEEN), f"p{round(share * 100)}") for share in (0.5, 0.95)],
                    unit="bytes",
                    help="On the wire, heads included.",
                ),
            ],
        ),
        Row(
            "Callers",
            [
                Panel(
                    "Callers",
                    kind="table",
                    width=24,
                    keys=(("source_workload_namespace", "Namespace"), ("source_workload", "Caller")),
                    columns=_signals(_SEEN, _SOURCE),
                ),
                Panel("Requests by caller", [Query(requests(_SEEN, _SOURCE), _CALLER)], unit="reqps", stack=True),
                Panel("Failed share by caller", [Query(errors(_SEEN, _SOURCE), _CALLER)], unit="percentunit", most=1),
                Panel("p95 by caller", [Query(quantile(0.95, _MS, _SEEN, _SOURCE), _CALLER)], unit="ms"),
            ],
        ),
        Row(
            "Workloads",
            [
                Panel(
                    "Workloads",
                    kind="table",
                    width=24,
                    help="`unknown`: nobody answered.",
                    keys=(
                        ("destination_workload_namespace", "Namespace"),
                        ("destination_workload", "Workload"),
                        ("destination_version", "Version"),
                    ),
                    columns=_signals(_SEEN, _TARGET),
                ),
                Panel("Requests by workload", [Query(requests(_SEEN, _TARGET), _SERVER)], unit="reqps", stack=True),
                Panel("Failed share by workload", [Query(errors(_SEEN, _TARGET), _SERVER)], unit="percentunit", most=1),
                Panel("p95 by workload", [Query(quantile(0.95, _MS, _SEEN, _TARGET), _SERVER)], unit="ms"),
            ],
        ),
        Row(
            "What protects its callers",
            [
                Panel("Retries", [Query(rate("mesh_cluster_retries_total", _CLUSTER, "pod"), "{{pod}}")], unit="ops"),
                Panel(
                    "Endpoints",
                    [
                        Query(f"max(mesh_cluster_endpoints{{{_CLUSTER}}})", "all"),
                        Query(f"min(mesh_cluster_endpoints_healthy{{{_CLUSTER}}})", "healthy, as the unluckiest caller sees it"),
                    ],
                ),
                Panel("Ejected", [Query(total("mesh_cluster_ejections_active", _CLUSTER, "pod"), "by {{pod}}")]),
                Panel(
                    "Refused by limits",
                    [
                        Query(rate("mesh_cluster_pending_overflow_total", _CLUSTER), "pending requests"),
                        Query(rate("mesh_cluster_request_overflow_total", _CLUSTER), "requests"),
                        Query(rate("mesh_cluster_retry_overflow_total", _CLUSTER), "retries"),
                    ],
                    unit="ops",
                ),
                Panel("Nobody healthy", [Query(rate("mesh_cluster_no_healthy_total", _CLUSTER, "pod"), "{{pod}}")], unit="ops"),
                Panel(
                    "Connections",
                    [
                        Query(total("mesh_cluster_connections", _CLUSTER), "open"),
                        Query(total("mesh_cluster_pending", _CLUSTER), "requests waiting for one"),
                    ],
                ),
            ],
        ),
    ],
    [
        Variable("namespace", "Namespace", "label_values(istio_requests_total, destination_service_namespace)"),
        Variable(
            "service",
            "Service",
            'label_values(istio_requests_total{destination_service_namespace="$namespace"}, destination_service_name)',
        ),
        Variable("reporter", "Reporter", "source,destination", fixed=True),
    ],
)
