"""What a sidecar reads from certificates, and how it asks for one (room ``agent``). Pure; the only file that needs cryptography.

In: PEM bytes. Out: ``Certificate`` facts without keys, and a fresh key with its request. Raises ``BadCertificate``, one line
without any of the bytes. cryptography costs some 10 MiB, so it is imported on first use.
"""

from __future__ import annotations

import hashlib
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography import x509

__all__ = ["BadCertificate", "Certificate", "anchor", "belongs", "moment", "new_request", "read_certificates"]


class BadCertificate(Exception):
    """Not what it should be; one line."""


class Certificate(NamedTuple):
    """Facts of one certificate. ``serial``: lower-case hex without leading zeros. Times are Unix seconds.

    ``names``: its subject alternative names (URIs, host names, addresses); ``uri``: the first ``spiffe://`` one, or "".
    """

    serial: str
    not_before: float
    not_after: float
    names: tuple[str, ...]
    uri: str
    subject: str


def new_request() -> tuple[bytes, bytes]:
    """A fresh ECDSA P-256 key and a request for it, both PEM. The request names nobody: the token says who asks."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, request.public_bytes(pem)


def read_certificates(pem: bytes) -> list[Certificate]:
    """The facts of every certificate in ``pem``, in order; at least one."""
    return [_facts(one) for one in _load(pem)]


def belongs(chain: bytes, key: bytes) -> bool:
    """Whether the first certificate of ``chain`` is for this private key."""
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        encrypted = isinstance(error, TypeError)
        raise BadCertificate(
            "is an encrypted key: give it without a password" if encrypted else "is not a PEM private key"
        ) from None
    except Exception:  # an algorithm that this library does not know has an exception of its own
        raise BadCertificate("is not a private key that this proxy can use") from None
    return bool(_load(chain)[0].public_key() == private.public_key())


def anchor(chain: bytes, roots: Sequence[bytes]) -> str:
    """SHA-256 (hex, of the DER) of the root under which ``chain`` stands; "" when it stands under none of them."""
    from cryptography.hazmat.primitives import serialization

    links = _load(chain)
    for link, above in pairwise(links):
        if not _issued(link, above):
            return ""
    for root in (one for pem in roots for one in _load(pem)):
        der = root.public_bytes(serialization.Encoding.DER)
        if links[-1] == root or _issued(links[-1], root):
            return hashlib.sha256(der).hexdigest()
    return ""


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except Exception:  # a name, a signature or a kind of key that does not fit: three families of exceptions
        return False
    return True


def _load(pem: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        with _any_serial():
            return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadCertificate("holds no PEM certificate, or one that cannot be read") from None


@contextmanager
def _any_serial() -> Iterator[None]:
    """A serial number of 0 is shown as it is: a warning of the library in the log helps nobody there."""
    from cryptography.utils import CryptographyDeprecationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


def _facts(certificate: x509.Certificate) -> Certificate:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(str(name.value) for name in extension.value)
    except x509.ExtensionNotFound:
        names = ()
    except (ValueError, x509.DuplicateExtension):
        raise BadCertificate("holds a certificate whose names cannot be read") from None
    with _any_serial():
        serial = certificate.serial_number
    return Certificate(
        serial=f"{serial:x}",
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        names=names,
        uri=next((name for name in names if name.startswith("spiffe://")), ""),
        subject=certificate.subject.rfc4514_string(),
    )


def moment(seconds: float) -> str:
    """A wall time as people and Kubernetes write it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
