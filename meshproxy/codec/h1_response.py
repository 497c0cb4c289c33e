"""Room 3, codec: the writing half of the server machine: a response's way out. Sans-io; ``h1_server`` is the reading half.

In: the response verbs of ``message.ports.Downstream``. Out: bytes to the Wire, framed for this client: whose HTTP version, whose
request method, and whether the connection can go on decide what the head says. Assumes one response per request; verbs that come
after its end, or after the connection's, do nothing.
"""

from __future__ import annotations

from meshproxy.codec import h1_write
from meshproxy.codec.h1_rules import BODYLESS
from meshproxy.codec.wire import CountedReading, Wire
from meshproxy.message.head import Headers, RequestHead, ResponseHead
from meshproxy.message.ports import RequestSink

__all__ = ["ENDED", "NOTHING", "RAW", "ResponseHalf"]

# Writing. NOTHING: no head yet; ENDED: our half of a tunnel is over; COUNTED: content-length; CODED: chunked; BARE: until close;
# EMPTY: no body by nature; RAW: a tunnel.
NOTHING, ENDED, _COUNTED, _CODED, _BARE, _EMPTY, RAW = range(7)


class ResponseHalf(CountedReading):
    """What both halves see. The reading half sets ``_request``, ``_whole``, ``_eof``, ``_pending``; see there."""

    __slots__ = (
        "_close",
        "_continued",
        "_eof",
        "_held",
        "_mode",
        "_out_left",
        "_pending",
        "_request",
        "_running",
        "_sink",
        "_whole",
        "draining",
    )

    def __init__(self, transport: Wire) -> None:
        super().__init__(transport)
        self._sink: RequestSink | None = None
        self._request: RequestHead | None = None
        self._whole = False  # the request is complete, or all of its body is in hand
        self._pending = bytearray()  # a head that has not ended, or what is pipelined
        self._eof = False
        self._running = False  # the reading half is on the stack; a cycle that ends goes on there
        self._mode = NOTHING
        self._held: bytes | None = None  # a response head that waits for its first data
        self._out_left = 0
        self._close = False  # this response ends the connection
        self._continued = False
        self.draining = False

    def _respond_end(self) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def send_informational(self, status: int, headers: Headers) -> None:
        """A 1xx goes out at once: one 100 and only to who asked for it, none to HTTP/1.0 (RFC 9110 section 15.2)."""
        request = self._request
        if self._sink is None or request is None or self._mode != NOTHING or request.version < 11:
            return
        if status == 100:
            if self._continued or not request.expect:
                return
            self._continued = True
        self._transport.write(h1_write.informational(status, headers))

    def send_head(self, head: ResponseHead, end: bool) -> None:
        """Held back until data, the end or ``flush``, unless it is the end already."""
        request = self._request
        if self._sink is None or request is None or self._mode != NOTHING:
            return
        status = head.status
        length = head.length
        close = (
            self.draining
            or request.close
            or head.close
            or not self._whole  # an early answer: Envoy closes too, nobody waits for the rest of the request
            or (self._eof and not self._pending and not self._running)
        )
        tail = b"\r\n"
        if status == 101:
            self._mode = RAW
            tail = b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % (head.upgrade or request.upgrade)
        elif request.method == b"CONNECT" and 200 <= status < 300:
            self._mode = RAW
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
        elif self._mode == RAW:
            self._transport.write(out)
        else:
            self._held = out

    def send_data(self, data: bytes, end: bool) -> None:
        """Body bytes, framed as the head said. More or fewer than it promised resets the connection."""
        mode = self._mode
        if self._sink is None or mode <= ENDED:
            return
        if mode == _COUNTED:
            left = self._out_left = self._out_left - len(data)
            if left < 0 or (end and left):
                self.reset()
                return
        elif mode == _CODED:
            before = self._held or b""
            self._held = None
            h1_write.put_chunk(self._transport.write, before, data, end)
            if end:
                self._respond_end()
            return
        elif mode == _EMPTY:
            data = b""
        held = self._held
        if held is not None:
            self._held = None
            if len(data) <= h1_write.JOIN:
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
