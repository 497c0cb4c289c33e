"""The corridor's walker: one request from head to ``finish``. Quiet.

In: the server codec's events (``RequestSink``), an attempt's outcome. Out: calls of the downstream codec, of attempts, one
record to the observer. Assumes that the codec opens one exchange per request and calls nothing but ``on_downstream_closed``
after the end.

The states and their legal transitions are the table in ``spec``; ``finish`` runs exactly once on every path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshproxy.exchange.answer import answer
from meshproxy.exchange.attempt import Attempt
from meshproxy.exchange.call import Call
from meshproxy.exchange.copies import drawn
from meshproxy.exchange.corridor import Corridor
from meshproxy.exchange.replay import Replay
from meshproxy.exchange.spec import BACKOFF, DONE, NEW, PARKED, RESPONDING, TRYING, TUNNEL
from meshproxy.filters.chain import run
from meshproxy.message.head import Headers, RequestHead, ResponseHead
from meshproxy.message.ports import Cancel, Downstream
from meshproxy.message.reason import Reason, reset_body
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Secured
from meshproxy.message.verdict import Ask, Reply, Verdict, Wait
from meshproxy.policy.peer_metadata import METADATA, METADATA_ID, peer_workload
from meshproxy.policy.replies import date_header, local_reply

__all__ = ["Exchange"]

# What an upstream says of these is overwritten, or is not for the client.
_METADATA = frozenset((METADATA, METADATA_ID))
_OURS = _METADATA | {b"server", b"x-envoy-upstream-service-time"}
_LOOKED_AT = _OURS | {b"date"}
_TOOK = tuple((b"x-envoy-upstream-service-time", b"%d" % number) for number in range(100))  # the usual ones, made once
_HOLD = 256 * 1024  # bytes of a body taken in before a connection is there; then the client is paused


class Exchange:
    """One request in flight."""

    __slots__ = (
        "attempt",
        "call",
        "choice",
        "compiled",
        "corridor",
        "cors_origin",
        "dice",
        "downstream",
        "held",
        "listener",
        "local",
        "mirrors",
        "record",
        "remote",
        "replay",
        "request",
        "request_ended",
        "retries",
        "route_known",
        "secured",
        "set_cookie",
        "source",
        "state",
        "timer",
        "tried",
        "vouched",
        "waiting",
    )

    request: RequestHead
    record: ExchangeRecord
    state: int
    cors_origin: bytes  # set by the CORS filter on a cross-origin request only
    vouched: Headers  # set by the ext_authz filter where the response gets headers of the authoriser's

    def __init__(
        self,
        corridor: Corridor,
        downstream: Downstream,
        source: str,
        remote: tuple[str, int] | None,
        local: tuple[str, int] | None,
        secured: Secured | None = None,
    ) -> None:
        self.corridor = corridor
        self.dice = corridor.dice
        self.downstream = downstream
        self.source = source
        self.remote = remote
        self.local = local
        self.secured = secured
        self.state = NEW
        self.attempt: Attempt | None = None
        self.replay: Replay | None = None
        self.timer: Cancel | None = None  # the route's deadline
        self.waiting: Cancel | None = None  # fault delay, retry backoff or a question
        self.call: Call | None = None  # a question under way
        self.retries = 0
        self.tried: tuple[Any, ...] = ()
        self.route_known = False
        self.compiled: Any = None
        self.choice: Any = None  # set by the route filter
        self.held = False
        self.mirrors: Any = None
        self.set_cookie: bytes | None = None

    # -- what filters ask (InFlight)

    @property
    def own(self) -> Any:
        """What peers are told of us."""
        return self.corridor.own

    @property
    def precise(self) -> Callable[[], int]:
        return self.corridor.precise

    def route(self) -> Any:
        """The route, chosen at first ask and kept (Envoy: ``cached_route_``); None: no route."""
        if not self.route_known:
            self.route_known = True
            self.compiled = self.listener.choose(self.request)
        return self.compiled

    def clear_route(self) -> None:
        """A filter changed what matching looks at."""
        self.route_known = False
        self.compiled = None

    # -- request events (RequestSink)

    def on_request_head(self, head: RequestHead, end: bool, now: float) -> None:
        corridor = self.corridor
        self.request = head
        self.request_ended = end
        self.listener = listener = corridor.slot.current
        self.record = record = ExchangeRecord(listener, now, now + corridor.wall_offset, head, self.remote, self.local)
        record.peer = listener.peer(self.source)
        record.secured = self.secured
        if not end:
            self.replay = Replay(corridor.max_replay)
        at, verdict = run(listener.chain, self, now)
        if verdict is None:
            self.forward(now)
        else:
            self._judged(at, verdict, now)

    def on_request_data(self, data: bytes, end: bool, now: float) -> None:
        size = len(data)
        record = self.record
        record.body_received += size
        record.request_size += size
        if record.grpc is not None:
            record.grpc.request(data)
        if self.state == DONE:
            return
        if end:
            self.request_ended = True
        replay = self.replay
        if replay is not None:
            replay.add(data)
            if end:
                replay.end([])
        attempt = self.attempt
        if attempt is not None and attempt.sending:
            attempt.connection.codec.send_data(data, end)
            if replay is not None and replay.spent:
                self.replay = None
        elif self.call is not None and self.call.hungry:
            self.call.feed(now)
            return
        elif replay is not None and replay.size > _HOLD and not self.held:
            self.held = True
            self.downstream.pause_reading()
        if end and self.state != PARKED:
            self._request_complete(now)

    def on_request_end(self, trailers: Headers, now: float) -> None:
        if self.state == DONE:
            return
        self.request_ended = True
        if trailers and self.listener.vouches:
            trailers = []  # what only this proxy may write could stand there, and nobody looks
        if self.replay is not None:
            self.replay.end(trailers)
        attempt = self.attempt
        if attempt is not None and attempt.sending:
            attempt.connection.codec.send_trailers(trailers)
        if self.state == PARKED:
            if self.call is not None and self.call.hungry:
                self.call.feed(now)
        elif self.state != TUNNEL:
            self._request_complete(now)
        elif attempt is not None and attempt.complete:  # the other half of the tunnel has ended already
            self.finish(now)

    def on_request_error(self, reason: Reason, now: float) -> None:
        if self.state in (RESPONDING, TUNNEL):
            self._abort(reason, now)
        elif self.state != DONE:
            self.fail(reason, now)

    def on_downstream_closed(self, now: float) -> None:
        if self.state != DONE:
            self.record.flag(Reason.DOWNSTREAM_GONE)
            self.record.detail = Reason.DOWNSTREAM_GONE.detail
            self.record.status = 0
            self.finish(now)

    def on_downstream_blocked(self, blocked: bool) -> None:
        """The client reads slowly (True) or has caught up: stop or go on reading from upstream."""
        attempt = self.attempt
        if attempt is not None and attempt.connection is not None:
            codec = attempt.connection.codec
            codec.pause_reading() if blocked else codec.resume_reading()

    # -- the walk

    def _judged(self, at: int, verdict: Verdict, now: float) -> None:
        if type(verdict) is Wait:
            self.state = PARKED
            if verdict.flag is not None:
                self.record.flag(verdict.flag)
            self.waiting = self.corridor.timers.later(verdict.seconds, lambda: self._resume(at + 1))
        elif type(verdict) is Ask:
            self.state = PARKED
            self.call = call = Call(self, verdict, lambda answer, now: self._answered(at, answer, now))
            self.waiting = call.cancel
            call.feed(now)
        elif type(verdict) is Reply:
            self.answer(verdict, now)

    def _answered(self, at: int, verdict: Verdict, now: float) -> None:
        """The question of the filter at ``at`` is settled."""
        self.call = None
        if verdict is None:
            self._go_on(at + 1, now)
        else:
            self.waiting = None
            self._judged(at, verdict, now)

    def _resume(self, at: int) -> None:
        self._go_on(at, self.corridor.timers.now())

    def _go_on(self, at: int, now: float) -> None:
        self.waiting = None
        position, verdict = run(self.listener.chain, self, now, at)
        if verdict is None:
            self.forward(now)
        else:
            self._judged(position, verdict, now)

    def forward(self, now: float) -> None:
        """The filters let it pass: the first try."""
        compiled = self.compiled
        record = self.record
        record.chosen = compiled
        record.route_name = compiled.name
        choice = self.choice
        cluster = choice.cluster
        record.cluster_name = choice.name
        if cluster is None:
            self.fail(Reason.NO_CLUSTER, now)
            return
        record.service = cluster.service
        if compiled.mirrors and self.request.method != b"CONNECT" and not self.request.upgrade:  # nobody ends a copied tunnel
            self.mirrors = drawn(compiled.mirrors, self.request, self.dice)
        if self.request_ended:
            self._request_complete(now)
        self.state = TRYING
        self.attempt = attempt = Attempt(self, cluster)
        attempt.start(now)

    def _request_complete(self, now: float) -> None:
        """The whole request is here: the route's deadline starts (semantics B2.3), mirrors go out."""
        if self.held:
            self._unhold()
        if self.compiled is not None and self.compiled.timeout and self.timer is None and self.state < RESPONDING:
            self.timer = self.corridor.timers.later(self.compiled.timeout, self._deadline)
        if self.mirrors:
            for cluster, request in self.mirrors:
                self.corridor.mirror(self, cluster, request, now)
            self.mirrors = None

    def _unhold(self) -> None:
        self.held = False
        self.downstream.resume_reading()

    def sent(self) -> None:
        """The try under way has taken all of the body that was kept."""
        if self.held:
            self._unhold()
        replay = self.replay
        if replay is not None and ((self.compiled.retry is None and not self.mirrors) or replay.spent):
            self.replay = None

    def _deadline(self) -> None:
        self.timer = None
        now = self.corridor.timers.now()
        if self.state in (RESPONDING, TUNNEL):
            self._abort(Reason.UPSTREAM_TIMEOUT, now)
            return
        if self.attempt is not None:
            self.attempt.timed_out(now)
        self.fail(Reason.UPSTREAM_TIMEOUT, now)

    # -- outcomes of a try (called by the attempt)

    def retry_after_status(self, head: ResponseHead, now: float) -> bool:
        """True when the response will not be passed on, because another try is due."""
        retry = self.compiled.retry
        if retry is None or not retry.wants_status(head.status, head.headers, self.request.method):
            return False
        return self._retry(now, head.status)

    def upstream_failed(self, reason: Reason, failure: str, request_started: bool, now: float) -> None:
        """The try ended without a complete response head: another try, or a local reply."""
        self.record.transport_failure = failure
        if self.state in (RESPONDING, TUNNEL):
            self._abort(reason, now)
            return
        retry = self.compiled.retry
        if retry is not None and retry.wants_reset(reason, request_started, False) and self._retry(now, reason):
            return
        self.fail(reason, now, failure)

    def _retry(self, now: float, why: int | Reason) -> bool:
        """Schedule another try if the policy, the body and the budget allow it. ``why``: a status, or how it failed."""
        attempt = self.attempt
        retry = self.compiled.retry
        assert attempt is not None
        if attempt.continued or not (self.replay is not None or (self.request_ended and self.record.body_received == 0)):
            return False
        if self.retries >= retry.attempts:
            self.record.flag(Reason.RETRY_EXHAUSTED)
            return False
        # One retry slot a request, held from the first retry to the end (Envoy: RetryStateImpl).
        if not self.retries and not attempt.cluster.limits.try_retry():
            self.record.flag(Reason.OVERFLOW)
            return False
        self.retries += 1
        attempt.cluster.limits.retried += 1
        if self.record.trace is not None:
            self.record.trace.tried(now, self.record.attempts, attempt.endpoint, why)
        if retry.avoid_previous_hosts:
            self.tried = (*self.tried, attempt.endpoint)
        attempt.leave(now)
        self.attempt = None
        self.state = BACKOFF
        wait = retry.backoff(self.retries, self.corridor.dice())
        cluster = attempt.cluster
        self.waiting = self.corridor.timers.later(wait, lambda: self._again(cluster))
        return True

    def _again(self, cluster: Any) -> None:
        self.waiting = None
        now = self.corridor.timers.now()
        self.state = TRYING
        self.attempt = attempt = Attempt(self, cluster)
        attempt.start(now)

    # -- the answer

    def respond(self, head: ResponseHead, end: bool, now: float) -> None:
        """Pass the upstream's response head on. The route's deadline goes on to guard the body."""
        record = self.record
        record.status = head.status
        record.response_size = head.size
        headers = head.headers
        milliseconds = int((now - record.upstream_started) * 1000)
        dated = claimed = False
        for name, _ in headers:
            if name in _LOOKED_AT:
                if name == b"date":
                    dated = True
                else:
                    claimed = True
        if claimed:
            secured = record.upstream_secured
            if secured is not None and secured.mesh:  # only there is it believed
                for name, value in headers:
                    if name == METADATA:
                        secured.tells(peer_workload(value))
            headers[:] = [pair for pair in headers if pair[0] not in _OURS]
        if not dated:  # RFC 9110 section 6.6.1: who forwards a response without a date says when it came
            headers.append(date_header(now + self.corridor.wall_offset))
        took = _TOOK[milliseconds] if milliseconds < 100 else (b"x-envoy-upstream-service-time", b"%d" % milliseconds)
        headers.append(took)
        headers.append(self.corridor.server)
        if self.set_cookie is not None:
            headers.append((b"set-cookie", self.set_cookie))
        for hook in self.listener.response_hooks:
            hook(self, head)
        record.response_headers = headers
        self.state = RESPONDING
        if end:
            self.finish(now)
        self.downstream.send_head(head, end)

    def respond_data(self, data: bytes, end: bool, now: float) -> None:
        record = self.record
        size = len(data)
        record.body_sent += size
        record.response_size += size
        if record.grpc is not None:
            record.grpc.response(data)
        if end and (self.state != TUNNEL or self.request_ended):
            self.finish(now)
        self.downstream.send_data(data, end)

    def respond_end(self, trailers: Headers, now: float) -> None:
        if self.state == TUNNEL:
            self.respond_data(b"", True, now)
            return
        if self.record.grpc is not None:
            self.record.grpc.ended(trailers)
        self.finish(now)
        self.downstream.send_trailers(trailers)

    def tunnel(self, head: ResponseHead, now: float) -> None:
        """Both sides have switched protocols: bytes both ways until both have ended."""
        record = self.record
        record.status = head.status
        head.headers[:] = [pair for pair in head.headers if pair[0] not in _METADATA]
        record.response_headers = head.headers
        if self.timer is not None:
            self.timer()
            self.timer = None
        self.state = TUNNEL
        self.request_ended = False
        self.replay = None
        self.downstream.send_head(head, False)
        self.downstream.start_tunnel()

    def fail(self, reason: Reason, now: float, failure: str = "") -> None:
        """A local reply for a reason of our own."""
        self.record.flag(reason)
        body = reset_body(reason, failure, self.retries > 0) if reason.reset else None
        self.answer(local_reply(reason, body), now)

    def answer(self, reply: Reply, now: float) -> None:
        """A local answer: a filter's, or ``fail``'s."""
        answer(self, reply, now)

    def _abort(self, reason: Reason, now: float) -> None:
        """Too late for a reply: the response is cut (semantics B4, last line)."""
        self.record.flag(reason)
        self.record.detail = reason.detail.replace("before_response_started", "after_response_started")
        self.finish(now)
        self.downstream.reset()

    def finish(self, now: float) -> None:
        """The end, once: give everything back and tell the observer.

        Called before the last bytes go out, because on them the codec may start the connection's next request.
        """
        self.state = DONE
        if self.timer is not None:
            self.timer()
            self.timer = None
        if self.waiting is not None:
            self.waiting()
            self.waiting = self.call = None
        if self.retries:
            self.choice.cluster.limits.release_retry()
        attempt = self.attempt
        if attempt is not None:
            self.attempt = None
            attempt.leave(now)
        self.replay = None
        self.mirrors = None
        if self.held:
            self._unhold()
        record = self.record
        record.ended = now
        self.corridor.observer.finished(record, now)
        if record.trace is not None and self.corridor.spans is not None:
            self.corridor.spans(record)
