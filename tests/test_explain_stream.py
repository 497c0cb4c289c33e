"""Explanations of connections: the same chains, policies and routes that decide them."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.explain import explain, listener_for
from meshproxy.model.security import Operation, Policy, Rule, Source
from meshproxy.model.tcp import Chain
from tests.listener.test_entrance import chain, made, to


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
