"""Room 4 (filters): the last filter. It makes the route's decision final.

In: a request that every other filter let pass. Out: 404 (NR), 503 (NC), a redirect or a direct response; or the request
edited (header operations, then rewrite, as Envoy orders them) and ``exchange.choice`` set to the destination drawn. The
response hook runs the response's operations, on upstream's responses and on the local ones that came after this filter.
"""

from __future__ import annotations

from meshproxy.filters.chain import Filter
from meshproxy.message.head import ResponseHead
from meshproxy.message.ports import InFlight
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Verdict
from meshproxy.policy.compiled import FORWARD, CompiledRoute
from meshproxy.policy.replies import local_reply
from meshproxy.policy.routes import port_of

__all__ = ["route_filter", "route_response"]


def route_filter(port: int | None, scheme: bytes = b"http") -> Filter:
    """``port``: what redirects take for the port the client asked for; None (outbound): the authority's."""

    def route(exchange: InFlight, now: float) -> Verdict:
        chosen: CompiledRoute | None = exchange.route()
        if chosen is None:
            return local_reply(Reason.NO_ROUTE)
        if chosen.kind != FORWARD:
            return _answer(exchange, chosen)
        choice = chosen.single
        if choice is None:
            choice = chosen.pick(exchange.dice())
        exchange.choice = choice
        if choice.cluster is None:
            exchange.record.cluster_name = choice.name
            return local_reply(Reason.NO_CLUSTER)
        if choice.request_ops is not None:
            choice.request_ops.request(exchange.request, exchange.record)
        if chosen.rewrite is not None:
            chosen.rewrite(exchange.request)
        return None

    def _answer(exchange: InFlight, chosen: CompiledRoute) -> Verdict:
        request = exchange.request
        exchange.choice = chosen.single
        exchange.record.cluster_name = chosen.target
        assert chosen.reply is not None
        return chosen.reply(request, scheme, port_of(request.authority, 80) if port is None else port)

    return route


def route_response(exchange: InFlight, head: ResponseHead) -> None:
    """The response hook: operations of the destination and the route."""
    choice = exchange.choice
    if choice is not None and choice.response_ops is not None:
        exchange.record.response_headers = head.headers  # for %RESP(...)% in values
        choice.response_ops.response(head.headers, exchange.record)
