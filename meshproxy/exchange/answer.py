"""The corridor: a local answer, a filter's or one for a reason of our own. Quiet.

In: an exchange whose response has not begun, and the reply. Out: the record filled, the exchange finished, the answer written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.message.verdict import Reply
from meshproxy.policy.replies import as_grpc, date_header

if TYPE_CHECKING:
    from meshproxy.exchange.exchange import Exchange

__all__ = ["answer"]


def answer(exchange: Exchange, reply: Reply, now: float) -> None:
    """Answer here and end the exchange."""
    record, corridor, request = exchange.record, exchange.corridor, exchange.request
    reason = reply.reason
    if reason is not None:
        record.flag(reason)
    record.detail = reply.detail
    as_grpc(reply, request)
    head = reply.head
    record.status = head.status
    compiled = exchange.route()  # also of a request that was refused before anything asked for it: for whom it was
    if compiled is not None:
        record.chosen = compiled
        if not record.route_name:
            record.route_name = compiled.name
        if record.service is None and compiled.choices and compiled.choices[0].cluster is not None:
            record.service = compiled.choices[0].cluster.service  # an injected fault: for whom the request was
    head.headers += (date_header(now + corridor.wall_offset), corridor.server)
    for hook in exchange.listener.response_hooks:
        hook(exchange, head)
    record.response_headers = head.headers
    size = 0 if request.method == b"HEAD" else len(reply.body)
    record.body_sent = record.response_size = size
    if reason is not None and reason.close:
        head.close = True
    exchange.finish(now)
    exchange.downstream.send_head(head, not size)
    if size:
        exchange.downstream.send_data(reply.body, True)
