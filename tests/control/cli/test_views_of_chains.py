"""What ``proxy-config listener`` and ``x authz check`` show of chains."""

from __future__ import annotations

import json
from typing import Any

from control.cli.authz import facts
from control.cli.proxies import _listener_rows
from meshproxy.model.base import Model, encode
from meshproxy.model.cluster import Cluster, Service
from meshproxy.model.listener import Listener
from meshproxy.model.route import WeightedCluster
from meshproxy.model.security import Policy, Rule, Security, ServerTls
from meshproxy.model.tcp import Chain, TcpRoute


def to(*names: str, **more: Any) -> TcpRoute:
    return TcpRoute(clusters=tuple(WeightedCluster(cluster=name) for name in names), **more)


def shown(listener: Listener) -> list[str]:
    return ["|".join(row) for row in _listener_rows(json.loads(encode(listener)))]


def test_an_intercepting_listener_shows_its_chains() -> None:
    listener = Listener(
        name="outbound",
        direction="outbound",
        port=15001,
        bind="0.0.0.0",
        route_ports=(8080,),
        chains=(
            Chain(name="10.96.0.7_5432", port=5432, addresses=("10.96.0.7",), protocol="TCP", tcp=(to("db"),)),
            Chain(name="0.0.0.0_8080", port=8080, route="8080", tcp=(to("Pass"),)),
            Chain(
                name="0.0.0.0_443",
                port=443,
                protocol="TCP",
                tcp=(to("a", "b", sni=("x.example",), addresses=("10.0.0.0/8",)), to("Pass")),
            ),
            Chain(name="many", port=80, addresses=("10.0.0.1", "10.0.0.2", "10.0.0.3"), protocol="HTTP", route="80"),
            Chain(name="named", port=80, protocol="TCP", tcp=(to("db"),), hosts=("db", "db.default"), by_name=True),
            Chain(name="passthrough", protocol="TCP", tcp=(to("Pass"),)),
        ),
    )
    assert shown(listener) == [
        "outbound|0.0.0.0|15001|outbound|Routes: 8080; else ALLOW_ANY",
        "10.96.0.7_5432|10.96.0.7|5432|TCP|Cluster: db",
        "0.0.0.0_8080|any|8080|AUTO|Route: 8080; Cluster: Pass",
        "0.0.0.0_443|any|443|TCP|SNI: x.example To: 10.0.0.0/8 Cluster: a (1), b (1); Cluster: Pass",
        "many|10.0.0.1, 10.0.0.2 + 1 more|80|HTTP|Route: 80",
        "named|CONNECT db|80|TCP|Cluster: db",
        "passthrough|any|any|TCP|Cluster: Pass",
    ]


def test_a_gateway_shows_its_tls_servers() -> None:
    servers = (ServerTls(hosts=("a.example",), route="https.a"), ServerTls(mode="MUTUAL", route="tls.b", tcp=(to("db"),)))
    assert shown(Listener(name="gateway|443", direction="gateway", port=443, tls=servers, route="https.a")) == [
        "gateway|443|(own)|443|gateway|Route: https.a",
        "gateway|443 TLS|a.example|443|SIMPLE|Route: https.a",
        "gateway|443 TLS|*|443|MUTUAL|Cluster: db",
    ]


def test_what_each_port_demands() -> None:
    listener = Listener(
        name="virtualInbound",
        direction="inbound",
        port=15006,
        chains=(
            Chain(
                name="a", port=5432, protocol="TCP", tcp=(to("inbound|5432||"),), mtls="STRICT", mtls_source="PeerAuthentication"
            ),
            Chain(name="b", port=8080, protocol="HTTP", route="inbound|8080", mtls="PERMISSIVE"),
            Chain(name="c", tcp=(to("Pass"),)),
        ),
    )
    cluster = Cluster(
        name="inbound|5432||", type="PASSTHROUGH", service=Service(host="db.default", name="db", namespace="default")
    )
    security = Security(policies=(Policy(name="default/p", rules=(Rule(),)),))
    found: list[tuple[str, Model]] = [("listener", listener), ("cluster", cluster), ("security", security)]
    told = facts("p", {"resources": [{"kind": kind, "body": json.loads(encode(one))} for kind, one in found]}, every=False)
    assert [(one["listener"], one["route"], one["mtls"], one["rules"]) for one in told["listeners"]] == [
        ("virtualInbound[0]", "inbound|5432|tcp|db.default", "STRICT", 1),
        ("virtualInbound[1]", "inbound|8080|http|", "PERMISSIVE", 1),
        ("virtualInbound[2]", "inbound|*|auto|", "DISABLE", 1),
    ]
    assert [one["alpn"] for one in told["listeners"]] == [
        "istio-peer-exchange,istio",
        "istio,istio-http/1.0,istio-http/1.1",
        "",
    ]
