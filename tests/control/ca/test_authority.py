"""The root is made once, survives restarts, is never replaced in silence; certificates under it pass a strict check."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from control.ca.authority import Authority
from control.ca.issuer import pem
from control.ca.material import CA_CERT, CA_KEY, make_root
from control.files import FileProblem, write_private

NOW = time.time()
DAY = 86400.0


def own(directory: Path) -> Path:
    """The directory of the one issuer there is."""
    (found,) = (path for path in directory.iterdir() if path.is_dir())
    return found


def test_made_once_and_loaded_later(tmp_path: Path) -> None:
    first = Authority.open(tmp_path / "ca", NOW)
    again = Authority.open(tmp_path / "ca", NOW + DAY)
    assert again.root_pem == first.root_pem == (tmp_path / "ca" / "root.pem").read_bytes()
    assert (own(tmp_path / "ca") / CA_KEY).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca"]
    assert "PRIVATE" not in repr(first) + repr(vars(first)) + repr(first.issuer) + repr(vars(first.issuer))


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
        (CA_KEY, b"garbage", "is not a PEM private key"),
        (CA_KEY, b"", "is empty"),
        (CA_CERT, b"garbage", "is not a PEM certificate"),
        (CA_CERT, None, "cannot be read: No such file"),
        (CA_KEY, None, "cannot be read: No such file"),
        ("../state.json", b"{}", "is damaged"),
        ("../state.json", b'{"issuer": "../x", "trusted": ["../x"]}', "names no issuer"),
    ],
)
def test_a_damaged_authority_is_one_clear_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    Authority.open(tmp_path / "ca", NOW)
    path = own(tmp_path / "ca") / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(FileProblem) as caught:
        Authority.open(tmp_path / "ca", NOW)
    assert message in str(caught.value)
    assert Path(name).name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path / "ca", NOW)
    (own(tmp_path / "ca") / CA_KEY).chmod(0o644)
    with pytest.raises(FileProblem, match="chmod 600"):
        Authority.open(tmp_path / "ca", NOW)


def test_a_key_of_another_root_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path / "ca", NOW)
    Authority.open(tmp_path / "other", NOW)
    (own(tmp_path / "other") / CA_KEY).rename(own(tmp_path / "ca") / CA_KEY)
    with pytest.raises(FileProblem, match="does not belong"):
        Authority.open(tmp_path / "ca", NOW)


def test_what_an_earlier_release_left_is_taken_over(tmp_path: Path) -> None:
    made = make_root(NOW)
    directory = tmp_path / "ca"
    directory.mkdir()
    write_private(directory / "root.pem", pem(made.certificate))
    with pytest.raises(FileProblem, match=r"root\.key: is missing while root\.pem exists"):
        Authority.open(directory, NOW)
    write_private(directory / "root.key", made.key_pem())
    assert Authority.open(directory, NOW).root_pem == pem(made.certificate)
    assert not (directory / "root.key").exists()
    assert Authority.open(directory, NOW).root_pem == pem(made.certificate)


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
