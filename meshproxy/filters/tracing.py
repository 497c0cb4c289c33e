"""Room 4 (filters): tracing. Which trace a request belongs to, and whether its span will be told of.

In: a request whose ``x-request-id`` is settled. Out: ``record.trace`` of a sampled one; the context headers that the next hop
sees. An unsampled request costs a look at its header names and no object (benchmarks/micro_tracing.py); nothing here knows of the
SDK. ``trace_route`` notes the route of a sampled request, for the span's name.
"""

from __future__ import annotations

from meshproxy.filters.chain import Filter
from meshproxy.message.head import Headers, replace
from meshproxy.message.ports import InFlight
from meshproxy.message.traced import Traced
from meshproxy.message.verdict import Verdict
from meshproxy.policy.context import (
    CONTEXT,
    HEX,
    SAMPLED,
    CompiledTracing,
    Context,
    extract,
    inject,
    new_span_id,
    new_trace_id,
    readable_traceparent,
    request_id,
    sampled_request_id,
)

__all__ = ["TRACED", "trace_beginner", "trace_route", "tracing_filter"]

TRACED = CONTEXT | {b"x-envoy-force-trace"}  # with any of these a request says something of its trace
_LOOKED_AT = TRACED | {b"x-request-id"}
_ABSENT = Context()
_ODD = b"13579bdf"  # the last character of flags in which the lowest bit is set: sampled


def trace_route(exchange: InFlight, now: float) -> Verdict:
    """Stands before the faults: what is refused sooner has no route in its span's name."""
    trace = exchange.record.trace
    if trace is not None:
        trace.route = exchange.route()
    return None


def trace_beginner(tracing: CompiledTracing) -> Filter | None:
    """For requests that bring neither an id nor a trace: gives them both. The same as a new id and ``tracing_filter``, quicker.

    None: there is no quicker way with these settings.
    """
    if not (tracing.use_request_id and tracing.propagate):
        return None
    threshold, trace = tracing.threshold, tracing_filter(tracing)

    def begin(exchange: InFlight, now: float) -> Verdict:
        made, first = request_id(exchange.dice)
        headers = exchange.request.headers
        headers.append((b"x-request-id", made))
        if first % 10000 < threshold:
            return trace(exchange, now)
        trace_id = made.replace(b"-", b"")
        headers.append((b"traceparent", b"00-%b-%b-00" % (trace_id, trace_id[16:])))
        return None

    return begin


def tracing_filter(tracing: CompiledTracing) -> Filter:
    """The filter for one direction."""
    threshold, by_request_id, propagate = tracing.threshold, tracing.use_request_id, tracing.propagate
    usual = by_request_id and propagate

    def trace(exchange: InFlight, now: float) -> Verdict:
        headers = exchange.request.headers
        own_id = parent = b""
        known = forced = False
        # One pass, one set test per header.
        for name, value in headers:
            if name in _LOOKED_AT:
                if name == b"x-request-id":
                    own_id = value
                elif name == b"traceparent" and not parent:
                    parent = value
                elif name == b"x-envoy-force-trace":
                    forced = True
                else:
                    known = True
        if parent and not known and readable_traceparent(parent):
            if parent[54] not in _ODD:
                return None  # who began the trace does not want it: passed on as it is (W3C section 3.3)
            _sample(exchange, headers, Context(parent[3:35], parent[36:52], True))
            return None
        if not (parent or known or forced) and usual and len(own_id) == 36 and own_id.translate(None, HEX) == b"----":
            # What most requests are, in as few steps as it takes. (benchmarks/micro_tracing.py "a trace begins, not sampled")
            trace_id = own_id.replace(b"-", b"")  # drawn already, and nobody writes this one down
            # 48 is a zero: neither id may be all zeros.
            if int(trace_id[:8], 16) % 10000 >= threshold and trace_id[12] not in SAMPLED and trace_id[16] != 48:
                # The next hops are told, or they would sample parts of it.
                headers.append((b"traceparent", b"00-%b-%b-00" % (trace_id, trace_id[16:])))
                return None
        came = extract(headers) if parent or known else _ABSENT
        wanted = came.sampled
        if wanted is None:
            wanted = forced
            if by_request_id:
                marked = None if forced else sampled_request_id(own_id, threshold)
                if marked is not None:
                    wanted = True
                    if marked is not own_id:
                        replace(headers, b"x-request-id", marked)
            elif not forced:
                wanted = exchange.dice() * 10000 < threshold
        if wanted:
            _sample(exchange, headers, came)
        elif propagate:  # written anew, so that nothing goes on that nobody can read
            dice = exchange.dice
            inject(headers, came.trace_id or new_trace_id(dice), came.span_id or new_span_id(dice), b"", False, came.state)
        return None

    def _sample(exchange: InFlight, headers: Headers, came: Context) -> None:
        dice = exchange.dice
        trace_id = came.trace_id or new_trace_id(dice)
        span_id = new_span_id(dice) if tracing.report else came.span_id or new_span_id(dice)
        if propagate:
            inject(headers, trace_id, span_id, came.span_id, True, came.state)
        if tracing.report:
            exchange.record.trace = Traced(tracing, trace_id, span_id, came.span_id, came.state, exchange.precise())

    return trace
