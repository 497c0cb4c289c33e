"""Cluster room: a live endpoint, the object behind one ``model.Endpoint``.

It survives configuration changes while its address and port stay, and with it its connections (``pool``, the upstream room's own
slot), its outlier state and its counters. Plain slots: it is read on the hot path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshproxy.policy.outlier import HostHealth

if TYPE_CHECKING:
    from meshproxy.model.cluster import Endpoint as Config
    from meshproxy.model.cluster import Locality, Workload

__all__ = ["Endpoint"]


class Endpoint:
    """``label``: b"ip:port"; ``key``: (address, port). ``active``: requests in flight, counted by whoever sends them.

    ``rq_total``, ``rq_success``, ``rq_error`` count reported tries; ``cx_total``, ``cx_connect_fail`` are kept by the upstream
    room, by whoever dials; ``lines``: connections of bytes to it, which no pool has. ``live``: still in its cluster.
    ``last_used``: seconds on the loop's clock, of passthrough endpoints only.
    """

    __slots__ = (
        "active",
        "address",
        "cx_connect_fail",
        "cx_total",
        "health",
        "key",
        "label",
        "last_used",
        "lines",
        "live",
        "locality",
        "mtls",
        "pool",
        "port",
        "priority",
        "rq_error",
        "rq_success",
        "rq_total",
        "weight",
        "workload",
    )

    def __init__(self, address: str, port: int, weight: int = 1, priority: int = 0) -> None:
        self.address = address
        self.port = port
        self.key = (address, port)
        self.label = (f"[{address}]:{port}" if ":" in address else f"{address}:{port}").encode()
        self.weight = max(weight, 1)  # a weight of 0 is no weight given
        self.priority = priority
        self.locality: Locality | None = None
        self.mtls = False
        self.workload: Workload | None = None
        self.health = HostHealth()
        self.live = True
        self.last_used = 0.0
        self.pool: Any = None
        self.active = 0
        self.lines = 0
        self.rq_total = 0
        self.rq_success = 0
        self.rq_error = 0
        self.cx_total = 0
        self.cx_connect_fail = 0

    def adopt(self, config: Config) -> None:
        """Take weight, priority, locality, mtls and peer metadata from the model; address and port are the same by contract."""
        self.weight = max(config.weight, 1)
        self.priority = config.priority
        self.locality = config.locality
        self.mtls = config.mtls
        self.workload = config.workload

    def __repr__(self) -> str:
        return f"Endpoint({self.label.decode()}, active={self.active}{', ejected' if self.health.ejected else ''})"
