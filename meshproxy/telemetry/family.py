"""Telemetry room: metrics as plain values between those that count and those that write or merge them.

In: names, label values, numbers. Out: ``Family``; ``merged`` for several workers of one pod. Plain enough to travel as JSON
between processes. Nothing here is on the hot path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

__all__ = ["Family", "Histogram", "Row", "merged"]


class Histogram(msgspec.Struct, array_like=True):
    """``counts``: per bucket of ``model.report.BOUNDS`` and one more for the rest, not yet cumulated."""

    counts: list[int]
    sum: float


class Row(msgspec.Struct, array_like=True):
    """One child: its label values in the family's order ("" is as good as absent), and a number (``value``) or a histogram."""

    labels: tuple[str, ...]
    value: float = 0.0
    histogram: Histogram | None = None


class Family(msgspec.Struct):
    """All children of one metric. ``name`` of a counter ends in ``_total``, except Istio's own.

    ``stat``: how ``/stats`` names a child, in Envoy's words, with ``{}`` for its label values in order; "" leaves it out there.
    ``merge``: how workers add up: counts and most gauges are summed; a version or a lag is not.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    rows: list[Row] = []
    stat: str = ""
    merge: Literal["sum", "max", "min"] = "sum"


def merged(workers: Sequence[Iterable[Family]]) -> list[Family]:
    """The families of several workers as if one process had counted."""
    families: dict[str, Family] = {}
    rows: dict[str, dict[tuple[str, ...], Row]] = {}
    told = [list(worker) for worker in workers]
    for family in (family for worker in told for family in worker):
        first = families.setdefault(family.name, msgspec.structs.replace(family, rows=[]))
        if first.labels != family.labels:  # one worker has taken a configuration already that another has not
            first.labels = tuple(dict.fromkeys((*first.labels, *family.labels)))
    for worker in told:
        for family in worker:
            known = rows.setdefault(family.name, {})
            labels = families[family.name].labels
            for row in family.rows:
                if labels != family.labels:
                    values = dict(zip(family.labels, row.labels, strict=True))
                    row = Row(tuple(values.get(name, "") for name in labels), row.value, row.histogram)
                other = known.get(row.labels)
                known[row.labels] = row if other is None else _joined(other, row, family.merge)
    for name, family in families.items():
        family.rows = list(rows.get(name, {}).values())
    return list(families.values())


def _joined(one: Row, other: Row, how: str) -> Row:
    both = (one.value, other.value)
    value = max(both) if how == "max" else min(both) if how == "min" else sum(both)
    if one.histogram is None or other.histogram is None:
        return Row(one.labels, value, one.histogram or other.histogram)
    counts = [mine + theirs for mine, theirs in zip(one.histogram.counts, other.histogram.counts, strict=True)]
    return Row(one.labels, value, Histogram(counts, one.histogram.sum + other.histogram.sum))
