"""Who a request says it is from, along the whole data path: what is believed, what is told, what is never passed on."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.codec.h1 import ClientCodec
from meshproxy.exchange.exchange import Exchange
from meshproxy.listener.downstream import Downstream
from meshproxy.message.reason import Reason
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, Service, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.report import LABELS
from meshproxy.model.route import Forward, Retry, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.policy.peer_metadata import OwnMetadata
from meshproxy.telemetry.observe import Observer
from meshproxy.upstream.connection import UpstreamConnection
from tests.flow.memnet import GET, OK, Wire, World, simple, status_of

ME, WEB, OLD = "spiffe://cluster.local/ns/default/sa/rating", "spiffe://cluster.local/ns/shop/sa/web", "spiffe://x/ns/a/sa/b"
RATING = Workload(pod="rating-1", namespace="default", workload="rating", app="rating")
CALLER = Workload(pod="web-1", namespace="shop", workload="web", app="web")
OWN = OwnMetadata(RATING, "sidecar~10.0.0.2~rating-1.default~default.svc.cluster.local")
THEIRS = OwnMetadata(CALLER, "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local")
META = b"x-envoy-peer-metadata"
FORGED = b"x-forwarded-client-cert: By=spiffe://evil;URI=spiffe://cluster.local/ns/default/sa/admin\r\n" + THEIRS.lines
ELEMENT = f'By={ME};Hash=ab12;Subject="";URI={WEB}'.encode()


def secured(identity: str = WEB, mesh: bool = True, local: str = ME) -> Secured:
    return Secured(Peer(identity=identity, digest="ab12", uris=(identity,)), "sni", "istio-http/1.1", "TLSv1.3", "C", mesh, local)


class MeshDownstream(Downstream):
    """A client connection in TLS, after its handshake."""

    __slots__ = ("secured",)

    def _open(self, codec: Any) -> Any:
        self.exchange = Exchange(self.gate.corridor, codec, self.source, self.remote, self.local, self.secured)
        return self.exchange


def client(world: World, over: Secured | None, source: str = "10.0.0.1") -> Wire:
    protocol = MeshDownstream(world.clock, world.gate)  # type: ignore[arg-type]
    protocol.secured = over
    wire = Wire(protocol, (source, 40000), ("10.0.0.2", 8080))
    protocol.connection_made(wire)  # type: ignore[arg-type]
    return wire


def accept(world: World, over: Secured | None) -> Wire:
    pool = world.dials.pop(0)
    connection = UpstreamConnection(world.clock, pool, world.bug)  # type: ignore[arg-type]
    wire = Wire(connection, (pool.endpoint.address, pool.endpoint.port), ("127.1.0.1", 50000))
    connection.connection_made(wire)  # type: ignore[arg-type]
    if over is not None:
        connection.secured = over
        connection.codec = ClientCodec(wire, greeting=OWN if over.mesh else None)
    pool.connected(connection, world.clock.now())
    return wire


def inbound(direction: str = "inbound") -> World:
    app = Cluster(name="inbound|8080||", type="STATIC", service=Service(host="rating", name="rating", namespace="default"))
    table = RouteConfig(
        name="in",
        virtual_hosts=(
            VirtualHost(
                name="any", domains=("*",), routes=(Route(action=Forward(clusters=(WeightedCluster(cluster=app.name),))),)
            ),
        ),
    )
    known = Workload(pod="known", namespace="shop", workload="known-by-address")
    listener = Listener(name="in", direction=direction, port=8080, route="in", mtls="PERMISSIVE")  # type: ignore[arg-type]
    world = World(
        {
            "cluster": {app.name: app, "web": Cluster(name="web")},
            "endpoints": {
                app.name: Endpoints(name=app.name, endpoints=(Endpoint(address="127.0.0.1", port=8080),)),
                "web": Endpoints(name="web", endpoints=(Endpoint(address="10.0.0.1", port=80, workload=known),)),
            },
            "route": {"in": table},
            "listener": {"in": listener},
        },
        listener="in",
    )
    world.corridor.own = OWN
    return world


def names(head: bytes) -> list[bytes]:
    return [line.partition(b":")[0] for line in head.split(b"\r\n")[1:] if line]


def value(head: bytes, name: bytes) -> bytes | None:
    found = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(name + b": ")]
    assert len(found) < 2
    return found[0] if found else None


def ask(more: bytes = b"") -> bytes:
    return b"GET /a HTTP/1.1\r\nhost: rating:8080\r\n" + more + b"\r\n"


def series(observer: Observer) -> list[dict[str, str]]:
    family = next(one for one in observer.families() if one.name == "istio_requests_total")
    return [dict(zip(LABELS, row.labels, strict=True)) for row in family.rows]


# -- inbound


@pytest.mark.parametrize("direction", ["inbound", "gateway", "outbound"])
def test_nobody_in_plaintext_is_believed(direction: str) -> None:
    world = World() if direction == "outbound" else inbound(direction)
    world.corridor.own = OWN
    came = client(world, None, "127.0.0.1" if direction == "outbound" else "10.0.0.1")
    came.deliver(ask(FORGED))
    app = accept(world, None)
    head = app.take()
    assert not {b"x-forwarded-client-cert", META, META + b"-id"}.intersection(names(head))
    app.deliver(OK)
    assert META not in came.take()
    peer = world.records[0].peer
    assert peer is None if direction == "outbound" else peer.workload == "known-by-address"


def test_over_mutual_tls_the_element_is_appended_and_metadata_is_believed_and_kept_from_the_app() -> None:
    world = inbound()
    world.corridor.observer = observer = Observer(RATING)
    over = secured()
    came = client(world, over)
    came.deliver(ask(b"x-forwarded-client-cert: URI=" + OLD.encode() + b"\r\n" + THEIRS.lines))
    app = accept(world, None)
    head = app.take()
    assert value(head, b"x-forwarded-client-cert") == b"URI=" + OLD.encode() + b"," + ELEMENT
    assert META not in head
    app.deliver(OK)
    answer = came.take()
    assert value(answer, META) == dict(OWN.pairs)[META]
    came.deliver(ask())  # said once a connection, known for all of it
    head = app.take()
    assert value(head, b"x-forwarded-client-cert") == ELEMENT
    app.deliver(OK)
    assert META not in came.take()
    (one,) = series(observer)
    assert (one["source_workload"], one["source_workload_namespace"], one["source_app"]) == ("web", "shop", "web")
    assert (one["source_principal"], one["destination_principal"]) == (WEB, ME)
    assert one["connection_security_policy"] == "mutual_tls"


def test_labels_of_plaintext_claim_nothing() -> None:
    world = inbound()
    world.corridor.observer = observer = Observer(RATING)
    came = client(world, None)
    came.deliver(ask(FORGED))
    accept(world, None).deliver(OK)
    (one,) = series(observer)
    assert (one["source_principal"], one["destination_principal"], one["connection_security_policy"]) == (
        "unknown",
        "unknown",
        "none",
    )
    assert one["source_workload"] == "known-by-address"


def test_a_peer_speaks_of_its_own_namespace_only() -> None:
    world = inbound()
    came = client(world, secured(identity="spiffe://cluster.local/ns/other/sa/web"))
    came.deliver(ask(THEIRS.lines))
    accept(world, None).deliver(OK)
    assert world.records[0].peer.workload == "known-by-address"


def test_an_answer_of_our_own_making_says_who_we_are_too() -> None:
    world = inbound()
    came = client(world, secured())
    came.deliver(ask())
    world.refuse()
    answer = came.take()
    assert status_of(answer) == 503
    assert value(answer, META) is not None


def test_an_app_cannot_answer_in_anothers_name() -> None:
    world = inbound()
    came = client(world, secured())
    came.deliver(ask())
    forged = b"HTTP/1.1 200 OK\r\n" + THEIRS.lines + b"content-length: 0\r\n\r\n"
    accept(world, None).deliver(forged)
    assert value(came.take(), META) == dict(OWN.pairs)[META]


# -- gateways


def test_a_gateway_says_itself_whose_certificate_it_saw() -> None:
    world = inbound("gateway")
    over = Secured(Peer(digest="ab12", subject="CN=me"), "shop.example", "http/1.1", "TLSv1.3", "C")
    came = client(world, over)
    came.deliver(ask(FORGED + b"x-forwarded-proto: http\r\n"))
    app = accept(world, None)
    head = app.take()
    assert value(head, b"x-forwarded-client-cert") == b'Hash=ab12;Subject="CN=me";URI='
    assert value(head, b"x-forwarded-proto") == b"https"
    assert META not in head
    app.deliver(OK)
    assert META not in came.take()


def test_a_gateway_without_a_clients_certificate_passes_none_on() -> None:
    world = inbound("gateway")
    came = client(world, Secured(None, "shop.example"))
    came.deliver(ask(FORGED))
    head = accept(world, None).take()
    assert b"x-forwarded-client-cert" not in head
    assert value(head, b"x-forwarded-proto") == b"https"


# -- outbound


def outbound(**more: Any) -> World:
    world = World(simple(**more))
    world.corridor.own = OWN
    return world


def test_we_are_named_to_the_mesh_only_and_learn_who_answers_there() -> None:
    world = outbound(endpoints=1)
    world.corridor.observer = observer = Observer(RATING)
    app = world.client()
    app.deliver(GET)
    there = accept(world, secured())
    assert value(there.take(), META) == dict(OWN.pairs)[META]
    there.deliver(b"HTTP/1.1 200 OK\r\n" + THEIRS.lines + b"content-length: 0\r\n\r\n")
    assert META not in app.take()
    app.deliver(GET)
    assert META not in there.take()
    there.deliver(OK)
    (one,) = series(observer)
    assert (one["destination_workload"], one["destination_principal"], one["source_principal"]) == ("web", WEB, ME)
    assert one["connection_security_policy"] == "unknown"


@pytest.mark.parametrize("over", [None, secured(mesh=False, identity="")])
def test_others_are_told_nothing_and_not_believed(over: Secured | None) -> None:
    world = outbound(endpoints=1)
    app = world.client()
    app.deliver(GET)
    there = accept(world, over)
    assert META not in there.take()
    there.deliver(b"HTTP/1.1 200 OK\r\n" + THEIRS.lines + b"content-length: 0\r\n\r\n")
    assert META not in app.take()
    assert over is None or over.workload is None


def test_metadata_does_not_travel_with_a_retry_to_somebody_else() -> None:
    retry = Retry(attempts=1, on=("connect-failure", "503"))
    world = outbound(action=Forward(clusters=(WeightedCluster(cluster="c"),), retry=retry))
    app = world.client()
    app.deliver(GET)
    first = accept(world, secured())
    assert META in first.take()
    first.deliver(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n")
    world.clock.advance(1)
    assert META not in accept(world, None).take()


def test_a_peer_that_refuses_us_after_the_handshake_is_tried_again_like_one_that_could_not_be_reached() -> None:
    retry = Retry(attempts=1, on=("connect-failure",))
    world = outbound(action=Forward(clusters=(WeightedCluster(cluster="c"),), retry=retry))
    app = world.client()
    app.deliver(GET)
    first = accept(world, secured())
    refused(first)
    world.clock.advance(1)
    second = accept(world, secured())
    refused(second)
    answer = app.take()
    assert status_of(answer) == 503
    assert answer.endswith(
        b"upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection "
        b"failure, transport failure reason: TLS_error: the peer refused us: tlsv1 alert unknown ca"
    )
    record = world.records[0]
    assert [reason.flag for reason in record.flags] == ["UF", "URX"]
    assert record.transport_failure == "TLS_error: the peer refused us: tlsv1 alert unknown ca"
    world.settled()


def refused(wire: Wire) -> None:
    connection = wire.protocol
    connection.failure = "TLS_error: the peer refused us: tlsv1 alert unknown ca"
    connection.lost_by = Reason.CONNECT_FAILURE
    wire.lose()
