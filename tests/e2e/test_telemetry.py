"""Telemetry on a running mesh: a resource changes what sidecars count and log, and control hears what they counted."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

import pytest

from control.demo.plan import Addresses
from tests.e2e.test_walkthrough import Demo, demo, wait_until

__all__ = ["demo"]  # the fixture

pytestmark = pytest.mark.timeout(240)
TELEMETRY: dict[str, Any] = {
    "apiVersion": "telemetry.istio.io/v1",
    "kind": "Telemetry",
    "metadata": {"name": "seen", "namespace": "default"},
    "spec": {
        "metrics": [
            {
                "providers": [{"name": "prometheus"}],
                "overrides": [
                    {
                        "match": {"metric": "REQUEST_COUNT"},
                        "tagOverrides": {"verb": {"value": "request.method"}, "source_cluster": {"operation": "REMOVE"}},
                    },
                    {"match": {"metric": "REQUEST_SIZE"}, "disabled": True},
                ],
            }
        ],
    },
}


def read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{url}", timeout=30) as answer:
        return str(answer.read().decode())


def samples(text: str, name: str) -> list[tuple[str, float]]:
    return [(labels, float(value)) for labels, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.M)]


def test_a_resource_is_obeyed_and_control_hears_what_is_counted(demo: Demo) -> None:
    demo.demo("--detach")
    api = demo.api()
    scrape = f"{demo.pod(1)}:15020/stats/prometheus"
    read(demo.url)
    before = read(scrape)
    assert samples(before, "istio_request_bytes_count") and 'source_cluster="' in before

    api.request("POST", "/apis/telemetry.istio.io/v1/namespaces/default/telemetries", body=TELEMETRY)

    def tagged() -> bool:
        read(demo.url)
        return any('verb="GET"' in labels for labels, _ in samples(read(scrape), "istio_requests_total"))

    wait_until(tagged, 30, "a request counted with its verb")
    text = read(scrape)
    assert not samples(text, "istio_request_bytes_count") and samples(text, "istio_response_bytes_count")
    assert all("source_cluster" not in labels for labels, _ in samples(text, "istio_requests_total") if 'verb="GET"' in labels)
    counted = sum(value for labels, value in samples(text, "istio_requests_total") if 'reporter="destination"' in labels)
    assert counted >= 2  # what came before the change is still there

    def reported() -> bool:
        return all(value > 0 for _, value in samples(read(scrape), "mesh_reports_sent_total"))

    wait_until(reported, 30, "a report that control took")
    control = read(f"{Addresses(demo.base).control}:15014/metrics")
    (taken,) = samples(control, "mesh_reports_total")
    assert taken[1] >= 1 and samples(control, "mesh_reports_refused_total") == [("", 0)]
    api.close()
