"""Room 1: who calls, and how: in plaintext, over mutual TLS, or turned away; for the move to STRICT. Counts nothing per request.

In: connections of one kind at one listener. Out: per caller (an address, or over mutual TLS an identity) how many requests came,
and when the last did. Bounded: beyond ``_MOST`` callers the one that was longest silent goes into a number without a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from meshproxy.model.cluster import Workload

__all__ = ["Caller", "Callers"]

_MOST = 256


class Counted(Protocol):
    """A connection: its codec has counted its requests. ``caller``: under what it is listed."""

    last_activity: float

    @property
    def caller(self) -> str: ...
    @property
    def requests(self) -> int: ...


class Caller(NamedTuple):
    """``seen``: loop time of the last bytes."""

    source: str
    requests: int
    seen: float


class Callers:
    __slots__ = ("_open", "_past", "forgotten")

    def __init__(self) -> None:
        self._past: dict[str, tuple[int, float]] = {}
        self._open: set[Counted] = set()
        self.forgotten = 0  # requests of callers that are no longer listed

    def came(self, connection: Counted) -> None:
        self._open.add(connection)

    def went(self, connection: Counted) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self.add(connection.caller, connection.requests, connection.last_activity)

    def add(self, source: str, requests: int, seen: float) -> None:
        if not requests:
            return
        past = self._past
        before, last = past.pop(source, (0, 0.0))
        past[source] = (before + requests, max(last, seen))  # the last in order is the last that was seen
        if len(past) > _MOST:
            self.forgotten += past.pop(next(iter(past)))[0]

    def all(self) -> list[Caller]:
        """By caller, open connections included."""
        found = dict(self._past)
        for connection in self._open:
            if connection.requests:
                before, last = found.get(connection.caller, (0, 0.0))
                found[connection.caller] = (before + connection.requests, max(last, connection.last_activity))
        return [Caller(source, requests, seen) for source, (requests, seen) in sorted(found.items())]

    def rows(self, peer: Callable[[str], Workload | None], wall_offset: float) -> list[dict[str, Any]]:
        """In plain JSON types. ``source``: an address, or over mutual TLS the identity; "": those that are no longer told apart.
        ``seen``: Unix seconds. peer: the workload behind an address; wall_offset: from loop time.
        """
        rows: list[dict[str, Any]] = []
        for caller in self.all():
            known = peer(caller.source)
            rows.append(
                {
                    "source": caller.source,
                    "workload": known.workload if known is not None else "",
                    "namespace": known.namespace if known is not None else "",
                    "requests": caller.requests,
                    "seen": round(caller.seen + wall_offset, 3),
                }
            )
        if self.forgotten:
            rows.append({"source": "", "workload": "", "namespace": "", "requests": self.forgotten, "seen": 0})
        return rows
