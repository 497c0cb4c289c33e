"""Room 3, codec: the server machine, one per client connection. Sans-io; implements ``message.ports.Downstream``.

In: bytes, EOF and loss from the listener; a response from the exchange. Out: calls of a RequestSink (one per request, opened when
its head is there), bytes to the Wire. Assumes one thread, and that a sink may answer, in whole or in part, from within its own
callback.

One request at a time: what a client pipelines waits here, bounded, until the exchange before it has ended. Reading and writing
are two small machines that meet when the response ends: then the next cycle starts, or the connection closes.
"""

from __future__ import annotations

from collections.abc import Callable

from meshproxy.codec import h1_write
from meshproxy.codec.h1_body import ChunkedReader
from meshproxy.codec.h1_guard import check_partial, check_request
from meshproxy.codec.h1_head import recognise_request
from meshproxy.codec.h1_rules import BODYLESS, H1Limits
from meshproxy.codec.h1_strange import read_request
from meshproxy.codec.wire import Wire
from meshproxy.message.head import Headers, RequestHead, ResponseHead
from meshproxy.message.ports import RequestSink
from meshproxy.message.reason import Reason

__all__ = ["ServerCodec"]

# Reading. HEAD: between requests or within a head; LENGTH, CHUNKED: within a body; COMPLETE: the request is here, its response
# is not; FAILED: the body was malformed, what follows means nothing; TUNNEL: raw; LINGER: answered, what comes is thrown away
# so that the client gets to see the answer instead of a reset (RFC 9112 section 9.6); CLOSED.
_HEAD, _LENGTH, _CHUNKED, _COMPLETE, _FAILED, _TUNNEL, _LINGER, _CLOSED = range(8)

# Writing. NOTHING: no head yet; COUNTED: content-length; CODED: chunked; BARE: until close; BODYLESS; RAW: a tunnel.
_NOTHING, _COUNTED, _CODED, _BARE, _EMPTY, _RAW = range(6)

_JOIN = 16384  # bytes of body up to which copying it behind its head is cheaper than a second write

_LIMITS = H1Limits()


def _unheard(reason: Reason, detail: str, now: float) -> None:
    pass


class ServerCodec:
    """See the module. ``draining``: every response from now on says ``connection: close``, and the connection closes after it.

    open_exchange: gives the sink of the next request. on_refused: told of every request refused here, before any exchange.
    clock: the time for a request that had waited in the pipeline; without it the time of the last read is taken.
    """

    __slots__ = (
        "_body",
        "_clock",
        "_close",
        "_continued",
        "_eof",
        "_held",
        "_holds",
        "_in_hand",
        "_left",
        "_limits",
        "_mode",
        "_now",
        "_on_refused",
        "_open",
        "_out_left",
        "_pending",
        "_pipeline_held",
        "_reading",
        "_request",
        "_running",
        "_server_name",
        "_sink",
        "_thrown",
        "_transport",
        "draining",
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
        self._transport = transport
        self._open = open_exchange
        self._limits = limits
        self._server_name = server_name
        self._on_refused = on_refused
        self._clock = clock
        self._now = 0.0
        self._sink: RequestSink | None = None
        self._request: RequestHead | None = None
        self._reading = _HEAD
        self._pending = bytearray()  # a head that has not ended, or what is pipelined
        self._left = 0  # body bytes to come; in HEAD: how far the pending head was looked at
        self._body: ChunkedReader | None = None
        self._in_hand = False  # the whole body came with the head, so that an early answer costs no connection
        self._running = False  # _run is on the stack; a cycle that ends goes on there
        self._eof = False
        self._mode = _NOTHING
        self._held: bytes | None = None  # a response head that waits for its first data
        self._out_left = 0
        self._close = False
        self._continued = False
        self._holds = 0  # who wants reading paused
        self._pipeline_held = False
        self._thrown = 0
        self.draining = False
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
            self._pending += data
            self._more_head(now)
        elif reading == _CHUNKED:
            self._run(data, now)
        elif reading == _COMPLETE:
            self._pending += data
            if len(self._pending) > self._limits.pipelined and not self._pipeline_held:
                self._pipeline_held = True
                self.pause_reading()
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
            if self._mode == _NOTHING:
                self._shut_now()
            if sink is not None:
                sink.on_request_end([], now)
        elif reading in (_LENGTH, _CHUNKED):
            self._sink = None
            self._shut_now()
            if sink is not None:
                sink.on_downstream_closed(now)
        elif reading in (_HEAD, _LINGER) and not self._running:
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
        """A head took too long: 408. A connection that lingers closes."""
        if self._reading == _LINGER:
            self._shut_now()
        elif self._reading == _HEAD and self._sink is None:
            self._refuse(Reason.REQUEST_TIMEOUT, Reason.REQUEST_TIMEOUT.detail, now)

    @property
    def idle(self) -> bool:
        """No request in flight and nothing of one here."""
        return self._sink is None and self._reading in (_HEAD, _CLOSED) and not self._pending

    @property
    def waiting_for_head(self) -> bool:
        """A head has begun and not ended, or the connection lingers; since ``head_since``."""
        return self._reading == _LINGER or (self._reading == _HEAD and bool(self._pending))

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
                found = recognise_request(data, limits.head, limits.headers)
                if found is None:
                    found = self._strange(data, now)
                    if found is None:
                        break
                head, end = found
                self.requests += 1
                self._request = head
                self._mode = _NOTHING
                self._continued = False
                sink = self._sink = self._open(self)
                length = head.length
                if length == 0:
                    self._reading = _COMPLETE
                    data = data[end:]
                    sink.on_request_head(head, True, now)
                    continue
                if length > 0:
                    self._left = length
                    self._reading = _LENGTH
                    self._in_hand = len(data) - end >= length
                else:
                    self._body = ChunkedReader(limits)
                    self._reading = _CHUNKED
                data = data[end:]
                sink.on_request_head(head, False, now)
                if self._in_hand:
                    self._in_hand = False
                    if self._sink is not sink and self._reading == _HEAD:  # answered early; step over the body
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
        if self._eof and self._reading == _HEAD:
            self._shut_now()

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
                sink.on_request_data(decoded, True, now)
                return body.rest
            if decoded:
                sink.on_request_data(decoded, False, now)
            if self._sink is sink and self._reading == _CHUNKED:
                self._reading = _COMPLETE
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
        body = reason.body
        self._transport.write(
            b"%b\r\ncontent-length: %d\r\ncontent-type: text/plain\r\nserver: %b\r\nconnection: close\r\n\r\n%b"
            % (h1_write.status_line(reason.status, b""), len(body), self._server_name, body)
        )
        self.requests += 1
        self._linger()
        self._on_refused(reason, detail, now)

    # -- from the exchange

    def send_informational(self, status: int, headers: Headers) -> None:
        """A 1xx goes out at once: one 100 and only to who asked for it, none to HTTP/1.0 (RFC 9110 section 15.2)."""
        request = self._request
        if self._sink is None or request is None or self._mode != _NOTHING or request.version < 11:
            return
        if status == 100:
            if self._continued or not request.expect:
                return
            self._continued = True
        self._transport.write(h1_write.informational(status, headers))

    def send_head(self, head: ResponseHead, end: bool) -> None:
        """Held back until data, the end or ``flush``, unless it is the end already."""
        request = self._request
        if self._sink is None or request is None or self._mode != _NOTHING:
            return
        status = head.status
        length = head.length
        reading = self._reading
        close = (
            self.draining
            or request.close
            or head.close
            or (reading != _COMPLETE and not self._in_hand)  # early answer: Envoy closes too, nobody waits for the rest
            or (self._eof and not self._pending)
        )
        tail = b"\r\n"
        if status == 101:
            self._mode = _RAW
            tail = b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % (head.upgrade or request.upgrade)
        elif request.method == b"CONNECT" and 200 <= status < 300:
            self._mode = _RAW
        else:
            if status in BODYLESS or request.method == b"HEAD":
                self._mode = _EMPTY
            elif length >= 0:
                self._mode = _COUNTED
                self._out_left = length
            elif request.version == 11:
                self._mode = _CODED
                tail = b"transfer-encoding: chunked\r\n\r\n"
            else:
                self._mode = _BARE
                close = True
            if close:
                tail = b"connection: close\r\n" + tail
            elif request.version < 11:
                tail = b"connection: keep-alive\r\n" + tail
            self._close = close
        out = h1_write.fields(h1_write.status_line(status, head.reason), head.headers, tail)
        if self._mode == _COUNTED and b"\r\ncontent-length: " not in out:
            out = b"%bcontent-length: %d\r\n\r\n" % (out[:-2], length)
        if end:
            if self._mode == _CODED:
                out += h1_write.LAST_CHUNK
            elif self._mode == _COUNTED and length:
                self.reset()  # a head that promises what will not come
                return
            self._transport.write(out)
            self._respond_end()
        elif self._mode == _RAW:
            self._transport.write(out)
        else:
            self._held = out

    def send_data(self, data: bytes, end: bool) -> None:
        """Body bytes, framed as the head said. More or fewer than it promised resets the connection."""
        mode = self._mode
        if self._sink is None or mode == _NOTHING:
            return
        if mode == _COUNTED:
            left = self._out_left = self._out_left - len(data)
            if left < 0 or (end and left):
                self.reset()
                return
        elif mode == _CODED:
            data = h1_write.chunk(data)
            if end:
                data += h1_write.LAST_CHUNK
        elif mode == _EMPTY:
            data = b""
        held = self._held
        if held is not None:
            self._held = None
            if len(data) <= _JOIN:
                data = held + data
            else:
                self._transport.write(held)
        if data:
            self._transport.write(data)
        if end:
            self._respond_end()

    def send_trailers(self, trailers: Headers) -> None:
        """End the message. Trailers travel only in the chunked coding; elsewhere they are dropped (RFC 9110 section 6.5.1)."""
        if self._mode == _CODED and self._sink is not None:
            out = h1_write.last_chunk(trailers)
            if self._held is not None:
                out = self._held + out
                self._held = None
            self._transport.write(out)
            self._respond_end()
        else:
            self.send_data(b"", True)

    def flush(self) -> None:
        """Write a head that is held back."""
        held = self._held
        if held is not None:
            self._held = None
            self._transport.write(held)

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
        self._reading = _TUNNEL
        self._mode = _RAW
        self._release_pipeline()
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            self._sink.on_request_data(data, False, self._now)
        if self._eof and self._sink is not None:
            self._sink.on_request_end([], self._now)

    def pause_reading(self) -> None:
        """Counted: reading goes on when everyone who paused it has resumed it."""
        self._holds += 1
        if self._holds == 1 and self._reading not in (_LINGER, _CLOSED):
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._holds:
            self._holds -= 1
            if self._holds == 0 and self._reading != _CLOSED:
                self._transport.resume_reading()

    # -- the end of a cycle

    def _release_pipeline(self) -> None:
        if self._pipeline_held:
            self._pipeline_held = False
            self.resume_reading()

    def _respond_end(self) -> None:
        """The response is out."""
        if self._mode == _RAW:  # our half of the tunnel is done; the client's may go on
            self._transport.write_eof()
            if self._eof:
                self._sink = None
                self._shut_now()
            self._mode = _NOTHING
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
        if self._running:
            return
        pending = self._pending
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
