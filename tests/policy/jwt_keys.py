"""Keys and tokens for tests: one key of each kind, its JWK, and tokens that are right or wrong in any way one likes."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import get_default_algorithms

from meshproxy.model.security import JwtProvider

DATA = Path(__file__).parent / "jwt_data"
NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
SECRET = bytes(range(64))
ALGORITHMS = (
    *("ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"),
)


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def private(algorithm: str) -> Any:
    """The signing key of an algorithm; the same one for all of a family."""
    if algorithm.startswith("HS"):
        return SECRET
    if algorithm.startswith("ES"):
        curve: ec.EllipticCurve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm]
        return ec.derive_private_key(123456789, curve)
    if algorithm == "EdDSA":
        return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return rsa_key()


def jwk(algorithm: str, **more: Any) -> dict[str, Any]:
    """The public key as a JWK, without alg and kid unless given."""
    if algorithm.startswith("HS"):
        return {"kty": "oct", "k": b64(SECRET), **more}
    key = private(algorithm).public_key()
    plain = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
    return {**{name: value for name, value in plain.items() if name != "key_ops"}, **more}


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


def token(
    algorithm: str = "ES256",
    header: dict[str, Any] | bytes | None = None,
    payload: dict[str, Any] | bytes | None = None,
    key: Any = None,
    signature: bytes | None = None,
    **claims: Any,
) -> bytes:
    """A signed token. ``header``/``payload`` as bytes are taken as they are; ``signature`` in place of the right one."""
    if not isinstance(header, bytes):
        header = json.dumps({"alg": algorithm, "typ": "JWT", **(header or {})}).encode()
    if not isinstance(payload, bytes):
        payload = json.dumps(
            payload if payload is not None else {"iss": ISSUER, "sub": "ann", "exp": NOW + 3600, **claims}
        ).encode()
    signed = f"{b64(header)}.{b64(payload)}".encode()
    if signature is None:
        signature = get_default_algorithms()[algorithm].sign(signed, key if key is not None else private(algorithm))
    return signed + b"." + b64(signature).encode()


def provider(**fields: Any) -> JwtProvider:
    return JwtProvider(
        **{"source": "RequestAuthentication a/b jwtRules[0]", "issuer": ISSUER, "jwks": jwks(jwk("ES256")), **fields}
    )


def article(name: str) -> bytes:
    return (DATA / f"{name}.jwt").read_bytes().strip()
