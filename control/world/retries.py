"""World, retries: a resource's retry policy as the model's (semantics A2, B2). Routes and mesh settings share it.

In: ``HTTPRetry`` and the default. Out: ``Retry``, or None: never.
"""

from __future__ import annotations

from control.resources.values import parse_duration
from control.resources.virtual_service import HTTPRetry
from meshproxy.model.route import Retry

__all__ = ["retry_of"]


def retry_of(given: HTTPRetry, default: Retry | None, *, hashed: bool = False) -> Retry | None:
    """``attempts`` 0 or less: never (B2.2). ``hashed``: a retry may go to the same host again."""
    if given.attempts <= 0:
        return None
    on: list[str] = []
    codes: list[int] = []
    for token in (t.strip() for t in given.retry_on.split(",")):
        if token.isdigit():
            codes.append(int(token))
        elif token and token not in on:
            on.append(token)
    if codes and "retriable-status-codes" not in on:
        on.append("retriable-status-codes")
    if not on:
        on = list(default.on) if default is not None else []
        codes = list(default.status_codes) if default is not None else []
    backoff = parse_duration(given.backoff) if given.backoff else 0.025
    return Retry(
        attempts=given.attempts,
        on=tuple(on),
        status_codes=tuple(sorted(set(codes))),
        per_try_timeout=parse_duration(given.per_try_timeout) if given.per_try_timeout else 0.0,
        backoff=backoff,
        backoff_max=backoff * 10,
        avoid_previous_hosts=given.retry_ignore_previous_hosts is not False and not hashed,
    )
