"""When to act on a stream of changes (room ``serve``). Sans-io: the time is an argument, seconds of any steady clock.

In: ``note(now)`` for every change. Out: ``due`` (when to act, or None) and ``fired(now)``.

The first change after idleness is acted on ``EAGER`` seconds later, whatever ``quiet`` says: a lone change does not wait, and
the objects that one command or one readiness flip writes go out together. What follows within ``quiet`` seconds of the last
change or action is a burst: it is acted on when ``quiet`` seconds have passed without a change, and ``limit`` seconds after its
first change at the latest (Istio: PILOT_DEBOUNCE_AFTER, PILOT_DEBOUNCE_MAX; semantics A5).
"""

from __future__ import annotations

__all__ = ["EAGER", "Debounce"]

EAGER = 0.01


class Debounce:
    def __init__(self, quiet: float = 0.1, limit: float = 0.5, eager: float = EAGER) -> None:
        if quiet < 0 or limit < quiet:
            raise ValueError("debounce: must be at least 0, and the maximum at least the quiet time")
        self._quiet = quiet
        self._limit = limit
        self._eager = min(eager, quiet)
        self._busy_until = float("-inf")
        self._cap = 0.0  # when the pending changes must go out at the latest
        self.due: float | None = None
        self.first: float | None = None  # when the oldest pending change came

    def note(self, now: float) -> None:
        """A change happened."""
        if self.due is None:
            idle = now >= self._busy_until
            self._cap = now + (self._eager if idle else self._limit)
            self.first = now
        self.due = min(now + self._quiet, self._cap)
        self._busy_until = now + self._quiet

    def fired(self, now: float) -> None:
        """All pending changes have been taken."""
        self.due = self.first = None
        self._busy_until = max(self._busy_until, now + self._quiet)
