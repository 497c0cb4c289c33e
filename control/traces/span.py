"""Room: traces. One span and one trace's summary, as control keeps them and as the API tells of them.

Times are Unix seconds, durations seconds, ids lower-case hex. JSON names are camelCase.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Event", "Operation", "Query", "Span", "TraceSummary"]

Kind = Literal["server", "client", "internal", "producer", "consumer"]


class Event(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    time: float
    tags: dict[str, str] = {}


class Span(msgspec.Struct, frozen=True, rename="camel"):
    """``parent_id`` "": the trace begins here, as far as this span knows. ``status``: "error" or "ok"."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    operation: str
    kind: Kind
    start: float
    duration: float
    status: Literal["ok", "error"]
    tags: dict[str, str] = {}
    events: tuple[Event, ...] = ()


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    service: str
    operation: str


class TraceSummary(msgspec.Struct, frozen=True, rename="camel"):
    """``root``: the first span without a parent here; ``method``, ``url`` and ``code``: of its request, "" and 0 where it says
    nothing. ``services``: in order of appearance. ``spans``, ``errors``: counts.
    """

    trace_id: str
    start: float
    duration: float
    root: Operation
    services: tuple[str, ...]
    spans: int
    errors: int
    method: str = ""
    url: str = ""
    code: int = 0


class Query(msgspec.Struct, frozen=True):
    """What one span of a trace must be for the trace to be found; "", None and (): anything.

    ``service``: ``name.namespace`` or the name alone. ``operation``: any part of it. ``status``: ``error``, ``ok``, an HTTP
    status or a class of them (``503``, ``5xx``). ``begin``, ``end``: when the span began.
    """

    service: str = ""
    operation: str = ""
    min_duration: float | None = None
    max_duration: float | None = None
    status: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    begin: float | None = None
    end: float | None = None
    limit: int = 100
