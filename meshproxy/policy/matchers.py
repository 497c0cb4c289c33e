"""Room: policy. What a request is matched against, compiled at config time into closures over bytes.

In: ``meshproxy.model.match`` structs. Out: ``compile_string`` (bytes -> bool) and ``compile_route_match`` (a predicate over
request, path and query, plus the same conditions one by one with their words, for explain). Assumes: header names are lower
case, the path is normalised and without query. Regexes are RE2, full match, size-limited; Python's ``re`` never sees a user's
pattern. Semantics: Envoy's ``HeaderUtility`` (several headers of one name are joined by a comma) and ``matchQueryParams``
(the first value, not percent-decoded).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import re2

from meshproxy.message.head import RequestHead, first
from meshproxy.policy.invalid import Invalid

if TYPE_CHECKING:
    from meshproxy.model.match import ClaimMatch, HeaderMatch, QueryMatch, RouteMatch, StringMatch

__all__ = [
    "Condition",
    "Predicate",
    "Test",
    "claim_at",
    "compile_regex",
    "compile_route_match",
    "compile_string",
    "in_words",
    "scheme_of",
    "split_target",
]

Test = Callable[[bytes], bool]
Predicate = Callable[[RequestHead, bytes, bytes], bool]  # request, path, query (without "?")

MAX_PATTERN = 4096  # characters of a pattern
MAX_MEMORY = 4 << 20  # bytes of a compiled pattern; beyond it RE2 refuses (control has the same limit)
_DFA_FITS = 10_000  # RE2 instructions; the DFA of such a program is sure to fit its memory, so that a Set never fails at run time


class Condition(NamedTuple):
    """One condition of a match: ``words`` for people ("path starts with /a"), the predicate, and what the request has there."""

    words: str
    holds: Predicate
    actual: Callable[[RequestHead, bytes, bytes], str]


def compile_regex(pattern: str, path: str, ignore_case: bool = False) -> Test:
    """RE2 full match on bytes. Raises ``Invalid`` for a bad or too large pattern."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.case_sensitive = not ignore_case
    options.max_mem = MAX_MEMORY
    if len(pattern) > MAX_PATTERN:
        raise Invalid(path, f"regex is longer than {MAX_PATTERN} characters: make it smaller")
    try:
        compiled = re2.compile(pattern.encode(), options)
        if compiled.programsize > _DFA_FITS:
            full = compiled.fullmatch
            return lambda value: full(value) is not None
        # A set of one: its Match is a single C++ call, without the wrapper's generator and match object (0.8 against 2.1 us).
        one = re2.Set.FullMatchSet(options)
        one.Add(pattern.encode())
        one.Compile()
    except re2.error as error:
        raise Invalid(path, f"bad regex {pattern!r}: {_reason(error)} (RE2 syntax)") from None
    match = one.Match
    return lambda value: match(value) is not None


def _reason(error: Exception) -> str:
    cause = error.args[0] if error.args else ""
    return cause.decode("utf-8", "replace") if isinstance(cause, bytes) else str(cause)


def compile_string(model: StringMatch, path: str, fold: bool = False) -> Test:
    """A test over bytes. ``fold``: compare without case whatever the model says (host names). Raises ``Invalid``."""
    kind = model.kind
    value = model.value.encode()
    if kind == "present":
        return lambda _: True
    if kind == "regex":
        return compile_regex(model.value, path + ".value", fold)
    if fold or model.ignore_case:
        value = value.lower()
        if kind == "exact":
            return lambda given: given.lower() == value
        if kind == "prefix":
            return lambda given: given.lower().startswith(value)
        return lambda given: given.lower().endswith(value)
    if kind == "exact":
        return value.__eq__  # bytes against bytes is always a bool
    if kind == "prefix":
        return lambda given: given.startswith(value)
    return lambda given: given.endswith(value)


def in_words(model: StringMatch) -> str:
    """``is "x"``, ``starts with "x"`` ... for explain."""
    verb = {"exact": "is", "prefix": "starts with", "suffix": "ends with", "regex": "matches regex"}
    if model.kind == "present":
        return "is present"
    return f'{verb[model.kind]} "{model.value}"' + (" (any case)" if model.ignore_case else "")


def scheme_of(request: RequestHead) -> bytes:
    """The request's scheme: the absolute form's, else x-forwarded-proto (which identity has set), else http."""
    return request.scheme or first(request.headers, b"x-forwarded-proto") or b"http"


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a target; the query comes without its question mark."""
    path, _, query = target.partition(b"?")
    return path, query


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    # RFC 9110 section 5.3: several lines of one name are one list. The usual case (none or one) builds nothing.
    found: bytes | None = None
    for key, value in headers:
        if key == name:
            found = value if found is None else found + b"," + value
    return found


def _query_value(query: bytes, name: bytes) -> bytes | None:
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if key == name:
            return value
    return None


_PSEUDO: dict[bytes, Callable[[RequestHead], bytes]] = {
    b":authority": lambda request: request.authority,
    b"host": lambda request: request.authority,
    b":method": lambda request: request.method,
    b":path": lambda request: request.target,
    b":scheme": scheme_of,
}


def _header_condition(model: HeaderMatch, path: str) -> Condition:
    name = model.name.lower().encode()
    if not name:
        raise Invalid(path + ".name", "a header name must not be empty")
    host = name in (b":authority", b"host")
    test = compile_string(model.match, path + ".match", fold=host)
    invert = model.invert
    words = f"header {model.name} {in_words(model.match)}"
    pseudo = _PSEUDO.get(name)
    holds: Predicate
    if pseudo is not None:
        read = pseudo

        def holds_pseudo(request: RequestHead, path: bytes, query: bytes) -> bool:
            return test(read(request)) is not invert

        return Condition(f"not ({words})" if invert else words, holds_pseudo, lambda request, path, query: _show(read(request)))
    if model.match.kind == "present":

        def holds_present(request: RequestHead, path: bytes, query: bytes) -> bool:
            return any(pair[0] == name for pair in request.headers) is not invert

        holds = holds_present
    else:

        def holds_value(request: RequestHead, path: bytes, query: bytes) -> bool:
            value = _values(request.headers, name)
            return (value is not None and test(value)) is not invert

        holds = holds_value
    return Condition(
        f"not ({words})" if invert else words, holds, lambda request, path, query: _show(_values(request.headers, name))
    )


def _query_condition(model: QueryMatch, path: str) -> Condition:
    name = model.name.encode()
    test = compile_string(model.match, path + ".match")

    def holds(request: RequestHead, path: bytes, query: bytes) -> bool:
        value = _query_value(query, name)
        return value is not None and test(value)

    return Condition(
        f"query parameter {model.name} {in_words(model.match)}",
        holds,
        lambda request, path, query: _show(_query_value(query, name)),
    )


def claim_at(claims: dict[str, Any], path: tuple[str, ...]) -> Any:
    """A token's claim, nested ones by their path; None: it is not there."""
    value: Any = claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _claim_condition(model: ClaimMatch, path: str) -> Condition:
    """Istio's metadata matcher: a string, or any string of a list; a number or a bool is neither and never matches."""
    if not model.path or not all(model.path):
        raise Invalid(path + ".path", "must name a claim")
    test = compile_string(model.match, path + ".match")
    names, invert, present = model.path, model.invert, model.match.kind == "present"

    def read(request: RequestHead) -> Any:
        return claim_at(request.token.claims, names) if request.token is not None else None

    def holds(request: RequestHead, path: bytes, query: bytes) -> bool:
        value = read(request)
        if present:
            return (value is not None) is not invert
        values = value if isinstance(value, list) else (value,)
        return any(isinstance(one, str) and test(one.encode()) for one in values) is not invert

    def actual(request: RequestHead, path: bytes, query: bytes) -> str:
        if request.token is None:
            return "absent: there is no verified token"
        value = read(request)
        return "absent" if value is None else _show(str(value).encode())

    words = f"claim {'.'.join(names)} {in_words(model.match)}"
    return Condition(f"not ({words})" if invert else words, holds, actual)


def _show(value: bytes | None) -> str:
    return "absent" if value is None else '"' + value.decode("utf-8", "backslashreplace") + '"'


def _path_condition(model: StringMatch, path: str) -> Condition | None:
    if model.kind == "present" or (model.kind == "prefix" and model.value in ("", "/")):
        # Every origin-form path starts with a slash; CONNECT and "OPTIONS *" are to be caught by a catch-all too.
        return None
    test = compile_string(model, path)
    holds: Predicate
    value = model.value.encode()
    if model.kind == "prefix" and not model.ignore_case:
        holds = lambda request, path, query: path.startswith(value)  # noqa: E731
    elif model.kind == "exact" and not model.ignore_case:
        holds = lambda request, path, query: path == value  # noqa: E731
    else:
        holds = lambda request, path, query: test(path)  # noqa: E731
    return Condition(f"path {in_words(model)}", holds, lambda request, path, query: _show(path))


def _plain_condition(what: str, model: StringMatch, path: str, read: Callable[[RequestHead], bytes]) -> Condition:
    test = compile_string(model, path, fold=what == "authority")
    return Condition(
        f"{what} {in_words(model)}",
        lambda request, path, query: test(read(request)),
        lambda request, path, query: _show(read(request)),
    )


def compile_route_match(model: RouteMatch, path: str) -> tuple[Predicate | None, tuple[Condition, ...]]:
    """The whole match as one predicate (None: always holds) and its conditions in the order they are tried.

    ``path`` is the model field's path, for ``Invalid``. Cheap tests come first: path, method, headers, query, claims.
    """
    conditions: list[Condition] = []
    if model.path is not None:
        condition = _path_condition(model.path, path + ".path")
        if condition is not None:
            conditions.append(condition)
    if model.method is not None:
        conditions.append(_plain_condition("method", model.method, path + ".method", lambda request: request.method))
    if model.scheme is not None:
        conditions.append(_plain_condition("scheme", model.scheme, path + ".scheme", scheme_of))
    if model.authority is not None:
        conditions.append(_plain_condition("authority", model.authority, path + ".authority", lambda request: request.authority))
    for index, header in enumerate(model.headers):
        conditions.append(_header_condition(header, f"{path}.headers[{index}]"))
    for index, parameter in enumerate(model.query):
        conditions.append(_query_condition(parameter, f"{path}.query[{index}]"))
    for index, claim in enumerate(model.claims):
        conditions.append(_claim_condition(claim, f"{path}.claims[{index}]"))
    return _all(tuple(condition.holds for condition in conditions)), tuple(conditions)


def _all(tests: tuple[Predicate, ...]) -> Predicate | None:
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        one, two = tests
        return lambda request, path, query: one(request, path, query) and two(request, path, query)

    def every(request: RequestHead, path: bytes, query: bytes) -> bool:
        for test in tests:  # noqa: SIM110  a generator inside all() costs more than the tests
            if not test(request, path, query):
                return False
        return True

    return every
