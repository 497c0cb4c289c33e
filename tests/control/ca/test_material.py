"""An authority of the user's own: whatever openssl accepts works, whatever peers would refuse is one clear line."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from control.ca.authority import Authority
from control.ca.issuer import pem
from control.ca.material import load
from control.files import FileProblem, write_private
from tests.control.ca.requests import URI, certificate, company, key_pem

NOW = time.time()
DAY = 86400.0


def verified(chain: bytes, roots: bytes, at: Path, purpose: str) -> str:
    """What openssl says about a chain, leaf first."""
    leaf, rest = at / "leaf.pem", at / "rest.pem"
    one, *above = x509.load_pem_x509_certificates(chain)
    leaf.write_bytes(pem(one))
    rest.write_bytes(b"".join(map(pem, above)))
    (at / "roots.pem").write_bytes(roots)
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(at / "roots.pem")]
    command += ["-untrusted", str(rest)] if above else []
    done = subprocess.run([*command, str(leaf)], capture_output=True, text=True, timeout=20)
    return done.stdout.strip().rpartition(": ")[2] or done.stderr


@pytest.mark.parametrize(("kind", "links"), [("ec", 0), ("ec", 1), ("ec", 3), ("rsa", 1)])
def test_openssl_believes_what_is_issued(tmp_path: Path, kind: str, links: int) -> None:
    authority = Authority.open(tmp_path / "ca", NOW, company(tmp_path / "company", NOW, kind, links))
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        made = authority.issuer.issue_workload(key.public_key(), URI, NOW, DAY)
        for purpose in ("sslserver", "sslclient"):
            assert verified(made.chain, authority.root_pem, tmp_path, purpose) == "OK"
        leaf, *above = x509.load_pem_x509_certificates(made.chain)
        assert len(above) == links  # the root stays at home
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.critical
        assert [name.value for name in names.value] == [URI]
        assert f"{leaf.serial_number:x}" == made.serial
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    server = authority.issue_server(["127.0.0.1"], NOW, DAY)
    assert verified(server.certificate, authority.root_pem, tmp_path, "sslserver") == "OK"
    again = Authority.open(tmp_path / "ca", NOW)  # the copy in the state counts; the user's files may go
    assert again.issuer.id == authority.issuer.id
    assert again.issuer.above == authority.issuer.above


def test_lifetimes_end_with_the_issuer_and_may_be_short(tmp_path: Path) -> None:
    issuer = load(company(tmp_path / "company", NOW, days=2), NOW)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert issuer.issue_workload(key, URI, NOW, 90 * DAY).expires == issuer.expires < NOW + 2 * DAY
    assert NOW + 3 <= issuer.issue_workload(key, URI, NOW, 3).expires <= NOW + 4
    leaf = x509.load_pem_x509_certificate(issuer.issue_workload(key, URI, NOW, 3).chain)
    assert leaf.not_valid_before_utc.timestamp() < NOW - 60


def other_key(at: Path) -> None:
    write_private(at / "ca-key.pem", key_pem(ec.generate_private_key(ec.SECP256R1())))


def no_chain(at: Path) -> None:
    (at / "cert-chain.pem").unlink()


def other_root(at: Path) -> None:
    (at / "root-cert.pem").write_bytes(pem(certificate("stranger", ec.generate_private_key(ec.SECP256R1()), None, NOW)))


def encrypted(at: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    data = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret")
    )
    write_private(at / "ca-key.pem", data)


def odd_key(at: Path) -> None:
    write_private(at / "ca-key.pem", key_pem(ed25519.Ed25519PrivateKey.generate()))  # type: ignore[arg-type]


def weak_key(at: Path) -> None:
    write_private(at / "ca-key.pem", key_pem(rsa.generate_private_key(65537, 1024)))


@pytest.mark.parametrize(
    ("links", "last", "spoil", "why"),
    [
        (1, {}, other_key, "ca-key.pem: does not belong to ca-cert.pem"),
        (1, {}, lambda at: (at / "ca-key.pem").chmod(0o644), "chmod 600"),
        (1, {}, encrypted, "is encrypted"),
        (1, {}, odd_key, "neither an RSA nor an ECDSA key"),
        (1, {}, weak_key, "1024 bits"),
        (1, {}, lambda at: (at / "ca-key.pem").unlink(), "ca-key.pem: cannot be read"),
        (1, {}, lambda at: (at / "ca-cert.pem").write_bytes(b"nothing"), "ca-cert.pem: is not a PEM certificate"),
        (1, {}, lambda at: (at / "root-cert.pem").unlink(), "root-cert.pem: is missing"),
        (2, {}, no_chain, "the chain does not lead to root-cert.pem"),
        (2, {}, other_root, "the chain does not lead to root-cert.pem"),
        (1, {"ca": False}, None, "is not a certificate authority"),
        (1, {"sign": False}, None, "may not sign certificates"),
        (1, {"days": -5}, None, "expired on"),
        (1, {"starts": 5, "days": 10}, None, "is not valid before"),
    ],
)
def test_what_peers_would_refuse_is_one_clear_line(
    tmp_path: Path, links: int, last: dict[str, object], spoil: Callable[[Path], object] | None, why: str
) -> None:
    at = company(tmp_path / "company", NOW, "ec", links, **last)
    if spoil is not None:
        spoil(at)
    with pytest.raises(FileProblem) as caught:
        load(at, NOW)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ca").exists()


def test_too_many_authorities_below_one_that_limits_them(tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root = certificate("root", keys[0], None, NOW, path_length=0)
    middle = certificate("middle", keys[1], (root, keys[0]), NOW)
    at = tmp_path / "company"
    at.mkdir()
    (at / "ca-cert.pem").write_bytes(pem(middle))
    (at / "root-cert.pem").write_bytes(pem(root))
    write_private(at / "ca-key.pem", key_pem(keys[1]))
    with pytest.raises(FileProblem, match="allows 0 authorities below it, and there are 1"):
        load(at, NOW)


def test_a_certificate_that_is_its_own_root_needs_no_other_file(tmp_path: Path) -> None:
    at = company(tmp_path / "company", NOW, links=0)
    for name in ("root-cert.pem", "cert-chain.pem"):
        (at / name).unlink()
    assert load(at, NOW).root == load(at, NOW).certificate


def test_several_roots_are_all_trusted(tmp_path: Path) -> None:
    at = company(tmp_path / "company", NOW)
    more = certificate("last year's", ec.generate_private_key(ec.SECP256R1()), None, NOW)
    with (at / "root-cert.pem").open("ab") as file:
        file.write(pem(more))
    assert len(Authority.open(tmp_path / "ca", NOW, at).roots) == 2


def test_a_mesh_that_has_an_authority_keeps_it(tmp_path: Path) -> None:
    first = Authority.open(tmp_path / "ca", NOW)
    assert Authority.open(tmp_path / "ca", NOW, company(tmp_path / "company", NOW)).issuer.id == first.issuer.id


def test_only_one_that_has_expired_is_replaced_at_start(tmp_path: Path) -> None:
    old = Authority.open(tmp_path / "ca", NOW, company(tmp_path / "old", NOW, days=3))
    later = NOW + 4 * DAY
    with pytest.raises(FileProblem, match=r"expired on .*: start once with --ca-dir DIR"):
        Authority.open(tmp_path / "ca", later)
    new = Authority.open(tmp_path / "ca", later, company(tmp_path / "new", NOW))
    assert new.issuer.id != old.issuer.id
    assert Authority.open(tmp_path / "ca", later).issuer.id == new.issuer.id
