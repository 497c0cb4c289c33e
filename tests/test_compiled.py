"""Chains in a configuration: what is refused, and what stays when it is."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.apply import Refused
from meshproxy.model.listener import Listener
from meshproxy.model.route import WeightedCluster
from meshproxy.model.tcp import Chain, TcpRoute
from tests.flow.memnet import GET, World, simple, status_of

TCP = TcpRoute(clusters=(WeightedCluster(cluster="c"),))


def listener(*chains: Chain, direction: Any = "inbound", **fields: Any) -> dict[str, dict[str, Any]]:
    resources = simple()
    resources["listener"] = {"in": Listener(name="in", direction=direction, port=15006, chains=chains, **fields)}
    return resources


BAD: list[tuple[tuple[Chain, ...], str]] = [
    ((Chain(name="a", protocol="HTTP"),), 'chains[0].route: there is no route configuration ""'),
    ((Chain(name="a", route="gone"),), 'chains[0].route: there is no route configuration "gone"'),
    ((Chain(name="a", port=1), Chain(name="a", port=2)), 'chains[1].name: another chain is called "a"'),
    ((Chain(name="a"), Chain(name="b")), "chains[1].addresses: another chain has all of port any already"),
    ((Chain(name="a", port=-1),), "chains[0].port: must be between 0 and 65535, not -1"),
    ((Chain(name="a", idle_timeout=-1),), "chains[0].idle_timeout: must not be negative, not -1"),
    ((Chain(name="a", tcp=(TcpRoute(clusters=()),)),), "chains[0].tcp[0].clusters: a route must forward to at least one cluster"),
]


@pytest.mark.parametrize(("chains", "words"), BAD)
def test_a_chain_that_cannot_be_obeyed_changes_nothing(chains: tuple[Chain, ...], words: str) -> None:
    world = World(listener(Chain(name="good", protocol="TCP", tcp=(TCP,))), "in")
    before = world.snapshot
    with pytest.raises(Refused) as no:
        world.install(listener(*chains))
    assert (no.value.kind, no.value.name, no.value.message) == ("listener", "in", words)
    assert world.snapshot is before


def test_a_source_that_is_no_address() -> None:
    with pytest.raises(Refused) as no:
        World(simple(cluster={"bind": "localhost"}))
    assert str(no.value) == "cluster c: bind: must be an IP address, not 'localhost'"


def test_auto_without_routes_looks_for_no_http() -> None:
    world = World(listener(Chain(name="a", tcp=(TCP,))), "in")
    world.intercepted(("10.0.0.9", 1))
    assert world.dials  # at once


def test_a_chain_without_routes_takes_nobody() -> None:
    world = World(listener(Chain(name="a")), "in")
    assert world.intercepted(("10.0.0.9", 1)).aborted


@pytest.mark.parametrize(
    ("authority", "found"),
    [
        (b"db:5432", True),
        (b"DB:5432", True),
        (b"a.wild.example:5432", True),
        (b"[fd00::7]:5432", True),
        (b"db:5433", False),
        (b"wild.example:5432", False),
    ],
)
def test_connect_by_name(authority: bytes, found: bool) -> None:
    db = Chain(name="db", port=5432, protocol="TCP", tcp=(TCP,), hosts=("db", "*.wild.example", "fd00::7"))
    resources = simple(listener={"chains": (db,), "default_policy": "REGISTRY_ONLY"})
    world = World(resources)
    wire = world.client()
    wire.deliver(b"CONNECT " + authority + b" HTTP/1.1\r\nhost: " + authority + b"\r\n\r\n")
    if not found:
        assert status_of(wire.take()) == 502
        return
    server = world.accept(early=b"220 ready")
    assert wire.take().endswith(b"\r\n\r\n220 ready")
    wire.deliver(b"QUIT")
    assert server.take() == b"QUIT"
    server.deliver(b"bye")
    assert wire.take() == b"bye"
    wire.deliver_eof()
    assert server.eof
    server.deliver_eof()
    assert wire.closing
    server.lose()
    wire.lose()
    world.settled()
    assert world.limits().connections == 0
    assert world.records[0].cluster_name == "c"


def test_connect_tells_of_a_failed_dial() -> None:
    db = Chain(name="db", port=5432, protocol="TCP", tcp=(TCP,), hosts=("db",))
    world = World(simple(listener={"chains": (db,)}))
    wire = world.client()
    wire.deliver(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
    world.refuse()
    assert status_of(wire.take()) == 503
    assert world.limits().connections == 0
    wire.deliver(GET)
    assert world.dials
