"""The dashboard "Mesh / Control" (tools): does what users apply arrive, who is there, what does the authority sign."""

from __future__ import annotations

from control.tools.boards.panels import Board, Panel, Query, Row
from control.tools.boards.promql import WINDOW, quantile, rate

__all__ = ["CONTROL"]

_CA = "citadel_server_"
_JWKS = "pilot_jwks_resolver_network_fetch_"


def _plain(title: str, expr: str, legend: str = "", unit: str = "short", help: str = "") -> Panel:
    return Panel(title, [Query(expr, legend)], unit=unit, help=help)


CONTROL = Board(
    "mesh-control",
    "Mesh / Control",
    "The control service: sidecars, pushes and how fast they are confirmed, the world it computes from, the authority, reports.",
    [
        Row(
            "Now",
            [
                Panel("Sidecars", [Query("sum(pilot_xds)")], "stat", help="With an open stream.", width=4, height=4),
                Panel(
                    "Convergence p99",
                    [Query(quantile(0.99, "pilot_proxy_convergence_time"))],
                    "stat",
                    "s",
                    "From a change until a sidecar has confirmed it. Nothing while nothing changes.",
                    *(4, 4),
                    thresholds=((1, "orange"), (5, "red")),
                ),
                Panel(
                    "Refused pushes",
                    [Query("sum(increase(pilot_total_xds_rejects[$__range]))")],
                    "stat",
                    help="In the time shown. `meshctl proxy-status` says why.",
                    width=4,
                    height=4,
                    thresholds=((1, "red"),),
                ),
                Panel(
                    "Behind the store",
                    [Query("max(mesh_store_version - mesh_world_version)")],
                    "stat",
                    help="Versions that sidecars' snapshots do not know yet.",
                    width=4,
                    height=4,
                    thresholds=((1, "orange"),),
                ),
                Panel(
                    "Root ends in",
                    [Query(f"min({_CA}root_cert_expiry_timestamp) - time()")],
                    "stat",
                    "s",
                    "`meshctl ca rotate` replaces it.",
                    *(4, 4),
                    thresholds=((30 * 86400.0, "green"),),
                    base="red",
                ),
                Panel(
                    "Issuer ends in",
                    [Query(f"min({_CA}cert_chain_expiry_timestamp) - time()")],
                    "stat",
                    "s",
                    "",
                    4,
                    4,
                    thresholds=((7 * 86400.0, "green"),),
                    base="red",
                ),
            ],
        ),
        Row(
            "Configuration on its way",
            [
                Panel(
                    "Pushes",
                    [Query(rate("pilot_xds_pushes", by="type"), "{{type}}")],
                    unit="ops",
                    stack=True,
                    help="By kind of resource in them.",
                ),
                _plain("Bytes pushed", rate("mesh_push_bytes_total"), "bytes", "Bps"),
                Panel(
                    "Convergence",
                    [
                        Query(quantile(share, "pilot_proxy_convergence_time"), f"p{round(share * 100)}")
                        for share in (0.5, 0.9, 0.99)
                    ],
                    unit="s",
                    help="From the first change of a batch until a sidecar has confirmed it.",
                ),
                Panel(
                    "Confirmed",
                    [
                        Query(rate("pilot_proxy_convergence_time_count"), "confirmed"),
                        Query(rate("pilot_total_xds_rejects"), "refused"),
                    ],
                    unit="ops",
                ),
                Panel(
                    "Translation",
                    [Query(quantile(share, "mesh_translation_seconds"), f"p{round(share * 100)}") for share in (0.5, 0.99)],
                    unit="s",
                    help="To bring the world and all connected sidecars' snapshots up to date, per batch.",
                ),
                _plain("Snapshots that could not be computed", rate("mesh_translation_failures_total"), "failures", "ops"),
                Panel("Sidecars", [Query("sum(pilot_xds)", "connected")]),
                _plain(
                    "Streams replaced",
                    rate("mesh_streams_superseded_total"),
                    "replaced",
                    "ops",
                    "By a newer one of the same pod.",
                ),
                Panel(
                    "Versions",
                    [
                        Query("max(mesh_store_version)", "of the store"),
                        Query("max(mesh_world_version)", "that snapshots are made from"),
                    ],
                ),
            ],
        ),
        Row(
            "What users wrote",
            [
                Panel("Known", [Query("sum(pilot_services)", "services"), Query("sum(pilot_virt_services)", "virtual services")]),
                Panel(
                    "Conflicts and problems",
                    [
                        Query("sum(pilot_conflict_destination_rules)", "hosts with several DestinationRules"),
                        Query("sum(pilot_conflict_virtual_service_hosts)", "hosts of several VirtualServices"),
                        Query("sum(mesh_config_problems)", "could not be done as written"),
                    ],
                    help="`meshctl analyze` names them.",
                ),
                Panel(
                    "Validation",
                    [
                        Query(f"sum(rate(galley_validation_passed[{WINDOW}])) or vector(0)", "taken"),
                        Query(f"sum(rate(galley_validation_failed[{WINDOW}])) or vector(0)", "refused"),
                    ],
                    unit="ops",
                ),
                Panel(
                    "Key sets of token issuers",
                    [Query(rate(f"{_JWKS}success_total"), "fetched"), Query(rate(f"{_JWKS}fail_total"), "not to be had")],
                    unit="ops",
                ),
            ],
        ),
        Row(
            "Authority",
            [
                Panel(
                    "Certificates",
                    [Query(rate(f"{_CA}csr_count"), "asked for"), Query(rate(f"{_CA}success_cert_issuance_count"), "issued")],
                    unit="ops",
                ),
                Panel(
                    "Requests refused",
                    [
                        Query(rate(f"{_CA}csr_parsing_err_count"), "not to be read"),
                        Query(rate(f"{_CA}id_extraction_err_count"), "for what is not the caller's"),
                        Query(rate(f"{_CA}authentication_failure_count"), "without a valid token"),
                    ],
                    unit="ops",
                ),
                Panel(
                    "Time left",
                    [
                        Query(f"min({_CA}root_cert_expiry_timestamp) - time()", "root"),
                        Query(f"min({_CA}cert_chain_expiry_timestamp) - time()", "issuer"),
                    ],
                    unit="s",
                ),
            ],
        ),
        Row(
            "What sidecars report",
            [
                Panel(
                    "Reports",
                    [
                        Query(rate("mesh_reports_total"), "taken"),
                        Query(rate("mesh_reports_refused_total"), "refused"),
                        Query(rate("mesh_reports_dropped_calls_total"), "kinds of calls left out"),
                    ],
                    unit="ops",
                ),
                Panel(
                    "Short history",
                    [Query("sum(mesh_history_records)", "records"), Query("sum(mesh_history_calls)", "kinds of calls")],
                    help="Both are bounded.",
                ),
                Panel(
                    "Spans",
                    [Query(rate("mesh_trace_spans_total", 'outcome=~"stored|refused|lost"', "outcome"), "{{outcome}}")],
                    unit="ops",
                    help="refused: too many waited; lost: the disk did not take them.",
                ),
            ],
        ),
    ],
)
