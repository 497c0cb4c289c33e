"""Pools by server name, and the plan that says when they are needed."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.cluster.cluster import Cluster as Live
from meshproxy.cluster.endpoint import Endpoint as Named
from meshproxy.message.reason import Reason
from meshproxy.model.cluster import Cluster, Endpoint, LoadBalancer
from meshproxy.model.security import ClientTls
from meshproxy.upstream import names
from meshproxy.upstream.names import NamedPools
from meshproxy.upstream.plan import mesh_name, plan_of
from meshproxy.upstream.pool import Pool

SIMPLE, MUTUAL = ClientTls(mode="SIMPLE"), ClientTls(mode="MUTUAL", secret="me")
ISTIO, AUTO = ClientTls(mode="ISTIO_MUTUAL"), ClientTls()


class Waiter:
    def __init__(self, authority: bytes) -> None:
        self.authority = authority
        self.leased: Any = None

    def on_leased(self, connection: Any, now: float) -> None:
        self.leased = connection

    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self.leased = reason


class Connection:
    served, idle_since, opened, expires = 0, 0.0, 0.0, 0.0

    def __init__(self) -> None:
        self.closed = False

    def usable(self, now: float) -> bool:
        return not self.closed

    def close(self) -> None:
        self.closed = True


class Net:
    """Dials that a test answers."""

    def __init__(self) -> None:
        self.dials: list[Pool] = []
        self.cluster = Live(Cluster(name="c", tls=SIMPLE), [Endpoint(address="10.0.0.1", port=443)])
        self.endpoint = self.cluster.endpoints[0]
        self.pools = NamedPools("plan", lambda name: Pool(self.cluster, self.endpoint, self, "plan", name))

    def dial(self, pool: Pool) -> None:
        self.dials.append(pool)

    def get(self, host: bytes) -> tuple[Pool, Any]:
        waiter = Waiter(host)
        assert self.pools.acquire(waiter, 0.0) is None
        pool = self.dials.pop()
        pool.connected(Connection(), 0.0)
        return pool, waiter.leased


def test_each_name_has_its_own_connections() -> None:
    net = Net()
    pool, one = net.get(b"A.example:443")
    assert (pool.name, pool.plan) == ("a.example", "plan")
    pool.released(one, True, 0.0)
    _, other = net.get(b"b.example")
    assert other is not one and net.pools.total == 2 and net.pools.idle == [one]
    assert net.pools.acquire(Waiter(b"a.example"), 0.0) is one


def test_who_stops_waiting_is_forgotten_everywhere() -> None:
    net = Net()
    waiter = Waiter(b"a")
    net.pools.acquire(waiter, 0.0)
    net.pools.cancel(waiter)
    net.dials[0].dial_failed(Reason.CONNECT_FAILURE, "", 0.0)
    assert waiter.leased is None and net.cluster.limits.idle


def test_the_number_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "LIMIT", 4)
    net = Net()
    held = [net.get(b"h%d" % number) for number in range(4)]
    assert net.pools.acquire(Waiter(b"more"), 0.0) is Reason.OVERFLOW  # all of them are in use
    pool, connection = held[0]
    pool.released(connection, True, 0.0)
    net.get(b"more")
    assert connection.closed and net.pools.total == 4


def test_what_is_retired_stays_so_for_new_names() -> None:
    net = Net()
    pool, connection = net.get(b"a")
    net.pools.retire()
    pool.released(connection, True, 0.0)
    assert connection.closed
    pool, connection = net.get(b"b")
    pool.released(connection, True, 0.0)
    assert connection.closed and net.cluster.limits.idle


def test_idle_connections_are_swept_under_every_name() -> None:
    net = Net()
    pool, connection = net.get(b"a")
    pool.released(connection, True, 0.0)
    net.pools.sweep(10.0, 5.0)
    assert connection.closed and not net.pools.idle


@pytest.mark.parametrize(
    ("tls", "address", "mtls", "more", "mesh", "name"),
    [
        (None, "10.0.0.1", True, {}, None, None),
        (AUTO, "10.0.0.1", False, {}, None, None),
        (AUTO, "10.0.0.1", True, {}, True, "outbound_.8080_.v1_.rating.default.svc.cluster.local"),
        (ISTIO, "10.0.0.1", False, {}, True, "outbound_.8080_.v1_.rating.default.svc.cluster.local"),
        (ClientTls(mode="ISTIO_MUTUAL", sni="own"), "10.0.0.1", False, {}, True, "own"),
        (SIMPLE, "10.0.0.1", True, {}, False, None),  # the request's host
        (SIMPLE, "api.example", False, {}, False, "api.example"),
        (MUTUAL, "api.example", False, {"type": "DNS"}, False, None),  # its answers will be addresses
        (SIMPLE, "10.0.0.1", False, {"type": "PASSTHROUGH"}, False, "10.0.0.1"),
        (SIMPLE, "10.0.0.1", False, {"lb": LoadBalancer(policy="PASSTHROUGH")}, False, "10.0.0.1"),
        (ClientTls(mode="SIMPLE", sni="own"), "api.example", False, {}, False, "own"),
    ],
)
def test_plans(tls: ClientTls | None, address: str, mtls: bool, more: Any, mesh: bool | None, name: str | None) -> None:
    config = Cluster(name="outbound|8080|v1|rating.default.svc.cluster.local", tls=tls, **more)
    cluster = Live(config, [Endpoint(address=address, port=443, mtls=mtls)])
    plan = plan_of(cluster, cluster.endpoints[0], lambda tls: f"context of {tls.mode}")
    if plan is None:
        assert mesh is None
    else:
        assert (plan.mesh, plan.name) == (mesh, name)
        assert plan.context == (None if mesh else f"context of {config.tls.mode}")  # type: ignore[union-attr]


def test_an_endpoint_that_is_named_by_its_address_is_spoken_to_as_control_says_of_it() -> None:
    config = Cluster(name="outbound|80||db", tls=AUTO, lb=LoadBalancer(policy="PASSTHROUGH"))
    cluster = Live(config, [Endpoint(address="10.0.0.1", port=80, mtls=True)])
    known, other = Named("10.0.0.1", 80), Named("10.0.0.2", 80)
    assert plan_of(cluster, known, lambda tls: None) is not None
    assert plan_of(cluster, other, lambda tls: None) is None


def test_a_cluster_of_another_kind_is_asked_for_by_its_endpoint() -> None:
    cluster = Live(Cluster(name="PassthroughCluster"), [Endpoint(address="10.0.0.1", port=80)])
    assert mesh_name("PassthroughCluster", cluster.endpoints[0]) == "outbound_.80_._.10.0.0.1"
