"""The corridor's surroundings: what every exchange of one listener shares. Made by ``app``, never changed by an exchange.

``slot.current`` is the compiled listener in force; an exchange reads it once, when its head arrives, and keeps it to the end, so
a configuration swap is one assignment (Envoy: ``snapped_route_config_``).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from meshproxy.message.head import RequestHead
from meshproxy.message.ports import Dice, Observer, Timers
from meshproxy.message.record import ExchangeRecord

__all__ = ["Corridor", "Slot"]


class Slot:
    """Holds the compiled listener in force, or None before the first configuration."""

    __slots__ = ("current",)

    def __init__(self, current: Any = None) -> None:
        self.current = current


class Corridor:
    """Ports and constants of one listener.

    pool_of(cluster, endpoint): the endpoint's connection pool. mirror(exchange, cluster, head, now): sends a
    copy of a request (``mirror.mirror``). wall_offset: Unix time minus loop time, seconds. max_replay:
    bytes of a request body kept for retries and mirrors. own: what we tell peers of ourselves (``policy.peer_metadata``).
    line_of(cluster, endpoint): a connection for plain bytes, for one client (``relay.line``). spans: told of a sampled
    request when it is over. precise: Unix time in nanoseconds, asked where a span begins.
    """

    __slots__ = (
        "dice",
        "line_of",
        "max_replay",
        "mirror",
        "observer",
        "own",
        "pool_of",
        "precise",
        "server",
        "slot",
        "spans",
        "timers",
        "wall_offset",
    )

    def __init__(
        self,
        slot: Slot,
        timers: Timers,
        dice: Dice,
        observer: Observer,
        pool_of: Callable[[Any, Any], Any],
        mirror: Callable[[Any, Any, RequestHead, float], None],
        wall_offset: float,
        *,
        server_name: bytes = b"meshproxy",
        max_replay: int = 1 << 20,
        own: Any = None,
        spans: Callable[[ExchangeRecord], None] | None = None,
        precise: Callable[[], int] = lambda: 0,
        line_of: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.slot = slot
        self.timers = timers
        self.dice = dice
        self.observer = observer
        self.pool_of = pool_of
        self.mirror = mirror
        self.wall_offset = wall_offset
        self.server = (b"server", server_name)
        self.max_replay = max_replay
        self.own = own
        self.spans = spans
        self.precise = precise
        self.line_of = line_of

    def at(self, slot: Slot) -> Corridor:
        """The same surroundings for another listener, or for a part of this one."""
        other = copy(self)
        other.slot = slot
        return other
