"""Room 4 (filters): a gateway's request must have come in by the TLS server that its host belongs to; otherwise 421.

In: a request over TLS, its host settled. Out: None, or the refusal. The server was chosen by the ClientHello's name, and with it
whether a client certificate was demanded; a request for another server's host would get around that (RFC 6066 11.1, RFC 9110
15.5.20; the Gateway API asks for it, Istio routes the request). Stands only where a listener has several servers.
"""

from __future__ import annotations

from collections.abc import Callable

from meshproxy.filters.chain import Filter
from meshproxy.message.ports import InFlight
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Verdict
from meshproxy.model.security import ServerTls
from meshproxy.policy.replies import local_reply
from meshproxy.policy.routes import bare_host

__all__ = ["misdirected"]


def misdirected(server_of: Callable[[str], ServerTls | None]) -> Filter:
    """``server_of``: the server that a name means. A host that is nobody's is left to the routes."""

    def judge(exchange: InFlight, now: float) -> Verdict:
        secured = exchange.secured
        if secured is None:
            return None
        wanted = server_of(bare_host(exchange.request.authority).decode("latin-1"))
        if wanted is None or wanted is server_of(secured.sni):
            return None
        return local_reply(Reason.MISDIRECTED)

    return judge
