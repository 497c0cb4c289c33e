"""What is believed and given out: contexts from credentials, judgement of peers, and that nothing secret leaks."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from meshproxy.message.secured import Peer, TlsFault
from meshproxy.model.security import ClientTls, JwtProvider, Secret, Security, ServerTls, Trust
from meshproxy.tls.contexts import Unusable, server_context
from meshproxy.tls.vault import Vault
from tests.certs import DAY, Authority, spiffe
from tests.tls.pair import ROOT, joined, mesh_vault, secret

WALL = 1_000_000.0
TRUST = Trust(
    domain="cluster.local",
    aliases=("old.local",),
    roots=(ROOT.root.decode(),),
    revoked_serials=("00AB12",),
    revoked_identities=("spiffe://old.local/ns/default/sa/thief",),
)


def peer(identity: str = spiffe("web"), serial: str = "1", expires: float = WALL + 1) -> Peer:
    return Peer(identity=identity, serial=serial, expires=expires)


@pytest.mark.parametrize(
    ("who", "allowed", "fault"),
    [
        (peer(), None, None),
        (peer(expires=WALL), None, TlsFault.EXPIRED),
        (peer(""), None, TlsFault.WRONG_IDENTITY),
        (peer("spiffe://cluster.local/web"), None, TlsFault.WRONG_IDENTITY),
        (peer(spiffe("web", domain="elsewhere.org")), None, TlsFault.FOREIGN_DOMAIN),
        (peer(spiffe("web", domain="old.local")), None, None),
        (peer(serial="ab12"), None, TlsFault.REVOKED),
        (peer(serial="ab12", expires=WALL), None, TlsFault.REVOKED),
        (peer(spiffe("thief")), None, TlsFault.REVOKED),
        (peer(spiffe("thief", domain="old.local")), None, TlsFault.REVOKED),
        (peer(), frozenset({spiffe("web")}), None),
        (peer(), frozenset({spiffe("web", domain="old.local")}), None),
        (peer(spiffe("web", domain="old.local")), frozenset({spiffe("web")}), None),
        (peer(), frozenset({spiffe("book")}), TlsFault.WRONG_IDENTITY),
        (peer(), frozenset(), TlsFault.WRONG_IDENTITY),
        (peer(spiffe("web", namespace="other")), frozenset({spiffe("web")}), TlsFault.WRONG_IDENTITY),
    ],
)
def test_judgement(who: Peer, allowed: frozenset[str] | None, fault: TlsFault | None) -> None:
    assert mesh_vault("book", trust=TRUST).judge(who, WALL, allowed) is fault


def test_without_anything_everything_is_refused() -> None:
    vault = Vault()
    assert vault.mesh_server() is TlsFault.NO_IDENTITY and vault.mesh_client() is TlsFault.NO_IDENTITY
    assert vault.server(ServerTls(secret="a/b")) is TlsFault.NO_CREDENTIAL
    assert vault.client(ClientTls()) is TlsFault.NO_IDENTITY
    assert vault.judge(peer(), WALL) is TlsFault.FOREIGN_DOMAIN


def test_before_control_speaks_the_mesh_is_our_own_trust_domain() -> None:
    vault = Vault()
    vault.identify(ROOT.identity(spiffe("book", domain="here.org")))
    assert vault.judge(peer(spiffe("web", domain="here.org")), WALL) is None
    assert vault.judge(peer(), WALL) is TlsFault.FOREIGN_DOMAIN


def test_roots_are_what_control_says_now() -> None:
    second = Authority("second")
    old, new = mesh_vault("web"), Vault()
    new.identify(second.identity(spiffe("web")))
    both = Trust(roots=(ROOT.root.decode(), second.root.decode()))
    book = mesh_vault("book")
    new.configure(both, {})
    assert joined(book, new)[0].fault is TlsFault.UNTRUSTED
    for vault in (book, old, new):
        vault.configure(both, {})
    assert joined(book, new)[0].handshaken and joined(book, old)[0].handshaken
    book.configure(Trust(roots=(second.root.decode(),)), {})
    assert joined(book, old)[0].fault is TlsFault.UNTRUSTED


def test_an_intermediate_travels_with_its_leaf() -> None:
    middle = Authority("intermediate", ROOT)
    web = Vault()
    web.identify(middle.identity(spiffe("web")))
    server, client = joined(mesh_vault("book"), web)
    assert server.handshaken and client.handshaken


def test_an_identity_that_cannot_be_used_leaves_the_one_at_hand() -> None:
    vault = mesh_vault("book")
    kept, good = vault.mesh_server(), vault.identity
    other = ROOT.identity(spiffe("book"))
    for broken in (other._replace(key=ROOT.issue(spiffe("x")).key), other._replace(certificate=b"nonsense")):
        with pytest.raises(ValueError, match="certificate and key: ") as told:
            vault.identify(broken)
        assert "PRIVATE" not in str(told.value)
    assert vault.mesh_server() is kept and vault.identity is good
    vault.identify(other)
    assert vault.mesh_server() is not kept


def test_contexts_stay_while_what_they_are_made_of_stays() -> None:
    vault = mesh_vault("book")
    server, client = vault.mesh_server(), vault.mesh_client()
    vault.configure(Trust(roots=(ROOT.root.decode(),), revoked_serials=("ab",)), {})
    assert (vault.mesh_server(), vault.mesh_client()) == (server, client)
    pair = ROOT.issue(dns=("a.example.com",))
    chain = ServerTls(secret="default/a", route="r")
    vault.configure(vault.trust, secret("default/a", certificate=pair.certificate, key=pair.key))
    made = vault.server(chain)
    vault.configure(vault.trust, secret("default/a", certificate=pair.certificate, key=pair.key))
    assert vault.server(chain) is made and isinstance(made, ssl.SSLContext)
    pair = ROOT.issue(dns=("a.example.com",))
    vault.configure(vault.trust, secret("default/a", certificate=pair.certificate, key=pair.key))
    assert vault.server(chain) is not made
    vault.configure(vault.trust, {"default/a": Secret(name="default/a", error="not found")})
    assert vault.server(chain) is TlsFault.NO_CREDENTIAL


def test_of_too_many_contexts_only_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshproxy.tls.vault._KEPT", 2)
    vault = mesh_vault("book")
    pair = ROOT.issue(dns=("a.example.com",))
    vault.configure(vault.trust, secret("default/a", certificate=pair.certificate, key=pair.key))
    first, second, third = (ServerTls(secret="default/a", route=route) for route in "abc")
    made = {chain: vault.server(chain) for chain in (first, second, third)}
    assert vault.server(second) is made[second] and vault.server(third) is made[third]
    assert vault.server(first) is not made[first]


def test_a_trust_is_checked_before_it_is_obeyed() -> None:
    vault = Vault()
    assert vault.check(Trust(roots=(ROOT.root.decode(),))) == ""
    assert vault.check(Trust(roots=(ROOT.root.decode(), "nonsense"))) == "roots[1]: root: not a PEM certificate"


@pytest.mark.parametrize(
    "tls",
    [
        ClientTls(mode="SIMPLE", secret="default/missing"),
        ClientTls(mode="SIMPLE", ca_file="/nonexistent"),
        ClientTls(mode="SIMPLE", secret="default/broken"),
        ClientTls(mode="MUTUAL", ca_file="/nonexistent"),
        ClientTls(mode="MUTUAL", secret="default/ca"),
    ],
)
def test_origination_without_a_usable_credential(tls: ClientTls) -> None:
    vault = Vault()
    vault.configure(None, {**secret("default/broken", ca=b"nonsense"), **secret("default/ca", ca=ROOT.root)})
    assert vault.client(tls) is TlsFault.NO_CREDENTIAL


def test_origination() -> None:
    vault = Vault()
    vault.configure(None, secret("default/ca", ca=ROOT.root))
    named = vault.client(ClientTls(mode="SIMPLE", secret="default/ca"))
    listed = vault.client(ClientTls(mode="SIMPLE", secret="default/ca", sans=("a.example.com",)))
    careless = vault.client(ClientTls(mode="SIMPLE", insecure_skip_verify=True))
    system = vault.client(ClientTls(mode="SIMPLE"))
    assert all(isinstance(one, ssl.SSLContext) for one in (named, listed, careless, system))
    facts: Any = [(one.check_hostname, one.verify_mode) for one in (named, listed, careless, system)]  # type: ignore[union-attr]
    required, none = ssl.CERT_REQUIRED, ssl.CERT_NONE
    assert facts == [(True, required), (False, required), (False, none), (True, required)]


def test_files_are_read_again_when_they_change_and_the_last_good_ones_stay(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    pair = ROOT.issue(dns=("a.example.com",))
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    vault = Vault()
    chain = ServerTls(certificate_file=str(certificate), key_file=str(key), route="r")
    first = vault.server(chain)
    assert isinstance(first, ssl.SSLContext) and vault.server(chain) is first
    fresh = ROOT.issue(dns=("a.example.com",))
    certificate.write_bytes(fresh.certificate)
    os.utime(certificate, ns=(1, 1))
    assert vault.server(chain) is first, "it does not fit the key yet"
    key.write_bytes(fresh.key)
    os.utime(key, ns=(1, 1))
    second = vault.server(chain)
    assert isinstance(second, ssl.SSLContext) and second is not first


def test_contexts_that_verify_clients_give_no_tickets() -> None:
    vault = mesh_vault("book")
    context = vault.mesh_server()
    assert isinstance(context, ssl.SSLContext)
    assert context.num_tickets == 0 and context.options & ssl.OP_NO_TICKET
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_key_with_a_password_is_refused_without_asking_anybody() -> None:
    pair = ROOT.issue(dns=("a.example.com",))
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    locked = load_pem_private_key(pair.key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    with pytest.raises(Unusable, match="certificate and key"):
        server_context(pair.certificate, locked)


def test_no_key_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    vault = mesh_vault("book", ends=DAY)
    identity = vault.identity
    assert identity is not None
    pair = ROOT.issue(dns=("a.example.com",))
    held = secret("default/a", certificate=pair.certificate, key=pair.key[:-40])
    vault.configure(vault.trust, held)
    assert vault.server(ServerTls(secret="default/a", route="r")) is TlsFault.NO_CREDENTIAL
    provider = JwtProvider(source="s", issuer="i", jwks='{"keys":[{"kty":"oct","k":"PRIVATE"}]}')
    shown = f"{vault!r} {identity!r} {identity} {held!r} {Security(jwt=(provider,))!r} {caplog.text}"
    assert "PRIVATE" not in shown and pair.key[30:60].decode() not in shown
    assert "default/a" in caplog.text and "its connections are refused" in caplog.text
