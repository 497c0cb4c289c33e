"""Room: policy. End-user tokens: the providers of a configuration compiled to one ``Verifier`` (semantics B5).

In: ``model.security.JwtProvider``s. Out: ``Verifier.extract`` (tokens of a request) and ``Verifier.judge``: ``Accepted`` with
the token and the edits of the request, or the ``TokenFault`` to answer with. Wall time is an argument; the order of checks is
Envoy's (B5.5), so that an expired and forged token says that it is expired.

Several providers: Istio asks for {P1 or P2 … or (P1 or nothing) and (P2 or nothing) …}. Here: every token of a request must be
verified by one of the providers that look where it stands, and the answer to a refusal is the one that Istio's expression gives.
Beside a running Envoy this differs in one thing, on the strict side: Envoy stops at the first provider that is content, and
passes a bad token that only another one would have looked at. The principal is of the first provider that verified something.

Only verified tokens are cached, until they expire, within bounds. A cache of refusals would be filled by whoever sends rubbish.
"""

from __future__ import annotations

from typing import Any

from meshproxy.message.head import Headers
from meshproxy.message.token import Token, TokenFault
from meshproxy.model.security import JwtProvider
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.jwks import KeySet
from meshproxy.policy.jwt_parse import Parsed, parse_token
from meshproxy.policy.jwt_places import HEADER, PARAM, Found, Places
from meshproxy.policy.matchers import claim_at

__all__ = ["CLOCK_SKEW", "Accepted", "Provider", "Verified", "Verifier"]

CLOCK_SKEW = 60  # seconds, both ways
_SPLIT_ALWAYS = ("scope", "permission")  # semantics B6.9
_MAX_TOKENS = 8  # in one request; each costs a signature
_MAX_ENTRIES = 1024
_MAX_BYTES = 4 << 20  # of cached tokens
_NAME = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_FOREVER = float("inf")
_RESERVED = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"te", b"trailer", b"upgrade"))


class Accepted:
    """What a request with verified tokens becomes. ``strip``: headers that carried a token that is not forwarded; ``params``:
    query parameters likewise; ``add``: payload and claims as headers.
    """

    __slots__ = ("add", "params", "strip", "token")

    def __init__(self, token: Token, strip: frozenset[bytes], params: frozenset[bytes], add: Headers) -> None:
        self.token = token
        self.strip = strip
        self.params = params
        self.add = add


class Verified:
    """One provider's view of a token that it verified: the token, and the headers that the provider makes of it."""

    __slots__ = ("headers", "token")

    def __init__(self, token: Token, headers: Headers) -> None:
        self.token = token
        self.headers = headers


Outcome = Verified | TokenFault


class Provider:
    """One rule, compiled. Raises ``Invalid`` for what cannot be obeyed; a bad key set is not among it: it refuses every token."""

    __slots__ = ("_audiences", "_outputs", "_split", "index", "keys", "model", "places")

    def __init__(self, model: JwtProvider, index: int, places: Places, path: str) -> None:
        if not model.issuer:
            raise Invalid(path + ".issuer", "must not be empty: it is what a token's iss is compared with")
        _check_names(model, path)
        self.model = model
        self.index = index
        self.places = places.of(model)
        self.keys = KeySet(model.jwks)
        self._audiences = frozenset(_bare_audience(one) for one in model.audiences)
        self._split = (*_SPLIT_ALWAYS, *model.space_delimited)
        self._outputs = tuple((name.lower().encode(), tuple(claim.split("."))) for name, claim in model.claim_headers)

    def verify(self, parsed: Parsed, wall: float) -> Outcome:
        return self.refuses(parsed, wall) or self.keys.verify(parsed) or self.verified(parsed)

    def refuses(self, parsed: Parsed, wall: float) -> TokenFault | None:
        """What is wrong with a token's claims."""
        model = self.model
        if parsed.issuer != model.issuer:
            return TokenFault.UNKNOWN_ISSUER
        now = int(wall)
        if now + CLOCK_SKEW < parsed.starts:
            return TokenFault.NOT_YET_VALID
        if parsed.expires and now > parsed.expires + CLOCK_SKEW:
            return TokenFault.EXPIRED
        if self._audiences and self._audiences.isdisjoint(map(_bare_audience, parsed.audiences)):
            return TokenFault.AUDIENCE
        return None

    def verified(self, parsed: Parsed) -> Verified:
        """Of a token whose signature is good."""
        claims = parsed.claims
        split = {
            name: [word for word in claims[name].split(" ") if word] for name in self._split if isinstance(claims.get(name), str)
        }
        presenter = claims.get("azp")
        token = Token(
            parsed.issuer,
            parsed.subject,
            {**claims, **split} if split else claims,
            audiences=parsed.audiences,
            presenter=presenter if isinstance(presenter, str) else "",
            payload=parsed.payload,
            expires=float(parsed.expires),
        )
        headers: Headers = []
        if self.model.payload_header:
            headers.append((self.model.payload_header.lower().encode(), parsed.payload))
        for name, path in self._outputs:
            value = _header_value(claim_at(claims, path))
            if value:
                headers.append((name, value))
        return Verified(token, headers)


def _check_names(model: JwtProvider, path: str) -> None:
    named = [(f".claim_headers[{index}]", name) for index, (name, _) in enumerate(model.claim_headers)]
    named += [(f".from_headers[{index}]", name) for index, (name, _) in enumerate(model.from_headers)]
    if model.payload_header:
        named.append((".payload_header", model.payload_header))
    for field, name in named:
        key = name.lower().encode()
        if not key or not _NAME.issuperset(key) or key in _RESERVED:
            raise Invalid(path + field, f'"{name}" cannot be the name of a header that carries a token or a claim')


def _bare_audience(audience: str) -> str:
    """Without ``http(s)://`` and one trailing slash (semantics B5.7)."""
    for scheme in ("http://", "https://"):
        if audience.startswith(scheme):
            audience = audience[len(scheme) :]
            break
    return audience[:-1] if audience.endswith("/") else audience


def _header_value(claim: Any) -> bytes:
    """A string, number or bool as a header's value; b"": not to be set (absent, a list, an object, or a break-out)."""
    if isinstance(claim, bool):
        return b"true" if claim else b"false"
    if isinstance(claim, float):
        return b"%d" % int(claim) if claim.is_integer() else b"%f" % claim
    if isinstance(claim, int):
        return b"%d" % claim if abs(claim) < 1 << 64 else b""
    if not isinstance(claim, str) or any(character < " " or character == "\x7f" for character in claim):
        return b""
    return claim.strip(" ").encode()


class _Known:
    """A cached token: what each provider says of it, from ``starts`` on and before ``ends`` (Unix seconds, skew included)."""

    __slots__ = ("accepted", "ends", "outcomes", "starts", "used")

    def __init__(self, outcomes: tuple[Outcome, ...], parsed: Parsed) -> None:
        self.outcomes = outcomes
        self.starts: float = parsed.starts - CLOCK_SKEW
        self.ends = parsed.expires + CLOCK_SKEW + 1.0 if parsed.expires else _FOREVER
        self.accepted: dict[int, Accepted] = {}  # by the place where it stood alone
        self.used = False


class Verifier:
    """All providers of one workload. ``known``: cached tokens, oldest first; second chance for those used since."""

    __slots__ = ("_bytes", "extract", "known", "max_bytes", "max_entries", "models", "places", "providers")

    def __init__(self, models: tuple[JwtProvider, ...], path: str = "jwt") -> None:
        self.models = models
        self.places = Places(models)
        self.extract = self.places.extract
        self.providers = tuple(Provider(model, index, self.places, f"{path}[{index}]") for index, model in enumerate(models))
        self.known: dict[bytes, _Known] = {}
        self._bytes = 0
        self.max_entries = _MAX_ENTRIES
        self.max_bytes = _MAX_BYTES

    def judge(self, found: list[Found], wall: float) -> Accepted | TokenFault:
        """The verdict on a request's tokens (at least one)."""
        if len(found) == 1:  # the usual request costs one lookup (benchmarks/micro_jwt.py "judge, cache hit")
            place, text = found[0]
            known = self.known.get(text)
            if known is not None and known.starts <= wall < known.ends:
                known.used = True
                accepted = known.accepted.get(place)
                if accepted is not None:
                    return accepted
        outcome = self._judge(found, wall)
        if len(found) == 1 and isinstance(outcome, Accepted):
            known = self.known.get(found[0][1])
            if known is not None:
                known.accepted[found[0][0]] = outcome
        return outcome

    def _judge(self, found: list[Found], wall: float) -> Accepted | TokenFault:
        if len(found) > _MAX_TOKENS:
            return TokenFault.MULTIPLE
        said = {text: self.examine(text, wall) for text in {text for _, text in found}}
        left = list(found)
        winners: list[tuple[Provider, list[Found], Verified]] = []
        for provider in self.providers:
            mine = [one for one in left if one[0] in provider.places and isinstance(said[one[1]][provider.index], Verified)]
            if mine:
                good = said[mine[0][1]][provider.index]
                assert isinstance(good, Verified)
                winners.append((provider, mine, good))
                left = [one for one in left if one not in mine]
        return self._fault(left, said) if left else self._accepted(winners)

    def _fault(self, left: list[Found], said: dict[bytes, tuple[Outcome, ...]]) -> TokenFault:
        """What Istio's expression ends with: the first provider's fault, unless it says only that the issuer is another one."""
        faults: list[TokenFault] = []
        for provider in self.providers:
            for place, text in reversed(left):  # Envoy takes the last token first
                outcome = said[text][provider.index]
                if place in provider.places and isinstance(outcome, TokenFault):
                    faults.append(outcome)
                    break
        if faults[0] is not TokenFault.UNKNOWN_ISSUER:
            return faults[0]
        return next((fault for fault in reversed(faults) if fault is not TokenFault.UNKNOWN_ISSUER), faults[0])

    def _accepted(self, winners: list[tuple[Provider, list[Found], Verified]]) -> Accepted:
        gone = {self.places.all[place] for provider, mine, _ in winners if not provider.model.forward for place, _ in mine}
        return Accepted(
            winners[0][2].token,
            frozenset(place.name for place in gone if place.kind == HEADER),
            frozenset(place.name for place in gone if place.kind == PARAM),
            [pair for _, _, good in winners for pair in good.headers],
        )

    def examine(self, text: bytes, wall: float) -> tuple[Outcome, ...]:
        """What each provider says of one token."""
        known = self.known.get(text)
        if known is not None:
            if known.starts <= wall < known.ends:
                known.used = True
                return known.outcomes
            self._forget(text)
        parsed = parse_token(text)
        if isinstance(parsed, TokenFault):
            return (parsed,) * len(self.providers)
        outcomes = tuple(provider.verify(parsed, wall) for provider in self.providers)
        if any(isinstance(one, Verified) for one in outcomes):
            self._remember(text, _Known(outcomes, parsed))
        return outcomes

    def _remember(self, text: bytes, entry: _Known) -> None:
        self.known[text] = entry
        self._bytes += len(text)
        while len(self.known) > self.max_entries or self._bytes > self.max_bytes:
            oldest, candidate = next(iter(self.known.items()))
            if candidate.used and candidate is not entry:
                candidate.used = False
                self.known[oldest] = self.known.pop(oldest)
            else:
                self._forget(oldest)

    def _forget(self, text: bytes) -> None:
        del self.known[text]
        self._bytes -= len(text)
