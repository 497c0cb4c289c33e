"""Room 4 (filters): injected faults. Two filters, because a delayed request goes on at the next one: delay, then abort.

In: a request; its route is asked for here. Out: ``Wait`` for a delay, ``Reply`` for an abort. Each has its own draw. Neither
the route's timeout nor its retries see them (semantics A2, B2.12).
"""

from __future__ import annotations

from meshproxy.message.ports import InFlight
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Verdict, Wait

__all__ = ["fault_abort", "fault_delay"]


def fault_delay(exchange: InFlight, now: float) -> Verdict:
    """Park the request when the route's delay is drawn."""
    route = exchange.route()
    if route is None:
        return None
    fault = route.fault
    if fault is None or not fault.delay_share or not fault.delays(exchange.dice()):
        return None
    return Wait(fault.delay, Reason.FAULT_DELAY)


def fault_abort(exchange: InFlight, now: float) -> Verdict:
    """Answer the request when the route's abort is drawn."""
    route = exchange.route()
    if route is None:
        return None
    fault = route.fault
    if fault is None or not fault.abort_share or not fault.aborts(exchange.dice()):
        return None
    reply: Verdict = fault.reply()
    return reply
