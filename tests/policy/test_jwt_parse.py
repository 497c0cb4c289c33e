"""Tokens that nobody would send on purpose: never an exception, never a pass unless PyJWT verifies it too."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt as pyjwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from meshproxy.message.head import RequestHead
from meshproxy.message.token import TokenFault
from meshproxy.policy.jwt import Accepted, Verifier
from meshproxy.policy.jwt_parse import Parsed, decode_base64url, parse_json, parse_token
from tests.policy.jwt_keys import ALGORITHMS, ISSUER, NOW, article, b64, jwk, jwks, private, provider, token

KEYS = {name: jwk(name) for name in ("ES256", "RS256", "HS256", "EdDSA")}
VERIFIER = Verifier((provider(jwks=jwks(*KEYS.values())),))


def oracle(text: bytes) -> bool:
    """PyJWT says that one of the keys, used by the algorithms of its kind, made this signature, and the issuer is ours."""
    for name, one in KEYS.items():
        kinds = ["EdDSA"] if name == "EdDSA" else [alg for alg in ALGORITHMS if alg == name or (alg[:2] == "HS" == name[:2])]
        if name == "RS256":
            kinds = [alg for alg in ALGORITHMS if alg[:2] in ("RS", "PS")]
        key = private(name) if name == "HS256" else get_default_algorithms()[name].from_jwk(json.dumps(one))
        options: Any = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_sub", "verify_jti"), False)
        try:
            claims = pyjwt.decode(text, key, algorithms=kinds, options=options)
        except pyjwt.InvalidTokenError:
            continue
        return claims.get("iss") == ISSUER
    return False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from((*ALGORITHMS, "none", "None", "")) | JSON}, optional={"kid": JSON, "crit": JSON, "typ": JSON}
)
PAYLOADS = st.fixed_dictionaries(
    {"iss": st.just(ISSUER) | JSON},
    optional={name: JSON | st.sampled_from([0, NOW - 100, NOW + 100]) for name in ("sub", "exp", "nbf", "iat", "aud", "jti")},
)


@st.composite
def made_tokens(draw: st.DrawFn) -> bytes:
    """Odd headers and payloads, signed well or badly by keys that fit or do not."""
    header, payload = draw(HEADERS), draw(PAYLOADS)
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(payload).encode())}".encode()
    claimed = header["alg"]
    how = claimed if claimed in ALGORITHMS and draw(st.integers(0, 3)) else draw(st.sampled_from(ALGORITHMS))
    family = next((name for name in KEYS if name[:2] == how[:2]), "RS256" if how[:2] == "PS" else how)
    signature = get_default_algorithms()[how].sign(signed, private(family))
    if not draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(signature) - 1))
        signature = signature[:at] + bytes([signature[at] ^ draw(st.integers(1, 255))]) + signature[at + 1 :]
    return signed + b"." + b64(signature).encode()


@st.composite
def broken_tokens(draw: st.DrawFn) -> bytes:
    """A good token with bytes put in, taken out or exchanged."""
    text = bytearray(draw(st.sampled_from([GOOD["ES256"], GOOD["HS256"], article("valid-no-role")])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                text[at] = draw(st.integers(0, 255))
            case 1:
                del text[at]
            case _:
                text[at:at] = draw(st.binary(max_size=3))
    return bytes(text)


GOOD = {name: token(name) for name in KEYS}


def check(text: bytes) -> None:
    outcome = VERIFIER.judge([(0, text)], NOW)
    if isinstance(outcome, Accepted):
        assert oracle(text), text
        assert outcome.token.issuer == ISSUER


@given(made_tokens() | broken_tokens())
def test_nothing_passes_that_pyjwt_would_refuse(text: bytes) -> None:
    check(text)


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(b".".join))
@example(b"")
@example(b"...")
@example(b"\x00.\x00.\x00")
def test_bytes_never_raise(text: bytes) -> None:
    check(text)
    request = RequestHead(b"GET", b"/?access_token=" + text, b"h", [(b"authorization", b"Bearer " + text)])
    VERIFIER.extract(request)


def test_the_oracle_passes_what_is_good() -> None:
    for text in GOOD.values():
        assert oracle(text)
        assert isinstance(VERIFIER.judge([(0, text)], NOW), Accepted)


@given(st.binary(max_size=100))
def test_base64url_reads_what_was_written(data: bytes) -> None:
    text = b64(data).encode()
    assert decode_base64url(text) == data
    assert decode_base64url(text + b"=" * (-len(text) % 4)) == data


@pytest.mark.parametrize("text", [b"a", b"abcde", b"ab+d", b"ab/d", b"ab cd", b"ab=", b"ab===", b"abc==", b"=", b"a=bc", b"ab\n"])
def test_what_is_no_base64url(text: bytes) -> None:
    assert decode_base64url(text) is None


def test_trailing_bits_may_be_anything() -> None:
    assert decode_base64url(b"QQ") == decode_base64url(b"QR") == b"A"
    parsed = parse_token(article("invalid-signature"))
    assert isinstance(parsed, Parsed)  # so that it is the signature that fails
    assert parsed.issuer == "testing@secure.istio.io"


@pytest.mark.parametrize(
    "hostile", [b'"' * 20_000, b'\\"' * 10_000, b"[" * 20_000, b'{"a":' * 4_000, b'"\\' * 10_000, b"9" * 20_000]
)
def test_hostile_json_is_cheap(hostile: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ValueError):
        parse_json(b"{" * 33 + hostile)
    with pytest.raises(ValueError):
        parse_json(b'{"a":' + hostile)
    assert time.process_time() - started < 2  # quadratic work would take minutes
    assert parse_token(b64(b'{"alg":"ES256"}').encode() + b"." + b64(hostile).encode() + b".AA") in (
        TokenFault.PAYLOAD_JSON,
        TokenFault.BAD_FORMAT,
    )
