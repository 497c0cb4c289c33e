"""Telemetry room: what control is told every few seconds: how much was counted since, who is ejected, a few gauges. Cold.

In: the series, live clusters, gauges (``Collector``, in the process that carries traffic); what several workers collected
(``joined``). Out: ``Reports.make`` -> ``model.delivery.Report``. Labels are Istio's own, whatever users' metrics show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from meshproxy.model.report import BOUNDS, Edge, Report
from meshproxy.telemetry.series import SeriesStore
from meshproxy.telemetry.streams import Streams

__all__ = ["Collector", "Counted", "Deltas", "Reports", "joined"]

_LABELS = 4096  # label sets that a connection's dictionary may hold; then it begins anew
_LONGEST = 256  # characters of a label's value
_STATES = 500  # rows of state in one report: a mesh that is down altogether need not be told of cluster by cluster
_ADDED: dict[str, Callable[[list[float]], float]] = {
    "connections": sum,
    "loop_lag_seconds": max,
    "rss_bytes": sum,
    "cpu_seconds": sum,
    "certificate_expires": min,
}


class Counted(msgspec.Struct, array_like=True):
    """One edge's delta. Of bytes ``requests`` are the connections that were opened, ``durations`` how long that took.

    ``durations``: per bucket of ``BOUNDS`` and one more, not cumulated.
    """

    labels: tuple[str, ...]
    requests: int = 0
    durations: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum_ms: float = 0.0
    received: int = 0
    sent: int = 0
    retried: int = 0

    def add(self, other: Counted) -> None:
        self.requests += other.requests
        self.durations = [mine + theirs for mine, theirs in zip(self.durations, other.durations, strict=True)]
        self.sum_ms += other.sum_ms
        self.received += other.received
        self.sent += other.sent
        self.retried += other.retried


class Deltas(msgspec.Struct):
    """What one process counted since it was last asked. ``state`` and ``gauges`` as in ``Report``."""

    edges: list[Counted] = []
    state: list[tuple[str, str, int]] = []
    gauges: list[tuple[str, float]] = []


class Collector:
    """Remembers what was told, so that the next answer is what came since."""

    def __init__(self, store: SeriesStore, streams: Streams | None = None) -> None:
        self._store = store
        self._streams = streams
        self._overflows: dict[str, int] = {}

    def collect(self, clusters: Iterable[Any], gauges: Sequence[tuple[str, float]]) -> Deltas:
        """``clusters``: live ones. Asking twice tells nothing twice."""
        edges: dict[tuple[str, ...], Counted] = {}
        found = [(labels, series.untold()) for labels, series in self._store.totals()]
        if self._streams is not None:
            found += [(labels, counts.untold()) for labels, counts in self._streams.totals()]
        for labels, (count, durations, ms, received, sent, retried) in found:
            if count or received or sent:  # a connection goes on after it was counted
                delta = Counted(labels, count, durations, ms, received, sent, retried)
                if labels in edges:
                    edges[labels].add(delta)
                else:
                    edges[labels] = delta
        return Deltas(list(edges.values()), self._state(clusters), list(gauges))

    def _state(self, clusters: Iterable[Any]) -> list[tuple[str, str, int]]:
        """What is not at rest: ``overflow`` counts refusals since the last time, the others are how many there are now."""
        rows: list[tuple[str, str, int]] = []
        overflows: dict[str, int] = {}
        for cluster in clusters:
            if not cluster.used:
                continue
            limits, name = cluster.limits, cluster.name
            overflows[name] = total = limits.connection_overflow + limits.pending_overflow + limits.request_overflow
            found = {
                "ejected": cluster.detector.ejected if cluster.detector is not None else 0,
                "overflow": max(0, total - self._overflows.get(name, 0)),
                "pending": limits.pending,
                "connections": limits.connections if limits.connections >= limits.max_connections else 0,
            }
            rows += [(name, what, number) for what, number in found.items() if number]
        self._overflows = overflows
        return rows[:_STATES]


def joined(workers: Sequence[Deltas]) -> Deltas:
    """Several workers of one pod as if one had counted. An endpoint is ejected where any of them says so."""
    edges: dict[tuple[str, ...], Counted] = {}
    state: dict[tuple[str, str], int] = {}
    gauges: dict[str, list[float]] = {}
    for worker in workers:
        for edge in worker.edges:
            if edge.labels in edges:
                edges[edge.labels].add(edge)
            else:
                edges[edge.labels] = edge
        for cluster, what, number in worker.state:
            known = state.get((cluster, what), 0)
            state[cluster, what] = max(known, number) if what == "ejected" else known + number
        for name, value in worker.gauges:
            gauges.setdefault(name, []).append(value)
    return Deltas(
        list(edges.values()),
        [(cluster, what, number) for (cluster, what), number in state.items()],
        [(name, _ADDED[name](values)) for name, values in gauges.items()],
    )


class Reports:
    """Numbers reports and keeps the dictionary of label sets that control knows by now.

    ``boot``: another for every process. ``forget`` after any report that may not have arrived, and on a new connection: the next
    one begins the dictionary anew (``first`` 0), which control takes as such.
    """

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._number = 0
        self._known: dict[tuple[str, ...], int] = {}

    def forget(self) -> None:
        self._known.clear()

    def make(self, deltas: Deltas, seconds: float) -> Report:
        if len(self._known) + len(deltas.edges) > _LABELS:
            self._known.clear()
        first = len(self._known)
        edges = [
            Edge(
                labels=self._known.setdefault(one.labels, len(self._known)),
                requests=one.requests,
                durations=tuple(one.durations),
                sum_ms=round(one.sum_ms, 3),
                received=one.received,
                sent=one.sent,
                retried=one.retried,
            )
            for one in deltas.edges
        ]
        report = Report(
            boot=self._boot,
            number=self._number,
            seconds=round(seconds, 3),
            first=first,
            labels=tuple(tuple(map(_plain, labels)) for labels in tuple(self._known)[first:]),
            edges=tuple(edges),
            state=tuple(deltas.state),
            gauges=tuple(deltas.gauges),
        )
        self._number += 1
        return report


def _plain(value: str) -> str:
    """What a peer says of itself must not make control refuse all that we say."""
    return value if len(value) <= _LONGEST and value.isprintable() else ascii(value)[1:-1][:_LONGEST]
