"""One certificate authority that can sign (room ``ca``): a certificate, its key, the way up to a root.

In: certificates and a key that belong together (``material`` checks that), names, the wall time. Out: server certificates for
control's own door, and workload certificates that carry one SPIFFE URI. Everything in a certificate is ours: of a request only
the public key is taken. The key never leaves this object and is in no repr.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import math
from collections.abc import Iterable
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = [
    "BACKDATE",
    "CaKey",
    "Issuer",
    "PublicKey",
    "ServerCertificate",
    "WorkloadCertificate",
    "fingerprint",
    "pem",
    "usage",
]

BACKDATE = dt.timedelta(minutes=2)  # a peer's clock may be a little behind ours
CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_HASHES: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {"secp384r1": hashes.SHA384, "secp521r1": hashes.SHA512}


class ServerCertificate(NamedTuple):
    """PEM bytes. ``expires`` is wall time, seconds since 1970."""

    certificate: bytes
    key: bytes
    expires: float

    def __repr__(self) -> str:
        return f"ServerCertificate(expires={self.expires})"


class WorkloadCertificate(NamedTuple):
    """``chain``: PEM, leaf first, without the root; ``serial``: lower-case hex, no leading zeros; ``expires`` as above."""

    chain: bytes
    serial: str
    expires: float


class Issuer:
    """``above``: the intermediates between ``certificate`` and ``root``, nearest first; they go out with every certificate.

    ``roots``: all that peers are to trust on behalf of this authority; ``root`` is the one its own way ends at.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: CaKey,
        above: tuple[x509.Certificate, ...],
        root: x509.Certificate,
        roots: tuple[x509.Certificate, ...],
    ) -> None:
        self.certificate = certificate
        self.root = root
        self.roots = roots
        self.above = above
        self._key = key
        self._name = certificate.subject
        self._hash = _HASHES.get(key.curve.name, hashes.SHA256) if isinstance(key, ec.EllipticCurvePrivateKey) else hashes.SHA256
        sent = () if certificate == root else (certificate, *above)
        self._rest = b"".join(map(pem, sent))
        self._ends = min(one.not_valid_after_utc for one in (certificate, *above, root))
        self._authority_id = _authority_id(certificate)

    def __repr__(self) -> str:
        return f"Issuer({self.id})"

    @property
    def id(self) -> str:
        """Which authority this is: the beginning of its certificate's fingerprint."""
        return fingerprint(self.certificate)[:16]

    @property
    def expires(self) -> float:
        """Wall time at which it, or something above it, ends."""
        return self._ends.timestamp()

    def key_pem(self) -> bytes:
        """For ``material``, which writes it to a file of mode 0600; nobody else has a use for it."""
        return _key_pem(self._key)

    def issue_server(self, names: Iterable[str], now: float, lifetime: float) -> ServerCertificate:
        """A certificate and a fresh key for a TLS server known by ``names`` (host names or IP addresses).

        ``lifetime`` is in seconds and is cut at the issuer's own end.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [_general_name(name) for name in dict.fromkeys(names)]
        made = self._sign(key.public_key(), alternatives, [ExtendedKeyUsageOID.SERVER_AUTH], now, lifetime)
        return ServerCertificate(pem(made) + self._rest, _key_pem(key), made.not_valid_after_utc.timestamp())

    def issue_workload(self, key: PublicKey, uri: str, now: float, lifetime: float) -> WorkloadCertificate:
        """A certificate of the workload ``uri`` for both sides of mutual TLS; ``lifetime`` as above."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = self._sign(key, [x509.UniformResourceIdentifier(uri)], usages, now, lifetime)
        return WorkloadCertificate(pem(made) + self._rest, f"{made.serial_number:x}", made.not_valid_after_utc.timestamp())

    def _sign(
        self,
        key: PublicKey,
        names: list[x509.GeneralName],
        usages: list[x509.ObjectIdentifier],
        now: float,
        lifetime: float,
    ) -> x509.Certificate:
        start = dt.datetime.fromtimestamp(math.floor(now), dt.UTC)
        end = dt.datetime.fromtimestamp(math.ceil(now + lifetime), dt.UTC)  # certificates count in whole seconds
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - BACKDATE)
            .not_valid_after(min(end, self._ends))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)  # RFC 5280 4.2.1.6: empty subject
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(authority=False, rsa=isinstance(key, rsa.RSAPublicKey)), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._authority_id, critical=False)
            .sign(self._key, self._hash())
        )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: CaKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def usage(authority: bool, rsa: bool = False) -> x509.KeyUsage:
    """What a key may do. ``rsa``: TLS 1.2 without forward secrecy wants a key that may also encipher; peers refuse others."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=rsa and not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_id(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
