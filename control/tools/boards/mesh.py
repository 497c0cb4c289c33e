"""The dashboard "Mesh / Overview" (tools): is anything wrong, and where. Every request once, as its caller's sidecar saw it."""

from __future__ import annotations

from control.tools.boards.panels import Board, Column, Panel, Query, Row, Variable
from control.tools.boards.promql import WINDOW, errors, mutual, quantile, rare, rate, requests, success, total

__all__ = ["MESH"]

_MS = "istio_request_duration_milliseconds"
_ALL = 'destination_service_namespace=~"$namespace"'
_SERVICE, _CALLED = "destination_service_name", "{{destination_service_name}}"
_FLAGS = "response_flags"
_SEEN = f'reporter="source", {_ALL}'
_BY = "destination_service_namespace, destination_service_name"
_NAME = "{{destination_service_name}}.{{destination_service_namespace}}"
_TO = (
    "/d/mesh-service?${datasource:queryparam}&var-namespace=${__data.fields.Namespace}"
    "&var-service=${__data.fields.Service}&${__url_time_range}"
)
_WORKLOAD = "destination_workload_namespace, destination_workload"
_DID = 'reporter="destination", destination_workload_namespace=~"$namespace"'
_TO_WORKLOAD = (
    "/d/mesh-workload?${datasource:queryparam}&var-namespace=${__data.fields.Namespace}"
    "&var-workload=${__data.fields.Workload}&${__url_time_range}"
)

_NOW = Row(
    "Now",
    [
        Panel("Requests", [Query(requests(_SEEN))], "stat", "reqps", "As callers' sidecars and gateways count them.", 4, 4),
        Panel(
            "Success",
            [Query(success(_SEEN))],
            "stat",
            "percentunit",
            "Requests without a 5xx and without a gRPC status that is the server's fault.",
            *(4, 4),
            thresholds=((0.95, "orange"), (0.99, "green")),
            base="red",
        ),
        Panel("p99", [Query(quantile(0.99, _MS, _SEEN))], "stat", "ms", "The slowest 1 % take longer.", 4, 4),
        Panel(
            "Mutual TLS",
            [Query(mutual(_ALL))],
            "stat",
            "percentunit",
            "Share of requests that reached a sidecar over mutual TLS. Only destinations can tell.",
            *(4, 4),
            thresholds=((0.999, "green"),),
            base="orange",
        ),
        Panel(
            "Sidecars without control",
            [Query("count(mesh_control_connected == 0) or vector(0)")],
            "stat",
            help="They run with what they last heard.",
            width=4,
            height=4,
            thresholds=((1, "red"),),
        ),
        Panel(
            "Ejected endpoints",
            [Query(total("mesh_cluster_ejections_active"))],
            "stat",
            help="As seen by each caller: an endpoint that three sidecars keep out counts three times.",
            width=4,
            height=4,
            thresholds=((1, "orange"),),
        ),
    ],
)

_GOLDEN = Row(
    "Golden signals",
    [
        Panel("Requests by service", [Query(requests(_SEEN, _BY), _NAME)], unit="reqps", stack=True),
        Panel("Failed share by service", [Query(errors(_SEEN, _BY), _NAME)], unit="percentunit", thresholds=((0.05, "red"),)),
        Panel(
            "Duration",
            [Query(quantile(share, _MS, _SEEN), f"p{round(share * 100)}") for share in (0.5, 0.9, 0.95, 0.99)],
            unit="ms",
        ),
        Panel("Response codes", [Query(requests(_SEEN, "response_code"), "{{response_code}}")], unit="reqps", stack=True),
        Panel(
            "Why requests ended early",
            [Query(requests(f'{_SEEN}, response_flags!="-"', "response_flags"), "{{response_flags}}")],
            unit="reqps",
            help="Response flags: UH no healthy endpoint, UF connection failed, UO overflow, NR no route, UT timeout, URX "
            "retries used up, FI fault injected, DC client gone, …",
        ),
        Panel(
            "p99 by service", [Query(quantile(0.99, _MS, _SEEN, _BY), _NAME)], unit="ms", help="As callers' sidecars measure it."
        ),
    ],
)

_BYTES = Row(
    "Connections of bytes",
    [
        Panel(
            "Opened by service",
            [Query(rare("istio_tcp_connections_opened_total", _SEEN, _SERVICE, _SERVICE), _CALLED)],
            unit="cps",
            help="TCP, and TLS that is passed through: what is not HTTP.",
        ),
        Panel(
            "Why connections ended early",
            [
                Query(
                    rare(
                        "istio_tcp_connections_closed_total", f'{_SEEN}, response_flags!="-"', "response_flags", "response_flags"
                    ),
                    "{{response_flags}}",
                )
            ],
            unit="cps",
            help="Response flags: UH no healthy endpoint, UF connection failed, UO overflow, DC client gone, …",
        ),
        Panel(
            "Bytes",
            [
                Query(rare(f"istio_tcp_{way}_bytes_total", _SEEN, _SERVICE, _SERVICE), f"{way} {_CALLED}")
                for way in ("received", "sent")
            ],
            unit="Bps",
            help="Received from callers, sent to callers.",
        ),
    ],
)

_TABLES = Row(
    "Who",
    [
        Panel(
            "Services",
            kind="table",
            width=12,
            height=10,
            help="As their callers see them.",
            keys=(("destination_service_namespace", "Namespace"), ("destination_service_name", "Service")),
            columns=(
                Column("Requests", requests(_SEEN, _BY), "reqps"),
                Column("Success", success(_SEEN, _BY), "percentunit"),
                Column("p50", quantile(0.5, _MS, _SEEN, _BY), "ms"),
                Column("p95", quantile(0.95, _MS, _SEEN, _BY), "ms"),
                Column("p99", quantile(0.99, _MS, _SEEN, _BY), "ms"),
            ),
            link=_TO,
        ),
        Panel(
            "Workloads",
            kind="table",
            width=12,
            height=10,
            help="What their own sidecars count.",
            keys=(("destination_workload_namespace", "Namespace"), ("destination_workload", "Workload")),
            columns=(
                Column("Requests", requests(_DID, _WORKLOAD), "reqps"),
                Column("Success", success(_DID, _WORKLOAD), "percentunit"),
                Column("p50", quantile(0.5, _MS, _DID, _WORKLOAD), "ms"),
                Column("p99", quantile(0.99, _MS, _DID, _WORKLOAD), "ms"),
                Column("Mutual TLS", mutual('destination_workload_namespace=~"$namespace"', _WORKLOAD), "percentunit"),
            ),
            link=_TO_WORKLOAD,
        ),
    ],
)

_RESILIENCE = Row(
    "What the mesh does about it",
    [
        Panel(
            "Retries",
            [Query(rate("mesh_cluster_retries_total", by="cluster_name"), "{{cluster_name}}")],
            unit="ops",
            help="Tries after the first.",
        ),
        Panel(
            "Ejected endpoints",
            [Query(total("mesh_cluster_ejections_active", by="cluster_name"), "{{cluster_name}}")],
            help="Outlier detection keeps them out of the balancing.",
        ),
        Panel(
            "Refused by limits",
            [
                Query(rate("mesh_cluster_pending_overflow_total"), "pending requests"),
                Query(rate("mesh_cluster_request_overflow_total"), "requests"),
                Query(rate("mesh_cluster_retry_overflow_total"), "retries"),
                Query(rate("mesh_cluster_connection_overflow_total"), "connections"),
            ],
            unit="ops",
            help="connectionPool and retry budgets. A connection that may not be opened makes its request wait.",
        ),
    ],
)

_STATE = Row(
    "The mesh itself",
    [
        Panel(
            "Configuration",
            [
                Query(rate("mesh_config_updates_total"), "taken by sidecars"),
                Query(rate("mesh_config_rejected_total"), "refused by sidecars"),
            ],
            unit="ops",
        ),
        Panel(
            "First certificate to end",
            [Query("min(mesh_certificate_expiry_timestamp_seconds - time())", "time left")],
            unit="s",
            help="Sidecars renew theirs long before: the line falls and jumps.",
        ),
        Panel(
            "Event loops",
            [
                Query("max(mesh_loop_lag_seconds)", "latest loop"),
                Query("quantile(0.9, mesh_loop_lag_seconds)", "p90 of sidecars"),
            ],
            unit="s",
            help="How late sidecars' event loops are: what every request there waits.",
        ),
        Panel(
            "CPU of sidecars",
            [
                Query(rate("mesh_process_cpu_seconds_total"), "cores"),
                Query(f"max(rate(mesh_process_cpu_seconds_total[{WINDOW}]))", "busiest"),
            ],
            unit="none",
        ),
        Panel(
            "Memory of sidecars",
            [
                Query(total("mesh_process_resident_memory_bytes"), "all"),
                Query("max(mesh_process_resident_memory_bytes)", "largest"),
            ],
            unit="bytes",
        ),
        Panel(
            "Telemetry lost",
            [
                Query(rate("mesh_access_log_dropped_total"), "log lines"),
                Query(rate("mesh_trace_spans_total", 'outcome!~"exported|stored"'), "spans"),
                Query(rate("mesh_metric_label_sets_folded_total"), "label sets folded"),
                Query(rate("mesh_reports_dropped_total"), "reports to control"),
            ],
            unit="ops",
            help="Never traffic: buffers are bounded, and what they drop is counted.",
        ),
    ],
)

MESH = Board(
    "mesh-overview",
    "Mesh / Overview",
    "Golden signals of everything, as callers' sidecars saw it, and what the mesh does about failures.",
    [_NOW, _GOLDEN, _TABLES, _RESILIENCE, _BYTES, _STATE],
    [
        Variable(
            "namespace",
            "Namespace",
            "label_values(istio_requests_total, destination_service_namespace)",
            many=True,
        )
    ],
)
