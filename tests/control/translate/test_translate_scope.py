"""Scope: exportTo of services, the Sidecar resource, and which client shares its configuration with which."""

from __future__ import annotations

import pytest
from world_objects import View, client, event, mesh_object, pod, service, slices, to, virtual_service

from control.translate import Translator, proxy_of
from control.translate.scope import parse_egress
from control.world import World


def sidecar(hosts: list[str] | None = None, *, name: str = "default", namespace: str = "default", **spec: object) -> dict:
    if hosts is not None:
        spec["egress"] = [{"hosts": hosts}]
    return mesh_object("Sidecar", name, spec, namespace)


OBJS = [service("a"), service("b"), service("c", namespace="shop"), service("c", namespace="other")]


def hosts(view: View, port: str = "8080") -> list[str]:
    if port not in view.names("route"):
        return []
    names = [v.name.removesuffix(".svc.cluster.local:" + port) for v in view.config(port).virtual_hosts]
    return [n for n in names if "." in n]


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        (None, ["a.default", "b.default", "c.other", "c.shop"]),
        (["*/*"], ["a.default", "b.default", "c.other", "c.shop"]),
        (["./*"], ["a.default", "b.default"]),
        (["./*", "shop/*"], ["a.default", "b.default", "c.shop"]),
        (["./a.default.svc.cluster.local"], ["a.default"]),
        (["*/c.shop.svc.cluster.local"], ["c.shop"]),
        (["shop/*.svc.cluster.local"], ["c.shop"]),
        (["~/*"], []),
        (["other/a.default.svc.cluster.local"], []),
    ],
)
def test_egress_hosts(egress, expected):
    assert hosts(client([*OBJS, sidecar(egress)] if egress is not None else OBJS)) == expected


def test_services_out_of_scope_have_no_clusters():
    view = client([*OBJS, sidecar(["./a.default.svc.cluster.local"])])
    assert view.names("cluster") == [
        "BlackHoleCluster",
        "PassthroughCluster",
        "outbound|8080||a.default.svc.cluster.local",
    ]


def test_an_egress_listener_with_a_port_imports_that_port_only():
    two = service("a", ports=[{"name": "http-1", "port": 8080}, {"name": "http-2", "port": 9090}])
    spec = {"egress": [{"port": {"number": 9090, "protocol": "HTTP", "name": "x"}, "hosts": ["./*"]}]}
    view = client([two, service("b"), mesh_object("Sidecar", "s", spec)])
    assert (hosts(view), hosts(view, "9090")) == ([], ["a.default"])


def test_a_selector_beats_the_namespace_default_which_beats_the_root_namespace():
    root = sidecar(["~/*"], namespace="istio-system")
    own = sidecar(["./a.default.svc.cluster.local"])
    picked = sidecar(["./b.default.svc.cluster.local"], name="picked", workloadSelector={"labels": {"app": "x"}})
    assert hosts(client([*OBJS, root])) == []
    assert hosts(client([*OBJS, root, own])) == ["a.default"]
    assert hosts(client([*OBJS, root, own, picked], labels={"app": "x"})) == ["b.default"]
    assert hosts(client([*OBJS, root, own, picked], labels={"app": "y"})) == ["a.default"]
    assert hosts(client([*OBJS, own], namespace="shop")) == ["a.default", "b.default", "c.other", "c.shop"]


def test_outbound_traffic_policy():
    view = client([*OBJS, sidecar(["./*"], outboundTrafficPolicy={"mode": "REGISTRY_ONLY"})])
    assert view.listener("outbound").default_policy == "REGISTRY_ONLY"
    assert view.config("8080").virtual_hosts[-1].name == "block_all"


def test_virtual_services_are_imported_by_namespace_and_host():
    vs = virtual_service("v", ["a"], [{"route": [to("b")]}])
    rule = {"outbound|8080||b.default.svc.cluster.local"}
    for egress, imported in (
        (["default/a.default.svc.cluster.local"], True),
        (["default/b.default.svc.cluster.local"], False),
    ):
        view = client([*OBJS, vs, sidecar(egress, namespace="shop")], namespace="shop")
        found = {c for v in view.config("8080").virtual_hosts for r in v.routes for c in [r.source] if c}
        assert bool(found) == imported
        # What an imported rule sends to has a cluster although it may not be called by name.
        assert rule <= set(view.names("cluster"))


@pytest.mark.parametrize(
    ("export_to", "namespace", "visible"),
    [
        ("*", "shop", True),
        (".", "shop", False),
        (".", "default", True),
        ("shop", "shop", True),
        ("shop, x", "else", False),
        ("~", "default", False),
    ],
)
def test_export_to_of_services(export_to, namespace, visible):
    view = client([service("x", annotations={"networking.istio.io/exportTo": export_to})], namespace=namespace)
    assert ("outbound|8080||x.default.svc.cluster.local" in view.names("cluster")) == visible


def test_parse_egress():
    assert parse_egress("./*", "ns") == ("ns", "*")
    assert parse_egress("a.example", "ns") == ("*", "a.example")
    assert parse_egress("~/*", "ns") == ("~", "*")


def test_proxies_of_equal_scope_share_their_layers():
    pods = [pod(f"p{n}", f"10.0.0.{n}", {"n": str(n)}) for n in range(3)]
    vs = virtual_service("v", ["a"], [{"match": [{"sourceLabels": {"n": "2"}}], "route": [to("b")]}])
    translator = Translator()
    world = World.of([*OBJS, *pods, vs])

    def layers(name: str) -> tuple:
        proxy = proxy_of(world, "default", name)
        assert proxy is not None
        return translator.translate(world, proxy).layers

    assert layers("p0")[0] is layers("p1")[0]
    assert layers("p0")[1] is layers("p1")[1]
    assert layers("p0")[0] is not layers("p2")[0]


def test_a_change_out_of_scope_changes_nothing():
    objs = [*OBJS, sidecar(["./*"]), pod("client", "10.0.0.9")]
    world = World.of(objs)
    proxy = proxy_of(world, "default", "client")
    assert proxy is not None
    translator = Translator()
    before = translator.translate(world, proxy)
    for obj in (
        service("new", namespace="shop"),
        slices("c", [("p", "10.1.1.1")], namespace="shop"),
        virtual_service("v", ["c"], [{"route": [to("c")]}], namespace="shop"),
        mesh_object("DestinationRule", "d", {"host": "c", "subsets": [{"name": "v1", "labels": {"a": "b"}}]}, "shop"),
        pod("x", "10.2.2.2", namespace="shop"),
    ):
        world = world.apply([event("ADDED", obj)])
        after = translator.translate(world, proxy)
        assert after.version == before.version
        assert after.layers[0] is before.layers[0]
