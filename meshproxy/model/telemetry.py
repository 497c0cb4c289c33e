"""What a workload reports: metrics, access logs, traces (Istio: Telemetry, MeshConfig's providers). Named ``workload``.

Which resources select the workload, and how scopes merge, was judged by control. ``CLIENT`` is what a proxy does for its own app
(outbound, and a gateway), ``SERVER`` what it does for callers (inbound). Absent resource: all metrics, and what the proxy was
started with.
"""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model

__all__ = ["AccessLog", "CustomTag", "LogCondition", "LogFilter", "MetricOverride", "TagOverride", "Telemetry", "Tracing"]

Mode = Literal["CLIENT", "SERVER", "CLIENT_AND_SERVER"]


class TagOverride(Model, frozen=True):
    """``value``: a text in Envoy's command operators (a CEL literal or attribute that control knows becomes one); None: gone."""

    tag: str
    value: str | None = None


class MetricOverride(Model, frozen=True):
    """``metrics``: Prometheus names without suffix (``istio_requests_total``), (): all. Later ones win per tag."""

    metrics: tuple[str, ...] = ()
    mode: Mode = "CLIENT_AND_SERVER"
    disabled: bool | None = None
    tags: tuple[TagOverride, ...] = ()


class LogCondition(Model, frozen=True):
    """``field``: ``status``, ``duration`` (ms), ``flags`` (any of the given is set), ``method``, ``path``, ``authority``,
    ``protocol``, or ``header:NAME``. ``present`` ignores ``value``.
    """

    field: str
    op: (
        Literal["==", "!=", "<", "<=", ">", ">=", "prefix", "suffix", "contains", "not-prefix", "not-suffix", "not-contains"]
        | (Literal["present", "absent"])
    )
    value: str = ""


class LogFilter(Model, frozen=True):
    """Any of ``any_of``, each of which is a list of conditions that must all hold."""

    any_of: tuple[tuple[LogCondition, ...], ...]


class AccessLog(Model, frozen=True):
    """One log. ``path``: a file, /dev/stdout or /dev/stderr. ``format`` "": Istio's; ``json``: (key, operators), (): Istio's.
    ``omit_empty``: what has no value is left out, else it is ``-``, and in JSON null.
    """

    path: str = "/dev/stdout"
    encoding: Literal["TEXT", "JSON"] = "TEXT"
    format: str = ""
    json: tuple[tuple[str, str], ...] = ()
    omit_empty: bool = False
    mode: Mode = "CLIENT_AND_SERVER"
    filter: LogFilter | None = None


class CustomTag(Model, frozen=True):
    """Exactly one of the four."""

    tag: str
    literal: str | None = None
    environment: tuple[str, str] | None = None  # variable, default
    header: tuple[str, str] | None = None  # lower-case name, default
    formatter: str | None = None  # Envoy's command operators


class Tracing(Model, frozen=True):
    """``sampling``: percent of the traces that begin here. ``exporter``: OTLP/HTTP URL (``…/v1/traces``); "": control's own.
    ``propagate`` False: context headers are left alone. ``report`` False: contexts are passed on, no span is sent.
    """

    mode: Mode = "CLIENT_AND_SERVER"
    sampling: float = 1.0
    exporter: str = ""
    exporter_headers: tuple[tuple[str, str], ...] = ()
    report: bool = True
    propagate: bool = True
    tags: tuple[CustomTag, ...] = ()
    istio_tags: bool = True
    use_request_id: bool = True
    max_tag_length: int = 256


class Telemetry(Model, frozen=True):
    """``logs`` None: the bootstrap's own log is in force; (): no log at all. ``tracing``: at most one per mode."""

    name: str = "workload"
    metrics: tuple[MetricOverride, ...] = ()
    logs: tuple[AccessLog, ...] | None = None
    tracing: tuple[Tracing, ...] = ()
