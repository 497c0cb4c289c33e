"""MeshConfig, what is reported and where to: access logs, tracing, default providers, and the providers for them.

Room: control/resources. In: blocks of the MeshConfig. Out: their structs, and what is wrong with them, with paths.
"""

from __future__ import annotations

from typing import Any

import msgspec

from control.resources.honoured import NOT_YET
from control.resources.meta import Duration, Part, PortNumber, Uint32
from control.resources.report import Report, header_name
from control.resources.values import check_fqdn, is_dns_label, is_ip, quote
from meshproxy.model.texts import format_parts

__all__ = [
    "PROVIDERS",
    "DefaultProviders",
    "FileAccessLog",
    "OpenTelemetry",
    "Prometheus",
    "TelemetryProvider",
    "access_log_format",
    "default_config",
    "json_format",
    "provider",
]

MAX_FORMAT = 16 << 10


class LogFormat(Part, frozen=True, kw_only=True):
    exactly_one = (("text", "labels"),)

    text: str | None = None
    labels: dict[str, Any] | None = None


class FileAccessLog(Part, frozen=True, kw_only=True):
    """``path`` "": standard output."""

    path: str = ""
    log_format: LogFormat | None = None
    omit_empty_values: bool = False


class OtelHeader(Part, frozen=True, kw_only=True):
    exactly_one = (("value", "envName"),)

    name: str
    value: str | None = None
    env_name: str | None = None


class OtelHttp(Part, frozen=True, kw_only=True):
    path: str = ""
    timeout: Duration = ""
    headers: tuple[OtelHeader, ...] = ()


class OpenTelemetry(Part, frozen=True, kw_only=True):
    """A collector for traces. Without ``http`` it is one that speaks gRPC."""

    service: str
    port: PortNumber
    max_tag_length: Uint32 = 0
    http: OtelHttp | None = None
    grpc: dict[str, Any] | None = None
    resource_detectors: dict[str, Any] | None = None
    dynatrace_sampler: dict[str, Any] | None = None
    service_attribute_enrichment: str = ""


class Prometheus(Part, frozen=True, kw_only=True):
    """The sidecars' own metrics, which anybody may scrape."""


class DefaultProviders(Part, frozen=True, kw_only=True):
    tracing: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    access_logging: tuple[str, ...] = ()


TelemetryProvider = FileAccessLog | OpenTelemetry | Prometheus
PROVIDERS: dict[str, type[FileAccessLog] | type[OpenTelemetry] | type[Prometheus]] = {
    "envoyFileAccessLog": FileAccessLog,
    "opentelemetry": OpenTelemetry,
    "prometheus": Prometheus,
}


def access_log_format(report: Report, path: str, text: str, encoding: str) -> None:
    """The mesh's ``accessLogFormat``: a text with operators, or with encoding JSON an object of such texts."""
    if not text:
        return
    if encoding != "JSON":
        _operators(report, path, text)
        return
    try:
        found = json_format(text)
    except ValueError as error:
        report.error(path, str(error))
        return
    for key, value in found:
        _operators(report, f"{path}[{key}]", value)


def json_format(text: str) -> tuple[tuple[str, str], ...]:
    """Keys and texts with operators. Raises ValueError."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f'must be a JSON object such as {{"code": "%RESPONSE_CODE%"}}: {error}') from None
    return _labels(found)


def _labels(found: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError('must be an object of texts, such as {"code": "%RESPONSE_CODE%"}: objects within it are not honoured')
    return tuple((str(key), value) for key, value in found.items())


def default_config(report: Report, path: str, given: dict[str, Any]) -> None:
    """Of the proxies' defaults only ``tracing.sampling`` is obeyed."""
    for key, value in given.items():
        if key != "tracing" and value is not None:
            report.warn(f"{path}.{key}", NOT_YET)
    tracing = given.get("tracing")
    if tracing is None:
        return
    if not isinstance(tracing, dict):
        report.error(f"{path}.tracing", "must be an object such as {sampling: 1}")
        return
    for key, value in tracing.items():
        if key != "sampling" and value is not None:
            report.warn(f"{path}.tracing.{key}", f"{NOT_YET}: name a provider in extensionProviders and a Telemetry")
    sampling = tracing.get("sampling", 1)
    if isinstance(sampling, bool) or not isinstance(sampling, (int, float)) or not 0 <= sampling <= 100:
        report.error(f"{path}.tracing.sampling", f"must be a percentage from 0 to 100, not {quote(sampling)}")


def provider(report: Report, path: str, found: TelemetryProvider) -> None:
    """What the fields of one provider must keep."""
    if isinstance(found, FileAccessLog):
        _file(report, path, found)
    elif isinstance(found, OpenTelemetry):
        _otel(report, path, found)


def _file(report: Report, path: str, found: FileAccessLog) -> None:
    if found.path and (not found.path.startswith("/") or not found.path.isprintable()):
        report.error(f"{path}.path", f"must be an absolute path such as /dev/stdout, not {quote(found.path)}")
    if found.log_format is None:
        return
    if found.log_format.text is not None:
        _operators(report, f"{path}.logFormat.text", found.log_format.text)
    if found.log_format.labels is not None:
        try:
            labels = _labels(found.log_format.labels)
        except ValueError as error:
            report.error(f"{path}.logFormat.labels", str(error))
            return
        for key, value in labels:
            _operators(report, f"{path}.logFormat.labels[{key}]", value)


def _otel(report: Report, path: str, found: OpenTelemetry) -> None:
    namespace, slash, host = found.service.rpartition("/")
    if slash and not is_dns_label(namespace):
        report.error(f"{path}.service", f"the part before / must be a namespace, not {quote(namespace)}")
    if not is_ip(host):
        report.check(f"{path}.service", check_fqdn, host)
    if found.http is None:
        report.warn(path, "is a collector over gRPC, which is not spoken: nothing is sent to it; give http: {path: /v1/traces}")
        return
    if found.http.path and not found.http.path.startswith("/"):
        report.error(f"{path}.http.path", f'must begin with "/", not as in {quote(found.http.path)}')
    for i, header in enumerate(found.http.headers):
        header_name(report, f"{path}.http.headers[{i}].name", header.name)
        if header.env_name is not None:
            report.warn(f"{path}.http.headers[{i}].envName", NOT_YET)
        if header.value is not None and not header.value.isprintable():
            report.error(f"{path}.http.headers[{i}].value", "holds a control character")
    for name, value in (
        ("http.timeout", found.http.timeout),
        ("resourceDetectors", found.resource_detectors),
        ("dynatraceSampler", found.dynatrace_sampler),
        ("serviceAttributeEnrichment", found.service_attribute_enrichment),
    ):
        if value:
            report.warn(f"{path}.{name}", NOT_YET)


def _operators(report: Report, path: str, text: str) -> None:
    if len(text) > MAX_FORMAT:
        report.error(path, f"is longer than {MAX_FORMAT} characters")
    else:
        report.check(path, format_parts, text)
