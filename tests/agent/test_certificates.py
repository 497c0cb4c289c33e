"""What is read of certificates and keys, and the request that is made."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.agent.certificates import BadCertificate, anchor, belongs, new_request, read_certificates
from tests.certs import DAY, SERIAL_ZERO, Authority, spiffe

ROOT = Authority("root")
LEAF = ROOT.issue(spiffe("book"), dns=("book.default",), ip=("127.0.0.1",))


def test_a_request_is_for_a_fresh_key_and_names_nobody() -> None:
    (key, csr), (other, _) = new_request(), new_request()
    request = x509.load_pem_x509_csr(csr)
    private = serialization.load_pem_private_key(key, password=None)
    assert request.is_signature_valid
    assert request.public_key() == private.public_key()
    assert isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name == "secp256r1"
    assert (list(request.subject), list(request.extensions)) == ([], [])
    assert key != other


def test_the_facts() -> None:
    (leaf,) = read_certificates(LEAF.certificate)
    assert leaf.serial == LEAF.serial
    assert leaf.names == (spiffe("book"), "book.default", "127.0.0.1")
    assert leaf.uri == spiffe("book")
    assert leaf.not_after == LEAF.expires
    assert leaf.not_after - leaf.not_before == DAY + 3600


def test_a_serial_number_of_zero_is_no_reason_to_warn() -> None:
    (leaf,) = read_certificates(SERIAL_ZERO)
    assert (leaf.serial, leaf.subject) == ("0", "CN=a.example")


def test_a_certificate_without_names_is_nobody() -> None:
    (root,) = read_certificates(ROOT.pem)
    assert (root.uri, root.names) == ("", ())


def test_whose_key() -> None:
    other = ROOT.issue(spiffe("book"))
    assert belongs(LEAF.certificate, LEAF.key)
    assert not belongs(LEAF.certificate, other.key)
    locked = serialization.load_pem_private_key(LEAF.key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    with pytest.raises(BadCertificate, match="encrypted"):
        belongs(LEAF.certificate, locked)


def test_under_which_root() -> None:
    middle = Authority("middle", parent=ROOT)
    deep = middle.issue(spiffe("book"))
    other = Authority("other")
    assert anchor(LEAF.certificate, [other.pem, ROOT.pem]) == ROOT.fingerprint
    assert anchor(LEAF.certificate, [other.pem + ROOT.pem]) == ROOT.fingerprint
    assert anchor(deep.certificate, [ROOT.pem]) == ROOT.fingerprint
    assert anchor(LEAF.certificate, [other.pem]) == ""
    assert anchor(LEAF.certificate, [Authority("root").pem]) == "", "a name is not enough"
    assert anchor(deep.certificate + other.pem, [other.pem]) == "", "a chain has no gaps"


@given(st.binary(max_size=200), st.booleans())
def test_rubbish_is_one_kind_of_error(rubbish: bytes, framed: bool) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + rubbish + b"\n-----END CERTIFICATE-----\n" if framed else rubbish
    with pytest.raises(BadCertificate) as caught:
        read_certificates(pem)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadCertificate):
        belongs(LEAF.certificate, pem.replace(b"CERTIFICATE", b"PRIVATE KEY"))
