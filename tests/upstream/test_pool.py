"""The pool: each acquire ends once, no connection stands in two lists, limits return to zero (design section 7)."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshproxy.message.reason import Reason
from meshproxy.model.cluster import Cluster, ConnectionPool
from meshproxy.policy.limits import Limits
from meshproxy.upstream.pool import Pool


class FakeConnection:
    def __init__(self) -> None:
        self.served = 0
        self.idle_since = 0.0
        self.opened = 0.0
        self.expires = 0.0
        self.alive = True
        self.closed = 0

    def usable(self, now: float) -> bool:
        return self.alive

    def close(self) -> None:
        self.closed += 1


class FakeCluster:
    def __init__(self, **pool: Any) -> None:
        self.config = Cluster(name="c", pool=ConnectionPool(**pool))
        self.limits = Limits(self.config.pool, None)


class Dialed:
    def __init__(self) -> None:
        self.pools: list[Pool] = []

    def dial(self, pool: Pool) -> None:
        self.pools.append(pool)


class Asker:
    def __init__(self) -> None:
        self.got: list[Any] = []

    def on_leased(self, connection: Any, now: float) -> None:
        self.got.append(connection)

    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self.got.append(reason)


def pool_of(**limits: Any) -> tuple[Pool, Dialed, FakeCluster]:
    cluster, dialer = FakeCluster(**limits), Dialed()
    return Pool(cluster, object(), dialer), dialer, cluster


def test_first_request_dials_and_is_pending() -> None:
    pool, dialer, cluster = pool_of()
    asker = Asker()
    assert pool.acquire(asker, 0.0) is None
    assert (len(dialer.pools), cluster.limits.pending, cluster.limits.connections) == (1, 1, 1)
    connection = FakeConnection()
    pool.connected(connection, 1.0)
    assert asker.got == [connection]
    assert cluster.limits.pending == 0


def test_last_used_connection_is_taken_first() -> None:
    pool, _, _ = pool_of()
    first, second = Asker(), Asker()
    pool.acquire(first, 0.0)
    pool.acquire(second, 0.0)
    one, two = FakeConnection(), FakeConnection()
    pool.connected(one, 0.0)
    pool.connected(two, 0.0)
    pool.released(one, True, 1.0)
    pool.released(two, True, 2.0)
    assert pool.acquire(Asker(), 3.0) is two


def test_pending_limit_overflows() -> None:
    pool, _, _ = pool_of(max_pending_requests=1)
    assert pool.acquire(Asker(), 0.0) is None
    assert pool.acquire(Asker(), 0.0) is Reason.OVERFLOW


def test_max_connections_queues_but_one_per_endpoint_is_always_allowed() -> None:
    cluster, dialer = FakeCluster(max_connections=1), Dialed()
    one, other = Pool(cluster, object(), dialer), Pool(cluster, object(), dialer)
    one.acquire(Asker(), 0.0)
    one.acquire(Asker(), 0.0)
    other.acquire(Asker(), 0.0)
    assert dialer.pools == [one, other]
    assert cluster.limits.connections == 2


def test_max_requests_per_connection_closes_and_redials_for_the_next() -> None:
    pool, dialer, cluster = pool_of(max_requests_per_connection=1, max_connections=1)
    first, second = Asker(), Asker()
    pool.acquire(first, 0.0)
    connection = FakeConnection()
    pool.connected(connection, 0.0)
    pool.acquire(second, 0.0)
    assert len(dialer.pools) == 1
    pool.released(connection, True, 1.0)
    assert connection.closed == 1
    assert len(dialer.pools) == 2
    assert cluster.limits.connections == 1


def test_failed_dial_fails_everything_pending() -> None:
    pool, _, cluster = pool_of(max_connections=1)
    askers = [Asker(), Asker()]
    for asker in askers:
        pool.acquire(asker, 0.0)
    pool.dial_failed(Reason.CONNECT_FAILURE, "x", 1.0)
    assert [asker.got for asker in askers] == [[Reason.CONNECT_FAILURE]] * 2
    assert (cluster.limits.pending, cluster.limits.connections) == (0, 0)


def test_dead_idle_connection_is_not_leased() -> None:
    pool, dialer, _ = pool_of()
    pool.acquire(Asker(), 0.0)
    connection = FakeConnection()
    pool.connected(connection, 0.0)
    pool.released(connection, True, 0.0)
    connection.alive = False
    assert pool.acquire(Asker(), 1.0) is None
    assert connection.closed == 1
    assert len(dialer.pools) == 2


def test_connection_past_its_duration_is_not_kept() -> None:
    pool, _, _ = pool_of(max_connection_duration=10.0)
    pool.acquire(Asker(), 0.0)
    connection = FakeConnection()
    pool.connected(connection, 0.0)
    pool.released(connection, True, 10.0)
    assert connection.closed == 1


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = FakeCluster(max_connections=2, max_pending_requests=3, max_requests_per_connection=3)
        self.dialer = Dialed()
        self.pool = Pool(self.cluster, object(), self.dialer)
        self.waiting: list[Asker] = []
        self.leased: list[Any] = []
        self.idle_alive: list[FakeConnection] = []
        self.now = 0.0

    def settle(self) -> None:
        for asker in [asker for asker in self.waiting if asker.got]:
            assert len(asker.got) == 1
            self.waiting.remove(asker)
            if not isinstance(asker.got[0], Reason):
                self.leased.append(asker.got[0])

    @property
    def to_dial(self) -> int:
        return self.pool.dialing

    @rule()
    def acquire(self) -> None:
        asker = Asker()
        got = self.pool.acquire(asker, self.now)
        if got is None:
            self.waiting.append(asker)
        elif got is Reason.OVERFLOW:
            assert len(self.waiting) == 3
        else:
            self.leased.append(got)
        self.settle()

    @precondition(lambda self: self.to_dial)
    @rule(good=st.booleans())
    def dialed(self, good: bool) -> None:
        if good:
            self.pool.connected(FakeConnection(), self.now)
        else:
            self.pool.dial_failed(Reason.CONNECT_FAILURE, "x", self.now)
        self.settle()

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), reusable=st.booleans())
    def release(self, data: st.DataObject, reusable: bool) -> None:
        connection = self.leased.pop(data.draw(st.integers(0, len(self.leased) - 1)))
        self.pool.released(connection, reusable, self.now)
        self.settle()

    @precondition(lambda self: self.leased or self.pool.idle)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from([*self.leased, *self.pool.idle]))
        if connection in self.leased:
            self.leased.remove(connection)
        connection.alive = False
        self.pool.lost(connection)
        self.pool.released(connection, True, self.now)  # the attempt's own goodbye comes too
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        asker = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.pool.cancel(asker)

    @rule(seconds=st.floats(0, 50))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.pool.sweep(self.now, 30.0)

    @rule()
    def retire_and_revive(self) -> None:
        self.pool.retire()
        assert not self.pool.idle
        self.pool.revive()

    @invariant()
    def lists_are_disjoint_and_counted(self) -> None:
        assert not set(self.pool.idle) & self.pool.busy
        assert self.pool.busy == set(self.leased)
        assert list(self.pool.pending) == self.waiting
        limits = self.cluster.limits
        assert limits.pending == len(self.waiting)
        assert limits.connections == self.pool.total

    @invariant()
    def nobody_waits_without_hope(self) -> None:
        if self.waiting:
            assert self.pool.dialing or self.pool.busy
            assert not self.pool.idle


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPoolMachine = PoolMachine.TestCase
