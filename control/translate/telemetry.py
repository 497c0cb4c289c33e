"""Translate, telemetry: what one workload reports, as the model's ``Telemetry``.

In: the world's ``Config`` and a proxy. Out: a layer with one resource, or without any where nobody said anything. Semantics A4:
of the root namespace, the own namespace and the workload one Telemetry each counts, the oldest; they are laid over each other in
this order, and under them lies the MeshConfig. A provider that does not exist or cannot be used is a problem, and nothing is
sent to it; the rest holds.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any, Literal, TypeVar

import msgspec

from control.resources import telemetry as api
from control.resources.expressions import log_filter, tag_value
from control.translate.memo import Labels
from control.translate.proxy import ProxyId
from control.translate.snapshot import Layer, Problem, Recent, entry, make_layer
from control.world.config import Config
from control.world.mesh import MeshSettings
from control.world.reporting import NO_TELEMETRY, NamespaceTelemetry, Reporting
from meshproxy.model import telemetry as model

__all__ = ["TelemetryMemo", "workload_telemetry"]

T = TypeVar("T", api.AccessLogging, api.Tracing)
Side = Literal["CLIENT", "SERVER"]
SIDES: tuple[Side, ...] = ("CLIENT", "SERVER")
_METRICS = {
    "REQUEST_COUNT": "istio_requests_total",
    "REQUEST_DURATION": "istio_request_duration_milliseconds",
    "REQUEST_SIZE": "istio_request_bytes",
    "RESPONSE_SIZE": "istio_response_bytes",
    "TCP_OPENED_CONNECTIONS": "istio_tcp_connections_opened_total",
    "TCP_CLOSED_CONNECTIONS": "istio_tcp_connections_closed_total",
    "TCP_SENT_BYTES": "istio_tcp_sent_bytes_total",
    "TCP_RECEIVED_BYTES": "istio_tcp_received_bytes_total",
    "GRPC_REQUEST_MESSAGES": "istio_request_messages_total",
    "GRPC_RESPONSE_MESSAGES": "istio_response_messages_total",
}


class TelemetryMemo:
    """Remembers by namespace, role and the labels that are asked about: pods that agree on those share the very layer."""

    def __init__(self) -> None:
        self._known: Recent[tuple[str, bool, Labels], tuple[tuple[object, ...], Layer]] = Recent()

    def turn(self) -> None:
        self._known.turn()

    def of(self, config: Config, proxy: ProxyId) -> Layer:
        root, own = _in_force(config, proxy.namespace)
        own_side = own or root
        labels = tuple(pair for pair in proxy.labels if pair in own_side.pairs) if own_side.pairs else ()
        key = (proxy.namespace, proxy.role == "gateway", labels)
        made_from: tuple[object, ...] = (root, own, config.mesh)
        known = self._known.get(key)
        if known is not None and all(one is other for one, other in zip(known[0], made_from, strict=True)):
            return known[1]
        layer = workload_telemetry(config, proxy)
        if known is not None and known[1].digest == layer.digest and known[1].problems == layer.problems:
            layer = known[1]
        return self._known.put(key, (made_from, layer))[1]


def _in_force(config: Config, namespace: str) -> tuple[NamespaceTelemetry, NamespaceTelemetry | None]:
    root = config.mesh.root_namespace
    own = None if namespace == root else config.telemetry.get(namespace, NO_TELEMETRY)
    return config.telemetry.get(root, NO_TELEMETRY), own


def workload_telemetry(config: Config, proxy: ProxyId) -> Layer:
    root, own = _in_force(config, proxy.namespace)
    narrow = (own or root).of(dict(proxy.labels), gateway=proxy.role == "gateway")
    scopes = [one for one in (root.wide, own.wide if own is not None else None, narrow) if one is not None]
    made = _Made(config.mesh, scopes)
    whole = model.Telemetry(metrics=made.metrics(), logs=made.logs(), tracing=made.tracing())
    entries = {} if whole == model.Telemetry() else {("telemetry", whole.name): entry("telemetry", whole)}
    return make_layer("telemetry", entries, made.problems)  # type: ignore[arg-type]


class _Made:
    """One workload's, from the widest scope to the narrowest."""

    def __init__(self, mesh: MeshSettings, scopes: list[api.Telemetry]) -> None:
        self._mesh: Reporting = mesh.reporting
        self._scopes = scopes
        self.problems: list[Problem] = []

    # -- metrics -----------------------------------------------------------------------------------------------------------

    def metrics(self) -> tuple[model.MetricOverride, ...]:
        """The overrides for Prometheus; where it is no provider in force, all metrics are off."""
        names: tuple[str, ...] = self._mesh.default_metrics
        found: list[model.MetricOverride] = []
        for scope in self._scopes:
            for i, metrics in enumerate(scope.spec.metrics):
                given = self._known(scope, f"spec.metrics[{i}].providers", metrics.providers, self._mesh.metrics)
                if metrics.providers:
                    names = given
                if any(name in self._mesh.metrics for name in names):
                    found += [_override(one) for one in metrics.overrides]
        if not any(name in self._mesh.metrics for name in names):
            return (model.MetricOverride(disabled=True),)
        return tuple(found)

    # -- access logs -------------------------------------------------------------------------------------------------------

    def logs(self) -> tuple[model.AccessLog, ...] | None:
        if not self._mesh.default_logs and not any(scope.spec.access_logging for scope in self._scopes):
            return self._mesh.log
        sides = {side: self._logs_of(side) for side in SIDES}
        both = [log for log in sides["CLIENT"] if log in sides["SERVER"]]
        found = list(both)
        for side in SIDES:
            found += [msgspec.structs.replace(log, mode=side) for log in sides[side] if log not in both]
        return tuple(found)

    def _logs_of(self, side: Side) -> list[model.AccessLog]:
        table = dict(self._mesh.logs)
        last = self._mesh.default_logs
        for scope in self._scopes:
            named = [name for _, one in _for_side(scope.spec.access_logging, side) for name in _names(one)]
            if named:
                last = tuple(dict.fromkeys(named))
        said = any(True for scope in self._scopes for _ in _for_side(scope.spec.access_logging, side))
        filters: dict[str, model.LogFilter | None] = {} if said else dict.fromkeys(last)
        names = self._mesh.default_logs
        for scope in self._scopes:
            for i, one in _for_side(scope.spec.access_logging, side):
                path = f"spec.accessLogging[{i}]"
                given = self._known(scope, f"{path}.providers", one.providers, table)
                names = given if one.providers else names
                if not names and not one.disabled:
                    self._problem(scope, path, "names no provider, nor do the MeshConfig's defaultProviders: nothing is logged")
                for name in names:
                    if name not in last:
                        continue
                    if one.disabled:
                        filters.pop(name, None)
                    else:
                        filters[name] = self._filter(scope, f"{path}.filter", one)
        return [msgspec.structs.replace(table[name], filter=judge) for name, judge in filters.items() if name in table]

    def _filter(self, scope: api.Telemetry, path: str, one: api.AccessLogging) -> model.LogFilter | None:
        if one.filter is None or not one.filter.expression:
            return None
        try:
            return log_filter(one.filter.expression)
        except ValueError as error:  # refused at apply, but perhaps by nobody: then everything is logged
            self._problem(scope, f"{path}.expression", str(error))
            return None

    # -- traces ------------------------------------------------------------------------------------------------------------

    def tracing(self) -> tuple[model.Tracing, ...]:
        sides = [made for side in SIDES if (made := self._tracing_of(side)) is not None]
        if len(sides) == 2 and msgspec.structs.replace(sides[0], mode="SERVER") == sides[1]:
            return (msgspec.structs.replace(sides[0], mode="CLIENT_AND_SERVER"),)
        return tuple(sides)

    def _tracing_of(self, side: Side) -> model.Tracing | None:
        mesh = self._mesh
        specs = [(scope, i, one) for scope in self._scopes for i, one in _for_side(scope.spec.tracing, side)]
        provider = mesh.default_tracing[0] if mesh.default_tracing else ""
        where: tuple[api.Telemetry, str] | None = None
        found = model.Tracing(mode=side, sampling=mesh.sampling)
        for scope, i, one in specs:
            changes: dict[str, Any] = {}
            if one.providers:
                provider, where = one.providers[0].name, (scope, f"spec.tracing[{i}].providers[0].name")
            if one.random_sampling_percentage is not None:
                changes["sampling"] = one.random_sampling_percentage
            if one.disable_span_reporting is not None:
                changes["report"] = not one.disable_span_reporting
            if one.disable_context_propagation is not None:
                changes["propagate"] = not one.disable_context_propagation
            if one.use_request_id_for_trace_sampling is not None:
                changes["use_request_id"] = one.use_request_id_for_trace_sampling
            if one.enable_istio_tags is not None:
                changes["istio_tags"] = one.enable_istio_tags
            if one.custom_tags:  # not merged with those of wider scopes, as in Istio
                changes["tags"] = tuple(_tag(name, tag) for name, tag in sorted(one.custom_tags.items()))
            found = msgspec.structs.replace(found, **changes)
        if provider:
            return self._sent(found, provider, where)
        return found if mesh.receiver and mesh.tracing else None

    def _sent(self, found: model.Tracing, provider: str, where: tuple[api.Telemetry, str] | None) -> model.Tracing:
        collector = dict(self._mesh.traces).get(provider)
        if collector is not None:
            return msgspec.structs.replace(
                found,
                exporter=collector.exporter,
                exporter_headers=collector.exporter_headers,
                max_tag_length=collector.max_tag_length,
            )
        why = dict(self._mesh.unusable).get(provider, "is no provider for traces in the MeshConfig's extensionProviders")
        text = f'provider "{provider}" {why}: no span is sent'
        if where is not None:
            self._problem(*where, text)
        else:
            self.problems.append(Problem("MeshConfig defaultProviders.tracing", text))
        return msgspec.structs.replace(found, report=False)

    # -- problems ----------------------------------------------------------------------------------------------------------

    def _known(
        self, scope: api.Telemetry, path: str, given: tuple[api.ProviderRef, ...], table: Container[str]
    ) -> tuple[str, ...]:
        for i, ref in enumerate(given):
            if ref.name not in table:
                why = dict(self._mesh.unusable).get(ref.name, "is no such provider in the MeshConfig's extensionProviders")
                self._problem(scope, f"{path}[{i}].name", f'"{ref.name}" {why}: nothing is sent to it')
        return tuple(ref.name for ref in given)

    def _problem(self, scope: api.Telemetry, path: str, text: str) -> None:
        meta = scope.metadata
        self.problems.append(Problem(f"Telemetry {meta.namespace}/{meta.name} {path}", text))


def _override(given: api.MetricsOverrides) -> model.MetricOverride:
    match = given.match or api.MetricSelector()
    name = match.custom_metric or _METRICS.get(match.metric or "", "")
    return model.MetricOverride(
        metrics=(name,) if name else (),
        mode=match.mode,
        disabled=given.disabled,
        tags=tuple(
            model.TagOverride(tag=tag, value=None if change.operation == "REMOVE" else tag_value(change.value))
            for tag, change in sorted(given.tag_overrides.items())
        ),
    )


def _tag(name: str, tag: api.CustomTag) -> model.CustomTag:
    return model.CustomTag(
        tag=name,
        literal=tag.literal.value if tag.literal is not None else None,
        environment=(tag.environment.name, tag.environment.default_value) if tag.environment is not None else None,
        header=(tag.header.name.lower(), tag.header.default_value) if tag.header is not None else None,
        formatter=tag.formatter.value if tag.formatter is not None else None,
    )


def _names(one: api.AccessLogging) -> tuple[str, ...]:
    return tuple(ref.name for ref in one.providers)


def _for_side(given: Iterable[T], side: Side) -> Iterator[tuple[int, T]]:
    """Those of this side, each with its index."""
    for i, one in enumerate(given):
        if one.match is None or one.match.mode in (side, "CLIENT_AND_SERVER"):
            yield i, one
