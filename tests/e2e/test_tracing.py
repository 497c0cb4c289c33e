"""Traces on a running mesh: one request through gateway, book-service and rating is one connected trace in control's store."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest

from control.client.api import Api
from tests.e2e.test_walkthrough import Demo, demo, wait_until

__all__ = ["demo"]  # the fixture

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
