"""Room: policy. What an app may ask for a single request: another timeout, more retries (Envoy's router headers).

In: a request's headers and its route. Out: ``steered``: the headers taken away, and the route, or a copy of it that obeys them.
Assumes the caller is trusted: the pod's own app; a gateway strips these headers unread (semantics B2.9). Source: Envoy,
"Router: HTTP headers (consumed)"; ``FilterUtility::finalTimeout``, ``RetryStateImpl``. A value that cannot be read is ignored.
"""

from __future__ import annotations

from copy import copy

from msgspec.structs import replace

from meshproxy.message.head import Headers
from meshproxy.model.route import Forward, Retry
from meshproxy.policy.compiled import CompiledRoute
from meshproxy.policy.retry import TOKENS, RetryPolicy

__all__ = ["STEERING", "steered"]

_TIMEOUT = b"x-envoy-upstream-rq-timeout-ms"
_PER_TRY = b"x-envoy-upstream-rq-per-try-timeout-ms"
_RETRIES = b"x-envoy-max-retries"
_ON = (b"x-envoy-retry-on", b"x-envoy-retry-grpc-on")
_CODES = b"x-envoy-retriable-status-codes"
_NAMES = b"x-envoy-retriable-header-names"

STEERING = frozenset((_TIMEOUT, _PER_TRY, _RETRIES, *_ON, _CODES, _NAMES))
_MOST_RETRIES = 100  # of one request, whatever a header says
_LONGEST = 9  # digits of a number


def steered(headers: Headers, route: CompiledRoute | None) -> CompiledRoute | None:
    """The route that the request asks for. Its steering headers are gone then."""
    given = {name: value for name, value in headers if name in STEERING}
    headers[:] = [pair for pair in headers if pair[0] not in STEERING]
    action = route.model.action if route is not None else None
    if route is None or not isinstance(action, Forward):
        return route
    made = copy(route)
    timeout = _number(given.get(_TIMEOUT))
    if timeout is not None:
        made.timeout = timeout / 1000
    retry = _retry(given, action.retry)
    if retry is not None:
        if made.timeout and retry.per_try_timeout >= made.timeout:
            retry = replace(retry, per_try_timeout=0.0)  # no try may outlast the whole
        made.retry = RetryPolicy(retry)
    made.model = replace(route.model, action=replace(action, timeout=made.timeout, retry=retry or action.retry))
    return made


def _retry(given: dict[bytes, bytes], own: Retry | None) -> Retry | None:
    """The retry policy asked for; None: the route's own stays. Conditions and codes are added to the route's."""
    words = [word for name in _ON for word in _list(given.get(name)) if word in TOKENS]
    codes = [int(code) for code in _list(given.get(_CODES)) if code.isdecimal() and len(code) == 3]
    names = _list(given.get(_NAMES))
    most, per_try = _number(given.get(_RETRIES)), _number(given.get(_PER_TRY))
    if not (words or codes or names) and most is None and per_try is None:
        return None
    if own is None or own.attempts <= 0:
        if not words:
            return None if per_try is None else Retry(attempts=0, on=(), per_try_timeout=per_try / 1000)
        own = Retry(attempts=1, on=())
    on = tuple(dict.fromkeys((*own.on, *words)))
    return replace(
        own,
        attempts=own.attempts if most is None else min(most, _MOST_RETRIES),
        on=on,
        status_codes=tuple(sorted({*own.status_codes, *(codes if "retriable-status-codes" in on else ())})),
        retriable_headers=tuple(dict.fromkeys((*own.retriable_headers, *names))),
        per_try_timeout=own.per_try_timeout if per_try is None else per_try / 1000,
    )


def _list(value: bytes | None) -> list[str]:
    return [word.strip() for word in value.decode("latin-1").split(",") if word.strip()] if value else []


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) <= _LONGEST else None
