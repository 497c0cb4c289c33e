"""Telemetry room: the series of Istio's metrics: what is counted under one set of labels, their bound, and their families.

In: label values, looked up by the observer. Out: ``Series`` to count in, families at a scrape, deltas for control. A series is
told apart by Istio's 25 labels, whatever ``Telemetry`` says of them, by what tags with operators found, and by the route, which
only control is told; which labels a metric shows is decided when it is shown, so that control's own picture does not depend on
what users want in theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshproxy.model.report import BOUNDS, LABELS
from meshproxy.telemetry.family import Family, Histogram, Row
from meshproxy.telemetry.labels import OTHER, UNKNOWN, folded
from meshproxy.telemetry.overrides import Columns, Plan

__all__ = ["NO_ROUTE", "ROUTED", "Counts", "Series", "SeriesStore", "texts"]

# requests, durations per bucket, their sum in ms, bytes received, bytes sent, tries after the first
Counts = tuple[int, list[int], float, int, int, int]
_NOTHING: Counts = (0, [0] * (len(BOUNDS) + 1), 0.0, 0, 0, 0)
_GRPC = LABELS.index("request_protocol")
NO_ROUTE = ("", "", "")  # a route's name, which resource it comes from, the cluster
ROUTED = 1000  # series that differ from another one in their route only; past that routes are counted together


_OTHER_ROUTE = (OTHER, "", "")


class Series:
    """What is counted under one set of labels. ``asked`` and ``told`` are gRPC messages, ``retried`` tries after the first."""

    __slots__ = ("_reported", "asked", "count", "ms", "ms_sum", "received", "received_sum", "retried", "sent", "sent_sum", "told")

    def __init__(self) -> None:
        self.count = 0
        self.ms = [0] * (len(BOUNDS) + 1)
        self.ms_sum = 0.0
        self.received = [0] * (len(BOUNDS) + 1)
        self.received_sum = 0
        self.sent = [0] * (len(BOUNDS) + 1)
        self.sent_sum = 0
        self.asked = 0
        self.told = 0
        self.retried = 0
        self._reported: Counts = _NOTHING

    def untold(self) -> Counts:
        """What was counted since this was last asked."""
        before = self._reported
        if self.count == before[0]:
            return _NOTHING
        self._reported = now = (self.count, list(self.ms), self.ms_sum, self.received_sum, self.sent_sum, self.retried)
        buckets = [new - old for new, old in zip(now[1], before[1], strict=True)]
        return now[0] - before[0], buckets, now[2] - before[2], now[3] - before[3], now[4] - before[4], now[5] - before[5]

    def add(self, other: Series) -> None:
        self.count += other.count
        self.ms = [mine + theirs for mine, theirs in zip(self.ms, other.ms, strict=True)]
        self.ms_sum += other.ms_sum
        self.received = [mine + theirs for mine, theirs in zip(self.received, other.received, strict=True)]
        self.received_sum += other.received_sum
        self.sent = [mine + theirs for mine, theirs in zip(self.sent, other.sent, strict=True)]
        self.sent_sum += other.sent_sum
        self.asked += other.asked
        self.told += other.told
        self.retried += other.retried
        mine, theirs = self._reported, other._reported
        buckets = [one + another for one, another in zip(mine[1], theirs[1], strict=True)]
        sums = (mine[2] + theirs[2], mine[3] + theirs[3], mine[4] + theirs[4], mine[5] + theirs[5])
        self._reported = (mine[0] + theirs[0], buckets, *sums)


class SeriesStore:
    """``limit``: label sets; ``folded``: how many look-ups went past it, and were counted under ``other``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._series: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], Series] = {}
        self._sets: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()  # what metrics tell apart
        self._plans: dict[str, Plan] = {}
        self.folded = 0

    def __len__(self) -> int:
        return len(self._sets)

    def plan(self, direction: str) -> Plan | None:
        """What is in force for listeners of this direction; None: everything as Istio has it."""
        return self._plans.get("SERVER" if direction == "inbound" else "CLIENT")

    def configure(self, plans: dict[str, Plan]) -> None:
        """New plans. What was counted stays; where other columns tell series apart now, it is shown with ``unknown`` for them."""
        before, self._plans = self._plans, plans
        for side, reporter in (("CLIENT", "source"), ("SERVER", "destination")):
            if _columns(before.get(side)) != _columns(plans.get(side)):
                self._forget_columns(reporter)

    def _forget_columns(self, reporter: str) -> None:
        for key in [key for key in self._series if key[0][0] == reporter and key[1]]:
            series = self._series.pop(key)
            base, _, route = key
            plain = self._series.get((base, (), route))
            if plain is None:
                self._series[base, (), route] = series
            else:
                plain.add(series)
        self._sets = {key[:2] for key in self._series}

    def get(self, base: tuple[str, ...], found: tuple[str, ...], route: tuple[str, str, str] = NO_ROUTE) -> Series:
        """The series of these values, or where they are counted once there are too many."""
        series = self._series.get((base, found, route))
        if series is not None:
            return series
        if (base, found) not in self._sets and len(self._sets) >= self.limit:
            self.folded += 1
            found, route = (OTHER,) * len(found), NO_ROUTE
            if (base, found) not in self._sets:  # first what users' tags tell apart, then everything
                base = folded(base)
        if (base, found) not in self._sets:
            self._sets.add((base, found))
        elif (base, found, route) not in self._series and len(self._series) - len(self._sets) >= ROUTED:
            route = _OTHER_ROUTE if route != NO_ROUTE else route
        return self._series.setdefault((base, found, route), Series())

    def totals(self) -> Iterator[tuple[tuple[str, ...], Series]]:
        """Every series by Istio's own labels and the route's; several of one set differ in users' tags."""
        for (base, _, route), series in self._series.items():
            yield base + route, series

    # -- what a scrape shows

    def families(self) -> list[Family]:
        return [
            self._counter("istio_requests_total", "Requests, by who asked, who answered and how.", "count"),
            self._histogram("istio_request_duration_milliseconds", "Duration of requests.", "ms"),
            self._histogram("istio_request_bytes", "Size of requests on the wire, heads included.", "received"),
            self._histogram("istio_response_bytes", "Size of responses on the wire, heads included.", "sent"),
            self._counter("istio_request_messages_total", "gRPC messages of callers.", "asked", grpc=True),
            self._counter("istio_response_messages_total", "gRPC messages of those who answered.", "told", grpc=True),
        ]

    def _names(self, metric: str) -> tuple[str, ...]:
        """The labels that any side has; a side without one of them leaves it empty, which Prometheus takes for absent."""
        if not self._plans:
            return LABELS
        found = [labels for plan in self._plans.values() if (labels := plan.labels(metric)) is not None]
        return tuple(dict.fromkeys(name for labels in found for name in labels))

    def _shown(self, metric: str, names: tuple[str, ...], grpc: bool = False) -> Iterator[tuple[tuple[str, ...], Series]]:
        """(values of ``names``, series) of everything that shows this metric."""
        for (base, found, _), series in self._series.items():
            if grpc and base[_GRPC] != "grpc":
                continue
            plan = self._plans.get("SERVER" if base[0] == "destination" else "CLIENT")
            labels = LABELS if plan is None else plan.labels(metric)
            if labels is None:
                continue
            values = base if plan is None else plan.values(metric, base, found)
            if labels != names:
                known = dict(zip(labels, values, strict=True))
                values = tuple(known.get(name, "") for name in names)
            yield values, series

    def _counter(self, name: str, text: str, field: str, grpc: bool = False) -> Family:
        names = self._names(name)
        rows: dict[tuple[str, ...], Row] = {}
        for values, series in self._shown(name, names, grpc):
            row = rows.get(values)
            if row is None:
                row = rows[values] = Row(values, 0)
            row.value += getattr(series, field)
        return Family(name, "counter", text, names, list(rows.values()))

    def _histogram(self, name: str, text: str, field: str) -> Family:
        names = self._names(name)
        rows: dict[tuple[str, ...], Row] = {}
        for values, series in self._shown(name, names):
            counts, total = getattr(series, field), getattr(series, f"{field}_sum")
            row = rows.get(values)
            if row is None or row.histogram is None:
                rows[values] = Row(values, 0, Histogram(list(counts), total))
                continue
            row.histogram.counts = [mine + theirs for mine, theirs in zip(row.histogram.counts, counts, strict=True)]
            row.histogram.sum += total
        return Family(name, "histogram", text, names, list(rows.values()))


def _columns(plan: Plan | None) -> Columns:
    return plan.columns if plan is not None else ()


def texts(found: tuple[bytes, ...]) -> tuple[str, ...]:
    """Values of columns as labels have them."""
    return tuple(value.decode("utf-8", "backslashreplace") or UNKNOWN for value in found)
