"""Telemetry (telemetry.istio.io): tracing, metrics and access logs of workloads.

Room: control/resources.
"""

from __future__ import annotations

from typing import Literal

from control.resources.meta import Duration, Part, Percentage, PolicyTargetReference, Resource, WorkloadSelector

__all__ = [
    "AccessLogging",
    "CustomTag",
    "Environment",
    "Formatter",
    "Literal_",
    "LogFilter",
    "LogSelector",
    "MetricSelector",
    "Metrics",
    "MetricsOverrides",
    "ProviderRef",
    "RequestHeader",
    "TagOverride",
    "Telemetry",
    "TelemetrySpec",
    "Tracing",
    "TracingSelector",
]

WorkloadMode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


class ProviderRef(Part, frozen=True, kw_only=True):
    name: str


class TracingSelector(Part, frozen=True, kw_only=True):
    mode: WorkloadMode = "CLIENT_AND_SERVER"


class Literal_(Part, frozen=True, kw_only=True):
    value: str


class Environment(Part, frozen=True, kw_only=True):
    name: str
    default_value: str = ""


class RequestHeader(Part, frozen=True, kw_only=True):
    name: str
    default_value: str = ""


class Formatter(Part, frozen=True, kw_only=True):
    value: str


class CustomTag(Part, frozen=True, kw_only=True):
    exactly_one = (("literal", "environment", "header", "formatter"),)

    literal: Literal_ | None = None
    environment: Environment | None = None
    header: RequestHeader | None = None
    formatter: Formatter | None = None


class Tracing(Part, frozen=True, kw_only=True):
    match: TracingSelector | None = None
    providers: tuple[ProviderRef, ...] = ()
    random_sampling_percentage: Percentage | None = None
    disable_span_reporting: bool | None = None
    custom_tags: dict[str, CustomTag] = {}
    use_request_id_for_trace_sampling: bool | None = None
    enable_istio_tags: bool | None = None
    disable_context_propagation: bool | None = None


class MetricSelector(Part, frozen=True, kw_only=True):
    exclusive = (("metric", "customMetric"),)

    metric: (
        Literal[
            "ALL_METRICS",
            "REQUEST_COUNT",
            "REQUEST_DURATION",
            "REQUEST_SIZE",
            "RESPONSE_SIZE",
            "TCP_OPENED_CONNECTIONS",
            "TCP_CLOSED_CONNECTIONS",
            "TCP_SENT_BYTES",
            "TCP_RECEIVED_BYTES",
            "GRPC_REQUEST_MESSAGES",
            "GRPC_RESPONSE_MESSAGES",
        ]
        | None
    ) = None
    custom_metric: str | None = None
    mode: WorkloadMode = "CLIENT_AND_SERVER"


class TagOverride(Part, frozen=True, kw_only=True):
    operation: Literal["UPSERT", "REMOVE"] = "UPSERT"
    value: str = ""


class MetricsOverrides(Part, frozen=True, kw_only=True):
    match: MetricSelector | None = None
    disabled: bool | None = None
    tag_overrides: dict[str, TagOverride] = {}


class Metrics(Part, frozen=True, kw_only=True):
    providers: tuple[ProviderRef, ...] = ()
    overrides: tuple[MetricsOverrides, ...] = ()
    reporting_interval: Duration = ""


class LogSelector(Part, frozen=True, kw_only=True):
    mode: WorkloadMode = "CLIENT_AND_SERVER"


class LogFilter(Part, frozen=True, kw_only=True):
    """``expression`` is CEL."""

    expression: str = ""


class AccessLogging(Part, frozen=True, kw_only=True):
    match: LogSelector | None = None
    providers: tuple[ProviderRef, ...] = ()
    disabled: bool | None = None
    filter: LogFilter | None = None


class TelemetrySpec(Part, frozen=True, kw_only=True):
    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    tracing: tuple[Tracing, ...] = ()
    metrics: tuple[Metrics, ...] = ()
    access_logging: tuple[AccessLogging, ...] = ()


class Telemetry(Resource, frozen=True, kw_only=True):
    """What workloads report."""

    spec: TelemetrySpec = TelemetrySpec()
