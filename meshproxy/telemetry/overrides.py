"""Telemetry room: what ``Telemetry`` changes about metrics, judged once per configuration: which are off, which tags they have.

In: ``MetricOverride``s. Out: a ``Plan`` per side; what it costs per request is one format per distinct operator text (none when
tags are only removed or given constants). Raises ``policy.invalid.Invalid`` with the field's path for what cannot be obeyed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from meshproxy.model.report import LABELS
from meshproxy.model.telemetry import MetricOverride
from meshproxy.policy import format as command
from meshproxy.policy.invalid import Invalid
from meshproxy.telemetry.labels import STREAM_LABELS, UNKNOWN

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord

__all__ = ["METRICS", "STREAM_METRICS", "Columns", "Plan", "label_name", "plans"]

METRICS = (
    "istio_requests_total",
    "istio_request_duration_milliseconds",
    "istio_request_bytes",
    "istio_response_bytes",
    "istio_request_messages_total",
    "istio_response_messages_total",
)
STREAM_METRICS = (
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_received_bytes_total",
    "istio_tcp_sent_bytes_total",
)
_ALL = (*METRICS, *STREAM_METRICS)
_KNOWN = frozenset(_ALL)
Columns = tuple[str, ...]  # the operator texts whose values a series is told apart by
_LONGEST = 256  # bytes of a tag's value that callers can choose
_WORDS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class Plan:
    """What one side (what a proxy does for its app, or for callers) counts.

    ``labels(metric)``: the names of its labels, None: the metric is off. ``values(metric, base, found)``: those of one series,
    from the 25 of Istio and what was found for ``columns``. ``read``: record -> the values of ``columns``; None: there are none.
    """

    __slots__ = ("_metrics", "columns", "read")

    def __init__(
        self, off: frozenset[str], tags: Mapping[str, Mapping[str, str | None]], columns: Mapping[str, command.Formatter]
    ):
        self.columns: Columns = tuple(columns)
        self.read: Callable[[ExchangeRecord], tuple[bytes, ...]] | None = None
        if columns:
            reads = tuple(columns.values())
            self.read = lambda record: tuple([read(record)[:_LONGEST] for read in reads])
        self._metrics = {
            name: None if name in off else _Shape(tags.get(name, {}), self.columns, name in STREAM_METRICS) for name in _ALL
        }

    def labels(self, metric: str) -> tuple[str, ...] | None:
        shape = self._metrics[metric]
        return None if shape is None else shape.labels

    def values(self, metric: str, base: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
        shape = self._metrics[metric]
        assert shape is not None
        return base if shape.plain else shape.values(base, found)


class _Shape:
    """One metric's labels: each from the base (an index), from a column (an index) or constant."""

    __slots__ = ("_sources", "labels", "plain")

    def __init__(self, tags: Mapping[str, str | None], columns: Columns, stream: bool) -> None:
        self.plain = not tags and not stream
        shown = STREAM_LABELS if stream else LABELS
        sources: dict[str, tuple[int, int, str]] = {name: (LABELS.index(name), -1, "") for name in shown}
        for tag, value in tags.items():
            if value is None:
                sources.pop(tag, None)
            elif value in columns:
                sources[tag] = (-1, columns.index(value), "")
            else:
                sources[tag] = (-1, -1, command.compile(value)(_NO_RECORD).decode())
        self.labels = tuple(sources)
        self._sources = tuple(sources.values())

    def values(self, base: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            base[place] if place >= 0 else (found[column] if column < len(found) else UNKNOWN) if column >= 0 else constant
            for place, column, constant in self._sources
        )


_NO_RECORD: ExchangeRecord = None  # type: ignore[assignment]  # a format without operators asks nothing of it


def label_name(tag: str) -> str:
    """A tag as Prometheus can have it (Envoy's rule): other characters than letters, digits and underscores become these."""
    name = "".join(char if char in _WORDS else "_" for char in tag)
    return f"_{name}" if name[:1].isdigit() else name


def plans(overrides: Sequence[MetricOverride], path: str = "metrics") -> dict[str, Plan]:
    """``CLIENT`` and ``SERVER`` -> plan; both absent where nothing is changed. Later overrides win, tag by tag.

    Metrics that are not counted here (users' own) may be named; nothing comes of it.
    """
    if not overrides:
        return {}
    for number, override in enumerate(overrides):
        _check(override, f"{path}[{number}]")
    return {side: _plan([one for one in overrides if side in one.mode.split("_AND_")]) for side in ("CLIENT", "SERVER")}


def _check(override: MetricOverride, path: str) -> None:
    for number, tag in enumerate(override.tags):
        name = label_name(tag.tag)
        if not name or name == "le" or name.startswith("__"):
            raise Invalid(f"{path}.tags[{number}].tag", f"{tag.tag!r} cannot be the name of a label")
        if tag.value is not None:
            command.compile(tag.value, f"{path}.tags[{number}].value")


def _plan(overrides: Sequence[MetricOverride]) -> Plan:
    off: set[str] = set()
    tags: dict[str, dict[str, str | None]] = {}
    columns: dict[str, command.Formatter] = {}
    for override in overrides:
        for metric in _ALL if not override.metrics else _KNOWN.intersection(override.metrics):
            if override.disabled is not None:
                (off.add if override.disabled else off.discard)(metric)
            for tag in override.tags:
                tags.setdefault(metric, {})[label_name(tag.tag)] = tag.value
    for metric, wanted in tags.items():
        for value in wanted.values():
            if value is not None and metric not in off and command.has_operators(value) and value not in columns:
                columns[value] = command.compile(value, empty=UNKNOWN.encode())
    return Plan(frozenset(off), tags, columns)
