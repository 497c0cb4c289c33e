"""A question about a request, put to another service while the request is parked: a filter's ``Ask``. Quiet.

In: the parked exchange, its body as far as the question wants it. Out: one call of ``resume`` with the filter's verdict on the
answer, or none after ``cancel``. The question goes out as one try through the service's own cluster: its pool, its TLS, its
limits and its outlier detection are those of any other request there. It is asked once; there are no retries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshproxy.exchange.attempt import Attempt
from meshproxy.exchange.nobody import NOBODY
from meshproxy.exchange.replay import Replay
from meshproxy.message.head import Headers, RequestHead, ResponseHead, remove
from meshproxy.message.ports import Cancel, Dice, Downstream
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.verdict import Answer, Ask, Verdict
from meshproxy.policy.replies import plain_reply

if TYPE_CHECKING:
    from meshproxy.exchange.exchange import Exchange

__all__ = ["Call"]

_MOST = 1 << 20  # bytes of an answer; a longer one is no answer


class _Plain:
    """The route of a question: nothing is tried again."""

    name = "question"
    raw = False
    retry = None


class _Side:
    """The listener of a question, which counts no tries for the service (``attempt``: ``x-envoy-attempt-count``)."""

    name = "question"
    direction = "inbound"
    intercepted = False


_PLAIN = _Plain()
_SIDE = _Side()


class Call:
    """An ``Owner`` of one try. ``hungry``: it waits for more of the request's body."""

    __slots__ = (
        "_answer",
        "_ask",
        "_attempt",
        "_body",
        "_exchange",
        "_over",
        "_resume",
        "_size",
        "_timer",
        "compiled",
        "corridor",
        "dice",
        "downstream",
        "hungry",
        "listener",
        "local",
        "own",
        "record",
        "replay",
        "request",
        "request_ended",
        "set_cookie",
        "source",
        "tried",
    )

    request: RequestHead
    record: ExchangeRecord

    def __init__(self, exchange: Exchange, ask: Ask, resume: Callable[[Verdict, float], None]) -> None:
        self._exchange = exchange
        self._ask = ask
        self._resume = resume
        self._attempt: Attempt | None = None
        self._answer: ResponseHead | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._timer: Cancel | None = None
        self._over = False
        self.compiled: Any = _PLAIN
        self.corridor = exchange.corridor
        self.dice: Dice = exchange.corridor.dice
        self.downstream: Downstream = NOBODY
        self.listener: Any = _SIDE
        self.local: tuple[str, int] | None = None
        self.own: Any = None
        self.replay: Replay | None = None
        self.request_ended = True
        self.set_cookie: bytes | None = None
        self.source = exchange.source
        self.tried: tuple[Any, ...] = ()
        self.hungry = ask.body > 0

    def feed(self, now: float) -> None:
        """Begin, or go on: ask as soon as there is enough of the body."""
        exchange = self._exchange
        ask = self._ask
        replay = exchange.replay
        size = replay.size if replay is not None else 0
        if self.hungry:
            if not ask.partial and (size > ask.body or exchange.request.length > ask.body):
                self._over = True
                too_large = plain_reply(413, b"Payload Too Large", detail="request_payload_too_large")
                self._resume(too_large, now)
                return
            if not exchange.request_ended and size <= ask.body:
                self._invite()
                return
            self.hungry = False
        body = b"".join(replay.chunks) if ask.body and replay is not None else b""
        partial = len(body) > ask.body
        self._start(body[: ask.body], partial, now)

    def _invite(self) -> None:
        """The client waits for a 100 before it sends the body, which the app cannot give yet (RFC 9110 section 10.1.1)."""
        request = self._exchange.request
        if request.expect:
            remove(request.headers, b"expect")
            self._exchange.downstream.send_informational(100, [])  # the codec lets one out

    def _start(self, body: bytes, partial: bool, now: float) -> None:
        ask = self._ask
        if ask.cluster is None:
            self._end(None, now)
            return
        self.request = ask.request(self._exchange, body, partial)
        self.record = ExchangeRecord(self.listener, now, now + self.corridor.wall_offset)
        if body:
            self.replay = Replay(len(body))
            self.replay.add(body)
            self.replay.end([])
        self._timer = self.corridor.timers.later(ask.timeout, self._late)
        self._attempt = attempt = Attempt(self, ask.cluster)
        attempt.start(now)

    def _late(self) -> None:
        self._timer = None
        now = self.corridor.timers.now()
        if self._attempt is not None:
            self._attempt.timed_out(now)
        self._end(None, now)

    def cancel(self) -> None:
        """The request is over before its answer came."""
        self._leave(self.corridor.timers.now())

    def _leave(self, now: float) -> None:
        self._over = True
        if self._timer is not None:
            self._timer()
            self._timer = None
        attempt = self._attempt
        if attempt is not None:
            self._attempt = None
            attempt.leave(now)

    def _end(self, answer: Answer | None, now: float) -> None:
        if self._over:
            return
        self._leave(now)
        self._resume(self._ask.judge(self._exchange, answer), now)

    # -- what the try tells (Owner)

    def fail(self, reason: Reason, now: float, failure: str = "") -> None:
        self._end(None, now)

    def retry_after_status(self, head: ResponseHead, now: float) -> bool:
        return False

    def upstream_failed(self, reason: Reason, failure: str, request_started: bool, now: float) -> None:
        self._end(None, now)

    def respond(self, head: ResponseHead, end: bool, now: float) -> None:
        self._answer = head
        if end:
            self._complete(now)

    def respond_data(self, data: bytes, end: bool, now: float) -> None:
        self._size += len(data)
        if self._size > _MOST:
            self._end(None, now)
            return
        self._body.append(data)
        if end:
            self._complete(now)

    def respond_end(self, trailers: Headers, now: float) -> None:
        self._complete(now)

    def tunnel(self, head: ResponseHead, now: float) -> None:
        self._end(None, now)

    def sent(self) -> None:
        self.replay = None

    def _complete(self, now: float) -> None:
        head = self._answer
        assert head is not None
        self._end(Answer(head.status, head.headers, b"".join(self._body)), now)
