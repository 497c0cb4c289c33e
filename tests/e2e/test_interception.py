"""Apps that know of no proxy, real iptables, two real sidecars: HTTP and bytes, over mutual TLS, IPv4 and IPv6."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, LoadBalancer, Service
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import ClientTls, Policy, Rule, Security, Source
from meshproxy.model.tcp import Chain, TcpRoute
from tests.certs import spiffe
from tests.e2e.pods import Pod, Space, needs_root, resources, two_pods
from tests.e2e.support.sockets import until

pytestmark = needs_root

DB, RATING, DB6 = "10.96.0.7", "10.96.0.8", "fd96::7"


def to(name: str, **fields: Any) -> TcpRoute:
    return TcpRoute(clusters=(WeightedCluster(cluster=name),), **fields)


def table(name: str, cluster: str, *domains: str) -> RouteConfig:
    route = Route(action=Forward(clusters=(WeightedCluster(cluster=cluster),)))
    return RouteConfig(name=name, virtual_hosts=(VirtualHost(name="h", domains=domains or ("*",), routes=(route,)),))


def passthrough(name: str, **fields: Any) -> Cluster:
    return Cluster(name=name, type="PASSTHROUGH", lb=LoadBalancer(policy="PASSTHROUGH"), **fields)


def mesh(port: int, name: str, *addresses: str) -> tuple[Cluster, Endpoints]:
    cluster = f"outbound|{port}||{name}.default.svc.cluster.local"
    service = Service(host=f"{name}.default.svc.cluster.local", name=name, namespace="default")
    hosts = tuple(Endpoint(address=address, port=port, mtls=True) for address in addresses)
    return (
        Cluster(name=cluster, service=service, tls=ClientTls()),
        Endpoints(name=cluster, endpoints=hosts, identities=(spiffe("callee"),)),
    )


def start(caller: Pod, callee: Pod, policies: tuple[Policy, ...] = ()) -> None:
    db, db6, rating = mesh(5432, "db", "10.77.0.2"), mesh(5432, "db6", "fd77::2"), mesh(8080, "rating", "10.77.0.2")
    anything = mesh(7000, "anything", "10.77.0.2")
    caller.start(
        *resources(
            *db,
            *db6,
            *rating,
            *anything,
            passthrough("PassthroughCluster"),
            table("8080", rating[0].name, "rating", RATING),
            table("7000", anything[0].name, "rating"),
            Listener(
                name="virtualOutbound",
                direction="outbound",
                port=15001,
                bind="::",
                route_ports=(8080,),
                chains=(
                    Chain(
                        name="db", port=5432, addresses=(DB,), protocol="TCP", tcp=(to(db[0].name),), hosts=("db", "db.default")
                    ),
                    Chain(name="db6", port=5432, addresses=(DB6,), protocol="TCP", tcp=(to(db6[0].name),)),
                    Chain(name="0.0.0.0_8080", port=8080, protocol="HTTP", route="8080"),
                    Chain(name="anything", port=7000, addresses=(RATING,), tcp=(to(anything[0].name),), route="7000"),
                    Chain(name="passthrough", protocol="TCP", tcp=(to("PassthroughCluster"),)),
                ),
            ),
        )
    )
    own = {port: Cluster(name=f"inbound|{port}||", type="PASSTHROUGH", bind="127.0.0.6") for port in (5432, 8080, 7000)}
    service = {
        port: Service(host=f"{name}.default.svc.cluster.local", name=name, namespace="default") for port, name in ((5432, "db"),)
    }
    own[5432] = Cluster(name="inbound|5432||", type="PASSTHROUGH", bind="127.0.0.6", service=service[5432])
    callee.start(
        *resources(
            *own.values(),
            passthrough("InboundPassthroughCluster", bind="127.0.0.6"),
            passthrough("PassthroughCluster"),
            *db,
            *rating,
            table("8080", rating[0].name, "rating", RATING),
            table("inbound|8080||", "inbound|8080||"),
            table("inbound|7000||", "inbound|7000||"),
            Security(policies=policies),
            Listener(
                name="virtualInbound",
                direction="inbound",
                port=15006,
                bind="::",
                chains=(
                    Chain(name="in-5432", port=5432, protocol="TCP", tcp=(to("inbound|5432||"),), mtls="STRICT"),
                    Chain(name="in-8080", port=8080, protocol="HTTP", route="inbound|8080||", mtls="STRICT"),
                    Chain(name="in-7000", port=7000, route="inbound|7000||", tcp=(to("inbound|7000||"),), mtls="PERMISSIVE"),
                    Chain(name="in-any", tcp=(to("InboundPassthroughCluster"),), mtls="PERMISSIVE"),
                ),
            ),
            Listener(
                name="virtualOutbound",
                direction="outbound",
                port=15001,
                bind="::",
                route_ports=(8080,),
                chains=(
                    Chain(name="db", port=5432, addresses=(DB,), protocol="TCP", tcp=(to(db[0].name),)),
                    Chain(name="0.0.0.0_8080", port=8080, protocol="HTTP", route="8080"),
                    Chain(name="passthrough", protocol="TCP", tcp=(to("PassthroughCluster"),)),
                ),
            ),
        )
    )


@pytest.fixture(scope="module")
def pods() -> Iterator[tuple[Pod, Pod]]:
    with two_pods() as (caller, callee):
        start(caller, callee)
        yield caller, callee


@pytest.mark.parametrize(("vip", "own", "mark"), [(DB, "10.77.0.2", "127.0.0.6"), (DB6, "fd77::2", "::6")])
def test_bytes_over_mutual_tls(pods: tuple[Pod, Pod], vip: str, own: str, mark: str) -> None:
    caller, callee = pods
    before = callee.metric("istio_tcp_connections_opened_total", request_protocol="tcp", connection_security_policy="mutual_tls")
    with callee.space.listen(own, 5432) as app:
        wire = caller.space.sniff(caller.device)
        client = caller.space.connect(vip, 5432)
        client.send(b"an open secret")
        server = app.accept()
        assert app.source == mark
        assert server.exactly(14) == b"an open secret"
        server.send(b"its plain answer")
        assert client.exactly(16) == b"its plain answer"
        client.finish()
        assert server.ended()
        server.send(b"and more")
        server.close()
        assert client.rest() == b"and more"
        client.close()
        seen = wire.seen()
        wire.close()
    assert b"\x16\x03" in seen and b"istio-peer-exchange" in seen
    assert b"secret" not in seen and b"plain answer" not in seen
    until(
        lambda: (
            callee.metric("istio_tcp_connections_opened_total", request_protocol="tcp", connection_security_policy="mutual_tls")
            == before + 1
        )
    )
    assert callee.metric("istio_tcp_received_bytes_total", source_workload="caller", source_principal=spiffe("caller")) >= 14
    assert caller.metric("istio_tcp_sent_bytes_total", destination_workload="callee") >= 24


def test_http_over_mutual_tls(pods: tuple[Pod, Pod]) -> None:
    caller, callee = pods
    with callee.space.listen("10.77.0.2", 8080) as app:
        wire = caller.space.sniff(caller.device)
        with caller.space.connect(RATING, 8080) as client:
            client.send(b"GET /open-secret HTTP/1.1\r\nhost: rating\r\n\r\n")
            server = app.accept()
            line, headers, _ = server.request()
            assert app.source == "127.0.0.6"
            assert line == "GET /open-secret HTTP/1.1" and "URI=" + spiffe("caller") in headers["x-forwarded-client-cert"]
            server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            assert client.response().body == b"ok"
            server.close()
        seen = wire.seen()
        wire.close()
    assert b"open-secret" not in seen and b"istio-http/1.1" in seen


@pytest.mark.parametrize("what", ["bytes", "http", "server first"])
def test_a_protocol_that_nobody_named(pods: tuple[Pod, Pod], what: str) -> None:
    """AUTO at both sides: HTTP is found, other bytes pass, and a server that speaks first is not waited for in vain."""
    caller, callee = pods
    with callee.space.listen("10.77.0.2", 7000) as app, caller.space.connect(RATING, 7000) as client:
        if what == "http":
            for byte in b"POST /a HTTP/1.1\r\nhost: rating\r\ncontent-length: 2\r\n\r\nhi":
                client.send(bytes((byte,)))
            server = app.accept()
            line, headers, body = server.request()
            assert (line, body) == ("POST /a HTTP/1.1", b"hi") and "x-request-id" in headers
            server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            assert client.response().body == b"ok"
        elif what == "bytes":
            client.send(b"\x00\x01binary")
            server = app.accept()
            assert server.exactly(8) == b"\x00\x01binary"
        else:
            server = app.accept()
            server.send(b"220 ready\r\n")
            assert client.exactly(11) == b"220 ready\r\n"
        server.close()


def test_plaintext_is_refused_where_it_must_not_be(pods: tuple[Pod, Pod]) -> None:
    """Past the caller's sidecar: its own uid is not intercepted, which the test borrows by a rule of its own."""
    caller, callee = pods
    caller.space.run("iptables", "-w", "-t", "nat", "-I", "ISTIO_OUTPUT", "-d", "10.77.0.2/32", "-j", "RETURN")
    try:
        with callee.space.listen("10.77.0.2", 5432):
            reset(caller.space, "10.77.0.2", 5432)
        with callee.space.listen("10.77.0.2", 9999) as app, caller.space.connect("10.77.0.2", 9999) as client:
            client.send(b"plain")
            server = app.accept()
            assert server.exactly(5) == b"plain" and app.source == "127.0.0.6"
            server.close()
    finally:
        caller.space.run("iptables", "-w", "-t", "nat", "-D", "ISTIO_OUTPUT", "-d", "10.77.0.2/32", "-j", "RETURN")


def test_what_nobody_knows_passes_through(pods: tuple[Pod, Pod]) -> None:
    caller, callee = pods
    with callee.space.listen("10.77.0.2", 9998) as app, caller.space.connect("10.77.0.2", 9998) as client:
        client.send(b"hello")
        server = app.accept()
        assert server.exactly(5) == b"hello"
        server.close()
        assert client.ended()
    assert caller.metric("istio_tcp_connections_opened_total", destination_service_name="PassthroughCluster") >= 1
    assert callee.metric("istio_tcp_connections_opened_total", destination_service_name="InboundPassthroughCluster") >= 1


def reset(space: Space, address: str, port: int, said: bytes = b"hello") -> None:
    """A connection that is cut, whenever its client notices."""
    with pytest.raises((ConnectionResetError, BrokenPipeError)), space.connect(address, port) as client:
        client.send(said)
        client.exactly(1)


def test_nobody_loops(pods: tuple[Pod, Pod]) -> None:
    """A connection that was meant for the sidecar itself, and one that a passthrough would bring back to it."""
    caller, callee = pods
    reset(caller.space, "10.77.0.2", 15006)
    reset(caller.space, "10.77.0.2", 15001)
    reset(callee.space, "10.77.0.2", 15006)


def test_the_sidecar_is_nobody_s_root(pods: tuple[Pod, Pod]) -> None:
    """The rules know it by its user."""
    process = pods[0].process
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "Uid:\t1337\t1337\t1337\t1337\n" in status and "Gid:\t1337\t1337\t1337\t1337\n" in status


def test_an_app_calls_itself_by_its_service_s_address(pods: tuple[Pod, Pod]) -> None:
    """Out by :15001 and in again by :15006, over lo, under the mutual TLS that its port demands."""
    _, pod = pods
    secured = {"connection_security_policy": "mutual_tls", "reporter": "destination"}
    before = pod.metric("istio_tcp_connections_opened_total", **secured)
    with pod.space.listen("10.77.0.2", 5432) as app, pod.space.connect(DB, 5432) as client:
        wire = pod.space.sniff("lo")
        client.send(b"talking to myself")
        with app.accept() as server:
            assert app.source == "127.0.0.6"
            assert server.exactly(17) == b"talking to myself"
            server.send(b"so I am")
            assert client.exactly(7) == b"so I am"
        assert client.ended()
        assert b"\x17\x03\x03" in wire.seen()
        wire.close()
    until(lambda: pod.metric("istio_tcp_connections_opened_total", **secured) == before + 1)
    with pod.space.listen("10.77.0.2", 8080) as app, pod.space.connect(RATING, 8080) as client:
        client.send(b"GET /me HTTP/1.1\r\nhost: rating:8080\r\n\r\n")
        with app.accept() as server:
            line, headers, _ = server.request()
            assert (line, app.source) == ("GET /me HTTP/1.1", "127.0.0.6")
            assert headers["x-forwarded-client-cert"].endswith(f"URI={spiffe('callee')}")
            server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            assert client.response().status == 200
    with pod.space.listen("10.77.0.2", 5432) as app, pod.space.connect("10.77.0.2", 5432) as client, app.accept():
        assert app.source == "10.77.0.2"  # its own address leads past the sidecar
        client.send(b"x")


@pytest.mark.parametrize("port", [15000, 15001, 15006])
def test_the_sidecar_s_own_ports_are_no_app_s(pods: tuple[Pod, Pod], port: int) -> None:
    """Neither from another pod, by the way of everything unknown, nor under IPv6."""
    caller, _ = pods
    for address in ("10.77.0.2", "fd77::2"):
        reset(caller.space, address, port, b"GET /config_dump HTTP/1.1\r\nhost: localhost\r\n\r\n")


def test_a_forward_proxy_s_client_is_served_as_ever(pods: tuple[Pod, Pod]) -> None:
    """Beside interception: by the listener's own address. CONNECT finds a service of bytes by its name."""
    caller, callee = pods
    with callee.space.listen("10.77.0.2", 8080) as app, caller.space.connect("10.77.0.1", 15001) as client:
        client.send(b"GET http://rating:8080/a HTTP/1.1\r\nhost: rating:8080\r\n\r\n")
        server = app.accept()
        assert server.request()[0] == "GET /a HTTP/1.1"
        server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        assert client.response().status == 200
        server.close()
    with callee.space.listen("10.77.0.2", 5432) as app, caller.space.connect("10.77.0.1", 15001) as client:
        wire = caller.space.sniff(caller.device)
        client.send(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
        server = app.accept()
        server.send(b"220 an open secret")
        assert client.head()[0].startswith("HTTP/1.1 200")
        assert client.exactly(18) == b"220 an open secret"
        client.send(b"thanks")
        assert server.exactly(6) == b"thanks"
        server.close()
        assert client.ended()
        assert b"secret" not in wire.seen()
        wire.close()


def test_policies_are_for_bytes_too() -> None:
    deny = Policy(
        name="default/no-caller",
        action="DENY",
        rules=(Rule(sources=(Source(principals=("cluster.local/ns/default/sa/caller",)),)),),
    )
    with two_pods() as (caller, callee):
        start(caller, callee, (deny,))
        with callee.space.listen("10.77.0.2", 5432):
            reset(caller.space, DB, 5432)
        until(lambda: "rbac_access_denied_matched_policy[ns[default]-policy[no-caller]-rule[0]]" in callee.access())
        assert callee.metric("mesh_authz_total", policy="default/no-caller", result="denied") == 1
