"""Limits: ceilings hold, counters return to 0, budgets follow the load (semantics B3, A2)."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshproxy.model.cluster import ConnectionPool, RetryBudget
from meshproxy.policy.limits import UNLIMITED, Limits


def test_no_limit_is_envoys_largest_number() -> None:
    limits = Limits(ConnectionPool())
    assert (limits.max_connections, limits.max_pending, limits.max_requests, limits.max_retries) == (UNLIMITED,) * 4


def test_refusals_are_counted() -> None:
    limits = Limits(ConnectionPool(max_connections=1, max_pending_requests=1, max_requests=1, max_retries=0))
    assert limits.try_connection() and limits.try_pending() and limits.try_request()
    assert not (limits.try_connection() or limits.try_pending() or limits.try_request() or limits.try_retry())
    overflow = (limits.connection_overflow, limits.pending_overflow, limits.request_overflow, limits.retry_overflow)
    assert overflow == (1, 1, 1, 1)


def test_a_hosts_first_connection_is_always_allowed() -> None:
    limits = Limits(ConnectionPool(max_connections=1))
    assert [limits.try_connection(first=True) for _ in range(3)] == [True] * 3  # B3.1: 3 hosts, 3 connections
    assert not limits.try_connection()


@pytest.mark.parametrize(("busy", "ceiling"), [(0, 3), (14, 3), (15, 3), (20, 4), (100, 20)])
def test_a_budget_is_a_share_of_what_is_active_with_a_floor(busy: int, ceiling: int) -> None:
    limits = Limits(ConnectionPool(max_retries=0), RetryBudget(percent=20, min_concurrency=3))
    limits.requests, limits.pending = busy // 2, busy - busy // 2
    assert limits.retry_ceiling() == ceiling
    assert [limits.try_retry() for _ in range(ceiling + 1)] == [True] * ceiling + [False]


def test_an_update_keeps_what_is_in_use() -> None:
    limits = Limits(ConnectionPool(max_requests=2))
    assert limits.try_request() and limits.try_request()
    limits.update(ConnectionPool(max_requests=1))
    limits.release_request()
    assert limits.requests == 1 and not limits.try_request()
    limits.release_request()
    assert limits.try_request()


@pytest.mark.parametrize(("limit", "workers", "share"), [(10, 4, 3), (1, 4, 1), (8, 4, 2), (7, 1, 7)])
def test_workers_share_a_limit_rounded_up(limit: int, workers: int, share: int) -> None:
    assert Limits(ConnectionPool(max_connections=limit), workers=workers).max_connections == share


def test_a_release_too_many_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="released twice"):
        Limits(ConnectionPool()).release_pending()


class LimitsMachine(RuleBasedStateMachine):
    """Random tries and releases, with the ceilings changing under way."""

    @initialize(budget=st.booleans())
    def begin(self, budget: bool) -> None:
        self.budget = RetryBudget(percent=50, min_concurrency=1) if budget else None
        self.pool = ConnectionPool(max_connections=3, max_pending_requests=2, max_requests=4, max_retries=2)
        self.limits = Limits(self.pool, self.budget)
        self.held = {"connection": 0, "pending": 0, "request": 0, "retry": 0}

    @rule(kind=st.sampled_from(["connection", "pending", "request", "retry"]))
    def take(self, kind: str) -> None:
        ceiling = {
            "connection": self.limits.max_connections,
            "pending": self.limits.max_pending,
            "request": self.limits.max_requests,
            "retry": self.limits.retry_ceiling(),
        }[kind]
        admitted = getattr(self.limits, f"try_{kind}")()
        assert admitted == (self.held[kind] < ceiling)
        self.held[kind] += admitted

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from([kind for kind, count in self.held.items() if count]))
        getattr(self.limits, f"release_{kind}")()
        self.held[kind] -= 1

    @rule(requests=st.integers(1, 6), retries=st.integers(0, 3))
    def reconfigure(self, requests: int, retries: int) -> None:
        self.limits.update(ConnectionPool(max_requests=requests, max_retries=retries), self.budget)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "limits"):
            found = (self.limits.connections, self.limits.pending, self.limits.requests, self.limits.retries)
            assert found == tuple(self.held.values())
            assert self.limits.idle == (not any(self.held.values()))

    def teardown(self) -> None:
        if hasattr(self, "limits"):
            for kind, count in self.held.items():
                for _ in range(count):
                    getattr(self.limits, f"release_{kind}")()
            assert self.limits.idle


TestLimitsMachine = LimitsMachine.TestCase
