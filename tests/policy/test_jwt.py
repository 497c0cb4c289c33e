"""End-user tokens: what verifies, what does not and in which words, for one provider and for several (semantics B5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshproxy.message.head import RequestHead
from meshproxy.message.token import TokenFault
from meshproxy.model.security import JwtProvider
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.jwt import Accepted, Verifier
from tests.policy.jwt_keys import (
    ALGORITHMS,
    DATA,
    ISSUER,
    NOW,
    SECRET,
    article,
    b64,
    jwk,
    jwks,
    private,
    provider,
    rsa_key,
    token,
)


def bearer(text: bytes) -> RequestHead:
    return RequestHead(b"GET", b"/a", b"shop", [(b"authorization", b"Bearer " + text)])


def judge(text: bytes, *providers: JwtProvider, wall: float = NOW) -> Accepted | TokenFault:
    verifier = Verifier(providers or (provider(),))
    first = verifier.judge(verifier.extract(bearer(text)), wall)
    again = verifier.judge(verifier.extract(bearer(text)), wall)
    assert type(first) is type(again)  # the cache changes nothing
    if isinstance(first, TokenFault):
        assert first is again
        assert not verifier.known or first is not TokenFault.SIGNATURE
    return first


def accepted(text: bytes, *providers: JwtProvider, wall: float = NOW) -> Accepted:
    outcome = judge(text, *providers, wall=wall)
    assert isinstance(outcome, Accepted), outcome
    return outcome


# -- the article


@pytest.mark.parametrize(
    ("name", "expected"),
    [("invalid-signature", TokenFault.SIGNATURE), ("valid-no-role", None), ("valid-role-customer", None)],
)
def test_the_articles_tokens(name: str, expected: TokenFault | None) -> None:
    one = provider(issuer="testing@secure.istio.io", jwks=(DATA / "jwks.json").read_text())
    outcome = judge(article(name), one)
    if expected is not None:
        assert outcome is expected
        assert expected.body == b"Jwt verification fails"
        return
    assert isinstance(outcome, Accepted)
    assert outcome.token.principal == "testing@secure.istio.io/testing@secure.istio.io"
    assert outcome.token.claims.get("role") == ("customer" if "customer" in name else None)


# -- algorithms and keys


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_verifies_its_own_and_nothing_else(algorithm: str) -> None:
    good = token(algorithm)
    for one in (jwk(algorithm), jwk(algorithm, alg=algorithm, kid="k", use="sig")):
        assert accepted(good, provider(jwks=jwks(one))).token.subject == "ann"
    head, payload, signature = good.split(b".")
    other = json.dumps({"iss": ISSUER, "sub": "eve", "exp": NOW + 3600}).encode()
    forged = head + b"." + b64(other).encode() + b"." + signature
    assert judge(forged, provider(jwks=jwks(jwk(algorithm)))) is TokenFault.SIGNATURE
    cut = head + b"." + payload + b"." + signature[:-8]
    assert judge(cut, provider(jwks=jwks(jwk(algorithm)))) in (TokenFault.SIGNATURE, TokenFault.SIGNATURE_LENGTH)
    for wrong in ALGORITHMS:
        family = (algorithm[0], wrong[0]) if algorithm[:2] in ("HS", "RS", "PS") else (algorithm, wrong)
        if family[0] == family[1] or {*family} == {"R", "P"}:
            continue
        # The keys of another kind: the kid matches, the key does not fit.
        assert judge(good, provider(jwks=jwks(jwk(wrong)))) is TokenFault.SIGNATURE
        assert judge(good, provider(jwks=jwks(jwk(wrong, alg=wrong)))) is TokenFault.NO_KEY


def test_none_never_verifies() -> None:
    for name in ("none", "None", "NONE", "nOnE", "", "HS1", "ES256K", "RS1", "A128KW", "ES256 "):
        for signature in (b"", b"x"):
            text = token(header={"alg": name}, signature=signature)
            assert judge(text) in (TokenFault.HEADER_ALG_UNKNOWN, TokenFault.BAD_FORMAT)
    assert judge(token(header={"alg": "none"}, signature=b"x")) is TokenFault.HEADER_ALG_UNKNOWN


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_never_an_hmac_secret(algorithm: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    for kind in ("RS256", "ES256"):
        public = private(kind).public_key()
        for encoding in (Encoding.PEM, Encoding.DER):
            secret = public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            for one in (jwk(kind), jwk(kind, kid="k")):
                assert judge(token(algorithm, key=secret, header={"kid": "k"}), provider(jwks=jwks(one))) is TokenFault.SIGNATURE


def test_keys_for_other_purposes_do_not_verify() -> None:
    good = token("ES256")
    purposes: list[dict[str, Any]] = [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"use": 1},
    ]
    for more in purposes:
        assert judge(good, provider(jwks=jwks(jwk("ES256", **more)))) is TokenFault.KEYS_NONE_VALID
    assert accepted(good, provider(jwks=jwks(jwk("ES256", key_ops=["verify"]))))


def test_kid_rules() -> None:
    mine, other = jwk("RS256", kid="mine"), jwk("ES256", kid="other")
    keys = provider(jwks=jwks(other, mine))
    assert accepted(token("RS256", header={"kid": "mine"}), keys)
    assert accepted(token("RS256"), keys)  # none named: all are tried
    assert accepted(token("RS256", header={"kid": ""}), keys)
    assert judge(token("RS256", header={"kid": "other"}), keys) is TokenFault.SIGNATURE  # that key does not fit
    assert judge(token("RS256", header={"kid": "third"}), keys) is TokenFault.NO_KEY
    assert accepted(token("RS256", header={"kid": "third"}), provider(jwks=jwks(jwk("RS256"))))  # the key has no name
    two = provider(jwks=jwks({**jwk("RS256", kid="k"), **_numbers(1)}, jwk("RS256", kid="k")))
    assert accepted(token("RS256", header={"kid": "k"}), two)  # several of one name: each is tried


def _numbers(number: int) -> dict[str, str]:
    public = rsa_key(number).public_key().public_numbers()
    return {"n": b64(public.n.to_bytes(256)), "e": b64(public.e.to_bytes(3))}


# -- every body of B5.11 (and of the library beyond it), by what causes it

E = ISSUER.encode()
BODIES: list[tuple[str, bytes, dict[str, Any]]] = [
    ("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", b"abc", {}),
    ("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", b"a.b", {}),
    ("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", b"a.b.c.d", {}),
    ("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", b"..", {}),
    ("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", token(pad="x" * 40_000), {}),
    ("Jwt header is an invalid Base64url encoded", b"a!!.b.c", {}),
    ("Jwt header is an invalid Base64url encoded", b"a.b.c", {}),
    ("Jwt header is an invalid JSON", token(header=b"{"), {}),
    ("Jwt header is an invalid JSON", token(header=b"[]"), {}),
    ("Jwt header is an invalid JSON", token(header=b'{"alg":"ES256","alg":"none"}'), {}),
    ("Jwt header is an invalid JSON", token(header=b'{"alg":"ES256","x":NaN}'), {}),
    ("Jwt header is an invalid JSON", token(header=b'{"alg":"\xff"}'), {}),
    ("Jwt header [alg] field is required and must be a string", token(header=b"{}"), {}),
    ("Jwt header [alg] field is required and must be a string", token(header=b'{"alg":1}'), {}),
    ("Jwt header [alg] is not supported", token(header=b'{"alg":"none"}'), {}),
    ("Jwt header [kid] field is not a string", token(header={"kid": 1}), {}),
    ("Jwt payload is an invalid Base64url encoded", token().split(b".")[0] + b".a.c", {}),
    ("Jwt payload is an invalid JSON", token(payload=b"{"), {}),
    ("Jwt payload is an invalid JSON", token(payload=b'"text"'), {}),
    ("Jwt payload is an invalid JSON", token(payload=b'{"a":1e999}'), {}),
    ("Jwt payload is an invalid JSON", token(payload=b'{"a":"\\ud800"}'), {}),
    ("Jwt payload is an invalid JSON", token(payload=b'{"a":' + b"[" * 40 + b"]" * 40 + b"}"), {}),
    ("Jwt payload is an invalid JSON", token(payload=b'{"a":' + b"9" * 5000 + b"}"), {}),
    ("Jwt payload is an invalid JSON", token(payload=b'{"sub":"a","sub":"b"}'), {}),
    ("Jwt payload [iss] field is not a string", token(iss=1), {}),
    ("Jwt payload [sub] field is not a string", token(sub=[]), {}),
    ("Jwt payload [iat] field is not an integer", token(iat="1"), {}),
    ("Jwt payload [iat] field is not a positive 64 bit integer", token(iat=-1), {}),
    ("Jwt payload [nbf] field is not an integer", token(nbf=True), {}),
    ("Jwt payload [nbf] field is not a positive 64 bit integer", token(nbf=1 << 64), {}),
    ("Jwt payload [exp] field is not an integer", token(exp="soon"), {}),
    ("Jwt payload [exp] field is not an integer", token(exp=None), {}),
    ("Jwt payload [exp] field is not a positive 64 bit integer", token(exp=-0.5), {}),
    ("Jwt payload [jti] field is not a string", token(jti=1), {}),
    ("Jwt payload [aud] field is not a string or string list", token(aud=[1]), {}),
    ("Jwt payload [aud] field is not a string or string list", token(aud=None), {}),
    ("Jwt signature is an invalid Base64url encoded", token() + b"!", {}),
    ("Jwt ED25519 signature is wrong length", token("EdDSA", signature=b"x" * 63), {"jwks": jwks(jwk("EdDSA"))}),
    ("Jwt issuer is not configured", token(iss="someone else"), {}),
    ("Jwt issuer is not configured", token(payload={"sub": "ann"}), {}),
    ("Jwt is expired", token(exp=NOW - 61), {}),
    ("Jwt not yet valid", token(nbf=NOW + 61), {}),
    ("Audiences in Jwt are not allowed", token(aud="b"), {"audiences": ("a",)}),
    ("Audiences in Jwt are not allowed", token(), {"audiences": ("a",)}),
    ("Jwt verification fails", token(signature=b"x" * 64), {}),
    ("Jwt verification fails", token(header={"crit": ["b64"], "b64": False}), {}),
    ("Jwks doesn't have key to match kid or alg from Jwt", token(header={"kid": "b"}), {"jwks": jwks(jwk("ES256", kid="a"))}),
    ("Jwks is an invalid JSON", token(), {"jwks": "<html>"}),
    ("Jwks is an invalid JSON", token(), {"jwks": "[]"}),
    ("Jwks does not have [keys] field", token(), {"jwks": "{}"}),
    ("Jwks does not have [keys] field", token(), {"jwks": '{"error":"down"}'}),
    ("[keys] in Jwks is not an array", token(), {"jwks": '{"keys":{}}'}),
    ("Jwks doesn't have any valid public key", token(), {"jwks": '{"keys":[]}'}),
    (
        "Jwks doesn't have any valid public key",
        token(),
        {"jwks": '{"keys":[1,{},{"kty":"EC"},{"kty":"RSA","n":"AQ","e":"AQAB"}]}'},
    ),
    ("Jwks remote fetch is failed", token(), {"jwks": ""}),
]


@pytest.mark.parametrize(("body", "text", "fields"), BODIES, ids=range(len(BODIES)))
def test_every_body(body: str, text: bytes, fields: dict[str, Any]) -> None:
    outcome = judge(text, provider(**fields))
    assert isinstance(outcome, TokenFault)
    assert outcome.body.decode() == body
    assert outcome.status == (403 if "Audiences" in body else 401)
    assert outcome.detail == "jwt_authn_access_denied{" + body.replace(" ", "_") + "}"


def test_every_fault_has_a_case() -> None:
    said = {body for body, _, _ in BODIES}
    assert {fault.value for fault in TokenFault} - said == {"Found multiple Jwt tokens"}  # a request's, below


def test_the_order_of_checks() -> None:
    """Expired and forged says expired; each earlier check wins over each later one (B5.5)."""
    claims: dict[str, Any] = {"iss": "other", "nbf": NOW + 100, "exp": NOW - 100, "aud": "b"}
    fields: dict[str, Any] = {"audiences": ("a",), "jwks": ""}
    said = []
    for cure in ({"iss": ISSUER}, {"nbf": 0}, {"exp": NOW}, {"aud": "a"}):
        said.append(judge(token(signature=b"x" * 64, **claims), provider(**fields)))
        claims |= cure
    said.append(judge(token(signature=b"x" * 64, **claims), provider(**fields)))
    said.append(judge(token(signature=b"x" * 64, **claims), provider(audiences=("a",))))
    assert said == [
        TokenFault.UNKNOWN_ISSUER,
        TokenFault.NOT_YET_VALID,
        TokenFault.EXPIRED,
        TokenFault.AUDIENCE,
        TokenFault.KEYS_NOT_FETCHED,
        TokenFault.SIGNATURE,
    ]


# -- claims


@pytest.mark.parametrize(
    ("claims", "wall", "expected"),
    [
        ({"exp": NOW}, NOW + 60.9, None),
        ({"exp": NOW}, NOW + 61, TokenFault.EXPIRED),
        ({"exp": NOW + 0.9}, NOW + 61, TokenFault.EXPIRED),  # a fraction is cut off
        ({"exp": 0}, NOW, None),  # as if absent
        ({"nbf": NOW + 60}, NOW, None),
        ({"nbf": NOW + 61}, NOW + 0.9, TokenFault.NOT_YET_VALID),
        ({"nbf": NOW + 61}, NOW + 1, None),
        ({"iat": NOW + 10_000}, NOW, None),  # not judged
    ],
)
def test_time(claims: dict[str, Any], wall: float, expected: TokenFault | None) -> None:
    outcome = judge(token(**claims), wall=wall)
    assert (outcome if isinstance(outcome, TokenFault) else None) is expected


def test_a_token_without_exp_has_no_end() -> None:
    outcome = accepted(token(payload={"iss": ISSUER, "sub": "ann"}), wall=NOW * 2)
    assert outcome.token.expires == 0.0


@pytest.mark.parametrize(
    ("configured", "claimed", "allowed"),
    [
        (("a",), "a", True),
        (("a",), ["b", "a"], True),
        (("https://a/",), "a", True),
        (("a",), "http://a/", True),
        (("a",), "https://a", True),
        (("a",), "a//", False),
        (("a",), "HTTPS://a", False),
        (("a",), [], False),
        (("",), "", True),
        ((), "anything", True),
    ],
)
def test_audiences(configured: tuple[str, ...], claimed: Any, allowed: bool) -> None:
    outcome = judge(token(aud=claimed), provider(audiences=configured))
    assert isinstance(outcome, Accepted) is allowed


def test_what_the_token_says() -> None:
    claims: dict[str, Any] = {
        "aud": ["x", "y"],
        "azp": "app",
        "scope": "read  write",
        "permission": ["a b"],
        "roles": "one two",
        "n": {"scope": "a b"},
    }
    found = accepted(token(**claims), provider(space_delimited=("roles", "missing"))).token
    assert (found.issuer, found.subject, found.principal) == (ISSUER, "ann", f"{ISSUER}/ann")
    assert (found.audiences, found.presenter, found.expires) == (("x", "y"), "app", NOW + 3600)
    assert found.claims["scope"] == ["read", "write"]
    assert found.claims["permission"] == ["a b"]  # a list already
    assert found.claims["roles"] == ["one", "two"]
    assert found.claims["n"] == {"scope": "a b"}  # at the top only
    assert accepted(token(payload={"iss": ISSUER})).token.principal == ""
    assert accepted(token(azp=["app"])).token.presenter == ""


def test_claims_to_headers() -> None:
    claims: dict[str, Any] = {
        "s": "text",
        "i": 7,
        "neg": -7,
        "f": 1.5,
        "t": True,
        "list": ["a"],
        "deep": {"er": {"x": "y"}},
        "null": None,
        "evil": "a\r\nx-admin: 1",
        "empty": "",
        "scope": "a b",
        "u": "ü",
    }
    names = (*claims, "deep.er.x", "deep.no", "s.x", "absent")
    outputs = tuple((f"x-{name.replace('.', '-')}", name) for name in names)
    got = dict(accepted(token(**claims), provider(claim_headers=outputs, payload_header="X-Payload")).add)
    payload = got.pop(b"x-payload")
    assert payload == token(**claims).split(b".")[1]
    assert got == {
        b"x-s": b"text",
        b"x-i": b"7",
        b"x-neg": b"-7",
        b"x-f": b"1.500000",
        b"x-t": b"true",
        b"x-deep-er-x": b"y",
        b"x-scope": b"a b",
        b"x-u": "ü".encode(),
    }


def test_padded_parts_are_read_and_the_payload_passed_on_without() -> None:
    from base64 import urlsafe_b64encode

    from jwt.algorithms import get_default_algorithms

    payload = json.dumps({"iss": ISSUER, "sub": "ann!"}).encode()
    while len(payload) % 3 != 2:
        payload += b" "
    signed = urlsafe_b64encode(b'{"alg":"HS256"} ') + b"." + urlsafe_b64encode(payload)
    assert signed.endswith(b"=")
    text = signed + b"." + urlsafe_b64encode(get_default_algorithms()["HS256"].sign(signed, SECRET))
    got = accepted(text, provider(jwks=jwks(jwk("HS256")), payload_header="x-p"))
    assert got.add == [(b"x-p", b64(payload).encode())]


# -- several providers, several tokens (B5.3)

OTHER = "https://other.example"
TWO = (provider(), provider(issuer=OTHER, jwks=jwks(jwk("RS256"))))


def judge_request(request: RequestHead, *providers: JwtProvider) -> Accepted | TokenFault | None:
    verifier = Verifier(providers)
    found = verifier.extract(request)
    return verifier.judge(found, NOW) if found else None


def test_providers_at_one_place_each_take_their_own() -> None:
    assert accepted(token(), *TWO).token.issuer == ISSUER
    assert accepted(token("RS256", iss=OTHER), *TWO).token.issuer == OTHER
    assert judge(token(iss="third"), *TWO) is TokenFault.UNKNOWN_ISSUER
    # The fault of the provider whose token it is, not "issuer is not configured" of the other.
    assert judge(token("RS256", iss=OTHER, exp=1), *TWO) is TokenFault.EXPIRED
    assert judge(token(exp=1), *TWO) is TokenFault.EXPIRED
    assert judge(b"x.y", *TWO) is TokenFault.BAD_FORMAT


def test_two_providers_of_one_issuer() -> None:
    a, b = (
        provider(audiences=("a",), claim_headers=(("x-a", "aud"),)),
        provider(audiences=("b",), claim_headers=(("x-b", "aud"),)),
    )
    assert accepted(token(aud="b"), a, b).add == [(b"x-b", b"b")]
    assert accepted(token(aud=["a", "b"]), a, b).add == []  # the first one's, whose claim is a list
    assert judge(token(aud="c"), a, b) is TokenFault.AUDIENCE
    rotated = provider(jwks=jwks(jwk("EdDSA")))
    assert accepted(token(), rotated, provider()).token.subject == "ann"


def test_every_token_of_a_request_must_verify() -> None:
    good, bad = token(), token(signature=b"x" * 64)
    request = bearer(good)
    request.target = b"/a?access_token=" + bad
    assert judge_request(request, provider()) is TokenFault.SIGNATURE
    request.target = b"/a?access_token=" + good + b"&access_token=" + bad
    assert judge_request(request, provider()) is TokenFault.SIGNATURE
    second = provider(issuer=OTHER, jwks=jwks(jwk("RS256")), from_headers=(("x-token", ""),))
    request = bearer(good)
    request.headers.append((b"x-token", bad))
    assert judge_request(request, provider(), second) is TokenFault.UNKNOWN_ISSUER
    request.headers[-1] = (b"x-token", token("RS256", iss=OTHER, sub="bob"))
    outcome = judge_request(request, provider(), second)
    assert isinstance(outcome, Accepted)
    assert outcome.token.subject == "ann"  # the first provider's
    assert outcome.strip == {b"authorization", b"x-token"}
    # Two issuers, two places, both read by both providers: each token has its verifier, the first provider's speaks.
    for first, second_ in ((good, token("RS256", iss=OTHER, sub="bob")), (token("RS256", iss=OTHER, sub="bob"), good)):
        request = bearer(first)
        request.target = b"/a?access_token=" + second_
        outcome = judge_request(request, *TWO)
        assert isinstance(outcome, Accepted)
        assert outcome.token.subject == "ann"
        assert (outcome.strip, outcome.params) == (frozenset((b"authorization",)), frozenset((b"access_token",)))
    # What is wrong is said of the token that nobody verified.
    request = bearer(token(exp=1))
    request.target = b"/a?access_token=" + token("RS256", iss=OTHER)
    assert judge_request(request, *TWO) is TokenFault.EXPIRED


def test_a_heap_of_tokens_is_refused() -> None:
    request = bearer(token())
    request.headers *= 9
    assert judge_request(request, provider()) is TokenFault.MULTIPLE


def test_two_good_tokens_the_header_speaks() -> None:
    request = bearer(token())
    request.target = b"/a?x=1&access_token=" + token(sub="bob") + b"&y"
    outcome = judge_request(request, provider())
    assert isinstance(outcome, Accepted)
    assert outcome.token.subject == "ann"
    assert (outcome.strip, outcome.params) == (frozenset((b"authorization",)), frozenset((b"access_token",)))


# -- what cannot be obeyed


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"issuer": ""}, "jwt[0].issuer"),
        ({"payload_header": "a b"}, "jwt[0].payload_header"),
        ({"payload_header": "Host"}, "jwt[0].payload_header"),
        ({"claim_headers": (("x", "a"), ("a\r\nb", "c"))}, "jwt[0].claim_headers[1]"),
        ({"from_headers": (("", ""),)}, "jwt[0].from_headers[0]"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        Verifier((provider(**fields),))
    assert str(caught.value).startswith(path + ": ")


# -- the cache


def test_a_verified_token_is_remembered_until_it_expires() -> None:
    verifier = Verifier((provider(),))
    text = token(exp=NOW + 10)
    found = verifier.extract(bearer(text))
    first = verifier.judge(found, NOW)
    assert isinstance(first, Accepted)
    assert verifier.judge(found, NOW + 70.9) is first
    assert verifier.judge(found, NOW + 71) is TokenFault.EXPIRED
    assert not verifier.known
    early = token(nbf=NOW)
    found = verifier.extract(bearer(early))
    assert isinstance(verifier.judge(found, NOW), Accepted)
    assert verifier.judge(found, NOW - 61) is TokenFault.NOT_YET_VALID  # the clock was set back


def test_refused_tokens_are_not_remembered() -> None:
    verifier = Verifier((provider(),))
    for text in (b"x", token(signature=b"y" * 64), token(exp=1), token(iss="z")):
        assert isinstance(verifier.judge(verifier.extract(bearer(text)), NOW), TokenFault)
    assert not verifier.known


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    verifier = Verifier((provider(jwks=jwks(jwk("HS256"))),))
    verifier.max_entries = 4
    texts = [token("HS256", sub=str(number)) for number in range(8)]

    def use(text: bytes) -> None:
        assert isinstance(verifier.judge(verifier.extract(bearer(text)), NOW), Accepted)

    for text in texts[:4]:
        use(text)
    use(texts[0])
    for text in texts[4:7]:
        use(text)
    assert set(verifier.known) == {texts[0], *texts[4:7]}  # second chance
    verifier.max_bytes = len(texts[7]) * 2
    use(texts[7])
    assert len(verifier.known) == 2
    verifier.max_bytes = 10
    use(texts[1])
    assert not verifier.known  # too large for the cache, and yet served
