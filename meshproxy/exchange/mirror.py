"""A copy of a request, sent for its own sake: fire and forget, the response is thrown away (Istio: HTTPMirrorPolicy). Quiet.

A mirror is an exchange whose client is nobody: it has no filters, no retries, and nothing observes it. It leaves when the whole
request is in the replay (semantics A1); a body over the replay's limit is not mirrored.
"""

from __future__ import annotations

from typing import Any

from meshproxy.exchange.corridor import Corridor
from meshproxy.exchange.exchange import Exchange
from meshproxy.exchange.nobody import NOBODY
from meshproxy.exchange.replay import Replay
from meshproxy.message.head import RequestHead
from meshproxy.message.record import ExchangeRecord

__all__ = ["mirror", "shadow"]


def shadow(authority: bytes) -> bytes:
    """``host:port`` -> ``host-shadow:port``, as Envoy marks mirrored requests."""
    host, colon, port = authority.partition(b":") if not authority.startswith(b"[") else (authority, b"", b"")
    return host + b"-shadow" + colon + port


class _Choice:
    __slots__ = ("cluster", "name")

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.name = cluster.name


class _Route:
    """What an exchange asks of its route, for a mirror. ``timeout``: the mirrored request's (Envoy: Router, shadow options)."""

    __slots__ = ("timeout",)
    name = "mirror"
    retry = None
    raw = False
    mirrors = ()
    choices = ()

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout


class _Listener:
    """The mirrored request's listener without its response hooks, which would speak to the client."""

    __slots__ = ("direction",)
    response_hooks = ()

    def __init__(self, direction: str) -> None:
        self.direction = direction


def mirror(origin: Exchange, cluster: Any, request: RequestHead, now: float) -> None:
    """Start a copy of ``origin``'s request, of which ``request`` is a head of its own taken before the first try."""
    replay = origin.replay
    if replay is not None and replay.spent:
        return
    request.authority = shadow(request.authority)
    corridor = origin.corridor
    quiet = Corridor(corridor.slot, corridor.timers, corridor.dice, NOBODY, corridor.pool_of, mirror, corridor.wall_offset)
    exchange = Exchange(quiet, NOBODY, origin.source, None, None)
    exchange.request = request
    exchange.listener = _Listener(origin.listener.direction)
    exchange.record = ExchangeRecord(exchange.listener, now, now + corridor.wall_offset)
    exchange.request_ended = True
    if replay is not None:
        copy = Replay(replay.limit)
        copy.chunks = list(replay.chunks)
        copy.end(list(replay.trailers))
        exchange.replay = copy
    exchange.choice = _Choice(cluster)
    exchange.compiled = _Route(origin.compiled.timeout)
    exchange.route_known = True
    exchange.forward(now)
