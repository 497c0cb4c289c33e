"""Room 1, loud: one client connection whose bytes are not HTTP: a ``Downstream`` around a ``relay.Relay`` instead of a codec.

In: bytes and the transport's events. Out: the relay's calls. The relay begins once the connection knows where it was meant to go.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from meshproxy.codec.peer_exchange import PEER_EXCHANGE, PeerReader, preamble
from meshproxy.exchange.corridor import Corridor
from meshproxy.listener.downstream import Downstream, Gate, PlainCaller, SecureDownstream, reset
from meshproxy.message.secured import Secured
from meshproxy.model.security import ServerTls
from meshproxy.relay.relay import Relay
from meshproxy.tls.session import Session

__all__ = ["PlainStream", "SecureStream", "Stream"]


class _Relayed:
    """What both kinds have in common."""

    __slots__ = ()

    codec: Any
    gate: Gate
    transport: Any
    _loop: asyncio.AbstractEventLoop

    def begin_relay(self) -> None:
        try:
            self.codec.begin(self._loop.time())
        except Exception as bug:
            self.gate.crash("relay", bug)
            self.transport.abort()

    def cut(self) -> None:
        reset(self.transport)

    def expel(self, why: str) -> None:
        if self.codec is not None:
            self.codec.expel(why, self._loop.time())
        else:
            self.cut()

    def drain(self) -> None:
        """Of a sidecar that stops it may stay to the end; of a configuration that would not let it in it may not."""
        if not self.gate.draining and self.codec is not None:
            self.codec.evict(self._loop.time())

    def overdue(self, now: float, head: float) -> None:
        try:
            self.codec.sweep(now)
        except Exception as bug:
            self.gate.crash("relay swept", bug)
            self.transport.abort()


class Stream(_Relayed, Downstream):
    """In plaintext, or in a TLS that is not ours. ``sni``: of the latter."""

    __slots__ = ("sni",)

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate, sni: str = "") -> None:
        super().__init__(loop, gate)
        self.sni = sni

    def _codec(self) -> Any:
        return Relay(self.gate.corridor, self, None, self.sni)


class PlainStream(Stream, PlainCaller):
    """In plaintext where mutual TLS would have been welcome."""

    __slots__ = ()


class SecureStream(_Relayed, SecureDownstream):
    """Over the mesh's mutual TLS, or that of a gateway's server. Where both sides know the peer exchange, what the peer says of
    itself comes first.
    """

    __slots__ = ("_made", "_peer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        gate: Gate,
        corridor: Corridor,
        session: Session,
        secured: Secured,
        server: ServerTls | None = None,
    ) -> None:
        super().__init__(loop, gate, corridor, session, secured, server)
        self._peer: PeerReader | None = PeerReader() if secured.alpn == PEER_EXCHANGE else None
        self._made = loop.time()

    def _codec(self) -> Any:
        return Relay(self._corridor, self, self.secured)

    def begin_relay(self) -> None:
        """A client of the mesh introduces itself at once, so the relay waits for that; policies know who it is already."""
        if self._peer is None:
            super().begin_relay()
            return
        own = self._corridor.own
        if own is not None:
            self.transport.write(preamble(own.fields, own.node))

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            super().data_received(data)
        elif self.codec is not None:
            self.last_activity = self._loop.time()
            try:
                self._introduced(self._peer, self.session.receive(data))
            except Exception as bug:
                self._bug("downstream data", bug)

    def _introduced(self, peer: PeerReader, plain: bytes) -> None:
        rest = peer.feed(plain)
        if self.session.fault is not None or peer.broken or (rest is None and self.session.ended):
            reset(self.transport)
            return
        self.transport.flush()
        if rest is None:
            return
        self._peer = None
        self.secured.tells(peer.workload)
        super().begin_relay()
        now = self.last_activity
        if rest:
            self.codec.feed(rest, now)
        if self.session.ended:
            self.codec.feed_eof(now)

    def overdue(self, now: float, head: float) -> None:
        if self._peer is None:
            super().overdue(now, head)
        elif now - self._made > head:  # however often it says a little
            reset(self.transport)

    def fits(self, listener: Any) -> bool:
        """Where a gateway's bytes go now is for the next connection to know."""
        server = self.server
        if server is None or super().fits(listener):
            return super().fits(listener)
        bare = replace(server, tcp=())
        return any(other.tcp and replace(other, tcp=()) == bare for other in listener.model.tls)

    def eof_received(self) -> bool:
        """FIN. Without close_notify before it somebody may have cut the end off."""
        if self.session.ended and self._peer is None:
            return Downstream.eof_received(self)
        if self.codec is not None:
            self.codec.broken(self._loop.time())
        self.transport.abort()
        return True
