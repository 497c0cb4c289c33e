"""What end-user tokens cost per request, in microseconds; run it before and after a change to them.

    .venv/bin/python -m benchmarks.micro_jwt [rounds]

The keys are made for the run. "known" is a token that was verified before; "new" one that is taken apart and verified, with
the cache emptied each time; "forged" a good form with a wrong signature, which is never cached.
"""

from __future__ import annotations

import json
import sys
import timeit
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import get_default_algorithms

from meshproxy.filters.authn import authn_filter
from meshproxy.message.head import RequestHead
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.security import JwtProvider
from meshproxy.policy.jwt import Verifier

WALL = 1_800_000_000.0
ISSUER = "https://issuer.example"


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def made(algorithm: str) -> tuple[bytes, JwtProvider]:
    key: Any
    if algorithm == "EdDSA":
        key = Ed25519PrivateKey.generate()
    elif algorithm == "ES256":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(65537, 2048)
    tools = get_default_algorithms()[algorithm]
    public = {name: value for name, value in tools.to_jwk(key.public_key(), as_dict=True).items() if name != "key_ops"}
    payload = {"iss": ISSUER, "sub": "somebody", "aud": "shop", "exp": WALL + 3600, "groups": ["a", "b"], "scope": "read write"}
    signed = b64(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()) + b"." + b64(json.dumps(payload).encode())
    provider = JwtProvider(source="", issuer=ISSUER, jwks=json.dumps({"keys": [public]}), claim_headers=(("x-sub", "sub"),))
    return signed + b"." + b64(tools.sign(signed, key)), provider


def head(text: bytes = b"") -> RequestHead:
    headers = [(b"user-agent", b"curl/8"), (b"accept", b"*/*"), (b"x-request-id", b"0" * 36), (b"x-forwarded-proto", b"http")]
    headers += [(b"accept-encoding", b"gzip"), (b"x-user", b"jo")]
    if text:
        headers.append((b"authorization", b"Bearer " + text))
    return RequestHead(b"GET", b"/rate/1", b"rating:8080", headers)


class Exchange:
    def __init__(self, request: RequestHead) -> None:
        self.request = request
        self.record = ExchangeRecord(None, 0.0, WALL, request)


def row(name: str, call: Callable[[], object], rounds: int, calls: int, less: float = 0.0) -> float:
    best = min(timeit.repeat(call, number=calls, repeat=rounds)) / calls * 1e6 - less
    print(f"{name:42} {best:8.2f}")
    return best


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for algorithm in ("RS256", "PS256", "ES256", "EdDSA"):
        text, provider = made(algorithm)
        verifier = Verifier((provider,))
        found = verifier.extract(head(text))

        def new(verifier: Verifier = verifier, found: Any = found) -> None:
            verifier.known.clear()
            verifier.judge(found, WALL)

        forged = [(found[0][0], text[:-9] + b"AAAAAAAAA")]
        row(f"judge, {algorithm}, new", new, rounds, 500)
        row(f"judge, {algorithm}, forged", lambda v=verifier, f=forged: v.judge(f, WALL), rounds, 500)  # type: ignore[misc]
    verifier.judge(found, WALL)
    row("judge, cache hit", lambda: verifier.judge(found, WALL), rounds, 100_000)
    authn: Any = authn_filter(verifier, False)
    for name, token in (("authn, no token", b""), ("authn, cache hit", text)):
        making = min(timeit.repeat(lambda token=token: Exchange(head(token)), number=50_000, repeat=rounds)) / 50_000 * 1e6  # type: ignore[misc]
        row(name, lambda token=token: authn(Exchange(head(token)), 0.0), rounds, 50_000, making)  # type: ignore[misc]


if __name__ == "__main__":
    main()
