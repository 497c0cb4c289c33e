"""What becomes of a token, in words; never another verdict than the filter's, never the token itself."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.message.head import RequestHead
from meshproxy.policy.jwt import Verifier
from meshproxy.policy.jwt_explain import explain_tokens
from meshproxy.policy.routes import Step
from tests.policy.jwt_keys import NOW, jwk, jwks, provider, token

SOURCE = "RequestAuthentication a/b jwtRules[0]"


def explained(text: bytes, method: bytes = b"GET", **fields: Any) -> list[Step]:
    headers = [(b"authorization", b"Bearer " + text), (b"x-role", b"admin")] if text else []
    request = RequestHead(method, b"/", b"h", headers)
    steps = explain_tokens(Verifier((provider(**fields),)), request, NOW)
    assert request.headers == headers
    assert request.token is None
    assert not text or all(text.decode() not in step.reason for step in steps)
    return steps


def test_no_token() -> None:
    one, verdict = explained(b"")
    assert one == Step(
        "token", "https://issuer.example", SOURCE, False, "no token in header authorization, query parameter access_token"
    )
    assert verdict.taken
    assert verdict.reason.startswith("no token: passes without a principal")


def test_a_good_token_with_all_that_comes_of_it() -> None:
    forged, one, verdict = explained(token(), claim_headers=(("x-role", "sub"),))
    assert (forged.name, forged.reason) == ("x-role", "only the proxy may write this header: taken out")
    assert one.reason == "token in header authorization: verified; principal https://issuer.example/ann"
    assert verdict.reason == "passes as https://issuer.example/ann; taken out: header authorization; added: header x-role"
    assert explained(token(), forward=True)[-1].reason == "passes as https://issuer.example/ann; the token is forwarded"


@pytest.mark.parametrize(
    ("text", "fields", "reason", "verdict"),
    [
        (token(iss="x"), {}, 'Jwt issuer is not configured here: its iss is "x"', '401 "Jwt issuer is not configured"'),
        (token(exp=NOW - 100), {}, "Jwt is expired, 100 s ago", '401 "Jwt is expired"'),
        (token(nbf=NOW + 90), {}, "Jwt not yet valid, only in 90 s", '401 "Jwt not yet valid"'),
        (
            token(aud=["b", "c"]),
            {"audiences": ("a",)},
            'Audiences in Jwt are not allowed: it is for "b", "c", and "a" is wanted',
            '403 "Audiences in Jwt are not allowed"',
        ),
        (
            token(header={"kid": "k"}),
            {"jwks": jwks(jwk("ES256", kid="a"))},
            'Jwks doesn\'t have key to match kid or alg from Jwt: its alg is ES256, kid "k"; the keys are "a"',
            '401 "Jwks doesn\'t have key to match kid or alg from Jwt"',
        ),
        (token(), {"jwks": ""}, "Jwks remote fetch is failed", '401 "Jwks remote fetch is failed"'),
        (b"a.b", {}, None, '401 "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"'),
    ],
)
def test_why_not(text: bytes, fields: dict[str, Any], reason: str | None, verdict: str) -> None:
    one, last = explained(text, **fields)
    assert not one.taken and not last.taken
    if reason is not None:
        assert one.reason == "token in header authorization: " + reason
    assert last.reason == verdict
