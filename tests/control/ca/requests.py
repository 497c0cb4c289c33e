"""For tests: certificate requests, good and bad, and an authority as a company would have it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from control.files import write_private

URI = "spiffe://cluster.local/ns/default/sa/sleep"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def name(common: str = "") -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def request(
    *,
    key: Any = None,
    common: str = "",
    names: list[x509.GeneralName] | None = None,
    extensions: list[x509.ExtensionType] | None = None,
    hash_: hashes.HashAlgorithm | None = None,
) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common))
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for extension in extensions or ():
        builder = builder.add_extension(extension, critical=True)
    made = builder.sign(key, hash_ or hashes.SHA256())  # type: ignore[arg-type]
    return made.public_bytes(serialization.Encoding.PEM).decode()


def certificate(
    common: str,
    key: Any,
    issuer: tuple[x509.Certificate, Any] | None,
    now: float,
    *,
    ca: bool = True,
    path_length: int | None = None,
    days: float = 365,
    sign: bool = True,
    starts: float = -1,
) -> x509.Certificate:
    """Signed by ``issuer``, or by itself."""
    start = dt.datetime.fromtimestamp(int(now), dt.UTC) + dt.timedelta(days=starts)
    usage = x509.KeyUsage(not sign, False, False, False, False, sign, sign, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(issuer[0].subject if issuer else name(common))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(start, start + dt.timedelta(days=days - 1)))
        .not_valid_after(start + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer[1] if issuer else key).public_key()), False)
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def key_pem(key: Key) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def company(directory: Path, now: float, kind: str = "ec", links: int = 1, **last: Any) -> Path:
    """An authority in Istio's four files: a root, and ``links`` intermediates; ``last`` is about the one that signs."""

    def key() -> Key:
        if kind == "rsa":
            return rsa.generate_private_key(65537, 2048)
        return ec.generate_private_key(ec.SECP384R1())

    root_key = key()
    root = certificate("company root", root_key, None, now, days=3650)
    chain: list[x509.Certificate] = []
    above: tuple[x509.Certificate, Any] = (root, root_key)
    for number in range(links):
        own = key()
        made = certificate(f"company ca {number}", own, above, now, **(last if number == links - 1 else {}))
        above = (made, own)
        chain.insert(0, made)
    directory.mkdir(parents=True)
    (directory / "ca-cert.pem").write_bytes(pem(above[0]))
    write_private(directory / "ca-key.pem", key_pem(above[1]))
    (directory / "root-cert.pem").write_bytes(pem(root))
    (directory / "cert-chain.pem").write_bytes(pem(*chain, root))  # as Istio's makefile has it
    return directory
