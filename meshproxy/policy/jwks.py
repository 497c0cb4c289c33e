"""Room: policy. A set of keys (RFC 7517), and whether one of them made a token's signature.

In: a JWKS document as control fetched it. Out: ``KeySet`` whose ``verify`` says None or why not. A document that cannot be read
is no error here: every token is then refused with its own reason (fail closed). A key is tried only by the algorithms of its
type, curve, ``alg`` and ``use``: there is no way from an RSA key's bytes to an HMAC. Stricter than Envoy, which overlooks
``use``, ``key_ops``, short RSA keys and a token's ``crit``. PyJWT and cryptography are imported when the first key set is made,
so that a proxy without tokens never loads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshproxy.message.token import TokenFault
from meshproxy.policy.jwt_parse import Parsed, decode_base64url, parse_json

__all__ = ["KeySet"]

Check = Callable[[bytes, bytes], bool]  # signed bytes, signature

_FETCH_FAILED = ""  # what control sends when it has no document
_MAX_DOCUMENT = 1 << 20  # characters
_MAX_KEYS = 256  # a token without kid is tried against every key of its algorithm
_LEAST_BITS = 2048  # of an RSA key, RFC 7518 section 3.3; 512 are factored in an afternoon
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_HMAC = ("HS256", "HS384", "HS512")
_CERTIFICATE = ("-----BEGIN CERTIFICATE-----\n", "\n-----END CERTIFICATE-----\n")


class _Key:
    """One usable key: ``kid`` and ``alg`` as the document says ("": it does not), and a check per algorithm that it fits."""

    __slots__ = ("algorithm", "checks", "name")

    def __init__(self, name: str, algorithm: str, checks: dict[str, Check]) -> None:
        self.name = name
        self.algorithm = algorithm
        self.checks = checks


class KeySet:
    """The keys of one provider. ``fault``: why there are none; every token of the provider is then refused by it."""

    __slots__ = ("_keys", "fault")

    def __init__(self, document: str) -> None:
        read = _read(document)
        self.fault: TokenFault | None = read if isinstance(read, TokenFault) else None
        self._keys: tuple[_Key, ...] = () if isinstance(read, TokenFault) else read

    def verify(self, token: Parsed) -> TokenFault | None:
        """None: one of the keys made this token's signature."""
        if self.fault is not None:
            return self.fault
        if token.critical:
            return TokenFault.SIGNATURE
        matched = False
        for key in self._keys:
            # A kid on both sides must agree; a key that names its algorithm is for that one only (semantics B5.12).
            if token.key and key.name and key.name != token.key:
                continue
            if key.algorithm and key.algorithm != token.algorithm:
                continue
            matched = True
            check = key.checks.get(token.algorithm)
            if check is None:
                continue
            if token.algorithm == "EdDSA" and len(token.signature) != 64:
                return TokenFault.SIGNATURE_LENGTH
            if check(token.signed, token.signature):
                return None
        return TokenFault.SIGNATURE if matched else TokenFault.NO_KEY

    @property
    def names(self) -> tuple[str, ...]:
        """The key ids, for explain."""
        return tuple(key.name for key in self._keys)


def _read(document: str) -> tuple[_Key, ...] | TokenFault:
    if document == _FETCH_FAILED:
        return TokenFault.KEYS_NOT_FETCHED
    if len(document) > _MAX_DOCUMENT:
        return TokenFault.KEYS_JSON
    try:
        value = parse_json(document)
    except (ValueError, RecursionError):
        return TokenFault.KEYS_JSON
    if not isinstance(value, dict):
        return TokenFault.KEYS_JSON
    if "keys" not in value:
        return _certificates(value)
    listed = value["keys"]
    if not isinstance(listed, list):
        return TokenFault.KEYS_NO_LIST
    keys = [key for one in listed[:_MAX_KEYS] if isinstance(one, dict) and (key := _key(one)) is not None]
    return tuple(keys) or TokenFault.KEYS_NONE_VALID


def _certificates(value: dict[str, Any]) -> tuple[_Key, ...] | TokenFault:
    """The other form that key servers use: key id -> X.509 certificate in PEM, RSA."""
    begin, end = _CERTIFICATE
    if not value or not all(isinstance(one, str) and one.startswith(begin) and one.endswith(end) for one in value.values()):
        return TokenFault.KEYS_ABSENT
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    keys: list[_Key] = []
    for name, text in value.items():
        try:
            public = load_pem_x509_certificate(text.encode()).public_key()
        except Exception:  # whatever cryptography finds wrong with it
            return TokenFault.KEYS_NONE_VALID
        if not isinstance(public, RSAPublicKey) or public.key_size < _LEAST_BITS:
            return TokenFault.KEYS_NONE_VALID
        keys.append(_Key(name, "", _checks(public, _RSA)))
    return tuple(keys)


def _key(given: dict[str, Any]) -> _Key | None:
    """A key that can verify, or None: private use, another purpose, a type or curve that tokens do not have, bad numbers."""
    name, algorithm = given.get("kid", ""), given.get("alg", "")
    if not isinstance(name, str) or not isinstance(algorithm, str) or not _for_signatures(given):
        return None
    try:
        checks = _usable(given, algorithm)
    except Exception:  # PyJWT and cryptography raise many kinds for numbers that are no key
        return None
    if not checks or (algorithm and algorithm not in checks):
        return None
    return _Key(name, algorithm, checks)


def _for_signatures(given: dict[str, Any]) -> bool:
    operations = given.get("key_ops")
    return given.get("use", "sig") == "sig" and (operations is None or (isinstance(operations, list) and "verify" in operations))


def _usable(given: dict[str, Any], algorithm: str) -> dict[str, Check]:
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

    kind = given.get("kty")
    if kind == "RSA":
        if int.from_bytes(_number(given, "e")) not in (3, 65537):
            return {}
        if int.from_bytes(_number(given, "n")).bit_length() < _LEAST_BITS:
            return {}
        return _checks(RSAAlgorithm.from_jwk(_only(given, "kty", "n", "e")), _RSA)
    if kind == "EC":
        curve = given.get("crv") or next((one for one, name in _CURVES.items() if name == algorithm), "P-256")
        if curve not in _CURVES:
            return {}
        return _checks(ECAlgorithm.from_jwk({**_only(given, "kty", "x", "y"), "crv": curve}), (_CURVES[curve],))
    if kind == "OKP" and given.get("crv") == "Ed25519":
        return _checks(OKPAlgorithm.from_jwk(_only(given, "kty", "crv", "x")), ("EdDSA",))
    if kind == "oct":
        secret = _number(given, "k")
        return _checks(secret, _HMAC) if secret else {}
    return {}


def _only(given: dict[str, Any], *names: str) -> dict[str, str]:
    """The public part: what else a document holds (private numbers) is not even looked at."""
    return {name: str(given[name]).rstrip("=") for name in names}


def _number(given: dict[str, Any], name: str) -> bytes:
    text = given.get(name)
    return (decode_base64url(text.encode()) if isinstance(text, str) else None) or b""


def _checks(key: Any, algorithms: tuple[str, ...]) -> dict[str, Check]:
    from jwt.algorithms import get_default_algorithms

    known = get_default_algorithms()
    return {name: _check(known[name], key) for name in algorithms}


def _check(algorithm: Any, key: Any) -> Check:
    verify = algorithm.verify

    def check(signed: bytes, signature: bytes) -> bool:
        try:
            return verify(signed, key, signature) is True
        except Exception:  # a signature that the library cannot even read is none
            return False

    return check
