"""Key sets: what is a usable key, and what is left of a set of which some are not."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from meshproxy.message.token import TokenFault
from meshproxy.policy.jwks import KeySet
from meshproxy.policy.jwt_parse import Parsed, parse_token
from tests.policy.jwt_keys import b64, jwk, jwks, private, rsa_key, token


def parsed(algorithm: str, **fields: Any) -> Parsed:
    one = parse_token(token(algorithm, **fields))
    assert isinstance(one, Parsed)
    return one


BAD: list[dict[str, Any]] = [
    {"kty": "RSA"},
    {**jwk("RS256"), "n": 1},
    {**jwk("RS256"), "n": "!"},
    {**jwk("RS256"), "e": "AQ"},  # 1
    {**jwk("RS256"), "n": b64(bytes([0x7F]) + bytes(254) + b"\1")},  # 2047 bits
    {**jwk("RS256"), "n": b64(bytes(200) + bytes([0xFF] * 64))},  # 512 bits, whatever stands before them
    {**jwk("RS256"), "e": "AQAF"},  # 65541: none of the usual exponents (Envoy refuses it too)
    {**jwk("RS256"), "alg": "HS256"},
    {**jwk("RS256"), "alg": "ES256"},
    {**jwk("RS256"), "alg": 1},
    {**jwk("RS256"), "kid": 1},
    {**jwk("ES256"), "crv": "P-384"},
    {**jwk("ES256"), "crv": "secp256k1"},
    {**jwk("ES256"), "alg": "ES384"},
    {**jwk("ES256"), "x": jwk("ES256")["y"]},  # not on the curve
    {**jwk("EdDSA"), "crv": "Ed448"},
    {**jwk("EdDSA"), "crv": "X25519"},
    {**jwk("EdDSA"), "x": "AA"},
    {**jwk("EdDSA"), "alg": "ES256"},
    {"kty": "oct"},
    {"kty": "oct", "k": ""},
    {"kty": "oct", "k": "!!"},
    {**jwk("HS256"), "alg": "RS256"},
    {"kty": "AKP"},
    {"kty": 1},
    {},
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_key_is_left_out_and_the_others_stay(bad: dict[str, Any]) -> None:
    assert KeySet(jwks(bad)).fault is TokenFault.KEYS_NONE_VALID
    keys = KeySet(json.dumps({"keys": [bad, 1, None, [], jwk("ES512")]}))
    assert keys.fault is None
    assert keys.verify(parsed("ES512")) is None


def test_what_else_a_document_holds_is_not_looked_at() -> None:
    private_part = {"d": "AA", "p": "AA", "q": "AA", "dp": "AA", "dq": "AA", "qi": "AA", "oth": []}
    assert KeySet(jwks({**jwk("RS256"), **private_part})).verify(parsed("PS512")) is None
    assert KeySet(jwks({**jwk("ES256"), "d": "AA", "x5c": 1})).verify(parsed("ES256")) is None


def test_a_curve_is_told_by_the_algorithm_where_it_is_not_named() -> None:
    for algorithm in ("ES256", "ES384", "ES512"):
        one = jwk(algorithm, alg=algorithm)
        del one["crv"]
        assert KeySet(jwks(one)).verify(parsed(algorithm)) is None


def test_a_key_is_for_the_algorithm_that_it_names() -> None:
    keys = KeySet(jwks(jwk("RS256", alg="RS256")))
    assert keys.verify(parsed("RS256")) is None
    assert keys.verify(parsed("RS512")) is TokenFault.NO_KEY
    assert keys.verify(parsed("PS256")) is TokenFault.NO_KEY


def test_certificates_by_key_id() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keys")])
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def pem(key: Any) -> str:
        made = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(days=1))
        return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    keys = KeySet(json.dumps({"a": pem(rsa_key(1)), "b": pem(rsa_key())}))
    assert keys.names == ("a", "b")
    assert keys.verify(parsed("RS256", header={"kid": "b"})) is None
    assert keys.verify(parsed("RS256", header={"kid": "a"})) is TokenFault.SIGNATURE
    assert keys.verify(parsed("RS256")) is None
    assert KeySet(json.dumps({"a": pem(private("ES256"))})).fault is TokenFault.KEYS_NONE_VALID
    begin, end = "-----BEGIN CERTIFICATE-----\n", "\n-----END CERTIFICATE-----\n"
    assert KeySet(json.dumps({"a": begin + "AAAA" + end})).fault is TokenFault.KEYS_NONE_VALID


def test_a_document_of_any_size_or_depth_is_no_error() -> None:
    assert KeySet("[" * 100_000).fault is TokenFault.KEYS_JSON
    assert KeySet('{"keys":[' + "{}," * 400_000 + "{}]}").fault is TokenFault.KEYS_JSON
    assert KeySet("\ud800").fault is TokenFault.KEYS_JSON


def test_a_proxy_without_tokens_loads_no_library_for_them() -> None:
    code = "import sys, meshproxy.apply; from meshproxy.policy.jwt import Verifier; sys.exit('jwt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
