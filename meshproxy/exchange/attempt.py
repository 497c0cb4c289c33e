"""One try of one request: pick an endpoint, get a connection, send, hear the response. Quiet.

In: the pool's answer (``Waiter``) and the client codec's events (``ResponseSink``). Out: calls of the exchange. An attempt
that was left hears nothing more: its connection's sink is gone or it no longer waits, so a stale try cannot touch its
exchange.
"""

from __future__ import annotations

from typing import Any, Protocol

from meshproxy.exchange.drain import DRAIN_LIMIT, Drain
from meshproxy.exchange.replay import Replay
from meshproxy.message.head import CHUNKED, Headers, RequestHead, ResponseHead
from meshproxy.message.ports import Cancel, Dice, Downstream
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord

__all__ = ["Attempt", "Owner"]

_FIRST = (b"x-envoy-attempt-count", b"1")


class Owner(Protocol):
    """The exchange, as its tries see it."""

    corridor: Any
    compiled: Any
    dice: Dice
    local: tuple[str, int] | None
    downstream: Downstream
    listener: Any
    record: ExchangeRecord
    replay: Replay | None
    request: RequestHead
    request_ended: bool
    set_cookie: bytes | None
    source: str
    tried: tuple[Any, ...]

    def fail(self, reason: Reason, now: float, failure: str = "") -> None: ...
    def retry_after_status(self, head: ResponseHead, now: float) -> bool: ...
    def upstream_failed(self, reason: Reason, failure: str, request_started: bool, now: float) -> None: ...
    def respond(self, head: ResponseHead, end: bool, now: float) -> None: ...
    def respond_data(self, data: bytes, end: bool, now: float) -> None: ...
    def respond_end(self, trailers: Headers, now: float) -> None: ...
    def tunnel(self, head: ResponseHead, now: float) -> None: ...
    def sent(self) -> None: ...


class Attempt:
    """``sending``: the head went out and body data may follow. ``continued``: a 100 was passed on, so no retry (semantics
    B2.6).
    """

    __slots__ = (
        "cluster",
        "complete",
        "connection",
        "continued",
        "counted",
        "drainable",
        "endpoint",
        "exchange",
        "pool",
        "responded",
        "sending",
        "timer",
    )

    def __init__(self, exchange: Owner, cluster: Any) -> None:
        self.exchange = exchange
        self.cluster = cluster
        self.endpoint: Any = None
        self.pool: Any = None
        self.connection: Any = None
        self.sending = False
        self.counted = False
        self.continued = False
        self.responded = False
        self.complete = False
        self.drainable = False
        self.timer: Cancel | None = None

    @property
    def authority(self) -> bytes:
        """The host that the request is for, where a connection depends on it."""
        return self.exchange.request.authority

    # -- the way out

    def start(self, now: float) -> None:
        exchange = self.exchange
        cluster = self.cluster
        record = exchange.record
        record.attempts += 1
        key = None
        if cluster.hashed:
            key, exchange.set_cookie = cluster.hash_key(exchange.request, exchange.source, exchange.dice)
        if cluster.passthrough and exchange.listener.intercepted:
            endpoint = cluster.original(exchange.local, now)
        else:
            endpoint = cluster.pick(exchange.request, exchange.source, exchange.tried, now, exchange.dice, key)
        if endpoint is None:
            exchange.fail(Reason.NO_HEALTHY_UPSTREAM, now)
            return
        limits = cluster.limits
        if not limits.try_request():
            exchange.fail(Reason.OVERFLOW, now)
            return
        self.counted = True
        self.endpoint = record.endpoint = endpoint
        endpoint.active += 1
        retry = exchange.compiled.retry
        if retry is not None and retry.per_try_timeout:
            self.timer = exchange.corridor.timers.later(retry.per_try_timeout, self._per_try)
        if exchange.compiled.raw:
            pool = self.pool = exchange.corridor.line_of(cluster, endpoint)
        else:
            pool = self.pool = endpoint.pool or exchange.corridor.pool_of(cluster, endpoint)
        connection = pool.acquire(self, now)
        if connection is None:
            return
        if connection is Reason.OVERFLOW:
            self.pool = None
            exchange.fail(Reason.OVERFLOW, now)
            return
        self.on_leased(connection, now)

    def on_leased(self, connection: Any, now: float) -> None:
        exchange = self.exchange
        self.pool = None
        self.connection = connection
        connection.begin(self)
        record = exchange.record
        record.upstream_started = now
        record.upstream_local = connection.local
        record.upstream_secured = connection.secured
        request = exchange.request
        codec = connection.codec
        codec.start(self, request.method)
        most = self.cluster.config.pool.max_requests_per_connection
        if most and connection.served >= most:
            codec.last = True  # semantics B3.3: the endpoint is told that this is the connection's last request
        self.sending = True
        if request.method == b"CONNECT":
            codec.start_tunnel()
            exchange.tunnel(ResponseHead(200, []), now)
            if exchange.compiled.raw:
                codec.listened(now)
            return
        if exchange.listener.direction != "inbound":  # the app must see its caller's count, not its own sidecar's
            headers = request.headers
            for name, _ in headers:
                if name == b"x-envoy-attempt-count":
                    headers[:] = [pair for pair in headers if pair[0] != b"x-envoy-attempt-count"]
                    break
            headers.append(_FIRST if record.attempts == 1 else (b"x-envoy-attempt-count", b"%d" % record.attempts))
        replay = exchange.replay
        if replay is None:
            codec.send_head(request, exchange.request_ended)
            return
        codec.send_head(request, False)
        for chunk in replay.chunks:
            codec.send_data(chunk, False)
        if replay.ended:
            if replay.trailers:
                codec.send_trailers(replay.trailers)
            else:
                codec.send_data(b"", True)
        exchange.sent()

    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self.pool = None
        if reason is Reason.EGRESS_REFUSED or reason is Reason.LOOP_DETECTED:
            self.exchange.fail(reason, now)
            return
        self.exchange.record.upstream_secured = None
        self._report(504 if reason is Reason.CONNECT_TIMEOUT else 503, now)
        text = "" if reason is Reason.CONNECT_TIMEOUT else failure
        self.exchange.upstream_failed(reason, text, False, now)

    def _per_try(self) -> None:
        self.timer = None
        now = self.exchange.corridor.timers.now()
        self.timed_out(now)
        self.exchange.upstream_failed(Reason.PER_TRY_TIMEOUT, "", self.sending, now)

    def timed_out(self, now: float) -> None:
        """The endpoint did not answer in time: it counts as a 504 of its own making (semantics B1.2)."""
        if self.endpoint is not None and not self.responded:
            self._report(504, now)

    def _report(self, status: int, now: float) -> None:
        self.cluster.report(self.endpoint, status, True, now)

    # -- the way back (ResponseSink)

    def on_informational(self, status: int, headers: Headers, now: float) -> None:
        if status == 100:
            self.continued = True
        self.exchange.downstream.send_informational(status, headers)

    def on_response_head(self, head: ResponseHead, end: bool, now: float) -> None:
        exchange = self.exchange
        exchange.record.first_upstream_byte = now
        status = head.status
        self.cluster.report(self.endpoint, status, False, now)
        self.complete = end
        if not end:
            self.drainable = exchange.request_ended and (head.length == CHUNKED or 0 < head.length <= DRAIN_LIMIT)
        if status == 101:
            if not exchange.request_ended:  # it would read the rest of the request's body as the new protocol
                exchange.upstream_failed(Reason.UPSTREAM_PROTOCOL_ERROR, "", True, now)
                return
            self.responded = True
            self.connection.codec.start_tunnel()
            exchange.tunnel(head, now)
            return
        if exchange.retry_after_status(head, now):
            return
        self.responded = True
        if self.timer is not None:
            self.timer()
            self.timer = None
        exchange.respond(head, end, now)

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        if end:
            self.complete = True
        self.exchange.respond_data(data, end, now)

    def on_response_end(self, trailers: Headers, now: float) -> None:
        self.complete = True
        self.exchange.respond_end(trailers, now)

    def on_response_flush(self, now: float) -> None:
        self.exchange.downstream.flush()

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        if not self.responded:
            self._report(502 if reason is Reason.UPSTREAM_PROTOCOL_ERROR else 503, now)
        # A handshake that was refused is told of with the first request, which nobody has looked at then.
        self.exchange.upstream_failed(reason, self.connection.failure, reason is not Reason.CONNECT_FAILURE, now)

    def on_upstream_blocked(self, blocked: bool) -> None:
        """The endpoint reads slowly (True) or has caught up: stop or go on reading from the client."""
        downstream = self.exchange.downstream
        downstream.pause_reading() if blocked else downstream.resume_reading()

    # -- the end

    def leave(self, now: float) -> None:
        """Give back what this try holds. An unfinished response is drained if little of it can be left, else cut off."""
        if self.timer is not None:
            self.timer()
            self.timer = None
        if self.counted:
            self.counted = False
            self.cluster.limits.release_request()
            self.endpoint.active -= 1
        if self.pool is not None:
            self.pool.cancel(self)
            self.pool = None
        connection = self.connection
        if connection is None:
            return
        self.connection = None
        self.sending = False
        if connection.blocked:
            self.exchange.downstream.resume_reading()
        codec = connection.codec
        if self.complete and codec.reusable:
            connection.end(True)
        elif self.drainable and not self.responded and not self.complete:
            codec.free_reading()
            connection.begin(Drain(connection))
        else:
            codec.abandon()
            connection.end(False)
