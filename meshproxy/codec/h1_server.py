"""Room 3, codec: the server machine, one per client connection. Sans-io; implements ``message.ports.Downstream``.

In: bytes, EOF and loss from the listener; a response from the exchange. Out: calls of a RequestSink (one per request, opened when
its head is there), bytes to the Wire. Assumes one thread, and that a sink may answer, in whole or in part, from within its own
callback.

One request at a time: what a client pipelines waits here, bounded, until the exchange before it has ended. Reading (here)
and writing (``h1_response``) are two small machines that meet when the response ends: then the next cycle starts, or the
connection closes.
"""

from __future__ import annotations

from collections.abc import Callable

from meshproxy.codec import h1_write
from meshproxy.codec.h1_body import ChunkedReader
from meshproxy.codec.h1_guard import check_partial, check_request
from meshproxy.codec.h1_head import recognise_request
from meshproxy.codec.h1_response import ENDED, NOTHING, RAW, ResponseHalf
from meshproxy.codec.h1_rules import H1Limits
from meshproxy.codec.h1_strange import read_request
from meshproxy.codec.wire import Wire
from meshproxy.message.head import RequestHead
from meshproxy.message.ports import RequestSink
from meshproxy.message.reason import Reason

__all__ = ["ServerCodec"]

# Reading. HEAD: between requests or within a head; LENGTH, CHUNKED: within a body; COMPLETE: the request is here, its response
# is not; FAILED: the body was malformed, what follows means nothing; TUNNEL: raw; LINGER: answered, what comes is thrown away
# so that the client gets to see the answer instead of a reset (RFC 9112 section 9.6); CLOSED.
_HEAD, _LENGTH, _CHUNKED, _COMPLETE, _FAILED, _TUNNEL, _LINGER, _CLOSED = range(8)

_LIMITS = H1Limits()


def _unheard(reason: Reason, detail: str, now: float) -> None:
    pass


class ServerCodec(ResponseHalf):
    """See the module. ``draining``: every response from now on says ``connection: close``, and the connection closes after it.

    open_exchange: gives the sink of the next request. on_refused: told of every request refused here, before any exchange.
    clock: the time for a request that had waited in the pipeline; without it the time of the last read is taken.
    """

    __slots__ = (
        "_blocked",
        "_body",
        "_clock",
        "_ending",
        "_left",
        "_limits",
        "_now",
        "_on_refused",
        "_open",
        "_pipeline_held",
        "_reading",
        "_server_name",
        "_thrown",
        "head_since",
        "requests",
    )

    def __init__(
        self,
        transport: Wire,
        open_exchange: Callable[[ServerCodec], RequestSink],
        *,
        limits: H1Limits = _LIMITS,
        server_name: bytes = b"meshproxy",
        on_refused: Callable[[Reason, str, float], None] = _unheard,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(transport)
        self._open = open_exchange
        self._limits = limits
        self._server_name = server_name
        self._on_refused = on_refused
        self._clock = clock
        self._now = 0.0
        self._reading = _HEAD
        self._left = 0  # body bytes to come; in HEAD: how far the pending head was looked at
        self._body: ChunkedReader | None = None
        self._pipeline_held = False
        self._thrown = 0
        self._blocked = False  # pause_writing
        self._ending = False  # timed_out once while closing
        self.requests = 0
        self.head_since = 0.0

    # -- from the connection

    def feed(self, data: bytes, now: float) -> None:
        """Bytes from the client. ``now``: the loop's clock, seconds."""
        self._now = now
        reading = self._reading
        if reading == _HEAD and not self._pending:
            self._run(data, now)
        elif reading == _LENGTH:
            if len(data) < self._left:  # the usual case within a large body: the same object goes on
                self._left -= len(data)
                self._sink.on_request_data(data, False, now)  # type: ignore[union-attr]
            else:
                self._run(data, now)
        elif reading == _HEAD:
            if self._blocked:
                self._wait(data)
            else:
                self._pending += data
                self._more_head(now)
        elif reading == _CHUNKED:
            self._run(data, now)
        elif reading == _COMPLETE:
            self._wait(data)
        elif reading == _TUNNEL:
            self._sink.on_request_data(data, False, now)  # type: ignore[union-attr]
        elif reading == _LINGER:
            self._thrown += len(data)
            if self._thrown > self._limits.linger:
                self._shut_now()

    def feed_eof(self, now: float) -> None:
        """The client has finished sending. A request that is complete still gets its answer (semantics B8.12)."""
        self._now = now
        if self._eof:
            return
        self._eof = True
        reading = self._reading
        sink = self._sink
        if reading == _TUNNEL:
            over = self._mode == ENDED
            if over:
                self._sink = None
            if sink is not None:
                sink.on_request_end([], now)
            if over:
                self._shut_now()
        elif reading in (_LENGTH, _CHUNKED):
            self._cut_short(now)
        elif reading == _LINGER or (reading == _HEAD and not self._blocked):
            self._shut_now()

    def closed(self, now: float) -> None:
        """The connection is gone."""
        sink = self._sink
        self._sink = None
        self._reading = _CLOSED
        self._pending.clear()
        self._held = None
        if sink is not None:
            sink.on_downstream_closed(now)

    def timed_out(self, now: float) -> None:
        """``waiting_for_head`` has been true for too long. A head: 408. An end that the client does not let happen: abort, but
        only the second time, because an end may have begun long after ``head_since``."""
        if self._reading == _HEAD:
            if self._sink is None and self._pending:
                self._refuse(Reason.REQUEST_TIMEOUT, Reason.REQUEST_TIMEOUT.detail, now)
        elif self._reading in (_LINGER, _CLOSED):
            if self._ending:
                self._reading = _CLOSED
                self._transport.abort()
            self._ending = True
            self.head_since = now

    @property
    def idle(self) -> bool:
        """No request in flight, nothing of one here, and the connection is not about to close."""
        return self._reading == _HEAD and self._sink is None and not self._pending

    @property
    def waiting_for_head(self) -> bool:
        """The client owes something that the listener should time, since ``head_since``: the rest of a head, or taking what was
        written before the connection closes."""
        reading = self._reading
        return reading in (_LINGER, _CLOSED) or (reading == _HEAD and bool(self._pending))

    # -- reading

    def _run(self, data: bytes, now: float) -> None:
        """Read as far as ``data`` goes. It is all there is: nothing is pending.

        The one loop of the data path (micro_codec: server): its inlined states are measured, not taste.
        """
        self._running = True
        limits = self._limits
        while data:
            reading = self._reading
            if reading == _HEAD:
                if self._blocked:
                    self.head_since = now
                    self._pending += data
                    break
                found = recognise_request(data, limits.head, limits.headers)
                if found is None:
                    found = self._strange(data, now)
                    if found is None:
                        break
                head, end = found
                head.size = end
                self.requests += 1
                self._request = head
                self._mode = NOTHING
                self._continued = False
                sink = self._sink = self._open(self)
                data = data[end:]
                length = head.length
                if length == 0:
                    self._reading = _COMPLETE
                    self._whole = True
                    sink.on_request_head(head, True, now)
                    continue
                if length > 0:
                    self._left = length
                    self._reading = _LENGTH
                    self._whole = len(data) >= length
                else:
                    self._body = ChunkedReader(limits)
                    self._reading = _CHUNKED
                    self._whole = False
                sink.on_request_head(head, False, now)
                if self._reading == _HEAD:  # answered at once, with the whole body in hand: step over it
                    data = data[length:]
            elif reading == _LENGTH:
                left = self._left
                size = len(data)
                if size < left:
                    self._left = left - size
                    self._sink.on_request_data(data, False, now)  # type: ignore[union-attr]
                    break
                body = data
                if size > left:
                    body = data[:left]
                    data = data[left:]
                else:
                    data = b""
                self._reading = _COMPLETE
                self._whole = True
                self._sink.on_request_data(body, True, now)  # type: ignore[union-attr]
            elif reading == _CHUNKED:
                data = self._coded(data, now)
            elif reading == _COMPLETE:
                self._pending += data
                break
            elif reading == _TUNNEL:
                self._sink.on_request_data(data, False, now)  # type: ignore[union-attr]
                break
            else:  # FAILED, LINGER, CLOSED: what follows means nothing
                break
        self._running = False
        if self._eof:  # it came before these bytes were read
            if self._reading in (_LENGTH, _CHUNKED):
                self._cut_short(now)
            elif self._reading == _TUNNEL and self._sink is not None:
                self._sink.on_request_end([], now)
            elif self._reading == _HEAD and not self._blocked:
                self._shut_now()

    def _cut_short(self, now: float) -> None:
        """The client has ended within a request's body."""
        sink = self._sink
        self._sink = None
        self._shut_now()
        if sink is not None:
            sink.on_downstream_closed(now)

    def _wait(self, data: bytes) -> None:
        """Bytes that may not be read yet: the exchange before them is open, or the client does not take what was written."""
        self._pending += data
        if len(self._pending) > self._limits.pipelined and not self._pipeline_held:
            self._pipeline_held = True
            self.pause_reading()

    def _coded(self, data: bytes, now: float) -> bytes:
        """One read of a chunked body; gives what follows the body."""
        body = self._body
        sink = self._sink
        assert body is not None and sink is not None
        decoded = body.read(data)
        if body.fault is not None:
            if decoded:
                sink.on_request_data(decoded, False, now)
            if self._sink is sink:
                self._reading = _FAILED
                sink.on_request_error(body.fault[0], now)
        elif body.done:
            self._body = None
            if decoded and not body.trailers:
                self._reading = _COMPLETE
                self._whole = True
                sink.on_request_data(decoded, True, now)
                return body.rest
            if decoded:
                sink.on_request_data(decoded, False, now)
            if self._sink is sink and self._reading == _CHUNKED:
                self._reading = _COMPLETE
                self._whole = True
                sink.on_request_end(body.trailers, now)
            return body.rest
        elif decoded:
            sink.on_request_data(decoded, False, now)
        return b""

    def _more_head(self, now: float) -> None:
        """The pending head has grown."""
        pending = self._pending
        if pending.find(b"\r\n\r\n", max(0, self._left - 3)) >= 0:
            self._left = 0
            data = bytes(pending)
            pending.clear()
            self._run(data, now)
            return
        fault = check_partial(pending, self._left, self._limits)
        if fault is not None:
            self._refuse(*fault, now)
            return
        self._left = len(pending)

    def _strange(self, data: bytes, now: float) -> tuple[RequestHead, int] | None:
        """A head that was declined: incomplete (it waits), wrong (it is refused), or one for h11."""
        skipped = 0
        if data[:2] == b"\r\n":  # RFC 9112 section 2.2: one empty line before the request line is forgiven
            skipped = 2
        end = data.find(b"\r\n\r\n", skipped)
        if end < 0:
            self.head_since = now
            self._left = 0
            fault = check_partial(data, 0, self._limits)
            if fault is not None:
                self._refuse(*fault, now)
            else:
                self._left = len(data)
                self._pending += data
            return None
        head = data[skipped : end + 4]
        fault = check_request(head, self._limits)
        if fault is None:
            read = read_request(head)
            if isinstance(read, RequestHead):
                return read, end + 4
            fault = read
        self._refuse(*fault, now)
        return None

    def _refuse(self, reason: Reason, detail: str, now: float) -> None:
        """Answer a request that never became one, then let go of the connection so that the client can see the answer."""
        self._transport.write(h1_write.refusal(reason, self._server_name))
        self.requests += 1
        self._linger()
        self._on_refused(reason, detail, now)

    # -- from the exchange (the rest of it is in ResponseHalf)

    def reset(self) -> None:
        """The response cannot be completed: abort the connection."""
        self._sink = None
        self._held = None
        self._pending.clear()
        if self._reading != _CLOSED:
            self._reading = _CLOSED
            self._transport.abort()

    def start_tunnel(self) -> None:
        """After a 101 or a CONNECT's 2xx went out: bytes are raw both ways; what has come already goes to the sink."""
        if self._sink is None or self._reading == _CLOSED:
            return
        if not self._whole:  # the other side stopped reading HTTP before the request had ended
            self.reset()
            return
        self._reading = _TUNNEL
        self._mode = RAW
        self._release_pipeline()
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            self._sink.on_request_data(data, False, self._now)
        if self._eof and self._sink is not None and not self._running:  # else ``_run`` has more bytes for it
            self._sink.on_request_end([], self._now)

    def pause_writing(self) -> None:
        """The client does not take what was written: no further request is read until ``resume_writing`` (a client that only
        sends would otherwise have its answers pile up here)."""
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self._reading == _HEAD and not self._running:
            self._next()

    # -- the end of a cycle

    def _release_pipeline(self) -> None:
        if self._pipeline_held:
            self._pipeline_held = False
            self.resume_reading()

    def _respond_end(self) -> None:
        """The response is out."""
        if self._mode == RAW:  # our half of the tunnel is done; the client's may go on
            self._mode = ENDED
            self._transport.write_eof()
            if self._eof:
                self._sink = None
                self._shut_now()
            return
        self._sink = None
        self._request = None
        self._body = None
        reading = self._reading
        if reading == _CLOSED:
            return
        if self._close:
            if reading == _COMPLETE and not self._pending:
                self._shut_now()
            else:
                self._linger()
            return
        self._reading = _HEAD
        self._left = 0
        if not self._running:
            self._next()

    def _next(self) -> None:
        """Go on with what has waited."""
        pending = self._pending
        if self._blocked:
            return
        if pending:
            now = self._clock() if self._clock is not None else self._now
            data = bytes(pending)
            pending.clear()
            self._release_pipeline()
            self._run(data, now)
        elif self._eof:
            self._shut_now()

    def _shut_now(self) -> None:
        self._reading = _CLOSED
        self._pending.clear()
        self.head_since = self._now
        self._transport.close()

    def _linger(self) -> None:
        """The client may still be sending; closing now could make its kernel throw our answer away (RFC 9112 section 9.6)."""
        self._pending.clear()
        if self._eof:
            self._shut_now()
            return
        self._reading = _LINGER
        self._thrown = 0
        self.head_since = self._now
        self._transport.write_eof()
        if self._holds:
            self._holds = 0
            self._transport.resume_reading()
