"""Room 4 (filters): cross-origin requests. Judged by the route's policy (``policy.cors``).

In: a request whose path is settled. Out: a preflight of an allowed origin answered here; another cross-origin request noted,
so that its response, the app's or a local one, gets the headers. Everything else goes on untouched.
"""

from __future__ import annotations

from meshproxy.message.head import ResponseHead, first
from meshproxy.message.ports import InFlight
from meshproxy.message.verdict import Verdict
from meshproxy.policy.cors import CompiledCors, is_preflight

__all__ = ["cors", "cors_response"]


def cors(exchange: InFlight, now: float) -> Verdict:
    """The filter."""
    request = exchange.request
    origin = first(request.headers, b"origin")
    if not origin:
        return None
    route = exchange.route()
    policy: CompiledCors | None = route.cors if route is not None else None
    if policy is None:
        return None
    if not policy.allows(origin):
        if not policy.forward_unmatched and is_preflight(request):
            return policy.refused_preflight()
        return None
    if is_preflight(request):
        return policy.preflight(origin)
    exchange.cors_origin = origin
    return None


def cors_response(exchange: InFlight, head: ResponseHead) -> None:
    """The response hook. The origin was noted on the way in: header operations may have removed it since."""
    origin = getattr(exchange, "cors_origin", None)
    if origin is None:
        return
    route = exchange.route()
    policy: CompiledCors | None = route.cors if route is not None else None
    if policy is not None and policy.allows(origin):  # a token may have led to another route since
        policy.decorate(head.headers, origin)
