"""Room 6, quiet: which connection serves which request, for one endpoint of one cluster.

In: acquire, cancel, connected, dial_failed, released, lost, sweep. Out: a ``Connection`` (leased), or the request waits;
dialing and closing are asked of the ``Dialer`` port, answers go to the ``Waiter``. Assumes a single thread and that every
``dial`` is answered exactly once by ``connected`` or ``dial_failed``.

The rules are Envoy's (conn_pool_base.cc; semantics B3): a ready connection is taken at once, last used first; without one the
request becomes pending, unless the cluster has its maximum of pending requests; a new connection is dialed while the cluster
is below its maximum, and an endpoint without any connection may always dial one. A failed dial fails all that is pending
here.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from meshproxy.message.reason import Reason

__all__ = ["Connection", "Dialer", "Pool", "Waiter"]


class Connection(Protocol):
    """One upstream connection, as the pool sees it."""

    served: int  # requests leased so far
    idle_since: float
    opened: float
    expires: float  # loop time after which it is not leased again; 0: never

    def usable(self, now: float) -> bool: ...  # not closing, no EOF or stray bytes waiting
    def close(self) -> None: ...


class Waiter(Protocol):
    """Who waits for a connection; called at most once."""

    def on_leased(self, connection: Any, now: float) -> None: ...
    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None: ...


class Dialer(Protocol):
    def dial(self, pool: Pool) -> None: ...


class Pool:
    """The connections of one endpoint. ``limits`` is the cluster's (shared by all its endpoints).

    ``plan``: the TLS of all connections in here; None: plaintext. ``name``: the server name to ask for, if the plan has none.
    """

    raw = False  # its connections carry HTTP

    __slots__ = ("busy", "cluster", "dialer", "dialing", "endpoint", "idle", "limits", "name", "pending", "plan", "retired")

    def __init__(self, cluster: Any, endpoint: Any, dialer: Dialer, plan: Any = None, name: str = "") -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.limits = cluster.limits
        self.dialer = dialer
        self.plan = plan
        self.name = name
        self.idle: list[Any] = []
        self.busy: set[Any] = set()
        self.dialing = 0
        self.pending: deque[Waiter] = deque()
        self.retired = False

    @property
    def total(self) -> int:
        return len(self.idle) + len(self.busy) + self.dialing

    def acquire(self, waiter: Waiter, now: float) -> Any:
        """A leased connection; None: ``waiter`` will be told; ``Reason.OVERFLOW``: a limit is reached."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.usable(now):
                self.busy.add(connection)
                connection.served += 1
                return connection
            self._drop(connection)
        if not self.limits.try_pending():
            return Reason.OVERFLOW
        self.pending.append(waiter)
        # Envoy opens a connection per pending request that the ones being dialed will not serve.
        if self.dialing < len(self.pending):
            self._dial()
        return None

    def cancel(self, waiter: Waiter) -> None:
        """The waiter no longer wants a connection (timeout, client gone)."""
        try:
            self.pending.remove(waiter)
        except ValueError:
            return
        self.limits.release_pending()

    def connected(self, connection: Any, now: float) -> None:
        """A dial succeeded."""
        self.dialing -= 1
        connection.opened = now
        longest = self.cluster.config.pool.max_connection_duration
        connection.expires = now + longest if longest else 0.0
        self._ready(connection, now)

    def dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        """A dial failed: everything pending here fails with it, so that callers can choose another endpoint."""
        self.dialing -= 1
        self.limits.release_connection()
        waiters = list(self.pending)
        self.pending.clear()
        for _ in waiters:
            self.limits.release_pending()
        for waiter in waiters:
            waiter.on_dial_failed(reason, failure, now)

    def released(self, connection: Any, reusable: bool, now: float) -> None:
        """A lease ended. A connection that may not serve again is closed and its place given on."""
        if connection not in self.busy:
            return
        self.busy.discard(connection)
        most = self.cluster.config.pool.max_requests_per_connection
        if (
            not reusable
            or self.retired
            or (most and connection.served >= most)
            or (connection.expires and now >= connection.expires)
        ):
            self._drop(connection)
            self._redial()
            return
        self._ready(connection, now)

    def lost(self, connection: Any) -> None:
        """A connection has gone (peer closed, error)."""
        if connection in self.busy:
            self.busy.discard(connection)
        elif connection in self.idle:
            self.idle.remove(connection)
        else:
            return
        self.limits.release_connection()
        self._redial()

    def sweep(self, now: float, idle_timeout: float) -> None:
        """Close what has been idle for too long or has lived its time."""
        keep = []
        for connection in self.idle:
            if now - connection.idle_since >= idle_timeout or (connection.expires and now >= connection.expires):
                self._drop(connection)
            else:
                keep.append(connection)
        self.idle = keep

    def expire(self, connection: Any, now: float) -> None:
        """This connection serves no further request: closed if it is idle, else when its request is done."""
        connection.expires = now
        if connection in self.idle:
            self.idle.remove(connection)
            self._drop(connection)

    def retire(self) -> None:
        """The endpoint has left, or is spoken to in another way: idle connections close, busy ones when their request is done."""
        self.retired = True
        for connection in self.idle:
            self._drop(connection)
        self.idle = []

    def revive(self) -> None:
        self.retired = False

    def _ready(self, connection: Any, now: float) -> None:
        if self.pending:
            waiter = self.pending.popleft()
            self.limits.release_pending()
            self.busy.add(connection)
            connection.served += 1
            waiter.on_leased(connection, now)
        elif self.retired:
            self._drop(connection)
        else:
            connection.idle_since = now
            self.idle.append(connection)

    def _redial(self) -> None:
        if len(self.pending) > self.dialing:
            self._dial()

    def _dial(self) -> None:
        if self.limits.try_connection(self.total == 0):
            self.dialing += 1
            self.dialer.dial(self)

    def _drop(self, connection: Any) -> None:
        """Close a connection that is in neither list any more; its later ``lost`` finds nothing to do."""
        self.limits.release_connection()
        connection.close()
