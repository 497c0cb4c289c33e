"""The scrape configuration for clusters, relabelled by the real Prometheus from what Kubernetes would tell it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.tools.files import prometheus
from tests.e2e.demo_mesh import wait_until
from tests.tools.prometheus_process import PrometheusProcess

pytestmark = pytest.mark.system("prometheus")
POD = "__meta_kubernetes_pod_"


def pod(name: str, container: str, ip: str, namespace: str = "shop", port: str = "", **more: str) -> dict[str, Any]:
    """One container, or one of its ports, as the discovery of role ``pod`` tells it."""
    labels = {
        "__meta_kubernetes_namespace": namespace,
        f"{POD}name": name,
        f"{POD}ip": ip,
        f"{POD}phase": "Running",
        f"{POD}container_name": container,
        f"{POD}container_port_number": port,
        **{f"{POD}{key}": value for key, value in more.items()},
    }
    address = f"[{ip}]" if ":" in ip else ip
    return {"targets": [f"{address}:{port}" if port else address], "labels": {key: text for key, text in labels.items() if text}}


SCRAPE = {"annotation_prometheus_io_scrape": "true", "annotation_prometheus_io_port": "9102"}
MESHED = {**SCRAPE, "annotationpresent_sidecar_istio_io_status": "true", "label_app_kubernetes_io_name": "web"}
PODS = [
    pod("web-1", "web", "127.3.0.1", port="8080", **MESHED),
    pod("web-1", "istio-proxy", "127.3.0.1", port="15020", **MESHED),
    pod("web-1", "istio-proxy", "127.3.0.1", port="15021", **MESHED),  # a port more is no target more
    pod("six", "istio-proxy", "fd00::7", label_service_istio_io_canonical_name="six-app", label_app_kubernetes_io_name="six"),
    pod("done", "istio-proxy", "127.3.0.3", phase="Succeeded"),
    pod("gateway", "istio-proxy", "127.3.0.4", "istio-system", label_istio="ingressgateway", **SCRAPE),
    pod("plain", "app", "127.3.0.5", port="8080", annotation_prometheus_io_path="/own", **SCRAPE),
    pod("plain", "app", "127.3.0.5", port="8081", annotation_prometheus_io_path="/own", **SCRAPE),
    pod("silent", "app", "127.3.0.6", port="8080"),
    pod("istiod-1", "discovery", "127.3.0.8", "istio-system", label_app="istiod", **SCRAPE),
]
ENDPOINTS = [
    {
        "targets": [f"127.3.0.8:{port}"],
        "labels": {
            "__meta_kubernetes_namespace": "istio-system",
            "__meta_kubernetes_service_name": "istiod",
            "__meta_kubernetes_endpoint_port_name": name,
            f"{POD}name": "istiod-1",
        },
    }
    for name, port in (("http-monitoring", 15014), ("https-dns", 15012))
]


@pytest.fixture
def prometheus_there(tmp_path: Path) -> Iterator[PrometheusProcess]:
    """Debian's has no client for Kubernetes: the same jobs, told by files what a cluster would tell."""
    config = yaml.safe_load(prometheus(kubernetes=True))
    for role, found in (("pod", PODS), ("endpoints", ENDPOINTS)):
        (tmp_path / f"{role}.json").write_text(json.dumps(found))
    for job in config["scrape_configs"]:
        (discovery,) = job.pop("kubernetes_sd_configs")
        job["file_sd_configs"] = [{"files": [f"{discovery['role']}.json"]}]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    process = PrometheusProcess(path)
    try:
        process.start()
        yield process
    finally:
        process.stop()


def test_each_pod_is_scraped_once_and_where_its_metrics_are(prometheus_there: PrometheusProcess) -> None:
    def active() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = prometheus_there.get("targets", state="active")["activeTargets"]
        return found

    wait_until(
        lambda: {one["labels"]["job"] for one in active()} == {"mesh-sidecars", "mesh-control", "kubernetes-pods"}, 30, "jobs"
    )
    found = sorted((one["labels"]["job"], one["scrapeUrl"], one["labels"].get("pod")) for one in active())
    assert found == [
        ("kubernetes-pods", "http://127.3.0.5:9102/own", "plain"),
        ("mesh-control", "http://127.3.0.8:15014/metrics", "istiod-1"),
        ("mesh-sidecars", "http://127.3.0.1:15020/stats/prometheus", "web-1"),
        ("mesh-sidecars", "http://127.3.0.4:15020/stats/prometheus", "gateway"),
        ("mesh-sidecars", "http://[fd00::7]:15020/stats/prometheus", "six"),
    ]
    labels = {one["labels"]["pod"]: one["labels"] for one in active()}
    assert (labels["six"]["app"], labels["web-1"]["app"], labels["web-1"]["namespace"]) == ("six-app", "web", "shop")
