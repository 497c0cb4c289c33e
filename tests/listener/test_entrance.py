"""What becomes of an intercepted connection, in memory: where it was meant to go x what the chain says x what the client says."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.message.record import StreamRecord
from meshproxy.message.secured import TlsFault
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, LoadBalancer
from meshproxy.model.listener import Listener
from meshproxy.model.route import DirectResponse, Forward, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import Condition, Operation, Policy, Rule, Security, Source, Trust
from meshproxy.model.tcp import Chain, TcpRoute
from meshproxy.relay.line import Line
from meshproxy.tls.contexts import MESH_BYTES_ALPN, MESH_CLIENT_ALPN, client_context
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from tests.certs import spiffe
from tests.flow.memnet import OK, Wire, World, simple, status_of
from tests.tls.clients import TlsClient, foreign
from tests.tls.pair import ROOT, mesh_vault

APP = ("10.0.0.9", 8080)
GET = b"GET /a HTTP/1.1\r\nhost: rating\r\n\r\n"
TRUST = Trust(roots=(ROOT.root.decode(),))


def to(cluster: str, **fields: Any) -> TcpRoute:
    return TcpRoute(clusters=(WeightedCluster(cluster=cluster),), **fields)


def made(direction: Any, *chains: Chain, policies: tuple[Policy, ...] = (), **listener: Any) -> World:
    """HTTP goes to cluster "http", bytes to "bytes" or where the chain says, the unknown through."""
    resources = simple()
    for name in ("http", "bytes", "other"):
        resources["cluster"][name] = Cluster(name=name)
        resources["endpoints"][name] = Endpoints(name=name, endpoints=(Endpoint(address="127.1.0.9", port=9000),))
    for name in ("PassthroughCluster", "InboundPassthroughCluster"):
        resources["cluster"][name] = Cluster(name=name, type="PASSTHROUGH", lb=LoadBalancer(policy="PASSTHROUGH"))
    answer = Route(action=DirectResponse(status=204))
    resources["route"]["answer"] = RouteConfig(
        name="answer", virtual_hosts=(VirtualHost(name="h", domains=("*",), routes=(answer,)),)
    )
    for name, hosts in (("any", ("*",)), ("known", ("rating",))):
        route = Route(action=Forward(clusters=(WeightedCluster(cluster="http"),)))
        resources["route"][name] = RouteConfig(name=name, virtual_hosts=(VirtualHost(name="h", domains=hosts, routes=(route,)),))
    resources["security"] = {"workload": Security(policies=policies)}
    model = Listener(name="in", direction=direction, port=15006, chains=chains, **listener)
    resources["listener"] = {"in": model}
    world = World(resources, "in")
    vault: Vault = mesh_vault("book", trust=TRUST)
    world.gate.vault = vault
    return world


def chain(protocol: Any = "AUTO", mtls: Any = "DISABLE", **fields: Any) -> Chain:
    given: dict[str, Any] = {"port": 8080, "route": "any", "tcp": (to("bytes"),), **fields}
    return Chain(name="c", protocol=protocol, mtls=mtls, **given)


def became(world: World, wire: Wire) -> str:
    """In a word."""
    if wire.aborted:
        return "reset"
    if wire.closing:
        return "closed"
    if not world.dials:
        return "waits"
    dialed = world.dials[-1]
    return f"{'bytes' if isinstance(dialed, Line) else 'HTTP'} to {dialed.cluster.name}"


def hello(sni: str | None = None, alpn: tuple[str, ...] = ("http/1.1",)) -> bytes:
    session = Session(foreign(alpn=alpn), False, sni)
    session.start()
    return session.take()


PLAINTEXT = {
    "HTTP": GET,
    "an extension method": b"MKCALENDAR /a HTTP/1.1\r\nhost: rating\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\nhost: rating\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "a line": b"get key\r\n",
    "a word and no more": b"HELLO",
    "half a request line": b"GET /a",
    "nothing": b"",
    "TLS of somebody else": hello("db.example"),
    "nearly TLS": b"\x16\x02\x00\x00",
}
_BYTES = dict.fromkeys(PLAINTEXT, "bytes to bytes")
_AUTO = {
    **_BYTES,
    "HTTP": "HTTP to http",
    "an extension method": "HTTP to http",
    "HTTP/1.0": "HTTP to http",
    "half a request line": "waits",
}
EXPECTED: dict[tuple[str, str], dict[str, str]] = {
    ("TCP", "DISABLE"): _BYTES,
    ("TCP", "PERMISSIVE"): _BYTES,
    ("AUTO", "DISABLE"): _AUTO,
    ("AUTO", "PERMISSIVE"): _AUTO,
    ("TCP", "STRICT"): {**dict.fromkeys(PLAINTEXT, "reset"), "nothing": "waits", "TLS of somebody else": "shakes hands"},
    ("AUTO", "STRICT"): {**dict.fromkeys(PLAINTEXT, "reset"), "nothing": "waits", "TLS of somebody else": "shakes hands"},
    ("HTTP", "STRICT"): {**dict.fromkeys(PLAINTEXT, "reset"), "nothing": "waits", "TLS of somebody else": "shakes hands"},
}


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("said", PLAINTEXT)
@pytest.mark.parametrize(("protocol", "mtls"), EXPECTED)
def test_inbound(protocol: str, mtls: str, said: str, pieces: bool) -> None:
    world = made("inbound", chain(protocol, mtls))
    wire = world.intercepted(APP, "10.0.0.1")
    data = PLAINTEXT[said]
    for at in range(0, len(data), 1 if pieces else len(data) or 1):
        if not wire.closing and not wire.eof:
            wire.deliver(data[at : at + (1 if pieces else len(data))])
    world.clock.advance(0.1)
    expected = EXPECTED[protocol, mtls][said]
    if expected == "shakes hands":  # and will show no certificate
        assert wire.take()[:1] == b"\x16" and not world.dials
        return
    assert became(world, wire) == expected
    if expected == "bytes to bytes":
        server = world.accept()
        assert server.take() == data


@pytest.mark.parametrize("mtls", ["DISABLE", "PERMISSIVE"])
def test_a_chain_of_http_takes_what_comes_for_http(mtls: str) -> None:
    world = made("inbound", chain("HTTP", mtls))
    wire = world.intercepted(APP)
    world.clock.advance(60)  # nobody is in a hurry
    wire.deliver(b"nonsense\r\n\r\n")
    assert status_of(wire.take()) == 400
    wire = world.intercepted(APP)
    wire.deliver(GET)
    assert became(world, wire) == "HTTP to http"


H2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize("mtls", ["DISABLE", "PERMISSIVE"])
@pytest.mark.parametrize("step", [1, 5, 100])
def test_http_2_passes_as_bytes_where_there_is_a_way_for_them(mtls: str, step: int) -> None:
    world = made("inbound", chain("HTTP", mtls))
    wire = world.intercepted(APP)
    for at in range(0, len(H2), step):
        wire.deliver(H2[at : at + step])
    assert became(world, wire) == "bytes to bytes" and world.accept().take() == H2
    world = made("inbound", chain("HTTP", mtls, tcp=()))
    wire = world.intercepted(APP)
    wire.deliver(H2)
    assert status_of(wire.take()) >= 400


def test_http_2_between_sidecars() -> None:
    world = made("inbound", chain("HTTP", "STRICT"))
    wire = world.intercepted(APP)
    pair = ROOT.issue(spiffe("web"))
    client = TlsClient(wire, client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=MESH_BYTES_ALPN))
    client.send(H2)
    assert became(world, wire) == "bytes to bytes"


def test_foreign_tls_is_no_http() -> None:
    world = made("inbound", chain("HTTP", "PERMISSIVE"))
    wire = world.intercepted(APP)
    wire.deliver(hello("a.example"))
    assert wire.aborted and ("server", TlsFault.NOT_MESH) in world.gate.vault.tally.failures


@pytest.mark.parametrize(
    ("protocol", "alpn", "expected"),
    [
        ("AUTO", MESH_CLIENT_ALPN, "HTTP to http"),
        ("AUTO", ("istio",), "bytes to bytes"),
        ("AUTO", MESH_BYTES_ALPN, "bytes to bytes"),
        ("TCP", MESH_CLIENT_ALPN, "bytes to bytes"),
        ("TCP", MESH_BYTES_ALPN, "bytes to bytes"),
        ("HTTP", MESH_CLIENT_ALPN, "HTTP to http"),
    ],
)
@pytest.mark.parametrize("mtls", ["PERMISSIVE", "STRICT"])
def test_inside_mutual_tls_the_protocol_s_name_says_what_it_is(
    protocol: str, alpn: tuple[str, ...], expected: str, mtls: str
) -> None:
    world = made("inbound", chain(protocol, mtls))
    wire = world.intercepted(APP, "10.0.0.1")
    pair = ROOT.issue(spiffe("web"))
    client = TlsClient(wire, client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=alpn), step=7)
    client.send(GET)
    assert became(world, wire) == expected
    server = world.accept()
    assert b"GET /a" in server.take()
    server.deliver(OK if expected.startswith("HTTP") else b"ok")
    assert client.read().endswith(b"ok")


def test_a_peer_that_ends_without_saying_so_does_not_look_complete() -> None:
    world = made("inbound", chain("TCP", "STRICT"))
    wire = world.intercepted(APP)
    pair = ROOT.issue(spiffe("web"))
    client = TlsClient(wire, client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=("istio",)))
    client.send(b"half")
    server = world.accept()
    assert server.take() == b"half"
    wire.deliver_eof()
    assert server.aborted and not server.eof
    server.lose()
    wire.lose()
    assert [[reason.flag for reason in record.flags] for record in world.streams] == [["DC"]]


def test_a_peer_that_says_so_is_half_closed() -> None:
    world = made("inbound", chain("TCP", "STRICT"))
    wire = world.intercepted(APP)
    pair = ROOT.issue(spiffe("web"))
    client = TlsClient(wire, client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=("istio",)))
    client.send(b"all")
    server = world.accept()
    wire.deliver(client.session.finish())
    wire.deliver_eof()
    assert server.take() == b"all" and server.eof
    server.deliver(b"answer")
    assert client.read() == b"answer"
    server.deliver_eof()
    assert wire.closing and not wire.aborted


# -- where to


def test_the_most_specific_chain_is_taken() -> None:
    def one(name: str, **fields: Any) -> Chain:
        return Chain(name=name, protocol="TCP", tcp=(to("PassthroughCluster", name=name),), **fields)

    world = made(
        "outbound",
        one("any"),
        one("port", port=80),
        one("block", port=80, addresses=("10.0.0.0/8",)),
        one("smaller block", port=80, addresses=("10.1.0.0/16", "fd00::/8")),
        one("address", port=80, addresses=("10.1.2.3", "fd00::3")),
        one("anywhere in a block", addresses=("10.9.0.0/16",)),
    )
    wanted = {
        ("10.1.2.3", 80): "address",
        ("fd00::3", 80): "address",
        ("10.1.2.4", 80): "smaller block",
        ("fd00::4", 80): "smaller block",
        ("10.2.2.4", 80): "block",
        ("11.2.2.4", 80): "port",
        ("10.9.2.4", 80): "block",
        ("10.9.2.4", 81): "anywhere in a block",
        ("10.1.2.3", 81): "any",
    }
    for original in wanted:
        world.intercepted(original)
    while world.dials:
        world.refuse()
    assert {record.downstream_local: record.route_name for record in world.streams} == wanted


def test_a_forward_proxy_s_client_is_served_as_ever() -> None:
    world = made("outbound", chain(), route_ports=(8080,))
    for original in (None, ("127.0.0.1", 15001)):
        wire = world.intercepted(original)
        wire.deliver(b"GET http://rating:8080/a HTTP/1.1\r\nhost: rating:8080\r\n\r\n")
        assert became(world, wire) == "HTTP to c"


def test_inbound_meant_for_the_listener_itself_is_closed() -> None:
    world = made("inbound", chain())
    for original in (None, ("127.0.0.1", 15001)):
        wire = world.intercepted(original)
        assert wire.aborted
    assert [record.termination for record in world.streams] == ["loop_detected", "loop_detected"]


def test_who_is_not_of_this_pod_is_not_taken_in() -> None:
    world = made("outbound", chain())
    world.gate.captures = lambda address: address == "10.0.0.1"
    assert world.intercepted(APP, "10.0.0.2").aborted
    assert not world.intercepted(APP, "10.0.0.1").aborted


def test_nobody_s_connection_is_closed() -> None:
    world = made("outbound", chain())
    wire = world.intercepted(("10.0.0.9", 1))
    assert wire.aborted
    (record,) = world.streams
    assert ([reason.flag for reason in record.flags], record.cluster_name) == (["NR"], "BlackHoleCluster")


@pytest.mark.parametrize("policy", ["ALLOW_ANY", "REGISTRY_ONLY"])
def test_http_for_an_unknown_host_goes_where_it_was_meant_to_go(policy: str) -> None:
    world = made("outbound", chain("HTTP", route="known"), default_policy=policy)
    wire = world.intercepted(APP)
    wire.deliver(b"GET / HTTP/1.1\r\nhost: elsewhere.example:9999\r\n\r\n")
    if policy == "ALLOW_ANY":
        assert became(world, wire) == "HTTP to PassthroughCluster"
        assert world.dials[0].endpoint.key == APP
    else:
        assert status_of(wire.take()) == 502
    wire = world.intercepted(APP)
    wire.deliver(b"GET / HTTP/1.1\r\nhost: rating:1\r\n\r\n")  # the port that counts is the connection's
    assert became(world, wire) == "HTTP to http"


def test_an_intercepted_connect_is_not_ours() -> None:
    world = made("outbound", chain("HTTP"))
    wire = world.intercepted(APP)
    wire.deliver(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n")
    assert status_of(wire.take()) >= 400 and not world.dials


# -- by the server's name


def test_tls_goes_by_its_name() -> None:
    routes = (to("other", sni=("db.example", "*.wild.example")), to("bytes"))
    for name, cluster in (
        ("db.example", "other"),
        ("DB.example", "other"),
        ("a.b.wild.example", "other"),
        ("wild.example", "bytes"),
        ("else.example", "bytes"),
    ):
        world = made("outbound", chain("TCP", tcp=routes))
        wire = world.intercepted(APP)
        said = hello(name)
        for byte in said:
            wire.deliver(bytes((byte,)))
        assert became(world, wire) == f"bytes to {cluster}"
        assert world.accept().take() == said
        wire.lose()
        assert world.streams[0].sni == name.lower()


def test_who_says_nothing_has_no_name() -> None:
    world = made("outbound", chain("TCP", tcp=(to("other", sni=("*",)), to("bytes"))))
    wire = world.intercepted(APP)
    assert became(world, wire) == "waits"
    world.clock.advance(0.1)
    assert became(world, wire) == "bytes to bytes"


def test_a_route_by_address() -> None:
    world = made("outbound", chain("TCP", port=0, tcp=(to("other", addresses=("10.0.0.0/24",)),)))
    world.intercepted(("10.0.0.77", 1))
    assert world.dials[0].cluster.name == "other"
    assert world.intercepted(("10.0.1.77", 1)).aborted


def test_a_gateway_passes_tls_through_by_name() -> None:
    world = made("gateway", Chain(name="g", tcp=(to("other", sni=("db.example",)),)))
    wire = world.intercepted(None)
    wire.deliver(hello("db.example"))
    assert became(world, wire) == "bytes to other"
    wire = world.intercepted(None)
    wire.deliver(hello("else.example"))
    assert wire.aborted


# -- patience


def test_detection_without_an_end() -> None:
    world = made("inbound", chain(), detection_timeout=0.0)
    wire = world.intercepted(APP)
    world.clock.advance(3600)
    assert became(world, wire) == "waits"
    wire.deliver(b"HEL")
    world.clock.advance(11)
    world.sweep()
    assert became(world, wire) == "bytes to bytes"
    assert world.accept().take() == b"HEL"


def test_a_client_that_ends_without_a_word() -> None:
    world = made("inbound", chain())
    wire = world.intercepted(APP)
    wire.deliver_eof()
    assert wire.closing and not world.dials
    wire.lose()
    assert world.clock.armed == 0


def test_a_client_that_ends_in_the_midst_of_a_word() -> None:
    world = made("inbound", chain())
    wire = world.intercepted(APP)
    wire.deliver(b"PIN")
    wire.deliver_eof()
    server = world.accept()
    assert server.take() == b"PIN" and server.eof and not wire.closing


# -- policies


def told(*policies: Policy, original: tuple[str, int] = APP, source: str = "10.0.0.1") -> StreamRecord | None:
    """What a plaintext connection meets; None: it is let in."""
    world = made("inbound", chain("TCP", port=0), policies=policies)
    world.intercepted(original, source)
    return world.streams[0] if world.streams else None


def rule(source: dict[str, Any] | None = None, operation: dict[str, Any] | None = None, **when: str) -> Rule:
    return Rule(
        (Source(**source),) if source else (),
        (Operation(**operation),) if operation else (),
        tuple(Condition(key=key.replace("_", "."), values=(value,)) for key, value in when.items()),
    )


def allow(*rules: Rule) -> Policy:
    return Policy(name="default/a", action="ALLOW", rules=rules)


def deny(*rules: Rule, **fields: Any) -> Policy:
    return Policy(name="default/d", action="DENY", rules=rules, **fields)


IN: list[tuple[str, tuple[Policy, ...], bool]] = [
    ("nothing said", (), True),
    ("an address", (allow(rule({"ip_blocks": ("10.0.0.0/8",)})),), True),
    ("another address", (allow(rule({"ip_blocks": ("11.0.0.0/8",)})),), False),
    ("the remote address is the peer's", (allow(rule({"remote_ip_blocks": ("10.0.0.1",)})),), True),
    ("the port that it was meant for", (allow(rule(operation={"ports": ("8080",)})),), True),
    ("another port", (allow(rule(operation={"ports": ("9090",)})),), False),
    ("a principal, in plaintext", (allow(rule({"principals": ("*",)})),), False),
    ("HTTP's fields allow nothing", (allow(rule(operation={"methods": ("GET",)})),), False),
    ("not even beside others", (allow(rule(operation={"methods": ("GET",), "ports": ("8080",)})),), False),
    ("nor in one alternative", (allow(Rule(operations=(Operation(ports=("8080",)), Operation(paths=("/a",))))),), False),
    ("another rule still does", (allow(rule(operation={"paths": ("/a",)}), rule(operation={"ports": ("8080",)})),), True),
    ("HTTP's fields deny by what is left", (deny(rule(operation={"methods": ("GET",), "ports": ("8080",)})),), False),
    ("at another port not", (deny(rule(operation={"methods": ("GET",), "ports": ("9090",)})),), True),
    ("with nothing left they deny all", (deny(rule(operation={"methods": ("GET",)})),), False),
    ("tokens, too", (deny(rule({"not_request_principals": ("*",)})),), False),
    ("and conditions", (deny(rule(None, None, request_headers="x")),), False),
    ("a dry run denies nothing", (deny(rule(), dry_run=True),), True),
    ("nobody can be asked", (Policy(name="default/c", action="CUSTOM", provider="p", rules=(rule(),)),), False),
    (
        "who need not be asked comes in",
        (Policy(name="default/c", action="CUSTOM", provider="p", rules=(rule(operation={"ports": ("9090",)}),)),),
        True,
    ),
    ("what cannot be read denies", (Policy(name="default/u", action="ALLOW", unusable="broken"),), False),
    ("nor what cannot be compiled", (allow(rule(operation={"paths": ("/{*}x",)}), rule(operation={"ports": ("8080",)})),), False),
]


@pytest.mark.parametrize(("policies", "lets_in"), [row[1:] for row in IN], ids=[row[0] for row in IN])
def test_policies(policies: tuple[Policy, ...], lets_in: bool) -> None:
    record = told(*policies)
    assert (record is None) == lets_in
    if record is not None:
        assert record.termination.startswith("rbac_access_denied_matched_policy[")


def test_who_is_there_counts_over_mutual_tls() -> None:
    world = made("inbound", chain("TCP", "STRICT"), policies=(allow(rule({"principals": ("cluster.local/ns/default/sa/web",)})),))
    for account, lets_in in (("web", True), ("thief", False)):
        wire = world.intercepted(APP)
        pair = ROOT.issue(spiffe(account))
        client = TlsClient(wire, client_context(pair.certificate, pair.key, roots=(ROOT.root,), alpn=("istio",)))
        client.send(b"hello")
        assert bool(world.dials) == lets_in and wire.aborted != lets_in
        world.dials.clear()


def test_a_passed_through_name_is_a_connection_s_name() -> None:
    world = made("inbound", chain("TCP", "PERMISSIVE"), policies=(allow(rule(None, None, connection_sni="db.example")),))
    for name, lets_in in (("db.example", True), ("else.example", False)):
        wire = world.intercepted(APP)
        wire.deliver(hello(name))
        assert bool(world.dials) == lets_in and wire.aborted != lets_in
        world.dials.clear()


# -- configuration


def test_strict_from_now_on() -> None:
    world = made("inbound", chain("TCP", "PERMISSIVE"))
    wire = world.intercepted(APP)
    wire.deliver(b"plain")
    world.accept()
    (stream,) = world.gate.connections
    assert stream.fits(stream.gate.corridor.slot.current)
    resources = dict(world.snapshot.resources)
    resources["listener"] = {"in": Listener(name="in", direction="inbound", port=15006, chains=(chain("TCP", "STRICT"),))}
    world.install(resources)
    world.gate.reconfigured()
    assert not stream.fits(stream.gate.corridor.slot.current)
    stream.drain()
    world.clock.advance(0.5)
    world.sweep()
    assert wire.aborted


def test_another_table_is_for_the_next_request() -> None:
    world = made("outbound", chain("HTTP"))
    wire = world.intercepted(APP)
    resources = dict(world.snapshot.resources)
    resources["listener"] = {"in": Listener(name="in", direction="outbound", port=15006, chains=(chain(route="answer"),))}
    world.install(resources)
    world.gate.reconfigured()
    wire.deliver(GET)
    assert status_of(wire.take()) == 204


def test_who_would_have_to_be_asked_about_is_refused_by_name() -> None:
    record = told(Policy(name="default/c", action="CUSTOM", provider="p", rules=(rule(),)))
    assert record is not None
    assert record.termination == "rbac_access_denied_matched_policy[ns[default]-policy[c]-rule[0]-deny-due-to-bad-CUSTOM-action]"
    (decision,) = record.decisions
    assert decision.reason.endswith(", but no authoriser can be asked about bytes that are not HTTP")


def test_a_port_of_bytes_is_listened_on_by_itself() -> None:
    """Without interception: nobody has redirected the connection, and the chain is of the very port that it came to."""
    world = made("inbound", chain("TCP", port=15001))
    assert became(world, world.intercepted(None)) == "bytes to bytes"
    other = made("inbound", chain("TCP", port=0))
    assert became(other, other.intercepted(None)) == "reset"
