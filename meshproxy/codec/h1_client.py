"""Room 3, codec: the client machine, one per upstream connection. Sans-io; implements ``message.ports.Upstream``.

In: a request from an attempt; bytes, EOF and loss from the connection. Out: calls of a ResponseSink, bytes to the Wire. Assumes
one request at a time: ``start`` begins a cycle when the one before has ended with ``reusable`` true. ``sink`` may be exchanged
for another at any time (a response that is no longer wanted is drained by someone else).

The call that ends a message is the last thing done in ``feed``: from within it the connection may be leased and started again.
``on_response_flush`` is left to the caller of ``feed``, who knows when a read has ended.
"""

from __future__ import annotations

from typing import Protocol

from meshproxy.codec import h1_write
from meshproxy.codec.h1_body import ChunkedReader
from meshproxy.codec.h1_guard import check_partial_response, check_response
from meshproxy.codec.h1_head import recognise_response
from meshproxy.codec.h1_rules import Fault, H1Limits
from meshproxy.codec.h1_strange import read_response
from meshproxy.codec.wire import CountedReading, Wire
from meshproxy.message.head import CHUNKED, Headers, RequestHead, ResponseHead
from meshproxy.message.ports import ResponseSink
from meshproxy.message.reason import Reason

__all__ = ["ClientCodec"]

# IDLE: no cycle; HEAD: a response is due; LENGTH, CHUNKED, UNTIL_CLOSE: within its body; SWITCHED: a 101 or CONNECT's 2xx came,
# start_tunnel did not yet; TUNNEL: raw; DEAD: abandoned, failed or closed.
_IDLE, _HEAD, _LENGTH, _CHUNKED, _UNTIL_CLOSE, _SWITCHED, _TUNNEL, _DEAD = range(8)

_LIMITS = H1Limits()


class Greeting(Protocol):
    """Header lines, each with its CRLF; another object when they have changed, and then they are said again."""

    lines: bytes


class ClientCodec(CountedReading):
    """See the module.

    reusable: another cycle may start. last: set it before ``send_head`` to say ``connection: close`` with that request.
    """

    __slots__ = (
        "_body",
        "_coded",
        "_eof_sent",
        "_greeted",
        "_greeting",
        "_informational",
        "_left",
        "_limits",
        "_method",
        "_now",
        "_peer_closes",
        "_pending",
        "_reading",
        "_sent",
        "_upgrade",
        "last",
        "reusable",
        "sink",
    )

    def __init__(self, transport: Wire, *, limits: H1Limits = _LIMITS, greeting: Greeting | None = None) -> None:
        """greeting: what the connection's first request also says."""
        super().__init__(transport)
        self._limits = limits
        self.sink: ResponseSink | None = None
        self._reading = _IDLE
        self._pending = bytearray()  # a head that has not ended, or the first bytes of a tunnel
        self._left = 0  # body bytes to come; in HEAD: how far the pending head was looked at
        self._body: ChunkedReader | None = None
        self._method = b""
        self._upgrade = False
        self._coded = False  # the request goes out chunked
        self._sent = False
        self._eof_sent = False
        self._peer_closes = False
        self._informational = 0
        self._now = 0.0  # when a protocol switch was seen
        self._greeting = greeting
        self._greeted = b""
        self.last = False
        self.reusable = True

    # -- from the attempt

    def start(self, sink: ResponseSink, method: bytes = b"") -> None:
        """Begin a cycle. ``method`` may be left to ``send_head``."""
        self.sink = sink
        self._method = method
        self._reading = _HEAD
        self._coded = False
        self._sent = False
        self._peer_closes = False
        self._upgrade = False
        self._informational = 0
        self.reusable = False

    def send_head(self, head: RequestHead, end: bool) -> None:
        """Write the head at once: a client that expects a 100, or is slow with its body, must not hold it up."""
        if self._reading == _DEAD:
            return
        self._method = head.method
        self._upgrade = bool(head.upgrade)
        coded = self._coded = head.length == CHUNKED
        if self.last:
            self._peer_closes = True
        out = h1_write.request(head, self.last)
        if self._greeting is not None and self._greeted is not (lines := self._greeting.lines):
            self._greeted = lines
            out = out[:-2] + lines + b"\r\n"
        if end:
            self._sent = True
            if coded:
                out += h1_write.LAST_CHUNK
        self._transport.write(out)

    def send_data(self, data: bytes, end: bool) -> None:
        if self._reading == _DEAD or self._reading == _IDLE:
            return
        if self._reading == _TUNNEL:
            if data:
                self._transport.write(data)
            if end:
                self._finish_tunnel()
            return
        if self._coded:
            h1_write.put_chunk(self._transport.write, b"", data, end)
        elif data:
            self._transport.write(data)
        if end:
            self._sent = True

    def send_trailers(self, trailers: Headers) -> None:
        """End the message. Trailers travel only in the chunked coding."""
        if self._coded and self._reading not in (_DEAD, _IDLE, _TUNNEL):
            self._transport.write(h1_write.last_chunk(trailers))
            self._sent = True
        else:
            self.send_data(b"", True)

    def abandon(self) -> None:
        """The answer is no longer wanted: the connection goes. A tunnel whose way out has ended is flushed first."""
        self.sink = None
        self.reusable = False
        if self._reading != _DEAD:
            self._die()
            if self._eof_sent:
                self._transport.close()
            else:
                self._transport.abort()

    def start_tunnel(self) -> None:
        """Bytes are raw both ways from here: after a 101 or CONNECT's 2xx, or at once on a connection of its own."""
        if self._reading == _DEAD:
            return
        self._reading = _TUNNEL
        self.reusable = False
        if self._pending and self.sink is not None:
            data = bytes(self._pending)
            self._pending.clear()
            self.sink.on_response_data(data, False, self._now)

    @property
    def tunnel(self) -> bool:
        return self._reading == _TUNNEL

    # -- from the connection

    def feed(self, data: bytes, now: float) -> None:
        """Bytes from the endpoint. ``now``: the loop's clock, seconds."""
        reading = self._reading
        if reading == _HEAD:
            if self._pending:
                self._more_head(data, now)
            else:
                self._read_head(data, now)
        elif reading == _LENGTH:
            left = self._left
            size = len(data)
            if size < left:  # the usual case within a large body: the same object goes on
                self._left = left - size
                self.sink.on_response_data(data, False, now)  # type: ignore[union-attr]
            else:
                self._end_of_length(data, left, now)
        elif reading == _CHUNKED:
            self._read_chunked(data, now)
        elif reading in (_UNTIL_CLOSE, _TUNNEL):
            self.sink.on_response_data(data, False, now)  # type: ignore[union-attr]
        elif reading == _SWITCHED:
            self._pending += data
            if len(self._pending) > self._limits.pipelined:
                self._fail(Reason.UPSTREAM_PROTOCOL_ERROR, now)
        elif reading == _IDLE:  # nobody asked: the next response could be this one's forgery
            self.reusable = False
            self._die()
            self._transport.close()

    def feed_eof(self, now: float) -> None:
        """The endpoint has finished sending."""
        reading = self._reading
        sink = self.sink
        self.reusable = False
        if reading == _TUNNEL:
            if sink is not None:
                sink.on_response_end([], now)
            return
        if reading == _DEAD:
            return
        self._die()
        self._transport.close()
        if sink is not None:
            if reading == _UNTIL_CLOSE:
                sink.on_response_end([], now)
            elif reading != _IDLE:
                sink.on_upstream_failed(Reason.UPSTREAM_TERMINATION, now)

    def closed(self, now: float, reason: Reason = Reason.UPSTREAM_TERMINATION) -> None:
        """The connection is gone. Without an EOF before, a body that would have ended with it is cut short."""
        reading = self._reading
        sink = self.sink
        self.reusable = False
        self._die()
        if sink is not None and reading not in (_IDLE, _DEAD):
            sink.on_upstream_failed(reason, now)

    # -- reading

    def _read_head(self, data: bytes, now: float) -> None:
        """A response starts at the start of ``data``."""
        method = self._method
        limits = self._limits
        while True:
            found = recognise_response(data, method, limits.head, limits.headers)
            if found is None:
                found = self._strange(data, now)
                if found is None:
                    return
            head, end = found
            head.size = end
            data = data[end:]
            status = head.status
            if status >= 200 or status == 101:
                break
            self._informational += 1
            if self._informational > limits.informational:
                self._fail(Reason.UPSTREAM_PROTOCOL_ERROR, now)
                return
            self.sink.on_informational(status, head.headers, now)  # type: ignore[union-attr]
            if self._reading != _HEAD or not data:
                return
        if head.close:  # this connection's own affair: the head that travels on does not close the client's
            self._peer_closes = True
            head.close = False
        if status == 101:
            if not self._upgrade:
                self._fail(Reason.UPSTREAM_PROTOCOL_ERROR, now)
                return
            self._switch(head, data, now)
            return
        length = head.length
        if length == 0:
            if method == b"CONNECT" and status < 300:
                self._switch(head, data, now)
                return
            self._end(data)
            self.sink.on_response_head(head, True, now)  # type: ignore[union-attr]
            return
        if length > 0:
            self._left = length
            self._reading = reading = _LENGTH
            if length == len(data):  # the usual small answer, all in one read (micro_codec: one GET)
                self.sink.on_response_head(head, False, now)  # type: ignore[union-attr]
                if self._reading == _LENGTH:
                    self._reading = _IDLE
                    self.reusable = self._sent and not self._peer_closes
                    self.sink.on_response_data(data, True, now)  # type: ignore[union-attr]
                return
        elif length == CHUNKED:
            self._reading = reading = _CHUNKED
            self._body = ChunkedReader(limits)
        else:
            self._reading = reading = _UNTIL_CLOSE
        self.sink.on_response_head(head, False, now)  # type: ignore[union-attr]
        if data and self._reading == reading:
            self.feed(data, now)

    def _switch(self, head: ResponseHead, data: bytes, now: float) -> None:
        self._reading = _SWITCHED
        self._now = now
        self.sink.on_response_head(head, False, now)  # type: ignore[union-attr]
        if data and self._reading != _DEAD:
            self.feed(data, now)

    def _end_of_length(self, data: bytes, left: int, now: float) -> None:
        rest = b""
        if len(data) > left:
            rest = data[left:]
            data = data[:left]
        self._end(rest)
        self.sink.on_response_data(data, True, now)  # type: ignore[union-attr]

    def _read_chunked(self, data: bytes, now: float) -> None:
        body = self._body
        assert body is not None
        decoded = body.read(data)
        if body.fault is not None:
            if decoded:
                self.sink.on_response_data(decoded, False, now)  # type: ignore[union-attr]
            if self._reading == _CHUNKED:
                self._fail(Reason.UPSTREAM_PROTOCOL_ERROR, now)
        elif not body.done:
            if decoded:
                self.sink.on_response_data(decoded, False, now)  # type: ignore[union-attr]
        elif decoded and not body.trailers:
            self._end(body.rest)
            self.sink.on_response_data(decoded, True, now)  # type: ignore[union-attr]
        else:
            if decoded:
                self.sink.on_response_data(decoded, False, now)  # type: ignore[union-attr]
                if self._reading != _CHUNKED:
                    return
            self._end(body.rest)
            self.sink.on_response_end(body.trailers, now)  # type: ignore[union-attr]

    def _more_head(self, data: bytes, now: float) -> None:
        pending = self._pending
        pending += data
        if pending.find(b"\r\n\r\n", max(0, self._left - 3)) >= 0:
            self._left = 0
            whole = bytes(pending)
            pending.clear()
            self._read_head(whole, now)
            return
        fault = check_partial_response(pending, self._left, self._limits)
        if fault is not None:
            self._refuse(fault, now)
            return
        self._left = len(pending)

    def _strange(self, data: bytes, now: float) -> tuple[ResponseHead, int] | None:
        """A head that was declined: incomplete (it waits), wrong (the request fails), or one for h11."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            fault = check_partial_response(data, 0, self._limits)
            if fault is not None:
                self._refuse(fault, now)
            else:
                self._left = len(data)
                self._pending += data
            return None
        head = data[: end + 4]
        fault = check_response(head, self._limits)
        if fault is None:
            read = read_response(head, self._method)
            if isinstance(read, ResponseHead):
                return read, end + 4
            fault = read
        self._refuse(fault, now)
        return None

    def _refuse(self, fault: Fault, now: float) -> None:
        large = fault[0] is Reason.HEADERS_TOO_LARGE
        self._fail(Reason.UPSTREAM_HEADERS_TOO_LARGE if large else Reason.UPSTREAM_PROTOCOL_ERROR, now)

    # -- the end of a cycle

    def _end(self, rest: bytes) -> None:
        """The response is complete; its last call follows. Bytes behind it belong to nobody."""
        self._reading = _IDLE
        self._body = None
        self.reusable = self._sent and not self._peer_closes and not rest

    def _fail(self, reason: Reason, now: float) -> None:
        sink = self.sink
        self._die()
        self._transport.close()
        if sink is not None:
            sink.on_upstream_failed(reason, now)

    def _finish_tunnel(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._transport.write_eof()

    def _die(self) -> None:
        self._reading = _DEAD
        self.reusable = False
        self._pending.clear()
        self._body = None
