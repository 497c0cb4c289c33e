"""What a workload reports: which Telemetry counts, how scopes lie over each other, and what the MeshConfig adds."""

from __future__ import annotations

from typing import Any

import yaml
from world_objects import Obj, event, mesh_object, pod, service

from control.translate import Translator, proxy_of, translate
from control.world import MeshSettings, World
from control.world.reporting import Reporting
from meshproxy.model.telemetry import (
    AccessLog,
    CustomTag,
    LogCondition,
    LogFilter,
    MetricOverride,
    TagOverride,
    Telemetry,
    Tracing,
)

ROOT = "istio-system"


def telemetry(name: str, spec: Any, namespace: str = "default", created: str = "") -> Obj:
    return {**mesh_object("Telemetry", name, spec, namespace, created), "apiVersion": "telemetry.istio.io/v1"}


def mesh_config(text: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": ROOT}, "data": {"mesh": text}}


def made(*objs: Obj, receiver: bool = False) -> tuple[Telemetry | None, list[str]]:
    book = [pod("book", "10.0.0.1", {"app": "book"}), service("book")]
    mesh = MeshSettings(reporting=Reporting(receiver=receiver))
    world = World.of([*book, *objs], mesh)
    assert not world.problems, world.problems
    proxy = proxy_of(world, "default", "book")
    assert proxy is not None
    snapshot = translate(world, proxy)
    found = snapshot.get("telemetry", "workload")
    assert found is None or isinstance(found, Telemetry)
    return found, [str(p) for p in snapshot.problems]


PROVIDERS = yaml.safe_dump(
    {
        "extensionProviders": [
            {"name": "file", "envoyFileAccessLog": {"path": "/tmp/a.log", "logFormat": {"labels": {"code": "%RESPONSE_CODE%"}}}},
            {
                "name": "jaeger",
                "opentelemetry": {"service": "jaeger.x.svc.cluster.local", "port": 4318, "http": {"path": "/v1/t"}},
            },
            {"name": "grpc", "opentelemetry": {"service": "jaeger.x.svc.cluster.local", "port": 4317}},
            {"name": "stats", "prometheus": {}},
        ],
    }
)


def test_nothing_said_is_no_resource() -> None:
    assert made() == (None, [])


def test_controls_own_receiver_gets_one_percent() -> None:
    assert made(receiver=True) == (Telemetry(tracing=(Tracing(sampling=1.0),)), [])
    sampled = mesh_config("defaultConfig: {tracing: {sampling: 100}}\naccessLogFile: /dev/stdout")
    assert made(sampled, receiver=True) == (Telemetry(logs=(AccessLog(),), tracing=(Tracing(sampling=100.0),)), [])
    assert made(mesh_config("enableTracing: false"), receiver=True) == (None, [])


def test_a_log_may_leave_out_what_is_empty() -> None:
    text = """
        extensionProviders: [{name: file, envoyFileAccessLog: {path: /tmp/a.log, omitEmptyValues: true}}]
        defaultProviders: {accessLogging: [file]}
    """
    assert made(mesh_config(text)) == (Telemetry(logs=(AccessLog(path="/tmp/a.log", omit_empty=True),)), [])


def test_the_meshs_own_log() -> None:
    text = 'accessLogFile: /dev/stdout\naccessLogEncoding: JSON\naccessLogFormat: \'{"c": "%RESPONSE_CODE%"}\''
    log = AccessLog(encoding="JSON", json=(("c", "%RESPONSE_CODE%"),))
    assert made(mesh_config(text)) == (Telemetry(logs=(log,)), [])
    assert made(mesh_config('accessLogFile: ""')) == (Telemetry(logs=()), [])


def test_the_oldest_of_a_scope_counts_and_narrower_scopes_lie_over_wider() -> None:
    def override(tag: str, value: str) -> Any:
        return {"metrics": [{"overrides": [{"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {tag: {"value": value}}}]}]}

    found, problems = made(
        telemetry("mesh", override("a", "'mesh'"), ROOT),
        telemetry("young", override("a", "'young'"), created="2026-02-01T00:00:00Z"),
        telemetry("old", override("a", "'old'"), created="2026-01-01T00:00:00Z"),
        telemetry("other", {**override("a", "'other'"), "selector": {"matchLabels": {"app": "other"}}}),
        telemetry("book", {**override("b", "request.method"), "selector": {"matchLabels": {"app": "book"}}}),
    )
    assert found is not None and not problems
    assert [(o.metrics, o.tags) for o in found.metrics] == [
        (("istio_requests_total",), (TagOverride(tag="a", value="mesh"),)),
        (("istio_requests_total",), (TagOverride(tag="a", value="old"),)),
        (("istio_requests_total",), (TagOverride(tag="b", value="%REQ(:METHOD)%"),)),
    ]


def test_metrics_removed_disabled_and_without_a_provider() -> None:
    overrides = [
        {"match": {"mode": "CLIENT"}, "disabled": True},
        {"match": {"metric": "REQUEST_SIZE"}, "tagOverrides": {"x": {"operation": "REMOVE"}}},
    ]
    found, _ = made(telemetry("a", {"metrics": [{"overrides": overrides}]}))
    assert found == Telemetry(
        metrics=(
            MetricOverride(mode="CLIENT", disabled=True),
            MetricOverride(metrics=("istio_request_bytes",), tags=(TagOverride(tag="x"),)),
        )
    )
    found, problems = made(telemetry("a", {"metrics": [{"providers": [{"name": "nobody"}]}]}))
    assert found == Telemetry(metrics=(MetricOverride(disabled=True),))
    assert problems == [
        'Telemetry default/a spec.metrics[0].providers[0].name: "nobody" is no such provider in the MeshConfig\'s '
        "extensionProviders: nothing is sent to it"
    ]
    assert made(mesh_config(PROVIDERS), telemetry("a", {"metrics": [{"providers": [{"name": "stats"}]}]})) == (None, [])


def test_logs_by_provider_side_and_filter() -> None:
    spec = {
        "accessLogging": [
            {"providers": [{"name": "envoy"}], "match": {"mode": "SERVER"}},
            {"providers": [{"name": "file"}], "filter": {"expression": "response.code >= 500"}},
        ]
    }
    found, problems = made(mesh_config(PROVIDERS), telemetry("a", spec, ROOT))
    only_bad = LogFilter(any_of=((LogCondition(field="status", op=">=", value="500"),),))
    file = AccessLog(path="/tmp/a.log", encoding="JSON", json=(("code", "%RESPONSE_CODE%"),), filter=only_bad)
    assert (found, problems) == (Telemetry(logs=(file, AccessLog(mode="SERVER"))), [])


def test_a_narrower_scope_names_other_logs_or_switches_them_off() -> None:
    wide = telemetry("mesh", {"accessLogging": [{"providers": [{"name": "envoy"}]}]}, ROOT)
    narrow = telemetry("a", {"accessLogging": [{"providers": [{"name": "file"}]}]})
    found, _ = made(mesh_config(PROVIDERS), wide, narrow)
    assert found is not None and found.logs is not None and [log.path for log in found.logs] == ["/tmp/a.log"]
    found, _ = made(wide, telemetry("a", {"accessLogging": [{"disabled": True}]}))
    assert found == Telemetry(logs=())
    by_default = mesh_config("defaultProviders: {accessLogging: [envoy]}")
    assert made(by_default) == (Telemetry(logs=(AccessLog(),)), [])
    found, problems = made(telemetry("a", {"accessLogging": [{}]}))
    assert found == Telemetry(logs=()) and "names no provider" in problems[0]


def test_traces() -> None:
    tags = {"a": {"literal": {"value": "x"}}, "b": {"header": {"name": "X-B", "defaultValue": "none"}}}
    wide = telemetry("mesh", {"tracing": [{"randomSamplingPercentage": 10, "customTags": tags}]}, ROOT)
    narrow = telemetry("a", {"tracing": [{"match": {"mode": "SERVER"}, "disableSpanReporting": True}]})
    found, problems = made(wide, narrow, receiver=True)
    custom = (CustomTag(tag="a", literal="x"), CustomTag(tag="b", header=("x-b", "none")))
    assert (found, problems) == (
        Telemetry(
            tracing=(
                Tracing(mode="CLIENT", sampling=10.0, tags=custom),
                Tracing(mode="SERVER", sampling=10.0, tags=custom, report=False),
            )
        ),
        [],
    )


def test_traces_to_a_collector() -> None:
    found, problems = made(mesh_config(PROVIDERS + "defaultProviders: {tracing: [jaeger]}"))
    assert (found, problems) == (Telemetry(tracing=(Tracing(exporter="http://jaeger.x.svc.cluster.local:4318/v1/t"),)), [])
    found, problems = made(mesh_config(PROVIDERS), telemetry("a", {"tracing": [{"providers": [{"name": "grpc"}]}]}))
    assert found == Telemetry(tracing=(Tracing(report=False),))
    assert len(problems) == 1 and "over gRPC" in problems[0]


def test_a_change_elsewhere_keeps_the_layer() -> None:
    objs = [pod("book", "10.0.0.1", {"app": "book"}), service("book"), telemetry("m", {"tracing": [{}]}, ROOT)]
    world, translator = World.of(objs, MeshSettings(reporting=Reporting(receiver=True))), Translator()
    proxy = proxy_of(world, "default", "book")
    assert proxy is not None
    before = translator.translate(world, proxy)
    after = translator.translate(world.apply([event("ADDED", telemetry("x", {"tracing": [{}]}, "elsewhere"))]), proxy)
    assert after.layers[-1] is before.layers[-1] and after.version == before.version
    routing = world.config.routing
    assert world.apply([event("ADDED", telemetry("x", {"metrics": [{}]}))]).config.routing is routing
