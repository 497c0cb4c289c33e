"""The rules of Telemetry: providers, tags, and the expressions that we can obey.

Room: control/resources. In: a built struct. Out: problems with their paths.
"""

from __future__ import annotations

import re

from control.resources.expressions import log_filter, tag_value
from control.resources.honoured import NOT_YET
from control.resources.report import Report, header_name, targets
from control.resources.telemetry import Metrics, Telemetry, Tracing
from meshproxy.model.texts import format_parts

__all__ = ["telemetry"]

_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def telemetry(report: Report, found: Telemetry) -> None:
    spec = found.spec
    targets(report, spec)
    path = "spec.targetRef" if spec.target_ref is not None else "spec.targetRefs"
    for ref in (spec.target_ref, *spec.target_refs):
        if ref is not None and ref.kind != "Gateway":
            report.warn(path, f"{NOT_YET} for {ref.kind}: only a Gateway's pods are selected")
    for i, tracing in enumerate(spec.tracing):
        _tracing(report, f"spec.tracing[{i}]", tracing)
    for i, metrics in enumerate(spec.metrics):
        _metrics(report, f"spec.metrics[{i}]", metrics)
    for i, logging in enumerate(spec.access_logging):
        if logging.filter is not None and logging.filter.expression:
            report.check(f"spec.accessLogging[{i}].filter.expression", log_filter, logging.filter.expression)
    for name, lists in (
        ("tracing", [t.providers for t in spec.tracing]),
        ("metrics", [m.providers for m in spec.metrics]),
        ("accessLogging", [a.providers for a in spec.access_logging]),
    ):
        for i, providers in enumerate(lists):
            for j, provider in enumerate(providers):
                if not provider.name:
                    report.error(f"spec.{name}[{i}].providers[{j}].name", "must not be empty")


def _tracing(report: Report, path: str, tracing: Tracing) -> None:
    if len(tracing.providers) > 1:
        report.warn(f"{path}.providers", "only the first provider is used")
    for name, tag in tracing.custom_tags.items():
        at = f"{path}.customTags[{name}]"
        if not name:
            report.error(at, "a tag's name may not be empty")
        if tag.literal is not None and not tag.literal.value:
            report.error(f"{at}.literal.value", "must not be empty")
        if tag.header is not None:
            header_name(report, f"{at}.header.name", tag.header.name)
        if tag.environment is not None and not tag.environment.name:
            report.error(f"{at}.environment.name", "must not be empty")
        if tag.formatter is not None:
            report.check(f"{at}.formatter.value", format_parts, tag.formatter.value)


def _metrics(report: Report, path: str, metrics: Metrics) -> None:
    for i, override in enumerate(metrics.overrides):
        at = f"{path}.overrides[{i}]"
        if override.match is not None and override.match.custom_metric == "":
            report.error(f"{at}.match.customMetric", "must not be empty")
        for tag, change in override.tag_overrides.items():
            if change.operation == "UPSERT" and not change.value:
                report.error(f"{at}.tagOverrides[{tag}].value", "is required with operation UPSERT")
            elif change.operation == "UPSERT":
                report.check(f"{at}.tagOverrides[{tag}].value", tag_value, change.value)
            if not _TAG.fullmatch(tag):
                report.error(f"{at}.tagOverrides[{tag}]", "must be a label's name: letters, digits and _, no digit first")
            if tag == "le" or tag.startswith("__"):
                report.error(f"{at}.tagOverrides[{tag}]", "is a name that Prometheus keeps for itself: choose another")
            if change.operation == "REMOVE" and change.value:
                report.error(f"{at}.tagOverrides[{tag}].value", "goes with operation UPSERT only")
