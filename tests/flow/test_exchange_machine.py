"""The exchange under random histories: every request ends once, everything is given back, transitions are the table's, all of
them.

Design section 7, row exchange. The machine is client, network, app and clock at once.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from meshproxy.exchange.exchange import Exchange
from meshproxy.exchange.spec import NAMES, TRANSITIONS
from meshproxy.listener import downstream
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, Outlier
from meshproxy.model.listener import Listener
from meshproxy.model.route import Abort, Delay, Fault, Forward, Retry, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import ExtAuthz, Operation, Policy, Rule, Security
from tests.flow.memnet import World, simple

SEEN: set[tuple[int, int]] = set()


class Watched(Exchange):
    """Records each transition taken."""

    @property  # type: ignore[override]
    def state(self) -> int:
        return self._state

    @state.setter
    def state(self, new: int) -> None:
        old = getattr(self, "_state", None)
        self._state = new
        if old is not None and old != new:
            SEEN.add((old, new))
            assert (old, new) in TRANSITIONS, f"{NAMES[old]} -> {NAMES[new]}"


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream, "Exchange", Watched)


def resources() -> dict[str, dict[str, Any]]:
    forward = Forward(
        clusters=(WeightedCluster(cluster="c"),), timeout=8.0, retry=Retry(attempts=2, on=("5xx",), per_try_timeout=3.0)
    )
    fault = Fault(delay=Delay(seconds=1.0, percent=60.0), abort=Abort(status=418, percent=40.0))
    hosts = (
        VirtualHost(name="rating", domains=("rating",), routes=(Route(name="r", action=forward),)),
        VirtualHost(name="faulty", domains=("faulty",), routes=(Route(name="f", action=forward, fault=fault),)),
        VirtualHost(
            name="missing",
            domains=("missing",),
            routes=(Route(name="m", action=Forward(clusters=(WeightedCluster(cluster="gone"),))),),
        ),
    )
    found = simple(
        endpoints=2,
        cluster={
            "pool": ConnectionPool(max_connections=3, max_pending_requests=3, max_requests=4, max_retries=1),
            "outlier": Outlier(consecutive_5xx=2, max_ejection_percent=100, interval=1.0, base_ejection=2.0),
        },
    )
    found["route"]["8080"] = RouteConfig(name="8080", virtual_hosts=hosts)
    return found


def asking() -> dict[str, dict[str, Any]]:
    """The same at a gateway, where an authoriser is asked about every request, and about bodies too where they are sent whole."""
    found = resources()
    found["listener"]["edge"] = Listener(name="edge", direction="gateway", port=8080, route="8080")
    found["cluster"]["authz"] = Cluster(name="authz", pool=ConnectionPool(max_connections=2, max_pending_requests=1))
    found["endpoints"]["authz"] = Endpoints(name="authz", endpoints=(Endpoint(address="127.1.0.9", port=8080),))
    get = Rule(operations=(Operation(methods=("GET",)),))
    other = Rule(operations=(Operation(not_methods=("GET",)),))
    policies = (
        Policy(name="default/a", action="CUSTOM", rules=(get,), provider="plain"),
        Policy(name="default/b", action="CUSTOM", rules=(other,), provider="reading"),
        Policy(name="default/c", action="CUSTOM", rules=(other,), provider="plain"),
    )
    plain = ExtAuthz(name="plain", cluster="authz", timeout=2.0, fail_open=True)
    reading = ExtAuthz(name="reading", cluster="authz", timeout=2.0, include_body=4, allow_partial_body=True)
    found["security"] = {"workload": Security(policies=policies, ext_authz=(plain, reading))}
    return found


class ExchangeMachine(RuleBasedStateMachine):
    resources = staticmethod(resources)
    listener = "outbound"

    def __init__(self) -> None:
        super().__init__()
        downstream.Exchange = Watched  # type: ignore[misc,assignment]
        self.world = World(self.resources(), self.listener)
        self.clients: list[Any] = []
        self.servers: list[Any] = []
        self.asked = 0

    def teardown(self) -> None:
        for client in self.clients:
            client.lose()
        self.world.clock.advance(20.0)
        while self.world.dials:
            self.world.refuse()
        self.world.clock.advance(20.0)
        for server in self.servers:
            server.lose()
        self.world.settled()
        assert self.world.limits().connections == 0
        assert len(self.world.records) == self.asked
        downstream.Exchange = Exchange  # type: ignore[misc]

    def open_clients(self) -> list[Any]:
        return [client for client in self.clients if not client.closing and client.reading]

    def open_servers(self) -> list[Any]:
        return [server for server in self.servers if not server.closing]

    @rule(
        host=st.sampled_from([b"rating", b"rating", b"faulty", b"missing"]),
        kind=st.sampled_from(["get", "part", "whole", "upgrade"]),
        draw=st.floats(0, 0.99),
    )
    def ask(self, host: bytes, kind: str, draw: float) -> None:
        self.world.draw = draw
        client = self.world.client()
        self.clients.append(client)
        self.asked += 1
        lines = b"GET /a HTTP/1.1\r\nhost: %b:8080\r\n" % host
        if kind == "upgrade":
            lines += b"connection: upgrade\r\nupgrade: websocket\r\n"
        elif kind == "part":
            client.deliver(b"POST /a HTTP/1.1\r\nhost: %b:8080\r\ncontent-length: 6\r\n\r\nabc" % host)
            return
        elif kind == "whole":
            client.deliver(b"POST /a HTTP/1.1\r\nhost: %b:8080\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % host)
            return
        client.deliver(lines + b"\r\n")

    @precondition(lambda self: self.open_clients())
    @rule(data=st.data())
    def send_more(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.open_clients()))
        if not client.protocol.codec.idle:  # else this would be a request of its own
            client.deliver(b"def")

    @precondition(lambda self: self.open_clients())
    @rule(data=st.data(), how=st.sampled_from(["lose", "eof", "block", "unblock"]))
    def client_acts(self, data: st.DataObject, how: str) -> None:
        client = data.draw(st.sampled_from(self.open_clients()))
        if how == "lose":
            client.lose()
        elif how == "eof":
            client.deliver_eof()
        elif how == "block":
            client.protocol.pause_writing()
        else:
            client.protocol.resume_writing()

    @precondition(lambda self: self.world.dials)
    @rule(good=st.booleans())
    def dialed(self, good: bool) -> None:
        if good:
            self.servers.append(self.world.accept())
        else:
            self.world.refuse()

    @precondition(lambda self: self.open_servers())
    @rule(
        data=st.data(),
        answer=st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha",
                b"HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\nno",
                b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nno",
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"lf",
                b"garbage\r\n\r\n",
            ]
        ),
    )
    def server_sends(self, data: st.DataObject, answer: bytes) -> None:
        server = data.draw(st.sampled_from(self.open_servers()))
        if server.reading:
            server.deliver(answer)

    @precondition(lambda self: self.open_servers())
    @rule(data=st.data(), how=st.sampled_from(["lose", "eof", "block", "unblock"]))
    def server_acts(self, data: st.DataObject, how: str) -> None:
        server = data.draw(st.sampled_from(self.open_servers()))
        if how == "lose":
            server.lose()
        elif how == "eof":
            server.deliver_eof()
        elif how == "block":
            server.protocol.pause_writing()
        else:
            server.protocol.resume_writing()

    @rule(seconds=st.floats(0, 6))
    def pass_time(self, seconds: float) -> None:
        self.world.clock.advance(seconds)
        for cluster in self.world.snapshot.clusters.values():
            cluster.sweep(self.world.clock.now())

    @rule()
    def swap(self) -> None:
        self.world.install(self.resources())

    @invariant()
    def closed_ends_are_told(self) -> None:
        """A transport that the proxy closed reports its loss, as a loop would on its next turn."""
        for wire in [*self.clients, *self.servers]:
            if wire.closing and not wire.lost:
                wire.lose()

    @invariant()
    def counts_agree(self) -> None:
        world = self.world
        limits = world.limits()
        assert limits.requests == sum(endpoint.active for endpoint in world.snapshot.clusters["c"].members())
        assert len(world.records) <= self.asked


class AskingMachine(ExchangeMachine):
    """The same histories with a request parked, once or twice, until the authoriser has answered."""

    resources = staticmethod(asking)
    listener = "edge"


SETTINGS = settings(
    max_examples=150,
    derandomize=True,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def test_random_histories_take_only_the_tables_transitions_and_all_of_them(watched: None) -> None:
    run_state_machine_as_test(ExchangeMachine, settings=SETTINGS)
    by_hand()
    assert {(NAMES[a], NAMES[b]) for a, b in TRANSITIONS - SEEN} == set()


def test_random_histories_in_which_requests_wait_for_an_authoriser(watched: None) -> None:
    run_state_machine_as_test(AskingMachine, settings=SETTINGS)


def asked(host: bytes, draw: float = 0.9, more: bytes = b"") -> tuple[World, Any]:
    world = World(resources())
    world.draw = draw
    client = world.client()
    client.deliver(b"GET /a HTTP/1.1\r\nhost: %b:8080\r\n%b\r\n" % (host, more))
    return world, client


def by_hand() -> None:
    """Each transition once, so that it does not matter which of them random histories reach."""
    downstream.Exchange = Watched  # type: ignore[misc,assignment]
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\n"
    world, client = asked(b"rating", more=upgrade)
    world.accept().deliver(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % upgrade)
    client.lose()
    world, _ = asked(b"rating")
    world.accept().deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    asked(b"missing")
    world, client = asked(b"rating")
    client.lose()
    world, client = asked(b"faulty", draw=0.0)  # a delay, and then the abort
    world.clock.advance(1.0)
    world, _ = asked(b"faulty", draw=0.5)  # a delay, and then none
    world.clock.advance(1.0)
    world, client = asked(b"rating")
    world.refuse()
    client.lose()  # between tries
    world, _ = asked(b"rating")
    world.refuse()
    world.clock.advance(1.0)
    downstream.Exchange = Exchange  # type: ignore[misc]
