"""The dashboard "Mesh / Workload" (tools): what comes in, as its own sidecars tell it, and what it asks of others."""

from __future__ import annotations

from control.tools.boards.panels import Board, Column, Panel, Query, Row, Variable
from control.tools.boards.promql import errors, mutual, quantile, requests, success

__all__ = ["WORKLOAD"]

_MS = "istio_request_duration_milliseconds"
_IN_HERE = 'destination_workload_namespace="$namespace", destination_workload="$workload"'
_IN = f'reporter="destination", {_IN_HERE}'
_OUT = 'reporter="source", source_workload_namespace="$namespace", source_workload="$workload"'
_CALLER = "source_workload_namespace, source_workload"
_CALLED = "destination_service_namespace, destination_service_name"
_BY_CALLER, _BY_CALLED = "{{source_workload}}.{{source_workload_namespace}}", "{{destination_service_name}}"
_GOOD = ((0.95, "orange"), (0.99, "green"))


def _golden(where: str, what: str) -> list[Panel]:
    return [
        Panel(f"{what}: requests", [Query(f"{requests(where)} or vector(0)")], "stat", "reqps", width=4, height=4),
        Panel(f"{what}: success", [Query(success(where))], "stat", "percentunit", "", 4, 4, thresholds=_GOOD, base="red"),
        Panel(f"{what}: p99", [Query(quantile(0.99, _MS, where))], "stat", "ms", width=4, height=4),
    ]


def _details(where: str) -> list[Panel]:
    flags = requests(f'{where}, response_flags!="-"', "response_flags")
    return [
        Panel("Requests by code", [Query(requests(where, "response_code"), "{{response_code}}")], unit="reqps", stack=True),
        Panel("Failed share", [Query(errors(where), "failed")], unit="percentunit", most=1, thresholds=((0.05, "red"),)),
        Panel(
            "Duration",
            [Query(quantile(share, _MS, where), f"p{round(share * 100)}") for share in (0.5, 0.9, 0.95, 0.99)],
            unit="ms",
        ),
        Panel(
            "Why requests ended early",
            [Query(flags, "{{response_flags}}")],
            unit="reqps",
            help="Response flags; a request that ended as its server meant it has none.",
        ),
    ]


def _table(title: str, where: str, by: str, keys: tuple[tuple[str, str], ...], more: tuple[Column, ...] = ()) -> Panel:
    columns = (
        Column("Requests", requests(where, by), "reqps"),
        Column("Success", success(where, by), "percentunit"),
        Column("p50", quantile(0.5, _MS, where, by), "ms"),
        Column("p99", quantile(0.99, _MS, where, by), "ms"),
    )
    return Panel(title, kind="table", width=24, keys=keys, columns=(*columns, *more))


# A workload may only call (a gateway), or only be called.
_EITHER = (
    "query_result(group by (workload) ("
    'label_join(istio_requests_total{reporter="destination", destination_workload_namespace="$namespace"}, '
    '"workload", "", "destination_workload") or '
    'label_join(istio_requests_total{reporter="source", source_workload_namespace="$namespace"}, '
    '"workload", "", "source_workload")))'
)
_NAMESPACES = (
    "query_result(group by (namespace) ("
    'label_join(istio_requests_total{reporter="destination"}, "namespace", "", "destination_workload_namespace") or '
    'label_join(istio_requests_total{reporter="source"}, "namespace", "", "source_workload_namespace")))'
)

WORKLOAD = Board(
    "mesh-workload",
    "Mesh / Workload",
    "One workload. Inbound is told by its own sidecars (reporter destination), outbound by them too (reporter source), so both "
    "are there whoever else is in the mesh.",
    [
        Row("Now", [*_golden(_IN, "In"), *_golden(_OUT, "Out")]),
        Row(
            "Inbound",
            [
                *_details(_IN),
                Panel(
                    "Mutual TLS by caller",
                    [Query(mutual(_IN_HERE, _CALLER), _BY_CALLER)],
                    unit="percentunit",
                    most=1,
                    help="Who is below 100 % still calls in plaintext: STRICT would shut it out. `meshctl x mtls report`.",
                ),
                Panel(
                    "Size of responses",
                    [Query(quantile(share, "istio_response_bytes", _IN), f"p{round(share * 100)}") for share in (0.5, 0.95)],
                    unit="bytes",
                ),
                _table(
                    "Callers",
                    _IN,
                    _CALLER,
                    (("source_workload_namespace", "Namespace"), ("source_workload", "Caller")),
                    (Column("Mutual TLS", mutual(_IN_HERE, _CALLER), "percentunit"),),
                ),
            ],
        ),
        Row(
            "Outbound",
            [
                *_details(_OUT),
                Panel("Requests by service", [Query(requests(_OUT, _CALLED), _BY_CALLED)], unit="reqps", stack=True),
                Panel("Failed share by service", [Query(errors(_OUT, _CALLED), _BY_CALLED)], unit="percentunit", most=1),
                _table(
                    "Services it calls",
                    _OUT,
                    _CALLED,
                    (("destination_service_namespace", "Namespace"), ("destination_service_name", "Service")),
                ),
            ],
        ),
    ],
    [
        Variable("namespace", "Namespace", _NAMESPACES, regex='/namespace="([^"]+)"/'),
        Variable("workload", "Workload", _EITHER, regex='/workload="([^"]+)"/'),
    ],
)
