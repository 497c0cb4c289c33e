"""Traces on a running mesh: one request through gateway, book-service and rating is one connected trace in control's store."""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from control.client.api import Api
from meshproxy.model.base import Model
from meshproxy.model.telemetry import Telemetry, Tracing
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.test_walkthrough import Demo, demo, wait_until
from tests.telemetry.test_trace import Receiver, receiver

__all__ = ["demo", "receiver"]  # fixtures

pytestmark = pytest.mark.timeout(240)
T, S = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def get(url: str, **headers: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"http://{url}", headers=headers), timeout=30) as answer:
        return int(answer.status)


def whole(api: Api, trace: str, count: int) -> list[dict[str, Any]]:
    """The trace's spans, once all of them have come."""
    spans: list[dict[str, Any]] = []

    def come() -> bool:
        found = api.request("GET", "/mesh/v1/traces", params={"limit": 1000})["traces"]
        if not any(one["traceId"] == trace and one["spans"] == count for one in found):
            return False
        spans[:] = api.request("GET", f"/mesh/v1/traces/{trace}")["spans"]
        return True

    wait_until(come, 30, f"{count} spans of trace {trace}")
    return spans


def test_one_request_is_one_connected_trace(demo: Demo) -> None:
    demo.demo("--detach")
    api = demo.api()
    assert get(demo.url, traceparent=f"00-{T}-{S}-01", tracestate="vendor=1") == 200
    spans = whole(api, T, 4)
    by_parent = {span["parentId"]: span for span in spans}
    walk, parent = [], S
    while parent in by_parent:
        span = by_parent[parent]
        walk.append((span["service"], span["kind"], span["operation"], span["tags"]["istio.canonical_service"]))
        parent = span["spanId"]
    book, rating = "book-service.default.svc.cluster.local:8080/*", "rating.default.svc.cluster.local:8080/*"
    assert walk == [
        ("istio-ingressgateway.istio-system", "server", book, "istio-ingressgateway"),
        ("book-service.default", "server", book, "book-service"),
        ("book-service.default", "client", rating, "book-service"),
        ("rating-service.default", "server", rating, "rating-service"),
    ]
    request_ids = {span["tags"]["guid:x-request-id"] for span in spans}
    assert len(request_ids) == 1
    for span in spans:
        assert span["tags"]["http.status_code"] == "200" and span["status"] == "ok"
        assert span["tags"]["mesh.reporter"].split("/")[1].startswith(span["tags"]["istio.canonical_service"][:6])

    # found by what its spans say
    for query in (
        {"service": "rating-service"},
        {"operation": "rating.default"},
        {"status": "200", "tag": f"guid:x-request-id={request_ids.pop()}"},
    ):
        found = api.request("GET", "/mesh/v1/traces", params=query)["traces"]
        assert [one["traceId"] for one in found] == [T]
    told = demo.meshctl("trace", T[:12]).stdout
    assert "4 spans of 3 services" in told and "└─ rating-service.default" in told
    assert T in demo.meshctl("trace", "--service", "book-service", "--min-duration", "0.01ms").stdout

    # a trace begins at the gateway; one that the caller does not want is not kept
    assert get(demo.url, traceparent=f"00-{T[::-1]}-{S}-00") == 200
    assert get(demo.url) == 200
    wait_until(lambda: len(api.request("GET", "/mesh/v1/traces")["traces"]) == 2, 30, "the trace that the gateway began")
    newest = api.request("GET", "/mesh/v1/traces")["traces"][0]
    assert newest["traceId"] not in (T, T[::-1])
    assert len(whole(api, newest["traceId"], 4)) == 4
    api.close()


def otlp_spans(receiver: Receiver) -> list[tuple[str, Any]]:
    """(service, span) of everything that was sent."""
    found = []
    for request in list(receiver.requests):
        for of_resource in request.resource_spans:
            about = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            found += [(about["service.name"], span) for scope in of_resource.scope_spans for span in scope.spans]
    return found


def test_another_backend_gets_one_connected_trace_of_three_services(demo: Demo, receiver: Receiver) -> None:
    demo.demo("--detach")
    port = int(receiver.url.split(":")[2].partition("/")[0])
    otlp = {"service": "127.0.0.1", "port": port, "http": {"path": "/v1/traces", "headers": [{"name": "x-key", "value": "k"}]}}
    mesh = {"extensionProviders": [{"name": "jaeger", "opentelemetry": otlp}], "defaultProviders": {"tracing": ["jaeger"]}}
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": yaml.safe_dump(mesh)},
    }
    api = demo.api()
    api.request("POST", "/api/v1/namespaces/istio-system/configmaps", body=body)
    sent = 0

    def complete() -> str:
        """A trace of which all four spans are here."""
        nonlocal sent
        sent += 1
        assert get(demo.url, traceparent=f"00-{sent:032x}-{S}-01") == 200
        counts = Counter(span.trace_id.hex() for _, span in otlp_spans(receiver))
        return next((trace for trace, count in counts.items() if count == 4), "")

    wait_until(complete, 60, "four spans of one trace at the backend")
    trace = complete()
    spans = {span.parent_span_id.hex(): (service, span) for service, span in otlp_spans(receiver) if span.trace_id.hex() == trace}
    walk, parent = [], S
    while parent in spans:
        service, span = spans[parent]
        walk.append(service)
        parent = span.span_id.hex()
    assert walk == [
        "istio-ingressgateway.istio-system",
        "book-service.default",
        "book-service.default",
        "rating-service.default",
    ]
    assert {headers["x-key"] for headers in receiver.headers} == {"k"}
    assert not any("authorization" in headers for headers in receiver.headers)  # the mesh's token goes to control only
    api.close()


# -- one sidecar


class Traced(Config):
    def __init__(self, exporter: str) -> None:
        super().__init__()
        self.telemetry = Telemetry(tracing=(Tracing(sampling=100.0, exporter=exporter),))

    def resources(self) -> list[tuple[str, Model]]:
        return [*super().resources(), ("telemetry", self.telemetry)]


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App() as app:
        yield app


def outcomes(sidecar: Sidecar, outcome: str) -> float:
    return sidecar.metrics("mesh_trace_spans_total", outcome=outcome)


GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"


def test_workers_send_their_own_spans(app: App, receiver: Receiver) -> None:
    with Sidecar(Traced(receiver.url).service("app", app.address), "--concurrency", "2", drain=5, own_group=True) as sidecar:
        for _ in range(20):
            with sidecar.client() as client:
                assert client.ask(GET).status == 200
        wait_until(lambda: len(otlp_spans(receiver)) == 20, 30, "every span at the backend")
        wait_until(lambda: outcomes(sidecar, "exported") == 20, 30, "every span counted")


def test_a_backend_that_is_down_disturbs_nothing(app: App) -> None:
    with (
        Sidecar(Traced("http://127.0.0.1:9/v1/traces").service("app", app.address), drain=5) as sidecar,
        sidecar.client() as client,
    ):
        for _ in range(20):
            assert client.ask(GET).status == 200
        wait_until(lambda: outcomes(sidecar, "failed") == 20, 60, "the loss is counted")
        assert client.ask(GET).status == 200
