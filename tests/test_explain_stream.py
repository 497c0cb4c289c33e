"""Explanations of connections: the same chains, policies and routes that decide them."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.explain import explain, listener_for
from meshproxy.model.cluster import Cluster, Service
from meshproxy.model.security import Operation, Policy, Rule, Source
from meshproxy.model.tcp import Chain
from tests.listener.test_entrance import chain, made, to
from tests.listener.test_entrance_gateway import port, server


def asked(world: Any, url: str, listener: str = "in", **more: Any) -> dict[str, Any]:
    return explain(world.snapshot, listener, {"url": url, **more}, wall=0.0).as_dict()


DB = Chain(
    name="10.96.0.7_5432",
    port=5432,
    addresses=("10.96.0.7",),
    protocol="TCP",
    tcp=(to("other", sni=("a.example",), name="by name"), to("bytes", name="rest")),
    hosts=("db", "db.default"),
)
ANY = Chain(name="passthrough", protocol="TCP", tcp=(to("PassthroughCluster"),))


@pytest.mark.parametrize(
    ("url", "sni", "listener", "cluster"),
    [
        ("tcp://db:5432", "", "10.96.0.7_5432", "bytes"),
        ("tcp://DB.default:5432", "", "10.96.0.7_5432", "bytes"),
        ("tcp://10.96.0.7:5432", "a.example", "10.96.0.7_5432", "other"),
        ("tcp://10.96.0.8:5432", "", "passthrough", "PassthroughCluster"),
        ("tcp://db:5433", "", "passthrough", "PassthroughCluster"),
    ],
)
def test_outbound(url: str, sni: str, listener: str, cluster: str) -> None:
    told = asked(made("outbound", DB, ANY), url, sni=sni)
    assert (told["decision"], told["listener"], told["destinations"][0]["cluster"]) == ("forward", listener, cluster)
    assert "status" not in told and told["route"]["kind"] == "bytes"


def test_nobody_takes_it() -> None:
    told = asked(made("outbound", DB), "tcp://elsewhere:1")
    assert told["decision"] == "no route" and "no chain takes elsewhere and port 1" in told["steps"][0]["reason"]


def test_inbound_by_policies_for_bytes() -> None:
    deny = Policy(name="default/d", action="DENY", rules=(Rule((), (Operation(methods=("GET",), ports=("8080",)),)),))
    world = made("inbound", chain("TCP", "PERMISSIVE"), policies=(deny,))
    told = asked(world, "tcp://app:8080", source="10.0.0.1")
    assert told["decision"] == "denied" and told["because"] == "rule 0 of DENY policy default/d matched"
    assert told["authorization"][0]["matched"]
    strict = made("inbound", chain("TCP", "STRICT"))
    assert asked(strict, "tcp://app:8080")["decision"] == "not let in"
    assert asked(strict, "tcp://app:8080", principal="default/web")["decision"] == "forward"


def test_inbound_http_goes_by_its_port_s_chain() -> None:
    allow = Policy(name="default/a", action="ALLOW", rules=(Rule((Source(principals=("*",)),)),))
    world = made("inbound", chain("HTTP", "PERMISSIVE"), Chain(name="any", tcp=(to("bytes"),)), policies=(allow,))
    assert asked(world, "http://app:8080/")["decision"] == "denied"
    assert asked(world, "http://app:8080/", principal="default/web")["decision"] == "forward"
    with pytest.raises(ValueError, match="port 9090 takes no HTTP here; ask for tcp://host:9090"):
        asked(world, "http://app:9090/")
    with pytest.raises(ValueError, match="is a port of HTTP"):
        asked(world, "tcp://app:8080")
    assert listener_for(world.snapshot, {"url": "tcp://app:8080"}, "inbound") == "in"


@pytest.mark.parametrize("url", ["tcp://db", "tcp://:5432", "tcp://db:x"])
def test_what_is_no_destination(url: str) -> None:
    with pytest.raises(ValueError, match="url: must be"):
        asked(made("outbound", DB), url)


def test_a_chain_by_its_own_name() -> None:
    assert asked(made("outbound", DB, ANY), "tcp://x:1", listener="passthrough")["decision"] == "forward"


def test_a_service_s_name_without_a_chain_of_its_own() -> None:
    world = made("outbound", DB, ANY)
    resources = dict(world.snapshot.resources)
    service = Service(host="rating.default.svc.cluster.local", name="rating", namespace="default")
    resources["cluster"] = {**resources["cluster"], "http": Cluster(name="http", service=service)}
    world.install(resources)
    for name in ("rating", "rating.default", "rating.default.svc.cluster.local"):
        (first, *_) = asked(world, f"tcp://{name}:5432")["steps"]
        assert "a service has it, but none of bytes at port 5432 that is reached by name: ask by its address" in first["reason"]
    (first, *_) = asked(world, "tcp://nobody:5432")["steps"]
    assert "a service has it" not in first["reason"]


@pytest.mark.parametrize(
    ("sni", "decision", "cluster"),
    [
        ("raw.example", "forward", "other"),
        ("db.example", "forward", "bytes"),
        ("else.example", "not let in", ""),
        ("", "not let in", ""),
    ],
)
def test_a_gateway_s_port_of_tls(sni: str, decision: str, cluster: str) -> None:
    world = port(
        server("web", "web.example"),
        server("db", "db.example", tcp=(to("bytes"),)),
        through=(to("other", sni=("raw.example",)),),
    )
    told = asked(world, "tcp://10.0.0.1:443", sni=sni)
    assert told["decision"] == decision, told
    if cluster:
        assert told["destinations"][0]["cluster"] == cluster
    with pytest.raises(ValueError, match="TLS for web.example ends here and has HTTP in it".replace(".", "[.]")):
        asked(world, "tcp://10.0.0.1:443", sni="web.example")
