"""What the secured pairs are joined by: one root, two workload certificates, an RSA key set and a token. Made anew for each run.

In: a work directory. Out: PEM files in it and the token's text. The same files serve both proxies, so that nobody has it easier.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import NamedTuple

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["CLIENT", "ISSUER", "SERVER", "Credentials", "credentials"]

CLIENT = "spiffe://cluster.local/ns/default/sa/book-service"
SERVER = "spiffe://cluster.local/ns/default/sa/rating"
ISSUER = "testing@bench.example"
_LIFE = dt.timedelta(days=1)


class Credentials(NamedTuple):
    """``work``: holds root.pem, client.pem, client.key, server.pem, server.key. ``jwks``: the key set's text."""

    work: Path
    jwks: str
    token: str


def credentials(work: Path) -> Credentials:
    """Make everything."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench root")])
    root = _builder(name, name, root_key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    (work / "root.pem").write_bytes(root.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    for which, uri in (("client", CLIENT), ("server", SERVER)):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            _builder(x509.Name([]), name, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
            .sign(root_key, hashes.SHA256())
        )
        (work / f"{which}.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        path = work / f"{which}.key"
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
    signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = {
        **json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(signing.public_key())),
        "kid": "bench",
        "alg": "RS256",
        "use": "sig",
    }
    now = int(dt.datetime.now(dt.UTC).timestamp())
    claims = {"iss": ISSUER, "sub": ISSUER, "iat": now, "exp": now + 86400, "role": "customer"}
    token = jwt.encode(claims, signing, algorithm="RS256", headers={"kid": "bench"})
    return Credentials(work, json.dumps({"keys": [public]}), token)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
    )
