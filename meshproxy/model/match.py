"""What a request is matched against. Regexes are RE2, full match (Istio: StringMatch, HTTPMatchRequest)."""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model

__all__ = ["ClaimMatch", "HeaderMatch", "QueryMatch", "RouteMatch", "StringMatch"]


class StringMatch(Model, frozen=True):
    """One string test. ``present`` ignores ``value``; ``ignore_case`` is for exact, prefix and suffix only."""

    kind: Literal["exact", "prefix", "suffix", "regex", "present"]
    value: str = ""
    ignore_case: bool = False


class HeaderMatch(Model, frozen=True):
    """``invert`` negates the outcome; an absent header does not match, so an inverted non-present test passes on absence."""

    name: str  # lower case
    match: StringMatch
    invert: bool = False


class QueryMatch(Model, frozen=True):
    name: str
    match: StringMatch


class ClaimMatch(Model, frozen=True):
    """A claim of the verified token (Istio: ``@request.auth.claims.a.b``); a list matches by any of its elements."""

    path: tuple[str, ...]
    match: StringMatch
    invert: bool = False


class RouteMatch(Model, frozen=True):
    """All given conditions must hold. ``path`` is tested against the normalised path without query.

    ``path`` prefix is Istio's plain string prefix ("/foo" matches "/foobar").
    """

    path: StringMatch | None = None
    method: StringMatch | None = None
    scheme: StringMatch | None = None
    authority: StringMatch | None = None  # against the Host header with its port, case-insensitive host
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    claims: tuple[ClaimMatch, ...] = ()
