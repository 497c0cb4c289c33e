"""The root is made once, survives restarts, is never replaced in silence; certificates under it pass a strict check."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.authority import Authority
from control.files import FileProblem

NOW = time.time()
DAY = 86400.0


def test_made_once_and_loaded_later(tmp_path: Path) -> None:
    first = Authority.open(tmp_path / "ca", NOW)
    again = Authority.open(tmp_path / "ca", NOW + DAY)
    assert again.root_pem == first.root_pem
    assert (tmp_path / "ca" / "root.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca"]
    assert "PRIVATE" not in repr(first) + str(vars(first).keys())


def test_the_root_is_what_it_should_be(tmp_path: Path) -> None:
    root = x509.load_pem_x509_certificate(Authority.open(tmp_path / "ca", NOW).root_pem)
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert 3649 <= (root.not_valid_after_utc - root.not_valid_before_utc).days <= 3651
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_server_certificate_verifies_for_each_name(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "ca", NOW)
    made = authority.issue_server(["127.0.0.1", "localhost", "istiod.istio-system.svc", "localhost"], NOW, DAY)
    leaf, root = (x509.load_pem_x509_certificate(pem) for pem in (made.certificate, authority.root_pem))
    store = x509.verification.Store([root])
    for subject in (x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("istiod.istio-system.svc")):
        x509.verification.PolicyBuilder().store(store).build_server_verifier(subject).verify(leaf, [])
    with pytest.raises(x509.verification.VerificationError):
        x509.verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName("other")).verify(leaf, [])
    assert made.expires == pytest.approx(NOW + DAY, abs=1)
    assert "PRIVATE" not in repr(made)


def test_no_certificate_outlives_the_root(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "ca", NOW)
    assert authority.issue_server(["a"], NOW + 3649 * DAY, 100 * DAY).expires == authority.expires


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("root.key", b"garbage", "is not a PEM private key"),
        ("root.key", b"", "is empty"),
        ("root.pem", b"garbage", "is not a PEM certificate"),
        ("root.pem", None, "is missing while root.key exists"),
        ("root.key", None, "is missing while root.pem exists"),
    ],
)
def test_a_damaged_root_is_one_clear_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    Authority.open(tmp_path / "ca", NOW)
    path = tmp_path / "ca" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(FileProblem) as caught:
        Authority.open(tmp_path / "ca", NOW)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path / "ca", NOW)
    (tmp_path / "ca" / "root.key").chmod(0o644)
    with pytest.raises(FileProblem, match="chmod 600"):
        Authority.open(tmp_path / "ca", NOW)


def test_a_key_of_another_root_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path / "ca", NOW)
    Authority.open(tmp_path / "other", NOW)
    (tmp_path / "other" / "root.key").rename(tmp_path / "ca" / "root.key")
    with pytest.raises(FileProblem, match="does not belong"):
        Authority.open(tmp_path / "ca", NOW)


def test_an_expired_root_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path / "ca", NOW)
    with pytest.raises(FileProblem, match="expired on"):
        Authority.open(tmp_path / "ca", NOW + 3651 * DAY)


def test_strange_files_in_the_way_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "notes.txt").write_text("mine")
    with pytest.raises(FileProblem, match="holds other files"):
        Authority.open(tmp_path / "ca", NOW)
    assert [path.name for path in (tmp_path / "ca").iterdir()] == ["notes.txt"]
