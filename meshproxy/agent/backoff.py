"""How long to wait before the next attempt (room ``agent``). Pure: the dice are handed in.

Exponential with full jitter: attempt n waits a random part of min(most, first * 2**n), but never less than ``first / 2``, so
that a thousand sidecars that lose control at once do not return at once. For the first ``eager`` seconds of waiting, no wait is
longer than ``brisk``: a control that was only restarted finds its sidecars back at once, and one that is down for long is left
in peace.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    def __init__(
        self, draw: Callable[[], float], first: float = 0.1, most: float = 5.0, brisk: float = 0.5, eager: float = 10.0
    ) -> None:
        self._draw = draw  # uniform in [0, 1)
        self._first = first  # seconds, as are all of these
        self._most = most
        self._brisk = brisk
        self._eager = eager
        self._attempt = 0
        self._waited = 0.0

    def next(self) -> float:
        """Seconds to wait now; the next answer will tend to be twice as long."""
        most = min(self._brisk, self._most) if self._waited < self._eager else self._most
        span = min(most, self._first * 2.0**self._attempt)
        if span < most:
            self._attempt += 1
        wait = max(self._first / 2, span * self._draw())
        self._waited += wait
        return wait

    def reset(self) -> None:
        """The attempt succeeded for good."""
        self._attempt = 0
        self._waited = 0.0
