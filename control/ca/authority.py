"""The mesh's certificate authority (room ``ca``): one ECDSA P-256 root, made on first start, and certificates under it.

In: a directory and the wall time. Out: ``Authority`` with ``root_pem`` and ``issue_server``. Assumes that the directory
belongs to this process alone. The key never leaves this object; it is not in its repr.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control.files import FileProblem, read_private, sync_directory, write_private

__all__ = ["Authority", "ServerCertificate"]

ROOT_LIFE = dt.timedelta(days=3650)
BACKDATE = dt.timedelta(minutes=2)  # a peer's clock may be a little behind ours


class ServerCertificate(NamedTuple):
    """PEM bytes. ``expires`` is wall time, seconds since 1970."""

    certificate: bytes
    key: bytes
    expires: float

    def __repr__(self) -> str:
        return f"ServerCertificate(expires={self.expires})"


class Authority:
    """The root certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.root_pem = certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def expires(self) -> float:
        """Wall time at which the root ends, seconds since 1970."""
        return self._certificate.not_valid_after_utc.timestamp()

    @classmethod
    def open(cls, directory: Path, now: float) -> Authority:
        """Load ``root.pem`` and ``root.key``, or make them if neither exists.

        Raises ``FileProblem`` when one is missing, unreadable or garbage, when they do not belong together, or when the root
        has expired at wall time ``now``. A damaged root is never replaced in silence: every sidecar trusts the old one.
        """
        certificate_file, key_file = directory / "root.pem", directory / "root.key"
        if not certificate_file.exists() and not key_file.exists():
            _create(directory, now)
        for path, other in ((certificate_file, key_file), (key_file, certificate_file)):
            if not path.exists():
                raise FileProblem(f"{path}: is missing while {other.name} exists: restore it, or remove {other} too")
        key = _load_key(key_file)
        certificate = _load_certificate(certificate_file)
        if certificate.public_key() != key.public_key():
            raise FileProblem(f"{key_file}: does not belong to {certificate_file.name}: restore the pair from a backup")
        if certificate.not_valid_after_utc.timestamp() <= now:
            day = certificate.not_valid_after_utc.date().isoformat()
            raise FileProblem(f"{certificate_file}: expired on {day}: remove {directory} to have a new root made")
        return cls(certificate, key)

    def issue_server(self, names: Iterable[str], now: float, lifetime: float) -> ServerCertificate:
        """A certificate and a fresh key for a TLS server known by ``names`` (host names or IP addresses).

        ``lifetime`` is in seconds and is cut at the root's own end.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        start = dt.datetime.fromtimestamp(now, dt.UTC)
        end = min(start + dt.timedelta(seconds=lifetime), self._certificate.not_valid_after_utc)
        alternatives = [_general_name(name) for name in dict.fromkeys(names)]
        issuer_key_id = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - BACKDATE)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)  # RFC 5280 4.2.1.6: empty subject
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return ServerCertificate(
            certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key), certificate.not_valid_after_utc.timestamp()
        )


def _create(directory: Path, now: float) -> None:
    """Make the pair in a directory of its own and rename it into place: a crash leaves both files or none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mesh"), x509.NameAttribute(NameOID.COMMON_NAME, "mesh root")]
    )
    start = dt.datetime.fromtimestamp(now, dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(start + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        write_private(scratch / "root.key", _key_pem(key))
        write_private(scratch / "root.pem", certificate.public_bytes(serialization.Encoding.PEM))
        try:
            os.rename(scratch, directory)  # also replaces an empty directory
        except OSError as error:
            raise FileProblem(f"{directory}: holds other files but no root: move them away ({error.strerror})") from error
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync_directory(directory.parent)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    data = read_private(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise FileProblem(f"{path}: is not a PEM private key: restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FileProblem(f"{path}: is not an ECDSA key: restore the one this mesh was made with")
    return key


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FileProblem(f"{path}: is not a PEM certificate: restore it from a backup") from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
