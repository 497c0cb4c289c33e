"""Telemetry room: Istio's metrics of connections whose bytes are relayed: opened, closed, bytes each way.

In: ``StreamRecord``s, at the beginning, every 5 s and at the end; what metrics know of one already stands in its ``told``. Out:
``Streams.families`` at a scrape. Received and sent are the connection's own words: what came from its client, and what went to it
(Istio: ``istio_tcp_received_bytes_total`` is the request's direction at both reporters).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshproxy.model.report import BOUNDS, LABELS
from meshproxy.telemetry.family import Family, Row
from meshproxy.telemetry.labels import OTHER, STREAM_LABELS, stream_values
from meshproxy.telemetry.overrides import STREAM_METRICS, Plan
from meshproxy.telemetry.series import Counts

if TYPE_CHECKING:
    from meshproxy.message.record import StreamRecord
    from meshproxy.model.cluster import Workload

__all__ = ["Streams"]

_TEXTS = {
    "istio_tcp_connections_opened_total": ("Connections of bytes that were opened.", "opened"),
    "istio_tcp_connections_closed_total": ("Connections of bytes that were closed.", "closed"),
    "istio_tcp_received_bytes_total": ("Bytes that callers sent over connections.", "received"),
    "istio_tcp_sent_bytes_total": ("Bytes that were sent to callers over connections.", "sent"),
}
assert tuple(_TEXTS) == STREAM_METRICS


class _Counts:
    """``ms``: how long it took until the endpoint was there, or until there was none: what control shows as a call's duration."""

    __slots__ = ("_reported", "closed", "ms", "ms_sum", "opened", "received", "sent")

    def __init__(self) -> None:
        self.opened = self.closed = self.received = self.sent = 0
        self.ms = [0] * (len(BOUNDS) + 1)
        self.ms_sum = 0.0
        self._reported: Counts = (0, [0] * (len(BOUNDS) + 1), 0.0, 0, 0, 0)

    def began(self, took: float) -> None:
        self.opened += 1
        self.ms[bisect_left(BOUNDS, took)] += 1
        self.ms_sum += took

    def untold(self) -> Counts:
        """What was counted since this was last asked."""
        before = self._reported
        self._reported = now = (self.opened, list(self.ms), self.ms_sum, self.received, self.sent, 0)
        buckets = [new - old for new, old in zip(now[1], before[1], strict=True)]
        return now[0] - before[0], buckets, now[2] - before[2], now[3] - before[3], now[4] - before[4], 0


class Streams:
    """``limit``: label sets; past it everything is counted under ``other``."""

    __slots__ = ("_counts", "_limit", "_plans", "folded")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[tuple[tuple[str, ...], tuple[str, ...]], _Counts] = {}
        self._plans: dict[str, Plan] = {}
        self.folded = 0

    def configure(self, plans: dict[str, Plan]) -> None:
        self._plans = plans

    def count(self, record: StreamRecord, own: Workload, found: tuple[str, ...], over: bool) -> None:
        """``found``: the values of users' columns."""
        counts = self._get(stream_values(record, own), found)
        told = record.told
        if told is None:
            counts.began(((record.upstream_started or record.ended or record.started) - record.started) * 1000.0)
            told = (0, 0)
        counts.received += record.body_received - told[0]
        counts.sent += record.body_sent - told[1]
        counts.closed += over
        record.told = (record.body_received, record.body_sent)

    def _get(self, values: tuple[str, ...], found: tuple[str, ...]) -> _Counts:
        counts = self._counts.get((values, found))
        if counts is None:
            if len(self._counts) >= self._limit:
                self.folded += 1
                values, found = (values[0], *[OTHER] * (len(LABELS) - 1)), (OTHER,) * len(found)
            counts = self._counts.setdefault((values, found), _Counts())
        return counts

    def totals(self) -> Iterator[tuple[tuple[str, ...], _Counts]]:
        """Everything by Istio's own labels; several of one set differ in users' tags."""
        for (base, _), counts in self._counts.items():
            yield base, counts

    def families(self) -> list[Family]:
        return [self._family(name, *how) for name, how in _TEXTS.items()]

    def _family(self, metric: str, text: str, field: str) -> Family:
        rows: dict[tuple[str, ...], Row] = {}
        names = STREAM_LABELS
        if self._plans:
            wanted = [labels for plan in self._plans.values() if (labels := plan.labels(metric)) is not None]
            names = tuple(dict.fromkeys(name for labels in wanted for name in labels))
        for (base, found), counts in self._counts.items():
            plan = self._plans.get("SERVER" if base[0] == "destination" else "CLIENT")
            if plan is None:
                known = dict(zip(LABELS, base, strict=True))
            else:
                labels = plan.labels(metric)
                if labels is None:
                    continue
                known = dict(zip(labels, plan.values(metric, base, found), strict=True))
            values = tuple(known.get(name, "") for name in names)
            row = rows.setdefault(values, Row(values, 0))
            row.value += getattr(counts, field)
        return Family(metric, "counter", text, names, list(rows.values()))
