"""Room 4 (filters): end-user tokens. Judged by ``policy.jwt``; a request without a token passes, without a principal.

In: a request at an inbound or gateway listener of a workload with a RequestAuthentication. Out: 401 (403 for the audience) in
Envoy's words with ``www-authenticate``; or ``request.token`` set, the token taken out unless it is forwarded, payload and
claims added as headers. Headers of these names that came from outside are always taken out, also from a CORS preflight, which
otherwise passes unjudged because browsers send it without credentials (semantics B5.4, B5.8).

``veil`` stands ahead of every filter that may answer before that: authorisers, CORS.
"""

from __future__ import annotations

from meshproxy.filters.chain import Filter
from meshproxy.message.head import RequestHead, first
from meshproxy.message.ports import InFlight
from meshproxy.message.reason import Reason
from meshproxy.message.token import TokenFault
from meshproxy.message.verdict import Reply, Verdict
from meshproxy.policy.cors import is_preflight
from meshproxy.policy.jwt import Verifier
from meshproxy.policy.jwt_places import without_params
from meshproxy.policy.matchers import scheme_of
from meshproxy.policy.replies import local_reply

__all__ = ["authn_filter", "token_refused", "veil_filter"]

_LONGEST_REALM = 256  # bytes of the path in it


def authn_filter(verifier: Verifier, chosen_before: bool) -> Filter:
    """``chosen_before``: a filter before this one may have asked for the route, so it is to be chosen again (claims, headers)."""
    extract, judge, params = verifier.extract, verifier.judge, verifier.places.params

    def authn(exchange: InFlight, now: float) -> Verdict:
        request = exchange.request
        found = extract(request)
        if chosen_before:
            exchange.clear_route()
        if not found:
            return None
        if request.method == b"OPTIONS" and is_preflight(request) and first(request.headers, b"origin"):
            return None
        record = exchange.record
        outcome = judge(found, record.wall + (now - record.started))
        if isinstance(outcome, TokenFault):
            return token_refused(request, outcome, without_params(request.target, params) if params else request.target)
        request.token = outcome.token
        if outcome.strip:
            strip = outcome.strip
            request.headers[:] = [pair for pair in request.headers if pair[0] not in strip]
        if outcome.add:
            request.headers += outcome.add
        if outcome.params:
            request.target = without_params(request.target, outcome.params)
        return None

    return authn


def veil_filter(params: frozenset[bytes]) -> Filter:
    """The access log shows no token, whoever answers. ``params``: the query parameters where tokens stand."""

    def veil(exchange: InFlight, now: float) -> Verdict:
        record = exchange.record
        record.hidden_params = params
        if b"?" in record.path:
            record.path = without_params(record.path, params)
        return None

    return veil


def token_refused(request: RequestHead, fault: TokenFault, target: bytes) -> Reply:
    """The answer to a token that is not good. ``target``: without tokens."""
    reason = Reason.TOKEN_REFUSED if fault.status == 401 else Reason.TOKEN_AUDIENCE
    reply = local_reply(reason, fault.body, fault.detail)
    # Envoy's buildOriginalUri; a quote would end the quoted string (RFC 9110 section 11.2).
    realm = scheme_of(request) + b"://" + request.authority + target[:_LONGEST_REALM]
    value = b'Bearer realm="' + realm.replace(b'"', b"%22").replace(b"\\", b"%5C") + b'", error="invalid_token"'
    reply.head.headers.append((b"www-authenticate", value))
    return reply
