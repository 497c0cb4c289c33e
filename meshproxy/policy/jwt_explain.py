"""Room: policy. What would become of a request's tokens, in words, by the code that judges them.

In: a verifier, a request's head (left as it is), wall time. Out: steps: each provider with each token that it reads, then the
verdict as the last one. No step repeats a token; issuer, subject, audiences and key ids are no secrets.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from meshproxy.message.head import RequestHead, first
from meshproxy.message.token import TokenFault
from meshproxy.policy.cors import is_preflight
from meshproxy.policy.jwt import Provider, Verified, Verifier
from meshproxy.policy.jwt_parse import Parsed, parse_token
from meshproxy.policy.routes import Step

__all__ = ["assume_token", "explain_tokens"]


def explain_tokens(verifier: Verifier, request: RequestHead, wall: float) -> list[Step]:
    head = request.copy()
    found = verifier.extract(head)
    forged = sorted({name.decode() for name, _ in request.headers if name in verifier.places.written})
    steps = [Step("token", name, "", False, "only the proxy may write this header: taken out") for name in forged]
    for provider in verifier.providers:
        model = provider.model
        mine = [one for one in found if one[0] in provider.places]
        if not mine:
            places = ", ".join(str(verifier.places.all[index]) for index in sorted(provider.places))
            steps.append(Step("token", model.issuer, model.source, False, f"no token in {places}"))
        for index, text in mine:
            outcome = verifier.examine(text, wall)[provider.index]
            where = verifier.places.all[index]
            if isinstance(outcome, TokenFault):
                reason = f"token in {where}: {outcome.value}{_why(outcome, text, provider, wall)}"
                steps.append(Step("token", model.issuer, model.source, False, reason))
            else:
                who = outcome.token.principal or "nobody: a principal needs iss and sub"
                steps.append(Step("token", model.issuer, model.source, True, f"token in {where}: verified; principal {who}"))
    return [*steps, _verdict(verifier, head, found, wall)]


def assume_token(verifier: Verifier, claims: Mapping[str, Any], wall: float) -> tuple[list[Step], Verified | TokenFault]:
    """What a token with these claims would be, its signature taken as good: for what is to be tried without an issuer."""
    parsed = parse_token(b".".join(_part(one) for one in ({"alg": "RS256"}, claims)) + b".AA")
    steps: list[Step] = []
    fault: TokenFault = TokenFault.UNKNOWN_ISSUER
    for provider in verifier.providers:
        model = provider.model
        outcome = parsed if isinstance(parsed, TokenFault) else provider.refuses(parsed, wall)
        if outcome is None:
            assert isinstance(parsed, Parsed)
            good = provider.verified(parsed)
            words = f"claims taken as verified; principal {good.token.principal or 'nobody: it needs iss and sub'}"
            return [*steps, Step("token", model.issuer, model.source, True, words)], good
        if outcome is not TokenFault.UNKNOWN_ISSUER:
            fault = outcome
        steps.append(Step("token", model.issuer, model.source, False, f"claims: {outcome.value}"))
    return [*steps, Step("token", "verdict", "", False, f'{fault.status} "{fault.value}"')], fault


def _part(content: Mapping[str, Any]) -> bytes:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")


def _verdict(verifier: Verifier, head: RequestHead, found: list[tuple[int, bytes]], wall: float) -> Step:
    if not found:
        return Step("token", "verdict", "", True, "no token: passes without a principal; an AuthorizationPolicy may demand one")
    if head.method == b"OPTIONS" and is_preflight(head) and first(head.headers, b"origin"):
        return Step("token", "verdict", "", True, "a CORS preflight is not judged: passes without a principal")
    outcome = verifier.judge(found, wall)
    if isinstance(outcome, TokenFault):
        return Step("token", "verdict", "", False, f'{outcome.status} "{outcome.value}"')
    gone = [f"header {name.decode()}" for name in sorted(outcome.strip)]
    gone += [f"query parameter {name.decode()}" for name in sorted(outcome.params)]
    added = sorted({f"header {name.decode()}" for name, _ in outcome.add})
    words = f"passes as {outcome.token.principal or 'nobody'}"
    words += f"; taken out: {', '.join(gone)}" if gone else "; the token is forwarded"
    return Step("token", "verdict", "", True, words + (f"; added: {', '.join(added)}" if added else ""))


def _why(fault: TokenFault, text: bytes, provider: Provider, wall: float) -> str:
    """The particulars that the client is not told."""
    parsed = parse_token(text)
    if not isinstance(parsed, Parsed):
        return ""
    if fault is TokenFault.UNKNOWN_ISSUER:
        return f' here: its iss is "{parsed.issuer}"'
    if fault is TokenFault.EXPIRED:
        return f", {int(wall) - parsed.expires} s ago"
    if fault is TokenFault.NOT_YET_VALID:
        return f", only in {parsed.starts - int(wall)} s"
    if fault is TokenFault.AUDIENCE:
        return f": it is for {_list(parsed.audiences)}, and {_list(provider.model.audiences)} is wanted"
    if fault in (TokenFault.NO_KEY, TokenFault.SIGNATURE):
        named = f'kid "{parsed.key}"' if parsed.key else "no kid"
        return f": its alg is {parsed.algorithm}, {named}; the keys are {_list(provider.keys.names)}"
    return ""


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "nothing"
