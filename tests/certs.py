"""Certificates for tests: an authority, and what it signs, with any fault that a test wants."""

from __future__ import annotations

import datetime
import ipaddress
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshproxy.tls.identity import Identity

__all__ = ["DAY", "SERIAL_ZERO", "Authority", "Pair", "spiffe"]

DAY = 86400.0
_PEM = serialization.Encoding.PEM

# Serial number 0, which RFC 5280 forbids and many a guide to openssl makes (``-set_serial 0``); it ends in 2126.
SERIAL_ZERO = b"""\
-----BEGIN CERTIFICATE-----
MIIBETCBuAIBADAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwIBcN
MjYxMTIzMDIyMTMzWhgPMjEyNjEwMzAwMjIxMzNaMBQxEjAQBgNVBAMMCWEuZXhh
bXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMbEtTGXh2m0x6oV3WsGRWH1
ROjEf9tiRpIHi1VYFBUEy30Ar/XQ3IJ7urYUlT4YVKccTLHoQ/NjY3zOPEqdvXEw
CgYIKoZIzj0EAwIDSAAwRQIgQpnEkGdT6G9VLwGaJrk3CnnuSrlwEsG4xeEW9LaC
r5kCIQCFPGhcuO+s2fKF4lvkDhkf57aRXU93TRQSzqy6BWMvtA==
-----END CERTIFICATE-----
"""


def spiffe(account: str, namespace: str = "default", domain: str = "cluster.local") -> str:
    return f"spiffe://{domain}/ns/{namespace}/sa/{account}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class Pair(NamedTuple):
    """PEM of a certificate and its key; ``serial`` as ``Trust.revoked_serials`` writes it."""

    certificate: bytes
    key: bytes
    serial: str
    der: bytes
    expires: float

    @property
    def both(self) -> bytes:
        return self.certificate + self.key


class Authority:
    """A root, or with ``parent`` an intermediate; ``chain`` is what its leaves must bring along."""

    def __init__(self, name: str = "root", parent: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        issuer, key = (self._name, self._key) if parent is None else (parent._name, parent._key)
        now = _now()
        built = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(issuer)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3650))
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        )
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._certificate = built.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        self.pem = self._certificate.public_bytes(_PEM)
        self.chain: bytes = b"" if parent is None else self.pem + parent.chain
        self.root: bytes = self.pem if parent is None else parent.root

    @property
    def fingerprint(self) -> str:
        """As in ``Trust.issuer``."""
        return self._certificate.fingerprint(hashes.SHA256()).hex()

    def issue(
        self,
        uri: str | tuple[str, ...] = (),
        *,
        dns: tuple[str, ...] = (),
        ip: tuple[str, ...] = (),
        begins: float = -3600.0,
        ends: float = DAY,
        common_name: str = "",
        subject: tuple[tuple[x509.ObjectIdentifier, str], ...] = (),
        rsa_key: bool = False,
        usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    ) -> Pair:
        """A leaf with these alternative names. ``begins`` and ``ends``: seconds from now."""
        key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        now = _now()
        attributes = [x509.NameAttribute(oid, text) for oid, text in subject]
        if common_name:
            attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        ending = now + datetime.timedelta(seconds=ends)
        built = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, ending) + datetime.timedelta(seconds=begins))
            .not_valid_after(ending)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(one) for one in ((uri,) if isinstance(uri, str) else uri)]
        names += [x509.DNSName(one) for one in dns]
        names += [x509.IPAddress(ipaddress.ip_address(one)) for one in ip]
        if names:
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = built.sign(self._key, hashes.SHA256())
        return Pair(
            certificate.public_bytes(_PEM) + self.chain,
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            f"{certificate.serial_number:x}",
            certificate.public_bytes(serialization.Encoding.DER),
            certificate.not_valid_after_utc.timestamp(),
        )

    def identity(self, uri: str, **leaf: float) -> Identity:
        """What a sidecar of this mesh holds; ``begins`` and ``ends`` as for ``issue``."""
        pair = self.issue(uri, **leaf)  # type: ignore[arg-type]
        return Identity(pair.certificate, pair.key, (self.root,), self.fingerprint, pair.expires, uri)

    def crl(self, *serials: str) -> bytes:
        """A revocation list of this authority, PEM."""
        now = _now()
        built = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        built = built.last_update(now - datetime.timedelta(hours=1)).next_update(now + datetime.timedelta(days=1))
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now).build()
            built = built.add_revoked_certificate(one)
        return built.sign(self._key, hashes.SHA256()).public_bytes(_PEM)
