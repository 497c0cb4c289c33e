"""Probes and metrics through the agent, and back again."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from injector import probes, scrape


def spec(**container: Any) -> dict[str, Any]:
    ports = [{"containerPort": 8080, "name": "http"}]
    return {
        "containers": [
            {"name": "web", "ports": ports, **container},
            {"name": "istio-proxy", "livenessProbe": {"httpGet": {"port": 1}}},
        ]
    }


@pytest.mark.parametrize(
    ("container", "rewritten", "kept"),
    [
        (
            {"readinessProbe": {"httpGet": {"path": "/r", "port": "http", "scheme": "HTTPS", "host": "h"}, "timeoutSeconds": 3, "periodSeconds": 2}},  # noqa: E501
            {"readinessProbe": {"httpGet": {"path": "/app-health/web/readyz", "port": 15020, "scheme": "HTTP"}, "timeoutSeconds": 3, "periodSeconds": 2}},  # noqa: E501
            {"/app-health/web/readyz": {"httpGet": {"path": "/r", "port": 8080, "scheme": "HTTPS", "host": "h"}, "timeoutSeconds": 3}},  # noqa: E501
        ),
        (
            {"livenessProbe": {"tcpSocket": {"port": 5432}}},
            {"livenessProbe": {"httpGet": {"path": "/app-health/web/livez", "port": 15020}}},
            {"/app-health/web/livez": {"tcpSocket": {"port": 5432}}},
        ),
        (
            {"startupProbe": {"grpc": {"port": 9, "service": "s"}}},
            {"startupProbe": {"httpGet": {"path": "/app-health/web/startupz", "port": 15020}}},
            {"/app-health/web/startupz": {"grpc": {"port": 9, "service": "s"}}},
        ),
        (
            {"lifecycle": {"preStop": {"httpGet": {"port": 1}}, "postStart": {"tcpSocket": {"port": "http"}}}},
            {"lifecycle": {
                "preStop": {"httpGet": {"path": "/app-lifecycle/web/prestopz", "port": 15020}},
                "postStart": {"httpGet": {"path": "/app-lifecycle/web/poststartz", "port": 15020}},
            }},
            {
                "/app-lifecycle/web/prestopz": {"httpGet": {"port": 1}},
                "/app-lifecycle/web/poststartz": {"tcpSocket": {"port": 8080}},
            },
        ),
        ({"livenessProbe": {"exec": {"command": ["x"]}}}, {"livenessProbe": {"exec": {"command": ["x"]}}}, {}),
        ({"livenessProbe": {"httpGet": {"port": "nobody"}}}, {"livenessProbe": {"httpGet": {"port": "nobody"}}}, {}),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}, {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}, {}),
    ],
)  # fmt: skip
def test_there_and_back(container: dict[str, Any], rewritten: dict[str, Any], kept: dict[str, Any]) -> None:
    given = spec(**copy.deepcopy(container))
    assert probes.rewrite(given, 15020) == kept
    assert given == spec(**rewritten)
    probes.restore(given, json.dumps(kept))
    if "scheme" not in json.dumps(container):
        again = copy.deepcopy(given)
        assert probes.rewrite(again, 15020) == kept
    else:
        assert given["containers"][0]["readinessProbe"]["httpGet"] == kept["/app-health/web/readyz"]["httpGet"]


def test_what_cannot_be_undone_is_left() -> None:
    given = spec(livenessProbe={"httpGet": {"path": "/app-health/web/livez", "port": 15020}})
    before = copy.deepcopy(given)
    probes.restore(given, "{")
    probes.restore(given, "{}")
    assert given == before


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({}, ""),
        ({"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "prometheus.io/path": "/m"}, {"scrape": "true", "port": "9090", "path": "/m"}),  # noqa: E501
        ({"prometheus_io_port": "9090", "prometheus.io.path": "/m"}, {"port": "9090", "path": "/m"}),
        ({"prometheus.io/scrape": "maybe"}, {"scrape": "maybe"}),
    ],
)  # fmt: skip
def test_metrics_there_and_back(annotations: dict[str, str], said: Any) -> None:
    given = {"other": "x", **annotations}
    found = scrape.point_to_agent(given, 15020)
    assert (json.loads(found) if found else "") == said
    pointing = {"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus"}
    assert given == {"other": "x", **pointing}
    scrape.restore(given, found or None, 15020)
    assert given == {"other": "x", **{f"prometheus.io/{key}": value for key, value in (said or {}).items()}}


@pytest.mark.parametrize("annotations", [{"prometheus.io/scrape": "false"}, {"prometheus.io/port": "15020"}])
def test_metrics_that_are_not_ours(annotations: dict[str, str]) -> None:
    given = dict(annotations)
    assert scrape.point_to_agent(given, 15020) == ""
    scrape.restore(given, None, 15020)
    assert given == annotations
