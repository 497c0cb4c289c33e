"""Chains: which connections that iptables sends to a sidecar belong together, whom they go to, and that the proxy takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from obeyed import compiled
from world_objects import Obj, View, mesh_object, pod, service, slices, to

from control.world import MeshSettings
from meshproxy.model.cluster import Endpoints
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


def test_bytes_by_tcp_rules() -> None:
    rules = [
        {"match": [{"destinationSubnets": ["10.96.0.0/30"], "sourceLabels": {"app": "x"}}], "route": [to("a")]},
        {"match": [{"destinationSubnets": ["10.96.0.7"]}, {"port": 9}], "route": [to("b", weight=1), to("db", weight=3)]},
        {"match": [{"gateways": ["default/gw"]}], "route": [to("a")]},
    ]
    objs = [
        service("a", ports=named(5432, "tcp")),
        service("b", ports=named(5432, "tcp")),
        service("db", ports=named(5432, "tcp"), cluster_ip="10.96.0.7"),
        service("db2", ports=named(5432, "tcp"), cluster_ip="10.96.0.8"),
        mesh_object("VirtualService", "v", {"hosts": ["db"], "tcp": rules}),
        mesh_object("VirtualService", "w", {"hosts": ["db2"], "tcp": [{"route": [to("a")]}, {"route": [to("b")]}]}),
    ]
    view = see(*objs)
    assert goes(view, "10.96.0.7", 5432) == f"{of('b', 5432)},{of('db', 5432)}"
    assert chains(view)["10.96.0.7_5432"].tcp[0].source == "VirtualService default/v tcp[1]"
    assert len(chains(view)["10.96.0.7_5432"].tcp) == 2  # the other rules are for others
    assert goes(view, "10.96.0.8", 5432) == of("a", 5432)
    assert len(chains(see(*objs, labels={"app": "x"}))["10.96.0.7_5432"].tcp) == 3


def test_tls_by_name_and_by_rules() -> None:
    rules = [{"match": [{"sniHosts": ["c.example"], "port": 443}], "route": [to("a.example", port=443)]}]
    view = see(
        entry("a", "a.example", port=443, protocol="TLS"),
        entry("wild", "*.wild.example", port=443, protocol="HTTPS", resolution="NONE"),
        entry("c", "c.example", port=443, protocol="TLS"),
        entry("vip", "vip.example", port=443, protocol="TLS", addresses=["240.0.0.1"]),
        mesh_object("VirtualService", "v", {"hosts": ["c.example"], "tls": rules}),
    )
    asked = ("a.example", "x.wild.example", "c.example", "other.example", "")
    found = [goes(view, "1.2.3.4", 443, name) for name in asked]
    assert found == [of("a.example", 443), "outbound|443||*.wild.example", of("a.example", 443), ALLOW, ALLOW]
    assert goes(view, "240.0.0.1", 443, "whatever.example") == of("vip.example", 443)
    assert chains(view)["0.0.0.0_443"].protocol == "TCP"


def test_external_services_of_bytes_by_block_and_without_address() -> None:
    view = see(
        entry("block", "block.example", port=27018, protocol="TCP", addresses=["10.1.0.0/16", "10.2.0.1"], resolution="NONE"),
        entry("whole", "whole.example", port=27018, protocol="MONGO"),
        entry("http", "http.example", port=9000, protocol="HTTP"),
        entry("bytes", "bytes.example", port=9000, protocol="TCP"),
    )
    addresses = ("10.1.9.9", "10.2.0.1", "10.2.0.2")
    assert [goes(view, address, 27018) for address in addresses] == [
        of("block.example", 27018),
        of("block.example", 27018),
        of("whole.example", 27018),
    ]
    assert chains(view)["10.1.0.0/16_27018"].addresses == ("10.1.0.0/16", "10.2.0.1")
    mixed = chains(view)["0.0.0.0_9000"]
    assert (mixed.protocol, mixed.route, mixed.tcp[0].clusters[0].cluster) == ("AUTO", "9000", of("bytes.example", 9000))


def test_of_two_that_claim_a_place_the_older_has_it_and_the_other_is_told() -> None:
    def one(name: str, created: str) -> Obj:
        found = entry(name, f"{name}.example", port=5432, protocol="TCP")
        return {**found, "metadata": {**found["metadata"], "creationTimestamp": created}}

    view = see(one("a", "2026-01-02T00:00:00Z"), one("z", "2026-01-01T00:00:00Z"))
    assert goes(view, "9.9.9.9", 5432) == of("z.example", 5432)
    assert view.problems == [
        'ServiceEntry default/a port 5432: "a.example" has no address of its own, as "z.example" has, which is older:'
        " connections go there"
    ]


def test_an_ipv6_pod_is_met_on_both_families() -> None:
    objs = [service("db", ports=named(5432, "tcp"), cluster_ip="fd96::7")]
    view = View([*objs, pod("client", "fd00::9", annotations=REDIRECT)], ("default", "client"))
    assert view.listener("outbound").bind == "::" == view.listener("virtualInbound").bind
    assert goes(view, "fd96::7", 5432) == of("db", 5432)


def test_an_injected_pod_is_known_by_its_init_container() -> None:
    injected = pod("client", "10.9.9.9")
    injected["spec"]["initContainers"] = [{"name": "istio-init", "image": "mesh"}]
    assert View([injected], ("default", "client")).listener("outbound").bind == "0.0.0.0"
    injected["metadata"]["annotations"] = {"sidecar.istio.io/interceptionMode": "NONE"}
    assert View([injected], ("default", "client")).listener("outbound").chains == ()


def test_without_interception_bytes_are_reached_by_name_and_http_stays_as_it_was() -> None:
    db = service("db", ports=[*named(5432, "tcp"), {"name": "https", "port": 443}])
    objs = [service("a"), db, service("db2", ports=named(5432, "tcp"))]
    view = View([*objs, pod("client", "10.9.9.9")], ("default", "client"))
    found = chains(view)
    assert list(found) == [
        f"{name}.default.svc.cluster.local_{port}" for name, port in (("db", 5432), ("db", 443), ("db2", 5432))
    ]
    chain = found["db.default.svc.cluster.local_5432"]
    assert chain.by_name and chain.addresses == () and {"db", "db.default", "db.default.svc.cluster.local"} <= set(chain.hosts)
    assert goes(view, "10.1.1.1", 5432) == "-"
    plain = View([service("a"), pod("client", "10.9.9.9")], ("default", "client"))
    assert plain.listener("outbound").chains == ()


# -- inbound -------------------------------------------------------------------------------------------------------------

APP = {"app": "a"}


def inside(*objs: Obj, annotations: Mapping[str, str] | None = None) -> View:
    view = View([*objs, pod("a-1", "10.0.0.1", APP, annotations={**REDIRECT, **(annotations or {})})], ("default", "a-1"))
    compiled(view.snapshot)
    return view


def security(kind: str, **spec: Any) -> Obj:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": "p", "namespace": "default"},
        "spec": spec,
    }


def test_inbound_has_a_chain_per_target_port_and_one_for_the_rest() -> None:
    ports = [
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "tcp", "port": 5432},
        {"port": 7000, "name": "x"},
        {"name": "udp", "port": 53, "protocol": "UDP"},
    ]
    view = inside(service("a", APP, ports))
    found = chains(view, "virtualInbound")
    assert {
        name.replace("|", "-").rpartition("-")[2]: (chain.port, chain.protocol, chain.route) for name, chain in found.items()
    } == {
        "8080": (8080, "HTTP", "inbound|8080"),
        "5432": (5432, "TCP", ""),
        "7000": (7000, "AUTO", "inbound|7000"),
        "catchall": (0, "AUTO", "inbound|passthrough"),
    }
    assert {chain.mtls for chain in found.values()} == {"PERMISSIVE"}
    cluster = view.cluster("inbound|8080||")
    assert (cluster.type, cluster.bind, cluster.service and cluster.service.name) == ("PASSTHROUGH", "127.0.0.6", "a")
    assert view.cluster("InboundPassthroughCluster").bind == "127.0.0.6"
    assert view.listener("virtualInbound").port == 15006


def test_services_that_do_not_agree() -> None:
    older = service("b", APP, named(8080, "tcp"), created="2026-01-01T00:00:00Z")
    view = inside(older, service("a", APP, created="2026-01-02T00:00:00Z"))
    assert chains(view, "virtualInbound")["inbound|8080"].protocol == "AUTO"
    assert view.problems == [
        'Service default/a port 8080: port 8080 of its pods is TCP by "b", which is older, and HTTP by this: each connection\'s'
        " first bytes decide"
    ]


def test_mutual_tls_by_port_also_where_no_service_is() -> None:
    policy = security(
        "PeerAuthentication",
        selector={"matchLabels": APP},
        mtls={"mode": "STRICT"},
        portLevelMtls={"5432": {"mode": "DISABLE"}, "9000": {"mode": "PERMISSIVE"}, "9001": {"mode": "STRICT"}},
    )
    found = chains(inside(service("a", APP, named(5432, "tcp")), policy), "virtualInbound")
    assert {chain.port: chain.mtls for chain in found.values()} == {5432: "DISABLE", 9000: "PERMISSIVE", 0: "STRICT"}


def test_ports_that_are_not_intercepted_have_no_chain() -> None:
    view = inside(service("a", APP), annotations={"traffic.sidecar.istio.io/excludeInboundPorts": "8080, 1"})
    assert list(chains(view, "virtualInbound")) == ["virtualInbound-catchall"]


def test_a_sidecar_s_ingress_says_where_the_app_is() -> None:
    ingress = [
        {"port": {"number": 8080, "protocol": "HTTP", "name": "a"}, "defaultEndpoint": "127.0.0.1:9080"},
        {"port": {"number": 5432, "protocol": "TCP", "name": "b"}, "defaultEndpoint": "0.0.0.0:6432"},
        {"port": {"number": 7000, "protocol": "TCP", "name": "c"}, "defaultEndpoint": "unix:///tmp/x"},
        {"port": {"number": 7001, "protocol": "TCP", "name": "d"}, "connectionPool": {"tcp": {"maxConnections": 3}}},
    ]
    scope = mesh_object("Sidecar", "s", {"ingress": ingress, "inboundConnectionPool": {"tcp": {"maxConnections": 9}}})
    view = inside(service("a", APP), service("other", APP, named(1234, "tcp")), scope)
    assert sorted(chain.port for chain in chains(view, "virtualInbound").values()) == [0, 5432, 7000, 7001, 8080]
    assert (view.endpoints("inbound|8080||"), view.cluster("inbound|8080||").bind) == (["127.0.0.1:9080"], "")
    assert (view.endpoints("inbound|5432||"), view.cluster("inbound|5432||").bind) == (["10.0.0.1:6432"], "127.0.0.6")
    assert view.endpoints("inbound|7000||") == []
    limits = {port: view.cluster(f"inbound|{port}||").pool.max_connections for port in (8080, 7001)}
    assert limits == {8080: 9, 7001: 3}
    assert view.problems == ["Sidecar default/s ingress[2].defaultEndpoint: Unix sockets are not dialed: every call is refused"]


def test_without_interception_a_port_of_bytes_has_a_listener_of_its_own() -> None:
    app = pod("a-1", "10.0.0.1", APP, annotations={"mesh.dev/inbound-ports": "5432:6432"})
    view = View([service("a", APP, named(5432, "tcp")), app], ("default", "a-1"))
    compiled(view.snapshot)
    (chain,) = view.listener("inbound|5432").chains
    assert (chain.port, chain.protocol, chain.mtls, view.listener("inbound|5432").port) == (5432, "TCP", "PERMISSIVE", 5432)
    assert view.endpoints("inbound|5432||") == ["10.0.0.1:6432"]


# -- settings ------------------------------------------------------------------------------------------------------------


def test_the_mesh_s_settings_of_interception() -> None:
    text = "protocolDetectionTimeout: 5s\nproxyListenPort: 16001\nproxyInboundListenPort: 16006\n"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}}
    view = inside(service("a", APP), {**config, "data": {"mesh": text}})
    outbound, inbound = view.listener("outbound"), view.listener("virtualInbound")
    assert (outbound.port, inbound.port, outbound.detection_timeout, inbound.detection_timeout) == (16001, 16006, 5.0, 5.0)
    forever = inside(service("a", APP), {**config, "data": {"mesh": "protocolDetectionTimeout: 0s\n"}})
    assert forever.listener("virtualInbound").detection_timeout == 0.0


@pytest.mark.parametrize(
    ("notes", "mtls"),
    [
        ({}, True),
        ({"traffic.sidecar.istio.io/excludeInboundPorts": "5432"}, False),
        ({"traffic.sidecar.istio.io/includeInboundPorts": "8080"}, False),
        ({"traffic.sidecar.istio.io/includeInboundPorts": "8080,5432"}, True),
        ({"traffic.sidecar.istio.io/includeInboundPorts": "*"}, True),
    ],
)
def test_callers_do_not_begin_mutual_tls_where_the_sidecar_is_bypassed(notes: dict[str, str], mtls: bool) -> None:
    app = pod("db-0", "10.0.0.1", {"app": "db", "security.istio.io/tlsMode": "istio"}, annotations={**REDIRECT, **notes})
    db = service("db", ports=named(5432, "tcp"), cluster_ip="10.96.0.7")
    view = see(db, slices("db", [("db-0", "10.0.0.1")], port=5432, name="tcp"), app)
    found = view.snapshot.get("endpoints", of("db", 5432))
    assert isinstance(found, Endpoints) and [one.mtls for one in found.endpoints] == [mtls]
