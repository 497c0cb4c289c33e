"""Room: policy. A token's text taken apart: bounded, lenient where Envoy is, and in Envoy's order of complaints.

In: the bytes that stood where a token is expected. Out: ``Parsed`` or the ``TokenFault`` that Envoy's jwt_verify_lib would
name first. Nothing is verified here. Assumes nothing: whoever sends a request writes these bytes.

Lenient (semantics B5.13): base64url without padding, or with the right one, whose last character may carry bits that are
thrown away. Strict: a name that stands twice in a JSON object is refused, because the app may read the other one.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from typing import Any

from meshproxy.message.token import TokenFault

__all__ = ["ALGORITHMS", "MAX_TOKEN", "Parsed", "decode_base64url", "parse_json", "parse_token"]

ALGORITHMS = frozenset(
    ("ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA")
)
MAX_TOKEN = 32 * 1024  # bytes; a head holds 60 KiB at most
_MAX_DEPTH = 32  # of a token's JSON

_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*")
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # possessive and never failing: linear


class Parsed:
    """A token whose form is right. ``expires`` and ``starts``: whole Unix seconds, 0 where the token says nothing.

    ``signed``: the bytes that the signature covers. ``critical``: the header demands an extension, and none is known here.
    """

    __slots__ = (
        "algorithm",
        "audiences",
        "claims",
        "critical",
        "expires",
        "issuer",
        "key",
        "payload",
        "signature",
        "signed",
        "starts",
        "subject",
    )

    algorithm: str
    key: str
    critical: bool
    issuer: str
    subject: str
    audiences: tuple[str, ...]
    starts: int
    expires: int
    claims: dict[str, Any]
    payload: bytes
    signed: bytes
    signature: bytes


def decode_base64url(text: bytes) -> bytes | None:
    """The bytes, or None. Trailing bits may be anything (the article's bad token has such a tail)."""
    bare = text.rstrip(b"=")
    if len(bare) != len(text) and (len(text) % 4 or len(text) - len(bare) > 2):
        return None
    if len(bare) % 4 == 1 or _BASE64URL.fullmatch(bare) is None:
        return None
    return a2b_base64(bare.translate(_TO_STANDARD) + b"=" * (-len(bare) % 4))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise ValueError("a number is out of range")
    return value


def _too_deep(text: str) -> bool:
    if text.count("{") + text.count("[") <= _MAX_DEPTH:
        return False  # the usual case
    depth = 0
    for character in _STRINGS.sub("", text):
        if character in "{[":
            depth += 1
            if depth > _MAX_DEPTH:
                return True
        elif character in "}]":
            depth -= 1
    return False


def parse_json(data: bytes | str) -> Any:
    """Strict JSON, or ValueError: UTF-8, no NaN, no lone surrogates, no name twice, bounded depth."""
    text = data if isinstance(data, str) else data.decode()
    if _too_deep(text):
        raise ValueError("nested too deeply")
    value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    if "\\u" in text:
        repr_of = json.dumps(value, ensure_ascii=False)
        repr_of.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    return value


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _seconds(claims: dict[str, Any], name: str, wrong: TokenFault, range_: TokenFault) -> int | TokenFault:
    """A time claim as whole seconds, 0 when absent. Envoy reads JSON numbers as doubles and cuts the fraction off."""
    if name not in claims:
        return 0
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return wrong
    if not 0 <= value < 1 << 64:
        return range_
    return int(value)


def _audiences(claims: dict[str, Any]) -> tuple[str, ...] | None:
    value = claims.get("aud", ())
    if isinstance(value, str):
        return (value,)
    if "aud" not in claims:
        return ()
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    return None


def parse_token(token: bytes) -> Parsed | TokenFault:
    """The parts of a token, or the first thing that is wrong with its form."""
    if len(token) > MAX_TOKEN:
        return TokenFault.BAD_FORMAT
    parts = token.split(b".")
    if len(parts) != 3 or not all(parts):
        return TokenFault.BAD_FORMAT
    parsed = Parsed()
    fault = _header(parsed, parts[0]) or _payload(parsed, parts[1])
    if fault is not None:
        return fault
    signature = decode_base64url(parts[2])
    if signature is None:
        return TokenFault.SIGNATURE_BASE64
    parsed.signature = signature
    parsed.signed = parts[0] + b"." + parts[1]
    return parsed


def _header(parsed: Parsed, part: bytes) -> TokenFault | None:
    text = decode_base64url(part)
    if text is None:
        return TokenFault.HEADER_BASE64
    header = _object(text)
    if header is None:
        return TokenFault.HEADER_JSON
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        return TokenFault.HEADER_ALG
    if algorithm not in ALGORITHMS:
        return TokenFault.HEADER_ALG_UNKNOWN
    key = header.get("kid", "")
    if not isinstance(key, str):
        return TokenFault.HEADER_KID
    parsed.algorithm = algorithm
    parsed.key = key
    parsed.critical = "crit" in header  # RFC 7515 section 4.1.11
    return None


def _payload(parsed: Parsed, part: bytes) -> TokenFault | None:
    text = decode_base64url(part)
    if text is None:
        return TokenFault.PAYLOAD_BASE64
    claims = _object(text)
    if claims is None:
        return TokenFault.PAYLOAD_JSON
    issuer, subject = claims.get("iss", ""), claims.get("sub", "")
    if not isinstance(issuer, str):
        return TokenFault.PAYLOAD_ISS
    if not isinstance(subject, str):
        return TokenFault.PAYLOAD_SUB
    issued = _seconds(claims, "iat", TokenFault.PAYLOAD_IAT, TokenFault.PAYLOAD_IAT_RANGE)
    if isinstance(issued, TokenFault):
        return issued
    starts = _seconds(claims, "nbf", TokenFault.PAYLOAD_NBF, TokenFault.PAYLOAD_NBF_RANGE)
    if isinstance(starts, TokenFault):
        return starts
    expires = _seconds(claims, "exp", TokenFault.PAYLOAD_EXP, TokenFault.PAYLOAD_EXP_RANGE)
    if isinstance(expires, TokenFault):
        return expires
    if not isinstance(claims.get("jti", ""), str):
        return TokenFault.PAYLOAD_JTI
    audiences = _audiences(claims)
    if audiences is None:
        return TokenFault.PAYLOAD_AUD
    parsed.issuer, parsed.subject, parsed.audiences = issuer, subject, audiences
    parsed.starts, parsed.expires = starts, expires
    parsed.claims = claims
    parsed.payload = part.rstrip(b"=")
    return None
