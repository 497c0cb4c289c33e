"""Names in certificates: read once, in Envoy's form, and nothing in them leaves the header that they are put into."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID

from meshproxy.message.secured import Peer
from meshproxy.tls.peer import carries, read_peer
from meshproxy.tls.session import Session
from tests.certs import Pair, spiffe
from tests.tls.clients import foreign
from tests.tls.pair import ROOT, mesh_vault, shake


def seen(pair: Pair) -> Peer:
    door = mesh_vault("book").mesh_server()
    server, client = Session(door, True), Session(foreign(pair), False)  # type: ignore[arg-type]
    shake(server, client)
    found = server.peer()
    assert found is not None
    return found


def test_the_identity_is_the_only_uri() -> None:
    peer = seen(ROOT.issue(spiffe("web", "prod"), dns=("web.example.com",)))
    assert (peer.identity, peer.domain, peer.namespace, peer.account) == (spiffe("web", "prod"), "cluster.local", "prod", "web")
    assert peer.principal == "cluster.local/ns/prod/sa/web" and peer.names == ("web.example.com",)
    assert seen(ROOT.issue((spiffe("a"), spiffe("b")))).identity == ""
    assert seen(ROOT.issue("https://example.com/a")).identity == ""


@pytest.mark.parametrize(
    "path",
    ["/sa/admin?a", "/sa/admin#a", "/sa/%61dmin", "/sa/*", "/sa/..", "/sa/.", "/../sa/a", "/sa/a//", "/sa/a@b", "/sa/a\0b"],
)
def test_what_is_no_spiffe_id_is_no_identity(path: str) -> None:
    """The last one holds a NUL: what stands before it is not the name either."""
    peer = seen(ROOT.issue("spiffe://cluster.local/ns/default" + path))
    assert (peer.identity, peer.principal, peer.account) == ("", "", "")
    assert seen(ROOT.issue("spiffe://cluster.local/ns/a.b/sa/..c_D")).account == "..c_D"


def test_serial_and_digest() -> None:
    import hashlib

    pair = ROOT.issue(spiffe("web"))
    peer = seen(pair)
    assert (peer.serial, peer.digest, peer.expires) == (pair.serial, hashlib.sha256(pair.der).hexdigest(), pair.expires)


@pytest.mark.parametrize("uri", ['spiffe://cluster.local/ns/a/sa/b",By=x', "spiffe://c/ns/a/sa/b;x", "spiffe://c/ns/a/sa/b,x"])
def test_a_uri_that_could_leave_its_header_is_no_identity(uri: str) -> None:
    peer = seen(ROOT.issue(uri))
    assert peer.identity == "" and peer.uris == ()


@pytest.mark.system("openssl")
@pytest.mark.parametrize(
    "subject",
    [
        ((NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "A, B & C"), (NameOID.COMMON_NAME, "one")),
        ((NameOID.COMMON_NAME, ' #a "quoted" <x>; y=1+2\\ '),),
        ((NameOID.COMMON_NAME, "Zoë\r\nx: y"),),
        ((NameOID.DOMAIN_COMPONENT, "org"), (NameOID.USER_ID, "u"), (NameOID.SURNAME, "s"), (NameOID.STREET_ADDRESS, "str")),
        (),
    ],
)
def test_the_subject_is_written_as_openssl_does(subject: tuple[tuple[object, str], ...], tmp_path: Path) -> None:
    pair = ROOT.issue(spiffe("web"), subject=subject)  # type: ignore[arg-type]
    path = tmp_path / "c.pem"
    path.write_bytes(pair.certificate)
    told = subprocess.run(
        ["openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    peer = seen(pair)
    assert peer.subject == told.removeprefix("subject=").removesuffix("\n")
    assert b"\n" not in peer.xfcc and b"\r" not in peer.xfcc


def test_names_that_are_carried() -> None:
    peer = Peer(uris=("spiffe://a",), names=("a.example.com", "*.shop.org"))
    assert all(carries(peer, (name,)) for name in ("spiffe://a", "a.example.com", "A.example.COM", "x.shop.org"))
    assert not any(carries(peer, (name,)) for name in ("spiffe://A", "example.com", "shop.org", "a.b.shop.org", ""))
    assert not carries(peer, ())


def test_read_without_names() -> None:
    peer = read_peer({"notAfter": "Jan  5 09:34:43 2030 GMT", "serialNumber": "00"}, b"der")
    assert (peer.identity, peer.serial, peer.subject, peer.uris) == ("", "0", "", ())
