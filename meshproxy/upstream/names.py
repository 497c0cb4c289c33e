"""Room 6, quiet: the pools of an endpoint whose server name is each request's own host: one ``Pool`` per name.

In: what a ``Pool`` is asked by an attempt, the ticker and who retires it. Out: the same. A connection that was made, and whose
certificate was checked, for one name serves no request for another (Envoy: transport socket options are part of the pool's key).
Assumes that a waiter says what it wants by ``authority``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshproxy.cluster.original import split_authority
from meshproxy.message.reason import Reason
from meshproxy.upstream.pool import Pool

__all__ = ["LIMIT", "NamedPools"]

LIMIT = 256  # names at a time; past it a new one overflows until another is out of use


class NamedPools:
    """Stands in an endpoint's ``pool`` slot."""

    __slots__ = ("_make", "_pools", "plan", "retired")

    def __init__(self, plan: Any, make: Callable[[str], Pool]) -> None:
        """plan: of all these pools."""
        self.plan = plan
        self._make = make
        self._pools: dict[str, Pool] = {}
        self.retired = False

    @property
    def total(self) -> int:
        return sum(pool.total for pool in self._pools.values())

    @property
    def idle(self) -> list[Any]:
        return [connection for pool in self._pools.values() for connection in pool.idle]

    def acquire(self, waiter: Any, now: float) -> Any:
        """As ``Pool.acquire``, for the waiter's host."""
        found = split_authority(waiter.authority, 443)
        name = found[0] if found is not None else ""
        pool = self._pools.get(name)
        if pool is None:
            if len(self._pools) >= LIMIT and not self._make_room():
                return Reason.OVERFLOW
            pool = self._pools[name] = self._make(name)
            if self.retired:
                pool.retire()
        return pool.acquire(waiter, now)

    def cancel(self, waiter: Any) -> None:
        for pool in self._pools.values():
            pool.cancel(waiter)

    def sweep(self, now: float, idle_timeout: float) -> None:
        for pool in self._pools.values():
            pool.sweep(now, idle_timeout)

    def retire(self) -> None:
        self.retired = True
        for pool in self._pools.values():
            pool.retire()

    def _make_room(self) -> bool:
        """Forget the names that nobody uses; of those that only wait for a next request, close the connections."""
        unused = [name for name, pool in self._pools.items() if not pool.busy and not pool.pending and not pool.dialing]
        for name in unused[: LIMIT // 4]:
            self._pools.pop(name).retire()
        return bool(unused)
