"""A request gives its public key and nothing else; whoever asks for more than his own identity is refused."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from control.ca.request import BadRequest, Forbidden, public_key, spiffe
from tests.control.ca.requests import URI, request

OTHER = "spiffe://cluster.local/ns/default/sa/other"


def test_the_callers_own_identity_or_none_is_fine() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    own: list[x509.GeneralName] = [x509.UniformResourceIdentifier(URI)]
    for made in (request(key=key), request(key=key, names=own), request(key=key, common=URI), request(key=key, names=[])):
        assert public_key(made, URI) == key.public_key()
    assert isinstance(public_key(request(key=rsa.generate_private_key(65537, 2048)), URI), rsa.RSAPublicKey)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: request(names=[x509.UniformResourceIdentifier(OTHER)]), "another identity"),
        (lambda: request(names=[x509.UniformResourceIdentifier(URI), x509.UniformResourceIdentifier(OTHER)]), "another identity"),
        (
            lambda: request(names=[x509.UniformResourceIdentifier(URI), x509.DNSName("istiod.istio-system.svc")]),
            "another identity",
        ),
        (lambda: request(names=[x509.DNSName("*")]), "another identity"),
        (lambda: request(names=[x509.RFC822Name("a@b.c")]), "another identity"),
        (lambda: request(common="admin"), "subject's CN"),
        (lambda: request(common=OTHER), "subject's CN"),
        (lambda: request(extensions=[x509.BasicConstraints(ca=True, path_length=3)]), "asks to be a certificate authority"),
    ],
)
def test_anything_else_is_forbidden(made: object, why: str) -> None:
    with pytest.raises(Forbidden, match=why):
        public_key(made(), URI)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: "", "is not one PEM"),
        (lambda: "garbage", "is not one PEM"),
        (lambda: request() + request(), "is not one PEM"),
        (lambda: request().replace("CERTIFICATE REQUEST", "CERTIFICATE"), "is not one PEM"),
        (lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        (lambda: request() + " " * 20_000, "is longer than"),
        (lambda: request(key=ec.generate_private_key(ec.SECP256K1())), "curve secp256k1"),
        (lambda: request(key=ec.generate_private_key(ec.SECP521R1())), "curve secp521r1"),
        (lambda: request(key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (lambda: request(key=rsa.generate_private_key(3, 2048)), "exponent is too small"),
        (lambda: request(hash_=hashes.SHA224()), "must be signed with SHA-256"),
    ],
)
def test_what_peers_would_refuse_is_refused(made: object, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        public_key(made(), URI)  # type: ignore[operator]


def test_a_key_that_tls_peers_could_not_use_is_refused() -> None:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(ed25519.Ed25519PrivateKey.generate(), None)
    with pytest.raises(BadRequest, match="neither ECDSA"):
        public_key(made.public_bytes(serialization.Encoding.PEM).decode(), URI)


def test_a_signature_by_another_key_is_refused() -> None:
    """The key of somebody else, with a signature of our own."""
    lines = request().splitlines()
    der = bytearray(base64.b64decode("".join(lines[1:-1])))
    der[-1] ^= 1
    forged = "\n".join([lines[0], base64.b64encode(bytes(der)).decode(), lines[-1]])
    with pytest.raises(BadRequest, match=r"signature is not by its own key|cannot be read"):
        public_key(forged, URI)


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_no_damage_is_more_than_a_refusal(position: int, flip: int) -> None:
    der = bytearray(base64.b64decode("".join(REQUEST.splitlines()[1:-1])))
    der[position % len(der)] ^= flip
    body = base64.b64encode(bytes(der)).decode()
    damaged = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
    with suppress(BadRequest, Forbidden):  # some bits, such as the count of unused ones, are signed by nobody and mean nothing
        assert public_key(damaged, URI) == KEY.public_key()


KEY = ec.generate_private_key(ec.SECP256R1())
REQUEST = request(key=KEY, names=[x509.UniformResourceIdentifier(URI)])


@pytest.mark.parametrize("bad", ["a/b", "..", "", "A", "a b", "a\n", "ä", "a/../b"])
def test_an_identity_is_made_of_names_only(bad: str) -> None:
    assert spiffe("cluster.local", "default", "sleep") == URI
    for namespace, account in ((bad, "sleep"), ("default", bad)):
        with pytest.raises(BadRequest):
            spiffe("cluster.local", namespace, account)
