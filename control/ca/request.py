"""Certificate requests of sidecars (room ``ca``), judged before anything is signed.

In: PEM of a PKCS#10 request and the SPIFFE URI that the caller's token proves. Out: the public key, or ``BadRequest`` (it cannot
be read, or its key is one that peers refuse) or ``Forbidden`` (it asks for more than its own identity). Nothing else of a request
is ever used, so what it does not ask for cannot be given.
"""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from control.ca.issuer import PublicKey
from control.identity import spiffe_uri

__all__ = ["BadRequest", "Forbidden", "public_key", "spiffe"]

MAX_CSR = 16 << 10
_CURVES = ("secp256r1", "secp384r1")
_RSA_BITS = (2048, 4096)  # less is broken, more costs every peer dearly
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PEM = re.compile(r"\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----[A-Za-z0-9+/=\s]+-----END (NEW )?CERTIFICATE REQUEST-----\s*")


class BadRequest(ValueError):
    """One line about what is wrong with the request."""


class Forbidden(ValueError):
    """One line about what the caller may not have."""


def spiffe(domain: str, namespace: str, account: str) -> str:
    """The identity of a service account. Raises ``BadRequest`` for names that Kubernetes would not have."""
    for name in (namespace, account):
        if not _NAME.fullmatch(name):
            raise BadRequest(f"{name[:60]!r} is not a name that an identity can have")
    return spiffe_uri(domain, namespace, account)


def public_key(csr: str, identity: str) -> PublicKey:
    """The key to certify for ``identity``. Raises ``BadRequest`` or ``Forbidden``."""
    if len(csr) > MAX_CSR:
        raise BadRequest(f"csr: is longer than {MAX_CSR} characters")
    if not _PEM.fullmatch(csr):
        raise BadRequest("csr: is not one PEM certificate request")
    try:
        request = x509.load_pem_x509_csr(csr.encode("ascii"))
        key = _usable(request.public_key())
        if not isinstance(request.signature_hash_algorithm, _HASHES):
            raise BadRequest("csr: must be signed with SHA-256, SHA-384 or SHA-512")
        if not request.is_signature_valid:
            raise BadRequest("csr: its signature is not by its own key")
        _check_names(request, identity)
    except (BadRequest, Forbidden):
        raise
    except Exception as error:  # whatever the library calls it: these bytes are a stranger's
        raise BadRequest("csr: cannot be read") from error
    return key


def _usable(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise BadRequest(f"csr: the key is on curve {key.curve.name}; P-256 and P-384 are taken")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        least, most = _RSA_BITS
        if not least <= key.key_size <= most:
            raise BadRequest(f"csr: the RSA key has {key.key_size} bits; {least} to {most} are taken")
        if key.public_numbers().e < 65537:
            raise BadRequest("csr: the RSA key's exponent is too small")
        return key
    raise BadRequest("csr: the key is neither ECDSA (P-256, P-384) nor RSA")


def _check_names(request: x509.CertificateSigningRequest, identity: str) -> None:
    for attribute in request.subject:
        if attribute.value and attribute.value != identity:
            what = attribute.rfc4514_attribute_name
            raise Forbidden(f"the subject's {what} names something else than the caller, {identity}: leave the subject empty")
    for extension in request.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            for name in value:
                if not isinstance(name, x509.UniformResourceIdentifier) or name.value != identity:
                    raise Forbidden(f"the alternative names hold another identity than the caller's, {identity}")
        elif isinstance(value, x509.BasicConstraints) and value.ca:
            raise Forbidden("the request asks to be a certificate authority")
