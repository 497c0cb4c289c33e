"""Gateways for bytes: TCP ports, TLS that passes through by its server name, TLS that ends here with no HTTP in it."""

from __future__ import annotations

from typing import Any

import pytest
from obeyed import compiled
from world_objects import Obj, View, mesh_object, pod, service, to, virtual_service

LABELS = {"istio": "ingressgateway"}
FILES = {"serverCertificate": "/c.pem", "privateKey": "/k.pem"}
DB = "outbound|5432||db.default.svc.cluster.local"
A = "outbound|8080||a.default.svc.cluster.local"


def server(number: int, *hosts: str, protocol: str = "HTTPS", name: str = "", **tls: Any) -> Obj:
    port = {"number": number, "name": name or f"p{number}", "protocol": protocol}
    return {"port": port, "hosts": list(hosts) or ["*"], **({"tls": tls} if tls else {})}


def gateway(name: str, *servers: Obj) -> Obj:
    return mesh_object("Gateway", name, {"selector": LABELS, "servers": list(servers)})


def see(*objs: Obj) -> View:
    proxy = pod("gw", "127.1.0.10", LABELS, namespace="istio-system")
    view = View([service("a"), service("b"), *objs, proxy], ("istio-system", "gw"))
    compiled(view.snapshot)
    return view


def rules(name: str, *hosts: str, created: str = "", namespace: str = "default", **spec: Any) -> Obj:
    return mesh_object("VirtualService", name, {"hosts": list(hosts), "gateways": ["default/gw"], **spec}, namespace, created)


def db(name: str = "db") -> Obj:
    return service(name, ports=[{"name": "tcp", "port": 5432}])


def goes(view: View, listener: str, sni: str = "") -> str:
    chain = compiled(view.snapshot).listeners[listener].chains.find("127.1.0.10", 1)
    route = chain.streams.choose(sni, "127.1.0.10")
    return ",".join(f"{name} {weight}" for name, _, weight in route.choices) if route is not None else "-"


def test_a_tcp_port_goes_by_the_oldest_rule_with_its_weights() -> None:
    split = {"route": [to("db", weight=3), to("db2", weight=1), to("a", weight=0)]}
    view = see(
        db(),
        db("db2"),
        gateway("gw", server(31400, protocol="TCP")),
        rules("young", "*", created="2026-01-02T00:00:00Z", tcp=[{"route": [to("a")]}]),
        rules("old", "*", created="2026-01-01T00:00:00Z", tcp=[{"match": [{"port": 9}], "route": [to("a")]}, split]),
    )
    assert goes(view, "gateway|31400") == f"{DB} 3,{DB.replace('db', 'db2')} 1"
    assert view.names("cluster") == ["BlackHoleCluster", DB, DB.replace("db", "db2")]
    assert view.problems == []


def test_a_tcp_port_that_nobody_routes_is_closed() -> None:
    view = see(gateway("gw", server(31400, protocol="TCP")))
    assert goes(view, "gateway|31400") == "-"
    assert view.problems == ["Gateway default/gw servers[0]: no VirtualService has a tcp rule for it: connections are reset"]


def test_tls_that_passes_through_goes_by_its_name() -> None:
    view = see(
        db(),
        gateway("gw", server(443, "*.example", protocol="TLS", mode="PASSTHROUGH")),
        rules(
            "v",
            "*.example",
            tls=[
                {"match": [{"sniHosts": ["a.example"], "port": 443}], "route": [to("a")]},
                {"match": [{"sniHosts": ["*.b.example"], "sourceLabels": {"x": "y"}}], "route": [to("db")]},
            ],
        ),
    )
    found = [goes(view, "gateway|443", name) for name in ("a.example", "x.b.example", "c.example", "")]
    assert found == [f"{A} 1", f"{DB} 1", "-", "-"]
    assert view.listener("gateway|443").tls == ()


def test_one_port_may_end_tls_for_some_names_and_pass_it_on_for_others() -> None:
    view = see(
        db(),
        gateway(
            "gw",
            server(443, "web.example", name="web", mode="SIMPLE", **FILES),
            server(443, "raw.example", protocol="TLS", name="raw", mode="PASSTHROUGH"),
            server(443, "db.example", protocol="TLS", name="db", mode="MUTUAL", caCertificates="/ca.pem", **FILES),
        ),
        virtual_service("web", ["web.example"], [{"route": [to("a")]}], gateways=["gw"]),
        rules("raw", "raw.example", tls=[{"match": [{"sniHosts": ["raw.example"]}], "route": [to("db")]}]),
        rules("db", "db.example", tcp=[{"route": [to("db")]}]),
    )
    assert view.problems == []
    assert [goes(view, "gateway|443", name) for name in ("raw.example", "web.example", "db.example")] == [f"{DB} 1", "-", "-"]
    listener = compiled(view.snapshot).listeners["gateway|443"]
    web, inner = listener.server_of("web.example"), listener.server_of("db.example")
    assert (web.route, web.tcp) == ("https.443.web.gw.default", ())
    assert (inner.mode, inner.route) == ("MUTUAL", "tls.443.db.gw.default")
    assert [name for name, _, _ in listener.served[inner.route].streams.choose("db.example", "").choices] == [DB]


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("TCP", "TCP", "port 443 is served by Gateway default/gw servers[0] already, and bytes cannot be told apart"),
        ("HTTP", "TCP", "port 443 is HTTP already, by Gateway default/gw servers[0]"),
        ("TCP", "TLS", "port 443 is TCP already, by Gateway default/gw servers[0]"),
    ],
)
def test_what_does_not_go_together(one: str, other: str, why: str) -> None:
    tls = {"mode": "PASSTHROUGH"} if other == "TLS" else {}
    view = see(gateway("gw", server(443, protocol=one, name="a"), server(443, protocol=other, name="b", **tls)))
    assert f"Gateway default/gw servers[1]: {why}: not opened" in view.problems


def test_names_that_the_server_does_not_take_are_left_out() -> None:
    view = see(
        gateway("gw", server(443, "a.example", protocol="TLS", mode="PASSTHROUGH")),
        rules("v", "a.example", "b.example", tls=[{"match": [{"sniHosts": ["b.example"]}], "route": [to("a")]}]),
    )
    assert goes(view, "gateway|443", "b.example") == "-"
    assert view.problems == ["VirtualService default/v tls[0].match[0].sniHosts: none of them is a host of the server: left out"]
