"""Vocabulary: the span of one sampled request in flight. Made by the tracing filter, written down by telemetry when all is over.

An unsampled request has none (``record.trace`` is None). Nothing here knows of an SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshproxy.message.reason import Reason

__all__ = ["Traced"]


class Traced:
    """Ids are lower-case hex: 32 characters for the trace, 16 for spans; ``parent_id`` b"" for a root. ``state``: tracestate.

    ``began``: Unix nanoseconds, 0: unknown; the loop's clock, by which all else is timed, may know no less than milliseconds.

    ``tracing``: the ``policy.context.CompiledTracing`` under which it was sampled. ``route``: the compiled route, once chosen.
    ``events``: (monotonic seconds, what, its attributes): every try that another one followed.
    """

    __slots__ = ("began", "events", "parent_id", "route", "span_id", "state", "trace_id", "tracing")

    def __init__(self, tracing: Any, trace_id: bytes, span_id: bytes, parent_id: bytes, state: bytes, began: int = 0) -> None:
        self.began = began
        self.tracing = tracing
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.state = state
        self.route: Any = None
        self.events: list[tuple[float, str, dict[str, str]]] = []

    def tried(self, now: float, number: int, endpoint: Any, why: int | Reason) -> None:
        """A try is over, and another one follows."""
        about = {"attempt": str(number), "reason": str(why) if isinstance(why, int) else why.detail}
        if endpoint is not None:
            about["upstream_address"] = f"{endpoint.address}:{endpoint.port}"
        self.events.append((now, "retry", about))
