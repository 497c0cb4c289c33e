"""Outbound: names, ports and protocols of virtual hosts, who speaks for a host, and what happens to unknown hosts."""

from __future__ import annotations

import msgspec
import pytest
from world_objects import client, forward, mesh_object, service, to, virtual_service

from control.translate.outbound import domains_of
from control.world import MeshSettings
from meshproxy.model.base import encode, fingerprint
from meshproxy.model.route import DirectResponse

A = "outbound|8080||a.default.svc.cluster.local"


def domains(view, name: str, config: str = "8080") -> tuple[str, ...]:
    return next(v.domains for v in view.config(config).virtual_hosts if v.name == name)


def test_names_of_a_service_in_its_own_namespace_and_elsewhere():
    objs = [service("a", cluster_ip="10.0.0.7")]
    full = "a.default.svc.cluster.local"
    always = (full, full + ".", "a.default.svc", "a.default")
    assert domains(client(objs), f"{full}:8080") == (*always, "a", "10.0.0.7")
    assert domains(client(objs, namespace="shop"), f"{full}:8080") == (*always, "10.0.0.7")


def test_other_addresses():
    assert domains_of("x.example", ["fd00::1"], "default", "cluster.local") == ("x.example", "x.example.", "[fd00::1]")
    assert domains_of("*.x.example", [], "default", "cluster.local") == ("*.x.example",)
    headless = service("a", cluster_ip="None")
    assert "None" not in domains(client([headless]), "a.default.svc.cluster.local:8080")


def test_a_full_name_beats_another_ones_short_form():
    entry = mesh_object(
        "ServiceEntry",
        "e",
        {"hosts": ["a.default"], "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"},
    )
    view = client([service("a"), entry])
    assert "a.default" not in domains(view, "a.default.svc.cluster.local:8080")
    assert "a.default" in domains(view, "a.default:8080")
    every = [d for v in view.config("8080").virtual_hosts for d in v.domains]
    assert len(every) == len(set(every))


PROTOCOLS = [
    ({"name": "http"}, True),
    ({"name": "http-web"}, True),
    ({"name": "http2"}, True),
    ({"name": "grpc-x"}, True),
    ({"name": "web"}, True),
    ({"name": "tcp-web"}, False),
    ({"name": "https"}, False),
    ({"name": "mysql"}, False),
    ({"name": "tcp", "appProtocol": "http"}, True),
    ({"name": "http", "appProtocol": "tcp"}, False),
    ({"name": "x", "appProtocol": "kubernetes.io/h2c"}, True),
    ({"name": "x", "appProtocol": "kubernetes.io/wss"}, False),
]


@pytest.mark.parametrize(("port", "http"), PROTOCOLS)
def test_only_http_ports_have_routes(port, http):
    view = client([service("a", ports=[{"port": 8080, **port}])])
    assert view.names("route") == (["8080"] if http else [])
    assert view.listener("outbound").route_ports == ((8080,) if http else ())
    assert A in view.names("cluster")


def test_one_route_configuration_per_port():
    view = client([service("a", ports=[{"name": "http-1", "port": 80}, {"name": "http-2", "port": 8080}]), service("b")])
    assert view.names("route") == ["80", "8080"]
    assert view.listener("outbound").route_ports == (80, 8080)
    assert view.targets("a", "80") == [[("outbound|80||a.default.svc.cluster.local", 1)]]
    assert [v.name.partition(".")[0] for v in view.config("80").virtual_hosts] == ["a", "allow_any"]


def test_unknown_hosts_go_straight_through():
    view = client([service("a")])
    last = view.config("8080").virtual_hosts[-1]
    assert (last.name, last.domains, last.routes[0].name) == ("allow_any", ("*",), "allow_any")
    assert forward(last.routes[0]).clusters[0].cluster == "PassthroughCluster"
    assert view.cluster("PassthroughCluster").type == "PASSTHROUGH"
    assert view.listener("outbound").default_policy == "ALLOW_ANY"


def test_unknown_hosts_are_refused():
    view = client([service("a")], mesh=MeshSettings(outbound_policy="REGISTRY_ONLY"))
    last = view.config("8080").virtual_hosts[-1]
    assert (last.name, last.routes[0].name, last.routes[0].action) == (
        "block_all",
        "block_all",
        DirectResponse(status=502),
    )
    assert view.listener("outbound").default_policy == "REGISTRY_ONLY"


RULE_A, RULE_B = [{"route": [to("a")]}], [{"route": [to("b")]}]
B = "outbound|8080||b.default.svc.cluster.local"


def test_only_the_oldest_virtual_service_of_a_host_counts():
    old = virtual_service("z", ["a"], RULE_B, created="2026-01-01T00:00:00Z")
    young = virtual_service("a", ["a"], RULE_A, created="2026-01-02T00:00:00Z")
    for objs in ([old, young], [young, old]):
        assert client([service("a"), service("b"), *objs]).targets("a") == [[(B, 1)]]


def test_an_exact_host_beats_a_wildcard_and_a_long_wildcard_a_short_one():
    short = virtual_service("short", ["*.cluster.local"], [{"name": "short", "route": [to("b")]}], created="2026-01-01T00:00:00Z")
    long = virtual_service(
        "long", ["*.default.svc.cluster.local"], [{"name": "long", "route": [to("b")]}], created="2026-01-02T00:00:00Z"
    )
    exact = virtual_service("exact", ["a"], [{"name": "exact", "route": [to("b")]}], created="2026-01-03T00:00:00Z")
    two = [service("a"), service("b")]
    for objs, expected in (([short], "short"), ([short, long], "long"), ([short, long, exact], "exact")):
        assert client([*two, *objs]).routes("a")[0].name == expected


def test_a_virtual_service_for_a_host_that_nobody_has():
    alone = virtual_service("v", ["nobody.example"], RULE_A)
    view = client([service("a"), alone])
    assert view.targets("nobody.example", "80") == [[(A, 1)]]
    assert [v.name for v in view.config("8080").virtual_hosts] == ["a.default.svc.cluster.local:8080", "allow_any"]
    # Beside a host that a service has, it is served on that service's ports.
    beside = virtual_service("v", ["a", "nobody.example"], RULE_A)
    view = client([service("a"), beside])
    assert view.names("route") == ["8080"]
    assert view.targets("nobody.example") == [[(A, 1)]]


def test_gateway_only_virtual_services_do_not_concern_sidecars():
    view = client([service("a"), service("b"), virtual_service("v", ["a"], RULE_B, gateways=["gw"])])
    assert view.targets("a") == [[(A, 1)]]


@pytest.mark.parametrize(("export_to", "seen"), [(["*"], True), (["."], False), (["default"], False), (["shop"], True)])
def test_export_to_of_virtual_services(export_to, seen):
    vs = virtual_service("v", ["a"], RULE_B, export_to=export_to)
    view = client([service("a"), service("b"), vs], namespace="shop")
    assert view.targets("a.default") == [[(B if seen else A, 1)]]


def test_route_configurations_are_canonical_bytes():
    view = client([service("a", cluster_ip="10.0.0.1"), service("b"), virtual_service("v", ["a"], RULE_B)])
    assert view.names("route") == ["8080"]
    for key, found in view.snapshot.resources.items():
        # A route configuration is joined from remembered parts; the result must be what an encoder would write.
        assert found.body == encode(msgspec.json.decode(found.body)), key
        assert found.version == fingerprint(found.body)
