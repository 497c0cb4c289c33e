"""How long to wait before the next attempt (room ``agent``). Pure: the dice are handed in.

Exponential with full jitter: attempt n waits a random part of min(most, first * 2**n), but never less than ``first / 2``, so
that a thousand sidecars that lose control at once do not return at once.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    def __init__(self, draw: Callable[[], float], first: float = 0.1, most: float = 5.0) -> None:
        self._draw = draw  # uniform in [0, 1)
        self._first = first  # seconds
        self._most = most
        self._attempt = 0

    def next(self) -> float:
        """Seconds to wait now; the next answer will tend to be twice as long."""
        span = min(self._most, self._first * 2.0**self._attempt)
        if span < self._most:
            self._attempt += 1
        return max(self._first / 2, span * self._draw())

    def reset(self) -> None:
        """The attempt succeeded for good."""
        self._attempt = 0
