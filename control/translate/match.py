"""Translate, matching: what of a VirtualService rule is judged here, and what the proxy must ask each request.

In: ``HTTPMatchRequest``. Out: whether it applies to this client at all, and the model's ``RouteMatch`` for the rest.
Semantics A1 (static and dynamic match, JWT-claim keys).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from control.resources.virtual_service import HTTPMatchRequest, StringMatch
from meshproxy.model import match as model

__all__ = ["Client", "applies", "catches_all", "claim_keys", "claim_path", "route_match"]

CLAIM_PREFIX = "@request.auth.claims"


class Client(NamedTuple):
    """Who would send the request: sidecars are the gateway ``mesh``."""

    namespace: str
    labels: Mapping[str, str]
    gateways: frozenset[str]
    ports: frozenset[int]  # the service port, or a gateway's server ports


def applies(match: HTTPMatchRequest, gateways: frozenset[str], client: Client) -> bool:
    """The static part. ``gateways`` are the match's own, made full; given, they replace the test of source labels."""
    if match.port and match.port not in client.ports:
        return False
    if gateways:
        return not gateways.isdisjoint(client.gateways)
    if any(client.labels.get(key) != value for key, value in match.source_labels.items()):
        return False
    return not match.source_namespace or match.source_namespace == client.namespace


def claim_path(name: str) -> tuple[str, ...] | None:
    """``@request.auth.claims.a.b`` and ``@request.auth.claims[a][b]`` -> (a, b); ``None``: it names no claim."""
    rest = name[len(CLAIM_PREFIX) :]
    if rest.startswith("[") and rest.endswith("]"):
        path = tuple(rest[1:-1].split("]["))
    elif rest.startswith("."):
        path = tuple(rest[1:].split("."))
    else:
        return None
    return path if all(path) else None


def claim_keys(match: HTTPMatchRequest) -> list[str]:
    """The keys that ask for a JWT claim, sorted."""
    return sorted(key for key in (*match.headers, *match.without_headers) if _is_claim(key))


def _is_claim(name: str) -> bool:
    return name.lower().startswith(CLAIM_PREFIX)


def catches_all(match: HTTPMatchRequest) -> bool:
    """Whether nothing can come after it (Istio: IsCatchAllMatch): any path, and no other condition on the request."""
    uri = match.uri
    any_path = uri is None or uri.prefix == "/" or uri.regex in (".*", "*") or _empty(uri)
    rest = (match.headers, match.query_params, match.method, match.scheme, match.authority, match.without_headers)
    return any_path and not any(rest)


def route_match(match: HTTPMatchRequest) -> model.RouteMatch:
    """The dynamic part. Header, claim and query tests are sorted by name, so equal rules give equal bytes."""
    headers, claims = [], []
    for tests, invert in ((match.headers, False), (match.without_headers, True)):
        for name, test in _by_name(tests):
            headers.append(model.HeaderMatch(name=name, match=_string(test, header=True), invert=invert))
        for path, test in _by_claim(tests):
            claims.append(model.ClaimMatch(path=path, match=_string(test, header=True), invert=invert))
    return model.RouteMatch(
        path=_optional(match.uri, ignore_case=match.ignore_uri_case),
        method=_optional(match.method),
        scheme=_optional(match.scheme),
        authority=_optional(match.authority),
        headers=tuple(headers),
        query=tuple(
            model.QueryMatch(name=name, match=_string(test, header=True))
            for name, test in sorted(match.query_params.items(), key=lambda item: item[0])
        ),
        claims=tuple(claims),
    )


def _by_name(tests: Mapping[str, StringMatch]) -> list[tuple[str, StringMatch]]:
    return sorted(((name.lower(), t) for name, t in tests.items() if not _is_claim(name)), key=lambda item: item[0])


def _by_claim(tests: Mapping[str, StringMatch]) -> list[tuple[tuple[str, ...], StringMatch]]:
    found = ((claim_path(name), test) for name, test in tests.items() if _is_claim(name))
    return sorted(((path, test) for path, test in found if path is not None), key=lambda item: item[0])


def _empty(test: StringMatch) -> bool:
    return test.exact is None and test.prefix is None and test.regex is None


def _optional(test: StringMatch | None, *, ignore_case: bool = False) -> model.StringMatch | None:
    if test is None or _empty(test):
        return None
    if test.regex == "*":  # not RE2, but Istio takes it for "anything"
        return None
    return _string(test, ignore_case=ignore_case)


def _string(test: StringMatch, *, header: bool = False, ignore_case: bool = False) -> model.StringMatch:
    if test.exact is not None:
        return model.StringMatch(kind="exact", value=test.exact, ignore_case=ignore_case)
    if test.prefix is not None:
        return model.StringMatch(kind="prefix", value=test.prefix, ignore_case=ignore_case)
    if test.regex is not None and not (header and test.regex == "*"):
        return model.StringMatch(kind="regex", value=test.regex)
    return model.StringMatch(kind="present")
