"""Policy room: a cluster's resource counters, what Istio calls the connection pool and Envoy circuit breaking thresholds.

In: a ``model.ConnectionPool`` and an optional ``model.RetryBudget``; then ``try_*``/``release_*`` pairs from the pool and the
exchange. Out: yes or no, and counts of refusals. One object per live cluster (all hosts of one subset share it, semantics
B3.4); it survives configuration changes, because connections and requests in flight do.

Assumes: one thread, and that each successful ``try_*`` is paired with exactly one ``release_*``. A release without a try is a
bug of the caller and raises ``AssertionError`` under ``python`` without ``-O``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshproxy.model.cluster import ConnectionPool, RetryBudget

__all__ = ["UNLIMITED", "Limits"]

UNLIMITED = 2**32 - 1  # Istio's default for every threshold (B3.5); in practice: none


class Limits:
    """Counters in use, their ceilings, and how often each ceiling refused.

    ``connections``, ``pending``, ``requests``, ``retries`` are the present use; ``max_*`` the ceilings (counts);
    ``connection_overflow``, ``pending_overflow``, ``request_overflow``, ``retry_overflow`` rise only, and so does ``retried``:
    tries after the first, which the exchange counts (of those of one request only the first asks ``try_retry``).
    """

    __slots__ = (
        "_budget_floor",
        "_budget_ratio",
        "connection_overflow",
        "connections",
        "max_connections",
        "max_pending",
        "max_requests",
        "max_retries",
        "pending",
        "pending_overflow",
        "request_overflow",
        "requests",
        "retried",
        "retries",
        "retry_overflow",
    )

    def __init__(self, pool: ConnectionPool, budget: RetryBudget | None = None, workers: int = 1) -> None:
        self.connections = 0
        self.pending = 0
        self.requests = 0
        self.retries = 0
        self.retried = 0
        self.connection_overflow = 0
        self.pending_overflow = 0
        self.request_overflow = 0
        self.retry_overflow = 0
        self.update(pool, budget, workers)

    def update(self, pool: ConnectionPool, budget: RetryBudget | None = None, workers: int = 1) -> None:
        """Take new ceilings; what is in use stays. With several workers each gets its share, rounded up, at least 1."""
        self.max_connections = _share(pool.max_connections, workers)
        self.max_pending = _share(pool.max_pending_requests, workers)
        self.max_requests = _share(pool.max_requests, workers)
        self.max_retries = _share(pool.max_retries, workers)
        self._budget_ratio = -1.0 if budget is None else budget.percent / 100.0
        self._budget_floor = 0 if budget is None else _share(budget.min_concurrency, workers)

    def try_connection(self, first: bool = False) -> bool:
        """Count one more connection. ``first``: the host has none yet, so it may always open one (B3.1)."""
        if self.connections >= self.max_connections and not first:
            self.connection_overflow += 1
            return False
        self.connections += 1
        return True

    def release_connection(self) -> None:
        self.connections -= 1
        assert self.connections >= 0, "connection released twice"

    def try_pending(self) -> bool:
        """Count one request that waits for a connection. False: overflow, 503 UO."""
        if self.pending >= self.max_pending:
            self.pending_overflow += 1
            return False
        self.pending += 1
        return True

    def release_pending(self) -> None:
        self.pending -= 1
        assert self.pending >= 0, "pending request released twice"

    def try_request(self) -> bool:
        """Count one request on a connection. False: overflow, 503 UO."""
        if self.requests >= self.max_requests:
            self.request_overflow += 1
            return False
        self.requests += 1
        return True

    def release_request(self) -> None:
        self.requests -= 1
        assert self.requests >= 0, "request released twice"

    def retry_ceiling(self) -> int:
        """How many retries may be in progress now: the budget's share of active and pending requests, or ``max_retries``.

        Envoy: ``max(budget_percent * (active + pending), min_retry_concurrency)``; a budget overrides ``max_retries``.
        """
        if self._budget_ratio < 0.0:
            return self.max_retries
        share = int(self._budget_ratio * (self.requests + self.pending))
        return share if share > self._budget_floor else self._budget_floor

    def try_retry(self) -> bool:
        """Count one retry in progress (from its decision to the try's end). False: the answer in hand goes back (B2.5)."""
        if self.retries >= self.retry_ceiling():
            self.retry_overflow += 1
            return False
        self.retries += 1
        return True

    def release_retry(self) -> None:
        self.retries -= 1
        assert self.retries >= 0, "retry released twice"

    @property
    def idle(self) -> bool:
        """Nothing is in use: a retired cluster can be forgotten."""
        return not (self.connections or self.pending or self.requests or self.retries)


def _share(limit: int | None, workers: int) -> int:
    if limit is None:
        return UNLIMITED
    return -(-limit // workers) if workers > 1 else limit
