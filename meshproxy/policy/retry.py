"""Policy room: is this answer, or this failure, worth another try? Compiled once per route; pure.

In: a ``model.Retry``; then a response's status and headers, or the ``Reason`` of a reset. Out: a bool. How many retries there
may be, the cluster's retry limit and whether the body can be replayed are judged by the exchange.

Source of behaviour: semantics A2, B2; Envoy ``router/retry_state_impl.cc`` (``wouldRetryFromHeaders``, ``wouldRetryFromReset``).
Differences that follow from HTTP/1: ``refused-stream`` has nothing to match yet, ``http3-post-connect-failure`` never will.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.message.reason import Reason
from meshproxy.policy.backoff import delay

if TYPE_CHECKING:
    from meshproxy.message.head import Headers
    from meshproxy.model.route import Retry

__all__ = ["TOKENS", "RetryPolicy"]

GRPC_CODES = {"cancelled": b"1", "deadline-exceeded": b"4", "internal": b"13", "resource-exhausted": b"8", "unavailable": b"14"}
_STATUSES = {"5xx": frozenset(range(500, 600)), "gateway-error": frozenset({502, 503, 504}), "retriable-4xx": frozenset({409})}

_CONNECT = frozenset({Reason.CONNECT_FAILURE, Reason.CONNECT_TIMEOUT})
_RESETS = _CONNECT | {
    Reason.UPSTREAM_TERMINATION,
    Reason.UPSTREAM_REMOTE_RESET,
    Reason.UPSTREAM_PROTOCOL_ERROR,
    Reason.UPSTREAM_HEADERS_TOO_LARGE,
    Reason.PER_TRY_TIMEOUT,
    Reason.LOCAL_RESET,
}
_RESET_TOKENS = {"5xx": _RESETS, "gateway-error": _RESETS, "reset": _RESETS, "connect-failure": _CONNECT}

TOKENS = frozenset(
    {
        *_STATUSES,
        *_RESET_TOKENS,
        *GRPC_CODES,
        "reset-before-request",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
    }
)


class RetryPolicy:
    """A route's retry policy. ``attempts``: retries after the first try; ``per_try_timeout``: seconds, 0 for none."""

    __slots__ = (
        "_backoff",
        "_backoff_max",
        "_grpc",
        "_headers",
        "_ratelimited",
        "_resets",
        "_scan",
        "_statuses",
        "_unstarted",
        "attempts",
        "avoid_previous_hosts",
        "per_try_timeout",
    )

    def __init__(self, config: Retry) -> None:
        """Raises ValueError, one line, for a token that does not exist."""
        on = set(config.on)
        codes = set(config.status_codes) | {int(token) for token in on if token.isdecimal()}
        for token in sorted(on):
            if token not in TOKENS and not token.isdecimal():
                raise ValueError(f"retry.on: unknown token {token!r}; known are {', '.join(sorted(TOKENS))}")
        self.attempts = max(config.attempts, 0)
        self.per_try_timeout = config.per_try_timeout
        self.avoid_previous_hosts = config.avoid_previous_hosts
        self._backoff = config.backoff
        self._backoff_max = config.backoff_max
        self._statuses = frozenset(codes).union(*(found for token, found in _STATUSES.items() if token in on))
        self._resets: frozenset[Reason] = frozenset().union(*(found for token, found in _RESET_TOKENS.items() if token in on))
        self._unstarted = _RESETS if "reset-before-request" in on else frozenset()
        self._ratelimited = "envoy-ratelimited" in on
        self._grpc = frozenset(code for token, code in GRPC_CODES.items() if token in on)
        names = config.retriable_headers if "retriable-headers" in on else ()
        self._headers = frozenset(name.lower().encode() for name in names)
        self._scan = bool(self._grpc or self._headers or self._ratelimited)

    def wants_status(self, status: int, headers: Headers, method: bytes = b"") -> bool:
        """Is a response head retriable? ``headers``: the response's, names lower case. Istio looks at no method."""
        wanted = status in self._statuses
        if not wanted and not self._scan:  # the usual response under a policy of statuses and resets
            return False
        grpc, names = self._grpc, self._headers
        for name, value in headers:
            if name == b"x-envoy-ratelimited":
                return self._ratelimited  # B2.4: whatever else it says
            if (name == b"grpc-status" and value in grpc) or name in names:
                wanted = True
        return wanted

    def wants_reset(self, reason: Reason, request_started: bool, response_started: bool) -> bool:
        """Is a failed try retriable?

        request_started: bytes of the request reached the wire; response_started: the response's head was already passed on.
        Overflow, no healthy host, no cluster, the overall timeout and a client that went away are never retried.
        """
        if response_started:
            return False
        return reason in self._resets or (not request_started and reason in self._unstarted)

    def backoff(self, retry: int, draw: float) -> float:
        """Seconds before retry number ``retry`` (1 is the first); ``draw`` from [0, 1)."""
        return delay(retry, self._backoff, self._backoff_max, draw)
