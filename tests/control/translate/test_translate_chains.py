"""Chains: which connections that iptables sends to a sidecar belong together, whom they go to, and that the proxy takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from obeyed import compiled
from world_objects import Obj, View, mesh_object, pod, service, slices

from control.world import MeshSettings
from meshproxy.model.tcp import Chain

REDIRECT = {"sidecar.istio.io/interceptionMode": "REDIRECT"}
ALLOW, BLOCK = "PassthroughCluster", "BlackHoleCluster"


def see(*objs: Obj, labels: Mapping[str, str] | None = None, mesh: MeshSettings | None = None, **more: Any) -> View:
    view = View([*objs, pod("client", "10.9.9.9", dict(labels or {}), annotations=REDIRECT, **more)], ("default", "client"), mesh)
    compiled(view.snapshot)
    return view


def chains(view: View, listener: str = "outbound") -> dict[str, Chain]:
    return {chain.name: chain for chain in view.listener(listener).chains}


def goes(view: View, address: str, port: int, sni: str = "") -> str:
    """What becomes of bytes that were meant for there: the clusters, or ``-``."""
    chain = compiled(view.snapshot).listeners["outbound"].chains.find(address, port)
    if chain is None:
        return "-"
    route = chain.streams.choose(sni, address)
    return ",".join(name for name, _, _ in route.choices) if route is not None else "-"


def named(port: int, name: str) -> list[Obj]:
    return [{"name": name, "port": port}]


def entry(name: str, *hosts: str, port: int, protocol: str, **spec: Any) -> Obj:
    ports = [{"number": port, "name": protocol.lower(), "protocol": protocol}]
    return mesh_object("ServiceEntry", name, {"hosts": list(hosts), "ports": ports, "resolution": "DNS", **spec})


def of(host: str, port: int) -> str:
    return f"outbound|{port}||{host}" + ("" if "." in host else ".default.svc.cluster.local")


def test_http_ports_share_a_chain_and_bytes_have_one_each() -> None:
    view = see(
        service("a", cluster_ip="10.96.0.1"),
        service("b", cluster_ip="10.96.0.2"),
        service("db", ports=named(5432, "tcp"), cluster_ip="10.96.0.7"),
    )
    found = chains(view)
    assert list(found) == ["10.96.0.7_5432", "0.0.0.0_8080", "http_8080", "passthrough"]
    assert (found["0.0.0.0_8080"].protocol, found["0.0.0.0_8080"].route) == ("AUTO", "8080")
    assert (found["http_8080"].protocol, found["http_8080"].addresses) == ("HTTP", ("10.96.0.1", "10.96.0.2"))
    assert (found["10.96.0.7_5432"].protocol, found["10.96.0.7_5432"].addresses) == ("TCP", ("10.96.0.7",))
    assert goes(view, "10.96.0.7", 5432) == of("db", 5432)
    assert goes(view, "10.1.2.3", 8080) == ALLOW == goes(view, "10.1.2.3", 9)
    assert view.problems == []


def test_nobody_passes_where_only_known_services_may_be_called() -> None:
    view = see(service("a", cluster_ip="10.96.0.1"), mesh=MeshSettings(outbound_policy="REGISTRY_ONLY"))
    assert goes(view, "10.1.2.3", 8080) == BLOCK == goes(view, "10.1.2.3", 9)
    assert view.listener("outbound").bind == "0.0.0.0"


@pytest.mark.parametrize(
    ("name", "protocol", "route"),
    [("", "AUTO", "7000"), ("web", "AUTO", "7000"), ("grpc", "HTTP", "7000"), ("https", "TCP", ""), ("mysql", "TCP", "")],
)
def test_how_a_port_s_name_is_read(name: str, protocol: str, route: str) -> None:
    ports = [{"port": 7000, **({"name": name} if name else {})}]
    chain = chains(see(service("a", ports=ports, cluster_ip="10.96.0.1")))["10.96.0.1_7000"]
    assert (chain.protocol, chain.route) == (protocol, route)
    assert chain.tcp[0].clusters[0].cluster == of("a", 7000)


def test_a_headless_service_of_bytes_has_its_pods_addresses_and_only_that_listener_follows_them() -> None:
    db = service("db", ports=named(5432, "tcp"), cluster_ip="None")
    view = see(db, slices("db", [("db-0", "10.0.0.1"), ("db-1", "10.0.0.2")], port=5432, name="tcp"))
    chain = chains(view)["db.default.svc.cluster.local_5432"]
    assert chain.addresses == ("10.0.0.1", "10.0.0.2")
    assert goes(view, "10.0.0.2", 5432) == of("db", 5432)
    assert view.cluster(of("db", 5432)).lb.policy == "PASSTHROUGH"  # the very pod that was meant
    assert goes(see(db), "10.0.0.2", 5432) == ALLOW
