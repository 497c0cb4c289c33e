"""Services: what a Service and a ServiceEntry become, and protocol selection (semantics A1)."""

from __future__ import annotations

import pytest
from world_objects import mesh_object, service

from control.world import World
from control.world.services import exported, protocol_of


@pytest.mark.parametrize(
    ("name", "app", "number", "transport", "expected"),
    [
        ("http", "", 80, "TCP", "http"),
        ("HTTP-x", "", 80, "TCP", "http"),
        ("http2-x", "", 80, "TCP", "http2"),
        ("grpc-web", "", 80, "TCP", "grpc-web"),
        ("grpc-webby", "", 80, "TCP", "grpc"),
        ("https-x", "", 80, "TCP", "https"),
        ("httpx", "", 80, "TCP", "auto"),
        ("", "", 80, "TCP", "auto"),
        ("", "", 3306, "TCP", "tcp"),
        ("web", "", 53, "TCP", "tcp"),
        ("http", "", 53, "TCP", "http"),
        ("http", "tcp", 80, "TCP", "tcp"),
        ("x", "kubernetes.io/h2c", 80, "TCP", "http2"),
        ("x", "kubernetes.io/ws", 80, "TCP", "http"),
        ("x", "kubernetes.io/wss", 80, "TCP", "https"),
        ("x", "example.com/own", 80, "TCP", "auto"),
        ("http", "", 80, "UDP", "udp"),
    ],
)
def test_protocol_selection(name, app, number, transport, expected):
    assert protocol_of(name, app, number, transport) == expected


def test_exported():
    assert exported((), "a", "b")
    assert exported(("*",), "a", "b")
    assert exported((".",), "a", "a") and not exported((".",), "a", "b")
    assert exported(("b", "c"), "a", "c")
    assert not exported(("~",), "a", "a")


def test_a_service():
    ports = [
        {"name": "http", "port": 80, "targetPort": "web"},
        {"name": "grpc", "port": 81, "targetPort": 8081},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    found = World.of([service("a", ports=ports, cluster_ip="10.0.0.1")]).service("a.default.svc.cluster.local")
    assert found is not None
    assert [(p.number, p.protocol, p.target, p.http) for p in found.ports] == [
        (80, "http", "web", True),
        (81, "grpc", 8081, True),
    ]
    assert (found.addresses, found.resolution, found.kubernetes, found.external) == (("10.0.0.1",), "EDS", True, False)
    assert found.port(81) is found.ports[1]
    assert found.port(99) is None


def test_an_external_name_is_no_service_of_its_own():
    alias = service("a")
    alias["spec"]["type"] = "ExternalName"
    alias["spec"]["externalName"] = "x.example"
    assert World.of([alias]).config.services == {}


@pytest.mark.parametrize(
    ("resolution", "kind"), [("STATIC", "STATIC"), ("DNS", "DNS"), ("DNS_ROUND_ROBIN", "DNS"), ("NONE", "PASSTHROUGH")]
)
def test_resolutions(resolution, kind):
    spec = {
        "hosts": ["X.example"],
        "ports": [{"number": 80, "name": "any", "protocol": "HTTP"}],
        "resolution": resolution,
        "location": "MESH_INTERNAL",
    }
    if resolution == "STATIC":
        spec["endpoints"] = [{"address": "192.0.2.1"}]
    world = World.of([mesh_object("ServiceEntry", "e", spec)])
    assert world.problems == ()
    found = world.service("x.example")
    assert found is not None
    assert (found.resolution, found.external, found.name) == (kind, False, "x.example")
