"""Which key sets are needed, when each is to be fetched, and the last good ones (room ``sources``). Sans-io.

In: what is wanted, outcomes of fetches, the wall time (seconds since 1970; it may jump). Out: what is due now, the table of key
sets, a report. Semantics B5.14: refreshed every 20 minutes, tried again a minute after a failure (sooner while there was never a
set), the last good set stays in force through failures, and goes a week after nobody asked for it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from control.resources.values import parse_duration
from control.world.security import KeysAt

__all__ = ["EVICT", "FIRST_RETRY", "REFRESH", "RETRY", "KeySets", "Kept"]

REFRESH = 20 * 60.0
RETRY = 60.0
FIRST_RETRY = 1.0  # doubled up to RETRY while there was never a set: until then every token is refused
EVICT = 7 * 86400.0


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key set as it survives a restart. ``fetched``, ``used``: wall times."""

    place: str
    text: str
    fetched: float
    used: float


class _Set:
    __slots__ = ("asked_by", "at", "due", "error", "failures", "fetched", "running", "text", "tried", "used")

    def __init__(self, at: KeysAt | None, now: float) -> None:
        self.at = at  # None: nobody wants it now
        self.text = self.error = ""
        self.fetched = self.tried = 0.0
        self.used = self.due = now
        self.failures = 0
        self.running = False
        self.asked_by: tuple[str, ...] = ()


class KeySets:
    def __init__(self) -> None:
        self._sets: dict[str, _Set] = {}

    def restore(self, kept: Iterable[Kept], now: float) -> None:
        """What an earlier run had; each is fetched anew when it is wanted, and in force until then."""
        for one in kept:
            known = self._sets[one.place] = _Set(None, now)
            known.text, known.fetched, known.used = one.text, min(one.fetched, now), min(one.used, now)

    def kept(self) -> list[Kept]:
        return [Kept(place, s.text, s.fetched, s.used) for place, s in sorted(self._sets.items()) if s.text]

    def want(self, wanted: Iterable[tuple[KeysAt, str]], now: float) -> None:
        """From now on exactly these are needed, each with who asks for it. Of several timeouts the longest counts."""
        asked: dict[str, tuple[KeysAt, list[str]]] = {}
        for at, source in wanted:
            known = asked.get(at.place)
            if known is None:
                asked[at.place] = (at, [source])
            else:
                known[1].append(source)
                if _seconds(at) > _seconds(known[0]):
                    asked[at.place] = (at, known[1])
        for place, found in self._sets.items():
            if place not in asked and found.at is not None:
                found.at, found.asked_by, found.used = None, (), now
        for place, (at, sources) in asked.items():
            one = self._sets.setdefault(place, _Set(None, now))
            if one.at is None:  # new, or wanted again
                one.due, one.failures = now if now - one.fetched >= REFRESH or not one.text else one.fetched + REFRESH, 0
            one.at, one.asked_by, one.used = at, tuple(sources), now

    def take_due(self, now: float) -> list[KeysAt]:
        """What is to be fetched now; each must be answered by ``fetched`` or ``failed``."""
        found = []
        for place, one in list(self._sets.items()):
            if one.at is None:
                if now - one.used >= EVICT:
                    del self._sets[place]
            elif not one.running and (one.due <= now or one.due > now + REFRESH):  # the latter: the clock was put back
                one.running = True
                found.append(one.at)
        return found

    def untried(self) -> bool:
        """Whether one is wanted of which nobody knows yet if it can be had."""
        return any(s.at is not None and not s.text and not s.failures for s in self._sets.values())

    def next_due(self) -> float | None:
        """When ``take_due`` has something to say again; ``None``: not before something changes."""
        times = [s.due if s.at is not None else s.used + EVICT for s in self._sets.values() if not s.running]
        return min(times, default=None)

    def fetched(self, at: KeysAt, text: str, now: float) -> bool:
        """Whether the table changed."""
        one = self._sets.setdefault(at.place, _Set(None, now))
        changed = one.text != text
        one.text, one.fetched, one.tried, one.error, one.failures = text, now, now, "", 0
        one.running, one.due = False, now + REFRESH
        return changed

    def failed(self, at: KeysAt, why: str, now: float) -> None:
        one = self._sets.setdefault(at.place, _Set(None, now))
        one.failures += 1
        one.tried, one.error, one.running = now, why, False
        one.due = now + (RETRY if one.text else min(RETRY, FIRST_RETRY * 2 ** min(one.failures - 1, 10)))

    def table(self) -> Mapping[str, str]:
        return {place: one.text for place, one in self._sets.items() if one.text}

    def report(self) -> list[dict[str, Any]]:
        """For people; times are wall times, None: never."""
        return [
            {
                "location": place,
                "askedBy": list(one.asked_by),
                "lastFetch": one.fetched or None,
                "lastTry": one.tried or None,
                "nextTry": one.due if one.at is not None else None,
                "error": one.error,
                "usable": bool(one.text),
            }
            for place, one in sorted(self._sets.items())
        ]


def _seconds(at: KeysAt) -> float:
    return parse_duration(at.timeout) if at.timeout else 0.0
