"""Who comes in, in memory: mode of the listener x kind of client x fault of its certificate; and what becomes of it."""

from __future__ import annotations

import ssl
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshproxy.listener.doorway import Doorway
from meshproxy.listener.downstream import Downstream, SecureDownstream
from meshproxy.message.secured import TlsFault
from meshproxy.model.listener import Listener
from meshproxy.model.security import ServerTls, Trust
from meshproxy.tls.contexts import MESH_CLIENT_ALPN, client_context
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from tests.certs import Authority, Pair, spiffe
from tests.flow.memnet import OK, Wire, World, simple, status_of
from tests.tls.clients import REQUEST, TlsClient, foreign, gateway, inbound, knock, serve
from tests.tls.key_updates import ClientRecords
from tests.tls.pair import ROOT, mesh_vault, secret

ELSEWHERE = Authority("another root")
REVOKED = ROOT.issue(spiffe("web"))
PAIRS: dict[str, Pair | None] = {
    "good": ROOT.issue(spiffe("web")),
    "expired": ROOT.issue(spiffe("web"), ends=-60),
    "not yet valid": ROOT.issue(spiffe("web"), begins=3600),
    "other root": ELSEWHERE.issue(spiffe("web")),
    "other domain": ROOT.issue(spiffe("web", domain="elsewhere.org")),
    "alias": ROOT.issue(spiffe("web", domain="old.local")),
    "no identity": ROOT.issue(dns=("web.example.com",)),
    "two identities": ROOT.issue((spiffe("web"), spiffe("admin"))),
    "revoked serial": REVOKED,
    "revoked identity": ROOT.issue(spiffe("thief")),
    "revoked alias": ROOT.issue(spiffe("thief", domain="old.local")),
    "none": None,
}
FAULTS = {
    "good": None,
    "expired": TlsFault.EXPIRED,
    "not yet valid": TlsFault.NOT_YET_VALID,
    "other root": TlsFault.UNTRUSTED,
    "other domain": TlsFault.FOREIGN_DOMAIN,
    "alias": None,
    "no identity": TlsFault.WRONG_IDENTITY,
    "two identities": TlsFault.WRONG_IDENTITY,
    "revoked serial": TlsFault.REVOKED,
    "revoked identity": TlsFault.REVOKED,
    "revoked alias": TlsFault.REVOKED,
    "none": TlsFault.NO_CERTIFICATE,
}
TRUST = Trust(
    roots=(ROOT.root.decode(),),
    aliases=("old.local",),
    revoked_serials=(REVOKED.serial,),
    revoked_identities=(spiffe("thief"),),
)


def book() -> Vault:
    return mesh_vault("book", trust=TRUST)


def mesh_client(pair: Pair | None, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    own = (pair.certificate, pair.key) if pair is not None else (b"", b"")
    context = client_context(*own, roots=(ROOT.root,), alpn=MESH_CLIENT_ALPN)
    context.maximum_version = most
    return context


def failures(world: World) -> list[TlsFault]:
    return [fault for (side, fault), number in world.gate.vault.tally.failures.items() for _ in range(number) if side == "server"]


def answered(world: World, client: TlsClient) -> bytes:
    client.send(REQUEST)
    assert len(world.dials) == 1, "the request did not reach the app"
    app = world.accept()
    asked = app.take()
    app.deliver(OK)
    assert status_of(client.read()) == 200
    return asked


# -- the table


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", PAIRS)
def test_mutual_tls(mode: str, version: ssl.TLSVersion, kind: str) -> None:
    world = inbound(book(), mode)
    wire = knock(world)
    client = TlsClient(wire, mesh_client(PAIRS[kind], version))
    fault = FAULTS[kind]
    client.send(REQUEST)
    if fault is None:
        assert world.dials and failures(world) == []
        world.accept().deliver(OK)
        assert status_of(client.read()) == 200
        secured = world.records[0].secured
        assert secured is not None and secured.mesh and secured.peer is not None
        assert (secured.alpn, secured.peer.account) == ("istio-http/1.1", "web")
        assert secured.version == {ssl.TLSVersion.TLSv1_2: "TLSv1.2"}.get(version, "TLSv1.3")
        assert world.gate.vault.tally.handshakes["server"] == 1
    else:
        assert (world.dials, world.records, failures(world)) == ([], [], [fault])
        assert world.gate.vault.tally.handshakes["server"] == 0
        by_openssl = fault in (TlsFault.EXPIRED, TlsFault.NOT_YET_VALID, TlsFault.UNTRUSTED, TlsFault.NO_CERTIFICATE)
        if by_openssl or version == ssl.TLSVersion.TLSv1_2:
            assert "alert" in client.session.detail and wire.eof and not wire.aborted
        else:
            assert wire.aborted


@pytest.mark.parametrize(
    ("mode", "served", "fault"), [("DISABLE", True, None), ("PERMISSIVE", True, None), ("STRICT", False, TlsFault.PLAINTEXT)]
)
@pytest.mark.parametrize("step", [1, 1000])
def test_plaintext(mode: str, served: bool, fault: TlsFault | None, step: int) -> None:
    world = inbound(book(), mode)
    wire = knock(world)
    for at in range(0, len(REQUEST), step):
        if not wire.closing:
            wire.deliver(REQUEST[at : at + step])
    assert bool(world.dials) is served
    assert failures(world) == ([fault] if fault is not None else [])
    assert wire.aborted is not served
    if served:
        world.accept().deliver(OK)
        assert status_of(wire.take()) == 200
        assert world.records[0].secured is None
        assert type(wire.protocol).__name__ == ("Downstream" if mode == "DISABLE" else "PlainCaller")


@pytest.mark.parametrize(
    ("mode", "fault"), [("PERMISSIVE", TlsFault.NOT_MESH), ("STRICT", TlsFault.NO_CERTIFICATE), ("DISABLE", None)]
)
def test_one_way_tls_of_a_stranger(mode: str, fault: TlsFault | None) -> None:
    world = inbound(book(), mode)
    wire = knock(world)
    client = TlsClient(wire, foreign())
    client.send(REQUEST)
    assert world.dials == [] and failures(world) == ([fault] if fault is not None else [])
    assert not client.plain


@pytest.mark.parametrize(("mode", "comes_in"), [("PERMISSIVE", False), ("STRICT", True)])
def test_a_certificate_of_the_mesh_without_its_protocol_names(mode: str, comes_in: bool) -> None:
    """Istio: where mutual TLS is demanded its filter chain takes any TLS; where it is welcome, only the mesh's ALPN."""
    world = inbound(book(), mode)
    client = TlsClient(knock(world), foreign(PAIRS["good"], alpn=("http/1.1",), roots=ROOT.root))
    client.send(REQUEST)
    assert bool(world.dials) is comes_in
    assert failures(world) == ([] if comes_in else [TlsFault.NOT_MESH])


def test_without_a_certificate_of_our_own_there_is_an_alert_and_a_reason() -> None:
    world = inbound(Vault(), "STRICT")
    wire = knock(world)
    client = TlsClient(wire, mesh_client(PAIRS["good"]))
    assert failures(world) == [TlsFault.NO_IDENTITY]
    assert client.session.detail == "tlsv1 alert internal error" and wire.eof


@pytest.mark.parametrize("first", [b"\x16\x02\x00\x00\x01\x01", b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"])
@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
def test_what_begins_like_tls_and_is_none(mode: str, first: bytes) -> None:
    world = inbound(book(), mode)
    wire = knock(world)
    wire.deliver(first)
    assert failures(world) == [TlsFault.PROTOCOL] and wire.aborted


# -- bytes


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
def test_a_handshake_and_a_request_byte_by_byte(mode: str) -> None:
    world = inbound(book(), mode)
    client = TlsClient(knock(world), mesh_client(PAIRS["good"]), step=1)
    client.send(REQUEST, 1)
    world.accept().deliver(OK)
    assert status_of(client.read()) == 200


def test_request_bytes_that_come_with_the_end_of_the_handshake_wait_for_the_judgement() -> None:
    for kind, reaches in (("good", True), ("revoked serial", False)):
        world = inbound(book(), "STRICT")
        wire = knock(world)
        session = Session(mesh_client(PAIRS[kind]), False)
        session.start()
        wire.deliver(session.take())
        session.receive(wire.take())
        assert session.handshaken
        wire.deliver(session.take() + session.send(REQUEST))  # in one segment
        assert bool(world.dials) is reaches


def test_garbage_on_an_open_connection_ends_it_with_an_alert() -> None:
    world = inbound(book(), "STRICT")
    wire = knock(world)
    client = TlsClient(wire, mesh_client(PAIRS["good"]))
    client.send(REQUEST)
    wire.deliver(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert wire.closing and wire.take(), "an alert"
    wire.lose()
    assert world.records[0].status == 0
    world.settled()


def test_close_notify_is_a_half_close() -> None:
    world = inbound(book(), "STRICT")
    wire = knock(world)
    client = TlsClient(wire, mesh_client(PAIRS["good"]))
    client.send(REQUEST)
    wire.deliver(client.session.finish())
    app = world.accept()
    assert not wire.closing
    app.deliver(OK)
    assert status_of(client.read()) == 200
    assert wire.closing and client.session.ended
    world.settled()


def test_an_end_without_close_notify_cuts_a_body_short() -> None:
    world = inbound(book(), "STRICT")
    wire = knock(world)
    client = TlsClient(wire, mesh_client(PAIRS["good"]))
    client.send(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 10\r\n\r\nhalf")
    world.accept()
    wire.deliver_eof()
    assert wire.closing
    assert world.records[0].flags
    world.settled()


def test_a_tunnel_that_is_truncated_does_not_look_complete() -> None:
    head = b"GET /a HTTP/1.1\r\nhost: rating:8080\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    switched = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    for notified in (True, False):
        world = inbound(book(), "STRICT")
        wire = knock(world)
        client = TlsClient(wire, mesh_client(PAIRS["good"]))
        client.send(head)
        app = world.accept()
        app.deliver(switched)
        assert status_of(client.read()) == 101
        if notified:
            wire.deliver(client.session.finish())
            assert app.eof and not app.aborted
            app.deliver(b"tail")
            assert client.read() == b"tail"
        else:
            wire.deliver_eof()
            assert wire.aborted
            wire.lose()
            assert app.closing
        wire.lose()
        app.lose()


def test_what_is_written_is_one_write_and_a_client_that_does_not_read_stops_the_app() -> None:
    world = inbound(book(), "STRICT")
    wire = knock(world)
    writes: list[bytes] = []
    write = wire.write

    def noted(data: bytes) -> None:
        writes.append(data)
        write(data)

    wire.write = noted  # type: ignore[method-assign]
    client = TlsClient(wire, mesh_client(PAIRS["good"]))
    client.send(REQUEST)
    app = world.accept()
    writes.clear()
    app.deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + bytes(1000))
    assert len(writes) == 1
    app.deliver(bytes(99_000))
    assert len(writes) == 2
    wire.protocol.pause_writing()
    assert not app.reading
    wire.protocol.resume_writing()
    app.deliver(bytes(100_000))
    assert len(client.read()) > 200_000


# -- time


def test_a_handshake_that_takes_too_long() -> None:
    world = inbound(book(), "PERMISSIVE")
    wire = knock(world)
    wire.deliver(b"\x16\x03\x01")
    door: Doorway = wire.protocol
    assert not door.quiet
    door.overdue(world.clock.now() + 9.9, 60)
    assert not wire.closing
    door.overdue(world.clock.now() + 10.1, 60)
    assert wire.aborted and failures(world) == [TlsFault.TIMEOUT]


def test_who_says_nothing_may_stay_where_plaintext_is_welcome() -> None:
    for mode, patient in (("PERMISSIVE", True), ("STRICT", False)):
        door = knock(inbound(book(), mode)).protocol
        assert door.quiet and (door.patience > 3600) is patient


def test_a_refused_client_is_cut_when_it_has_had_time_to_read_why() -> None:
    world = inbound(book(), "STRICT")
    wire = knock(world)
    TlsClient(wire, mesh_client(None))
    assert wire.eof and not wire.closing
    wire.deliver(b"what it had still to say")
    wire.protocol.overdue(world.clock.now() + 2.1, 60)
    assert wire.aborted and failures(world) == [TlsFault.NO_CERTIFICATE]


def test_a_client_that_leaves_within_the_handshake_is_counted_and_one_that_said_nothing_is_not() -> None:
    world = inbound(book(), "STRICT")
    knock(world).lose()
    assert failures(world) == []
    wire = knock(world)
    wire.deliver(b"\x16\x03")
    wire.lose()
    assert failures(world) == [TlsFault.CLOSED] and world.gate.connections == set()


def test_a_part_of_a_record_is_no_quiet_connection_and_has_a_minute() -> None:
    world = inbound(book(), "STRICT")
    wire = knock(world)
    client = TlsClient(wire, mesh_client(PAIRS["good"]))
    sealed = client.session.send(REQUEST)
    down: SecureDownstream = wire.protocol
    assert down.quiet
    wire.deliver(sealed[:9])
    assert not down.quiet
    now = world.clock.now()
    down.overdue(now, 60)
    down.overdue(now + 59, 60)
    assert not wire.closing
    wire.deliver(sealed[9:])
    assert world.dials
    wire = knock(world)
    client = TlsClient(wire, mesh_client(PAIRS["good"]))
    wire.deliver(client.session.send(REQUEST)[:9])
    wire.protocol.overdue(now, 60)
    wire.protocol.overdue(now + 61, 60)
    assert wire.closing


# -- configuration


def _swap(world: World, mode: str) -> None:
    listener = Listener(name="in", direction="inbound", port=8080, route="8080", mtls=mode)  # type: ignore[arg-type]
    world.install(simple(more={"listener": {"in": listener}}, endpoints=1))


def test_strict_lets_a_plaintext_connection_finish_its_request_and_go() -> None:
    world = inbound(book(), "PERMISSIVE")
    wire = knock(world)
    wire.deliver(REQUEST)
    app = world.accept()
    _swap(world, "STRICT")
    down: Downstream = wire.protocol
    assert not down.fits(world.slot.current)
    down.drain()
    app.deliver(OK)
    answer = wire.take()
    assert status_of(answer) == 200 and b"connection: close" in answer and wire.closing


def test_a_connection_over_mutual_tls_fits_until_it_is_disabled() -> None:
    world = inbound(book(), "PERMISSIVE")
    wire = knock(world)
    TlsClient(wire, mesh_client(PAIRS["good"]))
    for mode, fits in (("STRICT", True), ("PERMISSIVE", True), ("DISABLE", False)):
        _swap(world, mode)
        assert wire.protocol.fits(world.slot.current) is fits


def test_who_came_under_another_configuration_leaves_after_one_request() -> None:
    """In plaintext, accepted just before STRICT; and over TLS, when mutual TLS was disabled in the midst of the handshake."""
    world = inbound(book(), "DISABLE")
    plain = Downstream(world.clock, world.gate)  # type: ignore[arg-type]
    _swap(world, "STRICT")
    plain.connection_made(Wire(plain, ("10.9.9.9", 40000), ("127.1.0.1", 8080)))  # type: ignore[arg-type]
    assert plain.leaving

    wire = knock(world)
    session = Session(mesh_client(PAIRS["good"]), False)
    session.start()
    wire.deliver(session.take())
    session.receive(wire.take())
    _swap(world, "DISABLE")
    wire.deliver(session.take() + session.send(REQUEST))
    assert wire.protocol.leaving
    world.accept().deliver(OK)
    assert b"connection: close" in session.receive(wire.take()) and wire.closing


def test_a_new_certificate_of_our_own_leaves_open_connections() -> None:
    vault = book()
    world = inbound(vault, "STRICT")
    client = TlsClient(knock(world), mesh_client(PAIRS["good"]))
    second = Authority("second root")
    both = Trust(roots=(ROOT.root.decode(), second.root.decode()))
    vault.configure(both, {})
    vault.identify(second.identity(spiffe("book")))
    answered(world, client)
    late = TlsClient(knock(world), mesh_client(PAIRS["good"]))
    assert late.session.fault is TlsFault.UNTRUSTED, "it does not know the second root"


def test_revocation_is_seen_on_open_connections() -> None:
    vault = mesh_vault("book")
    world = inbound(vault, "STRICT")
    wire = knock(world)
    TlsClient(wire, mesh_client(PAIRS["good"]))
    assert wire.protocol.revoked(0.0) is None
    vault.configure(Trust(roots=(ROOT.root.decode(),), revoked_identities=(spiffe("web"),)), {})
    assert wire.protocol.revoked(0.0) is TlsFault.REVOKED


def test_plaintext_callers_are_listed() -> None:
    world = inbound(book(), "PERMISSIVE")
    wire = knock(world, "10.0.0.7")
    wire.deliver(REQUEST)
    world.accept().deliver(OK)
    callers = world.gate.callers
    assert [(one.source, one.requests) for one in callers.all()] == [("10.0.0.7", 1)]
    wire.lose()
    assert [(one.source, one.requests) for one in callers.all()] == [("10.0.0.7", 1)]
    TlsClient(knock(world, "10.0.0.8"), mesh_client(PAIRS["good"])).send(REQUEST)
    assert len(callers.all()) == 1
    peers = world.gate.peers
    assert [(one.source, one.requests) for one in peers.all()] == [(spiffe("web"), 1)]
    for number in range(300):
        wire = knock(world, f"10.1.{number // 250}.{number % 250}")
        wire.deliver(REQUEST)
        wire.lose()
    assert len(callers.all()) == 256 and callers.forgotten == 45


def test_who_is_turned_away_for_plaintext_is_listed() -> None:
    world = inbound(book(), "STRICT")
    for _ in range(2):
        knock(world, "::ffff:10.0.0.7").deliver(REQUEST)
    assert [(one.source, one.requests) for one in world.gate.turned_away.all()] == [("10.0.0.7", 2)]
    assert world.gate.callers.all() == []


# -- gateways

WEB = Authority("web root")
SITE = WEB.issue(dns=("shop.example.com",))
OTHER = WEB.issue(dns=("*.other.org",))
CUSTOMER = ELSEWHERE.issue(("spiffe://customers/one",), dns=("one.customer.org",), common_name="one")


def edge(*servers: ServerTls, **fields: bytes) -> World:
    vault = mesh_vault("gateway")
    held = {"certificate": SITE.certificate, "key": SITE.key, "ca": ELSEWHERE.root, **fields}
    secrets = {**secret("default/site", **held), **secret("default/other", certificate=OTHER.certificate, key=OTHER.key)}
    vault.configure(vault.trust, secrets)
    return gateway(vault, *servers)


def shop(mode: Any = "SIMPLE", **fields: Any) -> ServerTls:
    return ServerTls(**{"hosts": ("shop.example.com",), "mode": mode, "route": "8080", "secret": "default/site", **fields})


def test_a_gateway_chooses_its_server_by_name() -> None:
    world = edge(shop(), ServerTls(hosts=("*.other.org",), route="8080", secret="default/other"))
    checked = client_context(roots=(WEB.root,), check_name=True)
    for name in ("shop.example.com", "a.other.org"):
        client = TlsClient(knock(world), checked, name)
        client.send(REQUEST)
        assert client.session.fault is None and world.dials.pop()
    wire = knock(world)
    TlsClient(wire, foreign(), "unknown.example.com")
    assert wire.aborted and failures(world) == [TlsFault.UNKNOWN_NAME]
    wire = knock(world)
    TlsClient(wire, foreign())  # no name at all, and no server for everybody
    assert failures(world) == [TlsFault.UNKNOWN_NAME] * 2
    wire = knock(world)
    wire.deliver(REQUEST)
    assert wire.aborted and failures(world)[-1] is TlsFault.NOT_TLS


def test_a_gateway_says_https() -> None:
    world = edge(shop())
    asked = answered(world, TlsClient(knock(world), foreign(), "shop.example.com"))
    assert b"x-forwarded-proto: https" in asked and b"x-forwarded-client-cert" not in asked
    secured = world.records[0].secured
    assert secured is not None and (secured.peer, secured.mesh, secured.sni) == (None, False, "shop.example.com")


@pytest.mark.parametrize(
    ("mode", "pair", "fault"),
    [
        ("MUTUAL", CUSTOMER, None),
        ("MUTUAL", None, TlsFault.NO_CERTIFICATE),
        ("MUTUAL", ROOT.issue(spiffe("web")), TlsFault.UNTRUSTED),
        ("OPTIONAL_MUTUAL", CUSTOMER, None),
        ("OPTIONAL_MUTUAL", None, None),
        ("OPTIONAL_MUTUAL", ROOT.issue(spiffe("web")), TlsFault.UNTRUSTED),
        ("ISTIO_MUTUAL", PAIRS["good"], None),
        ("ISTIO_MUTUAL", CUSTOMER, TlsFault.UNTRUSTED),
        ("ISTIO_MUTUAL", PAIRS["other domain"], TlsFault.FOREIGN_DOMAIN),
    ],
)
def test_clients_of_a_gateway(mode: str, pair: Pair | None, fault: TlsFault | None) -> None:
    world = edge(shop(mode))
    client = TlsClient(knock(world), foreign(pair), "shop.example.com")
    client.send(REQUEST)
    assert failures(world) == ([fault] if fault is not None else [])
    assert bool(world.dials) is (fault is None)
    if fault is None:
        world.accept().deliver(OK)
        secured = world.records[0].secured
        assert secured is not None and secured.mesh is (mode == "ISTIO_MUTUAL")
        assert (secured.peer is None) is (pair is None)


def test_what_a_gateway_s_client_must_be() -> None:

    digest = sha256(CUSTOMER.der).hexdigest()
    key = x509.load_der_x509_certificate(CUSTOMER.der).public_key()
    spki = b64encode(sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()
    wrong = "0" * 64
    for fields, comes_in in (
        ({"sans": ("one.customer.org",)}, True),
        ({"sans": ("spiffe://customers/one", "x")}, True),
        ({"sans": ("two.customer.org",)}, False),
        ({"certificate_hashes": (digest,)}, True),
        ({"certificate_hashes": (":".join(digest[i : i + 2] for i in range(0, 64, 2)).upper(),)}, True),
        ({"certificate_hashes": (wrong,)}, False),
        ({"spki_hashes": (spki,)}, True),
        ({"spki_hashes": (b64encode(bytes(32)).decode(),)}, False),
        ({"spki_hashes": (spki,), "certificate_hashes": (wrong,)}, True),
        ({"spki_hashes": (spki,), "sans": ("x",)}, False),
    ):
        world = edge(shop("MUTUAL", **fields))
        client = TlsClient(knock(world), foreign(CUSTOMER), "shop.example.com")
        client.send(REQUEST)
        assert bool(world.dials) is comes_in, fields
        assert failures(world) == ([] if comes_in else [TlsFault.WRONG_IDENTITY])


def test_a_list_of_revoked_certificates() -> None:
    for listed, fault in ((CUSTOMER.serial, TlsFault.REVOKED), ("abc", None)):
        world = edge(shop("MUTUAL"), crl=ELSEWHERE.crl(listed))
        TlsClient(knock(world), foreign(CUSTOMER), "shop.example.com")
        assert failures(world) == ([fault] if fault is not None else [])


@pytest.mark.parametrize(
    ("least", "most", "works"),
    [("TLSV1_2", "TLSV1_3", (True, True)), ("TLSV1_3", "TLSV1_3", (False, True)), ("TLSV1_2", "TLSV1_2", (True, False))],
)
def test_versions_of_a_gateway_s_server(least: Any, most: Any, works: tuple[bool, bool]) -> None:
    for version, expected in zip((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), works, strict=True):
        context = foreign()
        context.minimum_version = context.maximum_version = version
        world = edge(shop(min_version=least, max_version=most))
        client = TlsClient(knock(world), context, "shop.example.com")
        assert client.session.handshaken is expected
        assert failures(world) == ([] if expected else [TlsFault.PROTOCOL])


def test_ciphers_of_a_gateway_s_server() -> None:
    context = foreign()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for ciphers, fault in (
        (("ECDHE-ECDSA-AES128-GCM-SHA256",), None),
        (("ECDHE-RSA-AES128-GCM-SHA256",), TlsFault.PROTOCOL),
        (("NONSENSE",), TlsFault.NO_CREDENTIAL),
    ):
        world = edge(shop(ciphers=ciphers))
        TlsClient(knock(world), context, "shop.example.com")
        assert failures(world) == ([fault] if fault is not None else []), ciphers


def test_a_missing_or_unusable_credential_refuses_only_its_own_connections() -> None:
    for broken in ("default/nowhere", "default/broken"):
        world = edge(shop(secret=broken), ServerTls(hosts=("*",), route="8080", secret="default/other"))
        vault = world.gate.vault
        vault.configure(vault.trust, {**vault._secrets, **secret("default/broken", certificate=b"x", key=b"y")})
        client = TlsClient(knock(world), foreign(), "shop.example.com")
        assert failures(world) == [TlsFault.NO_CREDENTIAL]
        assert client.session.detail == "tlsv1 alert internal error"
        answered(world, TlsClient(knock(world), foreign(), "a.other.org"))


@pytest.mark.parametrize(
    ("host", "status"),
    [("rating", 421), ("RATING:8443", 421), ("open.org", 404), ("a.open.org:1", 404), ("nobody", 404)],
)
def test_a_request_for_another_server_s_host_does_not_get_around_its_certificate(host: str, status: int) -> None:
    """The SIMPLE server's routes hold the other's host, too: a virtual service that is bound to the gateway stands in both."""
    closed, ajar = shop("MUTUAL", hosts=("rating",)), ServerTls(hosts=("*.org", "open.org"), route="8080", secret="default/other")
    world = edge(closed, ajar)
    client = TlsClient(knock(world), foreign(), "a.open.org")
    client.send(REQUEST.replace(b"rating:8080", host.encode()))
    assert status_of(client.read()) == status
    assert world.dials == []
    customer = TlsClient(knock(world), foreign(CUSTOMER), "rating")
    answered(world, customer)


def test_a_server_that_changes_drains_its_connections_and_another_does_not() -> None:
    site, other = shop(), ServerTls(hosts=("*.other.org",), route="8080", secret="default/other")
    world = edge(site, other)
    first, second = knock(world), knock(world)
    TlsClient(first, foreign(), "shop.example.com")
    TlsClient(second, foreign(), "a.other.org")
    world.install(
        simple(more={"listener": {"in": Listener(name="in", direction="gateway", port=8443, tls=(shop("MUTUAL"), other))}})
    )
    serve(world)
    assert (first.protocol.fits(world.slot.current), second.protocol.fits(world.slot.current)) == (False, True)


def test_a_crash_at_the_door_costs_that_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    world = inbound(book(), "STRICT")
    told: list[str] = []
    world.gate.crash = lambda where, bug: told.append(where)
    monkeypatch.setattr(world.gate.vault, "mesh_server", lambda: 1 / 0)
    wire: Wire = knock(world)
    session = Session(mesh_client(None), False)
    session.start()
    wire.deliver(session.take())
    assert told == ["doorway"] and wire.aborted


def forger(tmp_path: Path) -> tuple[World, Wire, ClientRecords]:
    """A client of the mesh that has shaken hands, and whose records the test makes itself."""
    context = mesh_client(PAIRS["good"])
    context.keylog_filename = str(tmp_path / "keys")
    world = inbound(book(), "STRICT")
    wire = knock(world)
    client = TlsClient(wire, context)
    assert client.session.handshaken
    lines = (tmp_path / "keys").read_text().splitlines()
    (found,) = [line.split()[2] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0 ")]
    return world, wire, ClientRecords(bytes.fromhex(found))


def test_key_updates_are_answered_and_data_goes_on(tmp_path: Path) -> None:
    world, wire, records = forger(tmp_path)
    for _ in range(100):
        wire.deliver(b"".join(records.update() for _ in range(10)))
        assert wire.take()
        wire.deliver(records.data(REQUEST))
        if world.dials:
            app = world.accept()
        app.deliver(OK)
    assert len(world.records) == 100 and not wire.closing


def test_a_flood_of_key_updates_ends(tmp_path: Path) -> None:
    """Each costs as much as kilobytes of data, and OpenSSL does not count them."""
    _, wire, records = forger(tmp_path)
    sent = 0
    while not wire.closing and sent < 1_000_000:
        update = records.update()
        wire.deliver(update)
        wire.take()
        sent += len(update)
    assert sent < 64 * 1024


def test_answers_to_key_updates_do_not_pile_up(tmp_path: Path) -> None:
    """A client that sends data between them, and reads nothing."""
    world, wire, records = forger(tmp_path)
    wire.deliver(records.data(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 1000000\r\n\r\n"))
    world.accept()
    while not wire.closing and len(wire.sent) < 1_000_000:
        wire.deliver(b"".join(records.update() for _ in range(100)) + records.data(b"x"))
    assert wire.aborted and len(wire.sent) < 256 * 1024
