"""The dashboard "Mesh / Proxy" (tools): what goes on inside sidecars and gateways, beside the requests that they carry."""

from __future__ import annotations

from control.tools.boards.panels import Board, Panel, Query, Row, Variable
from control.tools.boards.promql import rare, rate

__all__ = ["PROXY"]

_AT = 'namespace=~"$namespace", pod=~"$pod"'
_POD, _CLUSTER = "{{pod}}", "{{pod}} → {{cluster_name}}"
_TO = "pod, cluster_name"
_HEALTHY = f"sum by ({_TO}) (mesh_cluster_endpoints_healthy{{{_AT}}})"


def _gauge(title: str, metric: str, unit: str = "short", help: str = "", by: str = "pod", legend: str = _POD) -> Panel:
    return Panel(title, [Query(f"sum by ({by}) ({metric}{{{_AT}}})", legend)], unit=unit, help=help)


def _counter(title: str, metric: str, help: str = "", by: str = "pod", legend: str = _POD, unit: str = "ops") -> Panel:
    return Panel(title, [Query(rate(metric, _AT, by), legend)], unit=unit, help=help)


def _clusters(title: str, metric: str, help: str = "") -> Panel:
    if metric.endswith("_total"):
        return _counter(title, metric, help, _TO, _CLUSTER)
    return _gauge(title, metric, help=help, by=_TO, legend=_CLUSTER)


_NOW = Row(
    "Now",
    [
        Panel("Proxies", [Query(f"count(mesh_uptime_seconds{{{_AT}}})")], "stat", width=4, height=4),
        Panel("Youngest", [Query(f"min(mesh_uptime_seconds{{{_AT}}})")], "stat", "s", "Since its start.", 4, 4),
        Panel(
            "Without control",
            [Query(f"count(mesh_control_connected{{{_AT}}} == 0) or vector(0)")],
            "stat",
            help="Their configuration is what they last heard.",
            width=4,
            height=4,
            thresholds=((1, "red"),),
        ),
        Panel(
            "First certificate to end",
            [Query(f"min(mesh_certificate_expiry_timestamp_seconds{{{_AT}}} - time())")],
            "stat",
            "s",
            "Time left.",
            *(4, 4),
            thresholds=((3600, "orange"), (7200, "green")),
            base="red",
        ),
        Panel(
            "Event loop",
            [Query(f"max(mesh_loop_lag_seconds{{{_AT}}})")],
            "stat",
            "s",
            "How late the latest of them is: what every request there waits.",
            *(4, 4),
            thresholds=((0.05, "orange"), (0.2, "red")),
        ),
        Panel(
            "Bugs",
            [Query(f"sum(increase(mesh_bugs_total{{{_AT}}}[$__range]))")],
            "stat",
            help="Crashes caught at the barrier, in the time shown. Each has a traceback in the sidecar's log.",
            width=4,
            height=4,
            thresholds=((1, "red"),),
        ),
    ],
)

_PROCESS = Row(
    "Process",
    [
        _counter("CPU", "mesh_process_cpu_seconds_total", "Cores, all workers together.", unit="none"),
        _gauge("Memory", "mesh_process_resident_memory_bytes", "bytes"),
        Panel(
            "Event loop lag",
            [Query(f"max by (pod) (mesh_loop_lag_seconds{{{_AT}}})", _POD)],
            unit="s",
            help="More than 50 ms: it is overloaded, or something blocks it.",
            thresholds=((0.05, "red"),),
        ),
        _gauge("Connections of clients", "mesh_downstream_connections"),
        _gauge("Bytes that wait for clients", "mesh_downstream_buffered_bytes", "bytes", "Written, not yet taken by the kernel."),
        Panel("Stopping", [Query(f"max by (pod) (mesh_draining{{{_AT}}})", _POD)], most=1, help="1: draining."),
    ],
)

_UPSTREAM = Row(
    "Clusters: what it calls",
    [
        _clusters("Tries", "mesh_cluster_tries_total", "Requests and retries that had a result."),
        _clusters("Requests in flight", "mesh_cluster_requests"),
        _clusters("Connections", "mesh_cluster_connections"),
        _clusters(
            "Connections opened", "mesh_cluster_connects_total", "Many: keep-alive does not work, or maxRequestsPerConnection."
        ),
        _clusters("Dials and handshakes that failed", "mesh_cluster_connect_failures_total"),
        _clusters("Requests waiting for a connection", "mesh_cluster_pending"),
    ],
)

_RESILIENCE = Row(
    "Retries, limits, ejections",
    [
        _clusters("Retries", "mesh_cluster_retries_total", "Tries after the first."),
        _clusters("Retries in progress", "mesh_cluster_retrying"),
        Panel(
            "At a limit",
            [
                Query(f"sum by (pod) (mesh_cluster_{what}_limited{{{_AT}}})", f"{_POD} {what}")
                for what in ("connections", "pending", "requests", "retries")
            ],
            help="Clusters whose breaker is open now.",
        ),
        _clusters("Connections that had to wait", "mesh_cluster_connection_overflow_total", "maxConnections was reached."),
        _clusters("Refused: too many wait", "mesh_cluster_pending_overflow_total", "http1MaxPendingRequests: 503 UO."),
        _clusters("Refused: too many in flight", "mesh_cluster_request_overflow_total", "http2MaxRequests: 503 UO."),
        _clusters("Retries not made", "mesh_cluster_retry_overflow_total", "maxRetries or the retry budget."),
        _clusters("Ejected now", "mesh_cluster_ejections_active"),
        _clusters("Ejections", "mesh_cluster_ejections_total"),
        _clusters("Ejections refused", "mesh_cluster_ejections_overflow_total", "By maxEjectionPercent."),
        Panel(
            "Healthy endpoints",
            [
                Query(
                    f"{_HEALTHY} / sum by ({_TO}) (mesh_cluster_endpoints{{{_AT}}})",
                    _CLUSTER,
                )
            ],
            unit="percentunit",
            most=1,
            help="Share that is not ejected.",
        ),
        _clusters("Nobody healthy", "mesh_cluster_no_healthy_total", "Tries that found no endpoint: 503 UH."),
        _clusters("Panic", "mesh_cluster_panic", "1: ejections are ignored, too few endpoints are healthy."),
        Panel(
            "Most retries at once",
            [Query(f"max by ({_TO}) (mesh_cluster_retries_max{{{_AT}}} < 4294967295)", _CLUSTER)],
            help="maxRetries, or the budget's share of what is in flight. Clusters without either are left out.",
        ),
    ],
)

_IDENTITY = Row(
    "Identity and policy",
    [
        _counter("TLS handshakes", "mesh_tls_handshakes_total", by="pod, side", legend="{{pod}} {{side}}"),
        Panel(
            "TLS failures",
            [
                Query(
                    rare("mesh_tls_failures_total", _AT, "pod, side, reason", "reason"),
                    "{{pod}} {{side}} {{reason}}",
                )
            ],
            unit="ops",
            help="Refused or failed, by whose fault.",
        ),
        Panel(
            "Certificate",
            [Query(f"min by (pod) (mesh_certificate_expiry_timestamp_seconds{{{_AT}}} - time())", _POD)],
            unit="s",
            help="Time left. It falls, and jumps when renewed.",
        ),
        Panel(
            "Renewals",
            [
                Query(f"sum(increase(mesh_certificate_renewals_total{{{_AT}}}[$__range]))", "certificates renewed"),
                Query(f"sum(increase(mesh_certificate_renewal_failures_total{{{_AT}}}[$__range]))", "requests that failed"),
            ],
        ),
        Panel(
            "Authorisation",
            [Query(rare("mesh_authz_total", _AT, "action, result", "result"), "{{action}} {{result}}")],
            unit="ops",
            help="What AuthorizationPolicy decided; a flat 0 without a policy.",
        ),
        Panel(
            "Authorisation in dry run",
            [
                Query(
                    rare("mesh_authz_dry_run_total", _AT, "policy, action, result", "result"),
                    "{{policy}} {{action}} {{result}}",
                )
            ],
            unit="ops",
            help="What policies with the dry-run annotation would have decided.",
        ),
        Panel(
            "Plaintext where mutual TLS is welcome",
            [
                Query(
                    rare("mesh_plaintext_requests_total", _AT, "pod, source_workload", "source_workload"),
                    "{{source_workload}} → {{pod}}",
                )
            ],
            unit="reqps",
            help="Who would be shut out by STRICT.",
        ),
        Panel(
            "Messages refused by the codec",
            [
                Query(
                    rare("mesh_messages_refused_total", _AT, "pod, reason", "reason"),
                    "{{pod}} {{reason}}",
                )
            ],
            unit="ops",
            help="Malformed, too large, smuggled: no request came of them.",
        ),
    ],
)

_CONFIG = Row(
    "Configuration",
    [
        _gauge("Control's stream", "mesh_control_connected", help="1: open."),
        _counter("Configurations taken", "mesh_config_updates_total"),
        _counter(
            "Configurations refused", "mesh_config_rejected_total", "The one before goes on. `meshctl proxy-status` says why."
        ),
        Panel(
            "Snapshots",
            [Query(f"count by (version) (mesh_config_info{{{_AT}}})", "{{version}}")],
            help="How many proxies run which. Pods of equal scope share one.",
        ),
    ],
)

_TELEMETRY = Row(
    "Telemetry of its own",
    [
        Panel(
            "Label sets",
            [Query(f"sum by (pod) (mesh_metric_label_sets{{{_AT}}}) / sum by (pod) (mesh_metric_label_sets_max{{{_AT}}})", _POD)],
            unit="percentunit",
            help="Of as many as there may be. At 100 % new ones are counted under 'other'.",
            thresholds=((0.8, "orange"), (1, "red")),
        ),
        _counter("Label sets folded", "mesh_metric_label_sets_folded_total", "Counted under 'other': there are too many series."),
        _counter("Access log lines dropped", "mesh_access_log_dropped_total", "The buffer was full, or the file not writable."),
        _gauge("Access log waiting", "mesh_access_log_buffered_bytes", "bytes"),
        Panel(
            "Spans",
            [
                Query(
                    rate("mesh_trace_spans_total", f'{_AT}, outcome=~"exported|dropped|failed"', "outcome"),  # control has others
                    "{{outcome}}",
                )
            ],
            unit="ops",
            help="dropped: the queue was full; failed: the exporter did not take them.",
        ),
        Panel(
            "Reports to control",
            [
                Query(rate("mesh_reports_sent_total", _AT), "taken"),
                Query(rate("mesh_reports_dropped_total", _AT), "lost"),
            ],
            unit="ops",
            help="For the page of `meshctl dashboard`.",
        ),
        Panel(
            "Taps",
            [
                Query(f"sum(mesh_taps{{{_AT}}})", "open"),
                Query(rate("mesh_tap_left_out_total", _AT), "requests left out, a second"),
            ],
            help="`meshctl tap`.",
        ),
        Panel(
            "The apps' own metrics",
            [
                Query(f"{rate('mesh_app_metrics_fetched_total', _AT)} or vector(0)", "pages merged"),
                Query(f"{rate('mesh_app_metrics_failures_total', _AT)} or vector(0)", "not to be had"),
            ],
            unit="ops",
            help="Where prometheus.io/... annotations or --app-metrics say that there are some.",
        ),
    ],
)

PROXY = Board(
    "mesh-proxy",
    "Mesh / Proxy",
    "Sidecars and gateways from the inside: process, clusters, resilience, identity, configuration, telemetry.",
    [_NOW, _PROCESS, _UPSTREAM, _RESILIENCE, _IDENTITY, _CONFIG, _TELEMETRY],
    [
        Variable("namespace", "Namespace", "label_values(mesh_uptime_seconds, namespace)", many=True),
        Variable("pod", "Pod", 'label_values(mesh_uptime_seconds{namespace=~"$namespace"}, pod)', many=True),
    ],
)
