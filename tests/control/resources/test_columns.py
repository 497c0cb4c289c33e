"""What ``kubectl get`` prints."""

from __future__ import annotations

from typing import Any

import pytest

from control.resources.columns import human_duration
from control.resources.kinds import KINDS, by_kind

NOW = 1_600_000_000.0
META = {"name": "x", "namespace": "default", "creationTimestamp": "2020-09-13T12:21:40Z"}


def cells(group: str, kind: str, obj: dict[str, Any], wide: bool = False) -> dict[str, Any]:
    table = by_kind(group, kind).columns
    return {c.name: c.value({"metadata": META, **obj}, NOW) for c in table if wide or not c.priority}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 1800, "7h30m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (2 * 86400, "2d"),
        (3 * 86400 + 4 * 3600, "3d4h"),
        (12 * 86400, "12d"),
        (2 * 365 * 86400 + 30 * 86400, "2y30d"),
        (9 * 365 * 86400 + 30 * 86400, "9y"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_pod() -> None:
    pod = {
        "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}], "nodeName": "here"},
        "status": {
            "phase": "Running",
            "podIP": "127.1.0.1",
            "containerStatuses": [
                {"name": "app", "ready": False, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"finishedAt": "2020-09-13T12:26:00Z"}}},
                {"name": "istio-proxy", "ready": True, "restartCount": 0},
            ],
        },
    }  # fmt: skip
    assert cells("", "Pod", pod, wide=True) == {
        "Name": "x",
        "Ready": "1/2",
        "Status": "CrashLoopBackOff",
        "Restarts": "2 (40s ago)",
        "Age": "5m",
        "IP": "127.1.0.1",
        "Node": "here",
        "Nominated Node": "<none>",
        "Readiness Gates": "<none>",
    }
    assert cells("", "Pod", {"spec": {"containers": [{"name": "a"}]}})["Ready"] == "0/1"
    assert cells("", "Pod", {"metadata": {**META, "deletionTimestamp": "x"}})["Status"] == "Terminating"
    done = {"status": {"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]}}
    assert cells("", "Pod", done)["Status"] == "ExitCode:3"


def test_a_native_sidecar_counts() -> None:
    pod = {
        "spec": {
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "init"}],
        },
        "status": {
            "containerStatuses": [{"name": "app", "ready": True}],
            "initContainerStatuses": [{"name": "proxy", "ready": True}, {"name": "init", "ready": True}],
        },
    }
    assert cells("", "Pod", pod)["Ready"] == "2/2"


def test_services() -> None:
    spec = {
        "clusterIP": "10.0.0.1",
        "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
        "selector": {"a": "b"},
    }
    assert cells("", "Service", {"spec": spec}, wide=True) == {
        "Name": "x",
        "Type": "ClusterIP",
        "Cluster-IP": "10.0.0.1",
        "External-IP": "<none>",
        "Port(s)": "80:30080/TCP,53/UDP",
        "Age": "5m",
        "Selector": "a=b",
    }
    assert cells("", "Service", {"spec": {"type": "LoadBalancer"}})["External-IP"] == "<pending>"
    assert cells("", "Service", {"spec": {"type": "ExternalName", "externalName": "a.com"}})["External-IP"] == "a.com"
    balanced = {
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "127.1.0.10"}, {"hostname": "h"}]}},
    }
    assert cells("", "Service", balanced)["External-IP"] == "127.1.0.10,h"


def test_istio_kinds() -> None:
    net = "networking.istio.io"
    assert cells(net, "VirtualService", {"spec": {"hosts": ["rating"], "gateways": ["a", "b"]}}) == {
        "Name": "x",
        "Gateways": '["a","b"]',
        "Hosts": '["rating"]',
        "Age": "5m",
    }
    assert cells(net, "VirtualService", {})["Gateways"] == ""
    assert cells(net, "DestinationRule", {"spec": {"host": "rating"}}) == {"Name": "x", "Host": "rating", "Age": "5m"}
    assert cells(net, "Gateway", {}) == {"Name": "x", "Age": "5m"}
    entry = {"spec": {"hosts": ["a.com"], "location": "MESH_EXTERNAL", "resolution": "DNS"}}
    assert list(cells(net, "ServiceEntry", entry).values()) == ["x", '["a.com"]', "MESH_EXTERNAL", "DNS", "5m"]
    assert cells("security.istio.io", "PeerAuthentication", {"spec": {"mtls": {"mode": "STRICT"}}})["Mode"] == "STRICT"


def test_the_rest_of_core() -> None:
    assert cells("", "Namespace", {})["Status"] == "Active"
    assert cells("", "ConfigMap", {"data": {"a": ""}, "binaryData": {"b": ""}})["Data"] == 2
    assert cells("", "Secret", {"type": "kubernetes.io/tls", "data": {"a": ""}}) == {
        "Name": "x",
        "Type": "kubernetes.io/tls",
        "Data": 1,
        "Age": "5m",
    }
    subsets = [{"addresses": [{"ip": f"1.0.0.{i}"} for i in range(5)], "ports": [{"port": 80}]}]
    assert cells("", "Endpoints", {"subsets": subsets})["Endpoints"] == "1.0.0.0:80,1.0.0.1:80,1.0.0.2:80 + 2 more..."
    found = cells(
        "discovery.k8s.io",
        "EndpointSlice",
        {"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}]},
    )
    assert found == {"Name": "x", "AddressType": "IPv4", "Ports": "80", "Endpoints": "1.1.1.1", "Age": "5m"}
    assert cells("discovery.k8s.io", "EndpointSlice", {"endpoints": None, "ports": None})["Endpoints"] == "<unset>"
    assert cells("apps", "Deployment", {"spec": {"replicas": 3}, "status": {"readyReplicas": 1}})["Ready"] == "1/3"
    event = {
        "lastTimestamp": "2020-09-13T12:26:30Z",
        "type": "Normal",
        "reason": "Started",
        "message": "ok\n",
        "involvedObject": {"kind": "Pod", "name": "a"},
    }
    assert list(cells("", "Event", event).values()) == ["10s", "Normal", "Started", "pod/a", "ok"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
@pytest.mark.parametrize(
    "obj", [{}, {"metadata": {}}, {"metadata": {"creationTimestamp": "?"}, "spec": None, "status": None, "data": None}]
)
def test_a_poor_object_still_prints(kind: Any, obj: dict[str, Any]) -> None:
    for column in kind.columns:
        assert isinstance(column.value(obj, NOW), (str, int))
