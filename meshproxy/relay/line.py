"""Relay room, quiet: one connection to an endpoint for one client, with the face of an ``upstream.pool.Pool``.

In: acquire, cancel; connected, dial_failed, released, lost from whoever dials. Out: the connection, whose codec is a
``codec.raw.RawCodec``, or why there is none. It serves nobody afterwards. The cluster's ``max_connections`` is kept here, for
every connection (Envoy's tcp_proxy: one over it is refused, whatever its endpoint has).
"""

from __future__ import annotations

from typing import Any

from meshproxy.message.reason import Reason

__all__ = ["Line"]


class Line:
    """``plan`` and ``name``: as of a ``Pool``. ``name``: the server name to ask for where the plan has none: the service's."""

    raw = True
    pending = 0

    __slots__ = ("_held", "_waiter", "cluster", "dialer", "endpoint", "limits", "name", "plan")

    def __init__(self, cluster: Any, endpoint: Any, dialer: Any) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.limits = cluster.limits
        self.dialer = dialer
        self.plan: Any = None
        self.name: str = cluster.service.host if cluster.service is not None else ""
        self._waiter: Any = None
        self._held = False

    def acquire(self, waiter: Any, now: float) -> Any:
        """None: ``waiter`` will be told; ``Reason.OVERFLOW``: the limit is reached."""
        if not self.limits.try_connection():
            return Reason.OVERFLOW
        self._held = True
        self.endpoint.lines += 1
        self._waiter = waiter
        self.dialer.dial(self)
        return None

    def cancel(self, waiter: Any) -> None:
        """The waiter has gone; what is being dialed is closed when it comes."""
        self._waiter = None

    def connected(self, connection: Any, now: float) -> None:
        connection.opened = now
        longest = self.cluster.config.pool.max_connection_duration
        connection.expires = now + longest if longest else 0.0
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._release()
            connection.transport.abort()
            return
        connection.served = 1
        waiter.on_leased(connection, now)

    def dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self._release()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.on_dial_failed(reason, failure, now)

    def released(self, connection: Any, reusable: bool, now: float) -> None:
        """What was written goes out first."""
        self._release()
        connection.transport.close()

    def lost(self, connection: Any) -> None:
        self._release()

    def expire(self, connection: Any, now: float) -> None:
        """What it was made by has changed: it would serve no other, and serves no other anyway."""

    def _release(self) -> None:
        if self._held:
            self._held = False
            self.endpoint.lines -= 1
            self.limits.release_connection()
