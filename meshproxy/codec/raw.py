"""Room 3, codec: plain bytes towards an endpoint, with the face of ``ClientCodec``. Sans-io; a ``message.ports.Upstream``.

In: bytes to send; bytes, EOF and loss from the connection. Out: calls of a ResponseSink (data, end, failure: no heads here),
bytes to the Wire. A server may speak before anybody listens: what it says then is kept, and it is not read any further.

``metadata``: of a mesh peer with ``istio-peer-exchange``, what we say first; its own answer is taken out of what it sends.
"""

from __future__ import annotations

from meshproxy.codec.peer_exchange import PeerReader
from meshproxy.codec.wire import CountedReading, Wire
from meshproxy.message.head import Headers
from meshproxy.message.ports import ResponseSink
from meshproxy.message.reason import Reason
from meshproxy.message.secured import Secured

__all__ = ["RawCodec"]


class RawCodec(CountedReading):
    """``reusable``: never said of a connection that has served; True until then, as of a fresh one."""

    __slots__ = ("_early", "_end_sent", "_ended", "_peer", "_secured", "_wire", "last", "reusable", "sink")

    tunnel = True

    def __init__(self, transport: Wire, metadata: bytes = b"", secured: Secured | None = None) -> None:
        super().__init__(transport)
        self._wire = transport
        self.sink: ResponseSink | None = None
        self.last = False
        self.reusable = True
        self._early: list[bytes] = []
        self._ended = False  # the endpoint's end has come
        self._end_sent = False
        self._secured = secured
        self._peer: PeerReader | None = None
        if metadata:
            self._peer = PeerReader()
            transport.write(metadata)

    # -- from the relay

    def start(self, sink: ResponseSink, method: bytes = b"") -> None:
        self.sink = sink
        self.reusable = False

    def start_tunnel(self) -> None:
        """The sink listens from now on; ``listened`` gives it what came before."""

    def listened(self, now: float) -> None:
        early, self._early = self._early, []
        if early:
            self.resume_reading()
        sink = self.sink
        for data in early:
            if sink is not None:
                sink.on_response_data(data, False, now)
        if self._ended and sink is not None:
            sink.on_response_end([], now)

    def send_data(self, data: bytes, end: bool) -> None:
        if data and not self._end_sent:
            self._wire.write(data)
        if end:
            self.send_trailers([])

    def send_trailers(self, trailers: Headers) -> None:
        """The client's end: half-close."""
        if not self._end_sent:
            self._end_sent = True
            self._wire.write_eof()

    def abandon(self) -> None:
        """Nobody listens any more. Where our end went out already, it is flushed first."""
        self.sink = None
        self._wire.close() if self._end_sent else self._wire.abort()

    # -- from the connection

    def feed(self, data: bytes, now: float) -> None:
        if self._peer is not None:
            rest = self._peer.feed(data)
            if rest is None:
                return
            peer, self._peer = self._peer, None
            if self._secured is not None:
                self._secured.tells(peer.workload)
            if peer.broken:
                self.closed(now, Reason.UPSTREAM_PROTOCOL_ERROR)
                self._wire.abort()
                return
            if not rest:
                return
            data = rest
        if self.sink is None:
            if not self._early:
                self.pause_reading()
            self._early.append(data)
        else:
            self.sink.on_response_data(data, False, now)

    def feed_eof(self, now: float) -> None:
        if not self._ended:
            self._ended = True
            if self.sink is not None:
                self.sink.on_response_end([], now)

    def closed(self, now: float, reason: Reason = Reason.UPSTREAM_TERMINATION) -> None:
        """The connection is gone."""
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.on_upstream_failed(reason, now)
