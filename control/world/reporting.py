"""World, reporting: what the MeshConfig says of metrics, access logs and traces, and the Telemetry resources by namespace.

In: a MeshConfig and its providers; typed objects. Out: ``Reporting``, a frozen part of ``MeshSettings``, and
``NamespaceTelemetry``; a namespace's object stays the same while nothing in it changes, so that whoever computed from it may
compare by identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from control.resources.mesh_config import MeshConfig, Provider
from control.resources.mesh_telemetry import FileAccessLog, OpenTelemetry, Prometheus, json_format
from control.resources.telemetry import Telemetry
from control.world.security import GATEWAY, GATEWAY_NAME
from meshproxy.model import telemetry as model

__all__ = ["NO_TELEMETRY", "NamespaceTelemetry", "Reporting", "index_telemetry", "reporting"]

STDOUT = "/dev/stdout"
BUILTIN_LOG = "envoy"  # Istio's own provider: it follows the mesh's format and encoding
OWN = ""  # the name of control's own receiver among providers


class Reporting(msgspec.Struct, frozen=True, kw_only=True):
    """``receiver``: control itself takes traces. ``log``: of ``accessLogFile``; None: not said, so the proxy's own setting is in
    force. Providers by name; ``unusable`` says why nothing can be sent to one. ``sampling`` in percent.
    """

    receiver: bool = False
    tracing: bool = True
    sampling: float = 1.0
    log: tuple[model.AccessLog, ...] | None = None
    logs: tuple[tuple[str, model.AccessLog], ...] = ((BUILTIN_LOG, model.AccessLog(path=STDOUT)),)
    traces: tuple[tuple[str, model.Tracing], ...] = ()
    metrics: tuple[str, ...] = ("prometheus",)
    unusable: tuple[tuple[str, str], ...] = ()
    default_tracing: tuple[str, ...] = ()
    default_metrics: tuple[str, ...] = ("prometheus",)
    default_logs: tuple[str, ...] = ()


def reporting(base: Reporting, config: MeshConfig, providers: Iterable[Provider]) -> Reporting:
    """``base`` with what the users' MeshConfig says."""
    plain = _format(model.AccessLog(path=STDOUT), config.access_log_encoding, config.access_log_format)
    logs = {BUILTIN_LOG: plain}
    traces: dict[str, model.Tracing] = {}
    metrics, unusable = set(base.metrics), {}
    for provider in providers:
        found = provider.telemetry
        if isinstance(found, FileAccessLog):
            logs[provider.name] = _file(found, plain if provider.name == BUILTIN_LOG else model.AccessLog())
        elif isinstance(found, OpenTelemetry):
            if found.http is None:
                unusable[provider.name] = "is a collector over gRPC, which is not spoken: give it http: {path: /v1/traces}"
            else:
                traces[provider.name] = _collector(found)
        elif isinstance(found, Prometheus):
            metrics.add(provider.name)
        elif provider.kind not in ("", "envoyExtAuthzHttp", "envoyExtAuthzGrpc"):
            unusable[provider.name] = f"is {provider.kind}, to which nothing can be sent"
    sampling, defaults = base.sampling, config.default_providers
    if config.default_config is not None and config.default_config.get("tracing"):
        sampling = float(config.default_config["tracing"].get("sampling", sampling))
    log = base.log
    if config.access_log_file is not None:
        path = config.access_log_file
        log = (msgspec.structs.replace(plain, path=path),) if path else ()
    return msgspec.structs.replace(
        base,
        tracing=base.tracing if config.enable_tracing is None else config.enable_tracing,
        sampling=sampling,
        log=log,
        logs=tuple(sorted(logs.items(), key=_name)),
        traces=tuple(sorted(traces.items(), key=_name)),
        metrics=tuple(sorted(metrics)),
        unusable=tuple(sorted(unusable.items())),
        default_tracing=base.default_tracing if defaults is None else defaults.tracing,
        # Istio's charts name prometheus here; a MeshConfig that says nothing of metrics means them too.
        default_metrics=base.default_metrics if defaults is None or not defaults.metrics else defaults.metrics,
        default_logs=base.default_logs if defaults is None else defaults.access_logging,
    )


def _name(pair: tuple[str, object]) -> str:
    return pair[0]


def _format(log: model.AccessLog, encoding: str, text: str) -> model.AccessLog:
    if encoding == "JSON":
        return msgspec.structs.replace(log, encoding="JSON", json=json_format(text) if text else ())
    return msgspec.structs.replace(log, format=text)


def _file(found: FileAccessLog, base: model.AccessLog) -> model.AccessLog:
    log = msgspec.structs.replace(base, path=found.path or STDOUT, omit_empty=found.omit_empty_values)
    wanted = found.log_format
    if wanted is None:
        return log
    if wanted.labels is not None:
        return msgspec.structs.replace(log, encoding="JSON", format="", json=tuple((k, str(v)) for k, v in wanted.labels.items()))
    return msgspec.structs.replace(log, encoding="TEXT", format=wanted.text or "", json=())


def _collector(found: OpenTelemetry) -> model.Tracing:
    assert found.http is not None
    host = found.service.rpartition("/")[2]
    authority = f"[{host}]" if ":" in host else host
    return model.Tracing(
        exporter=f"http://{authority}:{found.port}{found.http.path or '/v1/traces'}",
        exporter_headers=tuple((header.name.lower(), header.value) for header in found.http.headers if header.value is not None),
        max_tag_length=found.max_tag_length or 256,
    )


class NamespaceTelemetry:
    """The Telemetry of one namespace, oldest first. ``general``: those for all workloads, of which the first, ``wide``, counts;
    ``pairs``: all labels asked about.
    """

    __slots__ = ("all", "general", "pairs", "selecting", "wide")

    def __init__(self, found: Iterable[Telemetry] = ()) -> None:
        self.all = tuple(sorted(found, key=_age))
        narrow = [(one, _pairs(one)) for one in self.all]
        self.selecting = tuple((one, pairs) for one, pairs in narrow if pairs)
        self.general = tuple(one for one, pairs in narrow if pairs is None)
        self.wide = self.general[0] if self.general else None
        self.pairs = frozenset(pair for _, pairs in self.selecting for pair in pairs or ())

    def of(self, labels: Mapping[str, str], *, gateway: bool) -> Telemetry | None:
        """The oldest one that selects a workload of these labels, by selector or as the pod of a Gateway."""
        for one, pairs in self.selecting:
            if one.spec.selector is not None:
                if all(labels.get(key) == value for key, value in pairs or ()):
                    return one
            elif gateway and any(labels.get(key) == value for key, value in pairs or ()):
                return one
        return None


def _pairs(one: Telemetry) -> tuple[tuple[str, str], ...] | None:
    """The labels that it asks about: all of a selector, any of its Gateways. None: it is for all; (): for nobody here."""
    refs = one.spec.target_refs or ((one.spec.target_ref,) if one.spec.target_ref is not None else ())
    if refs:
        return tuple((GATEWAY_NAME, ref.name) for ref in refs if (ref.group, ref.kind) == GATEWAY)
    selector = one.spec.selector
    return tuple(sorted(selector.match_labels.items())) if selector is not None and selector.match_labels else None


def _age(one: Telemetry) -> tuple[str, str]:
    return (one.metadata.creation_timestamp or "", one.metadata.name)


def index_telemetry(found: Iterable[Telemetry], old: Mapping[str, NamespaceTelemetry]) -> Mapping[str, NamespaceTelemetry]:
    """By namespace; a namespace in which nothing changed keeps its object."""
    table: dict[str, list[Telemetry]] = {}
    for one in found:
        table.setdefault(one.metadata.namespace, []).append(one)
    made = {}
    for namespace in sorted(table):
        now, known = NamespaceTelemetry(table[namespace]), old.get(namespace)
        same = known is not None and [(_age(a), a.spec) for a in known.all] == [(_age(a), a.spec) for a in now.all]
        made[namespace] = known if same and known is not None else now
    return made


NO_TELEMETRY = NamespaceTelemetry()
