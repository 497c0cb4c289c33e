"""The relay, quiet: one client connection whose bytes are not HTTP, from its first byte to the end of both sides.

In: the client's bytes, end and loss, by the calls that a ``listener.downstream`` makes of its codec; the endpoint's, as a
``ResponseSink``; the sweep. Out: bytes on both connections, one ``StreamRecord`` to the observer. Assumes a chain that was chosen
already, and a client that is who TLS says.

``begin`` judges (policies, route, endpoint, limits) and dials; nothing is sent before. Then bytes go on as the same objects. Each
side's end is passed on (half-close) and the relay is over when both have ended; a loss on one side is a reset on the other.
``finish`` runs exactly once on every path.

Source: Envoy's tcp_proxy (one connect attempt; idle timeout over both directions) and its RBAC network filter.
"""

from __future__ import annotations

from typing import Any, Protocol

from meshproxy.codec.peer_exchange import PEER_EXCHANGE
from meshproxy.message.head import Headers, RequestHead, ResponseHead
from meshproxy.message.reason import Reason
from meshproxy.message.record import StreamRecord
from meshproxy.message.secured import Secured

__all__ = ["Client", "Relay"]

_NEW, _DIALING, _JOINED, _DONE = range(4)
_HOLD = 64 * 1024  # bytes of a client that are taken in before an endpoint is there
_LINGER = 60.0  # seconds for one that has ended and does not read what is left
_TELL = 5.0  # seconds between reports of a connection that goes on (Istio: tcp_reporting_duration)
_GRACE = 0.5  # seconds without a byte after which a connection that may stay no longer is cut
_LEAVE = 45.0  # seconds after which it is cut in any case (Istio: drainDuration)
_NO_REQUEST = RequestHead(b"", b"", b"", [])


class Client(Protocol):
    """The client's connection (listener/streams.py). ``cut``: close it so that the client sees a reset."""

    transport: Any
    source: str
    remote: tuple[str, int] | None
    local: tuple[str, int] | None
    last_activity: float

    def cut(self) -> None: ...


class Relay:
    """``listener``: the compiled view of the chain. ``local``: where the client meant to go. ``sni``: of TLS that is passed on.

    The names that policies ask for are an ``InFlight``'s; its request is empty.
    """

    __slots__ = (
        "_ended",
        "_evicted",
        "_blocked",
        "_held",
        "_holding",
        "_over",
        "_told",
        "client",
        "connection",
        "corridor",
        "counted",
        "draining",
        "endpoint",
        "line",
        "listener",
        "local",
        "record",
        "secured",
        "sni",
        "source",
        "state",
    )

    waiting_for_head = False
    requests = 1
    head_since = 0.0
    request = _NO_REQUEST

    def __init__(self, corridor: Any, client: Client, secured: Secured | None = None, sni: str = "") -> None:
        self.draining = False  # nobody is told here
        self.corridor = corridor
        self.client = client
        self.secured = secured
        self.sni = sni
        self.state = _NEW
        self.listener: Any = None
        self.line: Any = None
        self.connection: Any = None
        self.endpoint: Any = None
        self.counted: Any = None  # the cluster whose endpoint counts us
        self.local: tuple[str, int] | None = None
        self.source = ""
        self.record: Any = None
        self._held: list[bytes] = []
        self._holding = 0
        self._ended = False  # the client's end has come
        self._over = False  # the endpoint's has
        self._blocked = False  # the client reads slowly
        self._told = 0.0
        self._evicted = 0.0

    # -- the walk

    def begin(self, now: float) -> None:
        """Judge, choose, dial."""
        corridor, client = self.corridor, self.client
        self.listener = listener = corridor.slot.current
        self.local = local = client.local
        self.source = client.source
        self.record = record = StreamRecord(listener, now, now + corridor.wall_offset, client.remote, local, self.sni)
        record.secured = self.secured
        told = self.secured.workload if self.secured is not None else None
        record.peer = told or listener.peer(self.source)
        self._told = now
        if listener.admit is not None and not self._allowed(listener.admit):
            self.refuse(Reason.RBAC_DENIED, now)
            return
        address = local[0] if local is not None else ""
        route = listener.streams.choose(self.sni or (self.secured.sni if self.secured is not None else ""), address)
        if route is None:
            self.refuse(Reason.NO_ROUTE, now)
            return
        record.route_name = route.name
        name, cluster, _ = route.single if route.single is not None else route.pick(corridor.dice())
        record.cluster_name = name
        if cluster is None:
            self.refuse(Reason.NO_CLUSTER, now)
            return
        record.service = cluster.service
        self._dial(cluster, now)

    def _allowed(self, admit: Any) -> bool:
        """Fails closed: what an authoriser would have to be asked about cannot be asked about bytes."""
        record = self.record
        decisions = admit(self)
        record.decisions = decisions
        for decision in decisions:
            if not decision.allowed and not decision.dry_run:
                record.reason = decision.detail
                return False
        return True

    def _dial(self, cluster: Any, now: float) -> None:
        corridor, local = self.corridor, self.local
        if cluster.passthrough and self.listener.direction != "gateway":  # whose callers meant the gateway itself
            endpoint = cluster.original(local, now)
        else:
            endpoint = cluster.pick(_NO_REQUEST, self.source, (), now, corridor.dice)
        if endpoint is None:
            self.refuse(Reason.NO_HEALTHY_UPSTREAM, now)
            return
        self.endpoint = self.record.endpoint = endpoint
        self.record.attempts = 1
        endpoint.active += 1
        self.counted = cluster
        self.state = _DIALING
        line = self.line = corridor.line_of(cluster, endpoint)
        if line.acquire(self, now) is Reason.OVERFLOW:
            self.refuse(Reason.OVERFLOW, now)

    # -- the endpoint (Waiter, ResponseSink)

    def on_leased(self, connection: Any, now: float) -> None:
        self.state = _JOINED
        self.line = None
        self.connection = connection
        record = self.record
        record.upstream_started = now
        record.upstream_local = connection.local
        record.upstream_secured = connection.secured
        self.counted.report(self.endpoint, 200, False, now)
        connection.begin(self)
        codec = connection.codec
        codec.start(self)
        for data in self._held:
            codec.send_data(data, False)
        self._held = []
        if self._holding > _HOLD and not connection.blocked:
            self.client.transport.resume_reading()
        self._holding = 0
        if self._ended:
            codec.send_trailers([])
        codec.listened(now)

    def on_dial_failed(self, reason: Reason, failure: str, now: float) -> None:
        self.line = None
        record = self.record
        record.transport_failure = failure
        if reason is not Reason.EGRESS_REFUSED and reason is not Reason.LOOP_DETECTED:
            self.counted.report(self.endpoint, 504 if reason is Reason.CONNECT_TIMEOUT else 503, True, now)
            record.flag(Reason.RETRY_EXHAUSTED)  # Envoy says so of its one attempt
        self.refuse(reason, now)

    def on_response_data(self, data: bytes, end: bool, now: float) -> None:
        client = self.client
        client.last_activity = now
        self.record.body_sent += len(data)
        client.transport.write(data)

    def on_response_end(self, trailers: Headers, now: float) -> None:
        """The endpoint has said all."""
        if self._over or self.state == _DONE:
            return
        self._over = True
        if self._ended:
            self.finish(now)
        else:
            self.client.transport.write_eof()

    def on_response_flush(self, now: float) -> None:
        pass

    def on_informational(self, status: int, headers: Headers, now: float) -> None:
        pass  # not of bytes

    def on_response_head(self, head: ResponseHead, end: bool, now: float) -> None:
        pass

    def on_upstream_failed(self, reason: Reason, now: float) -> None:
        """The endpoint was lost: the client must not take what it has for all there was."""
        if self.state == _DONE:
            return
        record = self.record
        if self._over and self._ended:
            self.finish(now)
            return
        record.transport_failure = self.connection.failure
        if reason is Reason.CONNECT_FAILURE:  # it refused our certificate after all
            self.counted.report(self.endpoint, 503, True, now)
        record.flag(reason)
        self.client.cut()
        self.finish(now)

    def on_upstream_blocked(self, blocked: bool) -> None:
        transport = self.client.transport
        transport.pause_reading() if blocked else transport.resume_reading()

    # -- the client (what a ``Downstream`` calls its codec)

    @property
    def idle(self) -> bool:
        return self.state == _DONE

    def feed(self, data: bytes, now: float) -> None:
        if self.state == _JOINED:
            self.record.body_received += len(data)
            self.connection.codec.send_data(data, False)
        elif self.state != _DONE:
            self.record.body_received += len(data)
            self._held.append(data)
            before = self._holding
            self._holding += len(data)
            if before <= _HOLD < self._holding:
                self.client.transport.pause_reading()

    def feed_eof(self, now: float) -> None:
        """The client has said all; its answer may still come."""
        if self._ended or self.state == _DONE:
            return
        self._ended = True
        if self.state == _JOINED:
            self.connection.codec.send_trailers([])
            if self._over:
                self.finish(now)

    def closed(self, now: float) -> None:
        """The client is gone: reset, or cut by us."""
        if self.state in (_NEW, _DONE):
            return
        if not self.record.reason:
            self.record.flag(Reason.DOWNSTREAM_GONE)
        self._cut_endpoint()
        self.finish(now)

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._blocked = True
        if self.connection is not None:
            self.connection.codec.pause_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        if self.connection is not None:
            self.connection.codec.resume_reading()

    def timed_out(self, now: float) -> None:
        pass  # no head is owed

    # -- time

    def sweep(self, now: float) -> None:
        """Every half second: timeouts, reports."""
        if self.state in (_NEW, _DONE):
            return
        client, record = self.client, self.record
        quiet = now - client.last_activity
        idle = self.listener.idle_timeout
        connection = self.connection
        if idle and quiet >= idle:
            self._end("tcp_session_idle_timeout", now)
        elif connection is not None and connection.expires and now >= connection.expires:
            self._end("max_connection_duration_reached", now)
        elif self._evicted and (quiet >= _GRACE or now - self._evicted >= _LEAVE):
            self._end("configuration_changed", now)
        elif self.state == _JOINED and (now - self._told >= _TELL or (record.told is None and self._introduced)):
            self._told = now
            if record.told != (record.body_received, record.body_sent):
                self.corridor.observer.streamed(record, now, False)

    @property
    def _introduced(self) -> bool:
        """Whether the endpoint has told who it is, if it will: metrics wait for that (as Istio's do)."""
        secured = self.record.upstream_secured
        return secured is None or secured.alpn != PEER_EXCHANGE or secured.workload is not None

    def evict(self, now: float) -> None:
        """It could not come in any more."""
        if not self._evicted:
            self._evicted = now

    def expel(self, why: str, now: float) -> None:
        """It is cut by us, at once."""
        if self.state in (_NEW, _DONE):
            self.client.cut()
        else:
            self._end(why, now)

    def broken(self, now: float) -> None:
        """The client's TLS has failed, or its end was cut off: the endpoint must not take it for an end."""
        if self.state in (_NEW, _DONE):
            return
        self.record.flag(Reason.DOWNSTREAM_GONE)
        self._cut_endpoint()
        self.client.transport.abort()
        self.finish(now)

    # -- the end

    def refuse(self, reason: Reason, now: float) -> None:
        """It goes no further: reset."""
        record = self.record
        record.flag(reason)
        if reason is Reason.NO_ROUTE and self.listener.direction == "outbound":
            record.cluster_name = "BlackHoleCluster"
        if not record.reason and not reason.flag:
            record.reason = reason.detail
        self.client.cut()
        self.finish(now)

    def _end(self, why: str, now: float) -> None:
        self.record.reason = why
        self._cut_endpoint()
        self.client.cut()
        self.finish(now)

    def _cut_endpoint(self) -> None:
        if self.connection is not None:
            self.connection.cut()

    def finish(self, now: float) -> None:
        """Give everything back, close both, tell the observer."""
        self.state = _DONE
        record = self.record
        if self.line is not None:
            self.line.cancel(self)
            self.line = None
        if self.counted is not None:
            self.endpoint.active -= 1
            self.counted = None
        later = self.corridor.timers.later
        connection = self.connection
        if connection is not None:
            self.connection = None
            if connection.blocked:
                later(_LINGER, connection.transport.abort)
            connection.end(False)
        self._held = []
        if self._blocked:
            later(_LINGER, self.client.transport.abort)
        self.client.transport.close()
        record.ended = now
        self.corridor.observer.streamed(record, now, True)
