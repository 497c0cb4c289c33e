"""Room 2, TLS, loud: how many handshakes succeeded and why others did not; a line in the log per reason, not per time.

In: ``handshake`` and ``failure``. Out: two dicts that telemetry reads, and warnings.
"""

from __future__ import annotations

import logging
from typing import Literal

from meshproxy.message.secured import TlsFault

__all__ = ["Side", "Tally"]

log = logging.getLogger("meshproxy")
Side = Literal["server", "client"]
_EVERY = 10.0  # seconds between two lines of one reason


class Tally:
    """``server``: we were asked; ``client``: we asked."""

    __slots__ = ("_told", "_untold", "failures", "handshakes")

    def __init__(self) -> None:
        self.handshakes: dict[Side, int] = {"server": 0, "client": 0}
        self.failures: dict[tuple[Side, TlsFault], int] = {}
        self._told: dict[tuple[Side, TlsFault], float] = {}
        self._untold: dict[tuple[Side, TlsFault], int] = {}

    def handshake(self, side: Side) -> None:
        self.handshakes[side] += 1

    def failure(self, side: Side, fault: TlsFault, who: str, detail: str, now: float) -> None:
        """``who``: address and, where known, identity of the peer. ``detail``: more than the fault's own words, or "".

        What a peer says of itself is printed as it was found to be, in ASCII and on one line.
        """
        key = (side, fault)
        self.failures[key] = self.failures.get(key, 0) + 1
        if now - self._told.get(key, -_EVERY) < _EVERY:
            self._untold[key] = self._untold.get(key, 0) + 1
            return
        self._told[key] = now
        untold = self._untold.pop(key, 0)
        log.warning(
            "TLS %s: %s refused: %s%s%s",
            side,
            who,
            fault.value,
            f" ({ascii(detail)[1:-1]})" if detail else "",
            f"; {untold} more since the last line" if untold else "",
        )
