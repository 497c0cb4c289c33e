"""Telemetry room: who watches requests in this process, and what waits to be told to them. Hot only while somebody taps.

In: orders, finished records (``Observer.watch``; without a tap nothing of this is called). Out: ``collect()``, batches since the
last time. Everything is bounded: taps, requests a second, what waits, the time. What goes wrong ends the taps, never a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshproxy.model.tap import MOST_SECONDS, TapBatch, TapEvent, TapOrder
from meshproxy.policy.tap import Wants, compile_tap, event
from meshproxy.telemetry.family import Family, Row

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord
    from meshproxy.model.cluster import Workload
    from meshproxy.telemetry.observe import Observer

__all__ = ["MOST_TAPS", "TOO_MANY", "Taps", "judged"]

log = logging.getLogger("meshproxy")
MOST_TAPS = 8
TOO_MANY = f"{MOST_TAPS} taps are open here already: end one of them first"
MOST_RATE = 1000  # requests a second that one tap may be told
_WAITING = 1000  # requests that wait to be collected, per tap
_BYTES = 4 << 20  # of them


def judged(order: TapOrder, own: Callable[[], Workload]) -> Wants | None:
    """The order's filter, compiled. Raises ``ValueError`` (one line) for an order that cannot be obeyed."""
    if not 0 < order.seconds <= MOST_SECONDS:
        raise ValueError(f"seconds: must be more than 0 and at most {MOST_SECONDS:g}, not {order.seconds:g}")
    if not 0 < order.rate <= MOST_RATE:
        raise ValueError(f"rate: must be from 1 to {MOST_RATE}, not {order.rate}")
    if order.most < 0:
        raise ValueError(f"most: must not be negative, not {order.most}")
    return compile_tap(order.filter, own)


class _Tap:
    """``second``: the one in which ``told`` were told. ``left`` -1: no limit."""

    __slots__ = ("bytes", "ended", "events", "left", "over", "rate", "second", "slow", "told", "until", "values", "wants")

    def __init__(self, order: TapOrder, wants: Wants | None, until: float) -> None:
        self.wants = wants
        self.values = order.values
        self.rate = order.rate
        self.left = order.most or -1
        self.until = until
        self.second = 0
        self.told = 0
        self.over = 0
        self.slow = 0
        self.bytes = 0
        self.events: list[TapEvent] = []
        self.ended = ""


class Taps:
    """``clock``: the loop's. ``observer``: told to hand out records while there are taps."""

    def __init__(self, observer: Observer, clock: Callable[[], float]) -> None:
        self._observer = observer
        self._clock = clock
        self._taps: dict[str, _Tap] = {}
        self.left_out = 0

    def __len__(self) -> int:
        return len(self._taps)

    def open(self, order: TapOrder) -> None:
        """Tell of requests that end from now on. Raises ``ValueError`` (one line)."""
        if order.id not in self._taps and len(self._taps) >= MOST_TAPS:
            raise ValueError(TOO_MANY)
        wants = judged(order, lambda: self._observer.own)
        self._taps[order.id] = _Tap(order, wants, self._clock() + order.seconds)
        self._observer.watch(self._take)

    def close(self, id_: str) -> None:
        """Forget a tap and what waits for it."""
        self._taps.pop(id_, None)
        if not self._taps:
            self._observer.watch(None)

    def collect(self) -> list[TapBatch]:
        """What came since this was last asked, for every tap; one that ended is told of once more, and gone."""
        now, batches = self._clock(), []
        for id_, tap in list(self._taps.items()):
            if not tap.ended and now >= tap.until:
                tap.ended = "its time is over"
            batches.append(TapBatch(id=id_, events=tuple(tap.events), over=tap.over, slow=tap.slow, ended=tap.ended))
            tap.events, tap.bytes, tap.over, tap.slow = [], 0, 0, 0
            if tap.ended:
                self.close(id_)
        return batches

    def _take(self, record: ExchangeRecord) -> None:
        """A request is over."""
        try:
            for tap in self._taps.values():
                if not tap.ended and (tap.wants is None or tap.wants(record)):
                    self._tell(tap, record)
        except Exception:  # a bug of ours must not cost a request
            log.exception("bug in telling of a request; all taps end")
            for tap in self._taps.values():
                tap.ended = "the sidecar failed to tell of a request; see its log"

    def _tell(self, tap: _Tap, record: ExchangeRecord) -> None:
        ended = record.ended
        if ended >= tap.until:
            tap.ended = "its time is over"
            return
        if int(ended) != tap.second:
            tap.second, tap.told = int(ended), 0
        if tap.told >= tap.rate:
            tap.over += 1
            self.left_out += 1
            return
        if len(tap.events) >= _WAITING or tap.bytes >= _BYTES:
            tap.slow += 1
            self.left_out += 1
            return
        found = event(record, lambda: self._observer.own, tap.values)
        tap.told += 1
        tap.bytes += 1000 + _weight(found.request_headers) + _weight(found.response_headers) + len(found.path)
        tap.events.append(found)
        if tap.left > 0:
            tap.left -= 1
            if not tap.left:
                tap.ended = "as many as were asked for"

    def families(self) -> list[Family]:
        return [
            Family("mesh_taps", "gauge", "Taps that are open.", (), [Row((), len(self))], "server.taps", "max"),
            Family(
                "mesh_tap_left_out_total",
                "counter",
                "Requests that taps were not told of: too many in a second, or too many waited.",
                (),
                [Row((), self.left_out)],
                "server.tap_left_out",
            ),
        ]


def _weight(headers: tuple[tuple[str, str], ...]) -> int:
    return sum(len(name) + len(value) + 20 for name, value in headers)
