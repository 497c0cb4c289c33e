"""When to ask control for a certificate, and why (room ``agent``). Quiet: wall time and dice are handed in.

In: what the sidecar holds (``taken``), what came of a request (``failed``), what the mesh trusts now (``trusted``). Out:
``due(now)``: when the next request is to be made, and the reason.

A certificate is renewed when 0.5 ± 0.01 of its life is over (as Istio does it), at once when control issues under another root
or its serial is revoked. After a failure the next try waits with backoff: briskly while there is no good certificate, patiently
while the old one lasts; slowly once control has said no to this identity, for it will not change its mind by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from meshproxy.agent.backoff import Backoff
from meshproxy.model.security import Trust

__all__ = ["Due", "Renewal", "Standing"]

HALF = 0.5
JITTER = 0.01
MOST_URGENT = 5.0  # seconds between tries without a good certificate, at most
MOST_PATIENT = 60.0
MOST_REFUSED = 300.0  # after "no", rather than no answer; from half of it on
URGENT_BELOW = 600.0  # seconds of life below which the present certificate is not relied upon
FORBIDDEN = 403


class Standing(NamedTuple):
    """The certificate that the sidecar holds. ``since``: when it came, wall time as ``expires``. ``issuer``: as in ``Trust``."""

    serial: str
    uri: str
    issuer: str
    since: float
    expires: float


class Due(NamedTuple):
    """``when``: wall time of the next request. ``why``: of that request, for the log."""

    when: float
    why: str


class Renewal:
    """``held``: the present certificate. ``refused``: control said last that this identity gets none."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """``draw()`` is uniform in [0, 1)."""
        self._draw = draw
        self._urgent = Backoff(draw, most=MOST_URGENT)
        self._patient = Backoff(draw, first=1.0, most=MOST_PATIENT, brisk=MOST_PATIENT)
        self._trust: Trust | None = None
        self._planned = 0.0
        self._next_try = 0.0
        self._silent = False  # the last try had no answer at all
        self.held: Standing | None = None
        self.refused = False

    def due(self, now: float) -> Due:
        if self.held is None:
            return Due(max(now, self._next_try), "the first one")
        if why := self._hurry():
            return Due(max(now, self._next_try), why)
        return Due(max(self._planned, self._next_try), "half of its life is over")

    def taken(self, held: Standing, now: float) -> None:
        """A new certificate is in force."""
        self.held = held
        self.refused = self._silent = False
        share = HALF + JITTER * (2 * self._draw() - 1)
        self._planned = held.since + share * (held.expires - held.since)
        if self._hurry() or held.expires <= now:  # it is no better than the one before: do not ask in a circle
            self._next_try = now + self._urgent.next()
            return
        self._next_try = 0.0
        self._urgent.reset()
        self._patient.reset()

    def failed(self, status: int, now: float) -> float:
        """The request failed; ``status``: of the answer, 0 when there was none. Seconds until the next try."""
        self.refused = status == FORBIDDEN
        self._silent = status == 0
        if self.refused:
            wait = MOST_REFUSED * (0.5 + 0.5 * self._draw())
        elif self.held is None or self.held.expires - now < URGENT_BELOW or self._hurry():
            wait = self._urgent.next()
        else:
            wait = self._patient.next()
        self._next_try = now + wait
        return wait

    def trusted(self, trust: Trust) -> bool:
        """What the mesh trusts now; whether that was news. Then what failed before may succeed, and is tried at once."""
        if trust == self._trust:
            return False
        self._trust = trust
        self._next_try = 0.0
        return True

    def reached(self) -> None:
        """Control is heard again: a request that found nobody is worth another try now."""
        if self._silent:
            self._silent = False
            self._next_try = 0.0

    @property
    def revoked(self) -> bool:
        """Whether the mesh trusts this very identity no more."""
        return self.held is not None and self._trust is not None and self.held.uri in self._trust.revoked_identities

    def _hurry(self) -> str:
        """Why the present certificate cannot wait for its time, or ""."""
        held, trust = self.held, self._trust
        if held is None or trust is None or self.revoked:
            return ""
        if held.serial in trust.revoked_serials:
            return "its serial is revoked"
        if trust.issuer and trust.issuer != held.issuer:
            return "control issues under another root"
        return ""
