"""Room 6, loud: an upstream connection in TLS. Its handshake is part of the dial; the pool gets it when its peer has been judged.

In: bytes and the transport's events. Out: the same as of ``UpstreamConnection``, whose transport is a ``TlsWire`` here; and
``shaken``, a future for the dialer: done, or ``TlsRefused``.

In TLS 1.3 a server may refuse our certificate when for us the handshake is over. Its alert then meets the first request, which
nobody has looked at; so it fails as a connection that could not be made, and may be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from meshproxy.codec.h1 import ClientCodec
from meshproxy.codec.peer_exchange import PEER_EXCHANGE, preamble
from meshproxy.codec.raw import RawCodec
from meshproxy.message.reason import Reason
from meshproxy.message.secured import Secured, TlsFault
from meshproxy.tls.session import Session
from meshproxy.tls.wire import TlsWire
from meshproxy.upstream.connection import HIGH_WATER, UpstreamConnection
from meshproxy.upstream.plan import Plan
from meshproxy.upstream.pool import Pool
from meshproxy.upstream.secure import ClientSide, TlsRefused, words

__all__ = ["SecuredConnection"]

# Alerts that end a handshake (RFC 8446 section 6.2, in OpenSSL's words): whoever sends one has looked at no request.
_OF_HANDSHAKES = ("certificate", "unknown ca", "access denied", "handshake failure", "decrypt error")


class SecuredConnection(UpstreamConnection):
    """``heard``: the peer has sent application data, so it has accepted us."""

    __slots__ = ("_over", "_session", "_side", "heard", "shaken")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        crash: Callable[[str, BaseException], None],
        side: ClientSide,
        plan: Plan,
        session: Session,
    ) -> None:
        super().__init__(loop, pool, crash)
        self._side = side
        self._session = session
        self.plan: Plan = plan
        self._over = False  # the peer's close_notify was passed on
        self.heard = False
        self.shaken: asyncio.Future[None] = loop.create_future()

    # -- transport events

    def connection_made(self, transport: Any) -> None:
        self.transport = wire = TlsWire(transport, self._session)
        wire.set_write_buffer_limits(high=HIGH_WATER)
        self.local = wire.get_extra_info("sockname")
        self._session.start()
        wire.flush()

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        session = self._session
        try:
            plain = session.receive(data)
            if self.secured is None:
                self._shake()
                return
            if plain:
                self.heard = True
                self.codec.feed(plain, now)
                sink = self.sink
                if sink is not None:
                    sink.on_response_flush(now)
                elif not self.codec.reusable:  # bytes nobody asked for
                    self.transport.close()
            if session.outgoing.pending:
                self.transport.flush()
            if session.fault is not None:
                self._broken()
            elif session.ended and not self._over:
                self._over = True
                self._peer_ended(now)
        except Exception as bug:
            self._crash("upstream data", bug)
            self.transport.abort()

    def eof_received(self) -> bool:
        """Without a close_notify before it, this is a truncation: ``connection_lost`` tells it as one."""
        return self._session.ended and (self.sink is not None or self.pool.raw) and self.codec.tunnel

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.secured is None:
            self._refused(TlsRefused(self._session.fault or TlsFault.CLOSED))
            return
        self._side.connections.discard(self)
        super().connection_lost(exc)

    # -- the lease

    def end(self, reusable: bool) -> None:
        """A close_notify may have come with the last bytes of the answer."""
        super().end(reusable and not self._session.ended)

    # -- the handshake

    def give_up(self) -> None:
        """The dial's time is over."""
        self._side.failed(self.pool, TlsFault.TIMEOUT, "")

    def _shake(self) -> None:
        session = self._session
        if session.handshaken:  # our own certificate has not gone out yet, and does so only to whom we meant to call
            try:
                secured = self._side.verdict(self.pool, self.plan, session)
            except TlsRefused as no:
                session.refuse(no.fault)
                self._refused(no)
                return
            early = session.read()  # tickets, perhaps; a server that speaks first speaks no HTTP
            self.transport.flush()
            if session.fault is not None or ((early or session.ended) and not self.pool.raw):
                self._refused(_fault(session))
                return
            self.codec = self._codec(secured)
            self.secured = secured
            if early:
                self.heard = True
                self.codec.feed(early, self._loop.time())
            self._side.opened(self)
            if not self.shaken.done():
                self.shaken.set_result(None)
            return
        self.transport.flush()
        if session.fault is not None:
            self._refused(_fault(session))

    def _codec(self, secured: Secured) -> ClientCodec | RawCodec:
        own = self._side.own if self.plan.mesh else None
        if not self.pool.raw:
            return ClientCodec(self.transport, greeting=own)
        told = preamble(own.fields, own.node) if own is not None and secured.alpn == PEER_EXCHANGE else b""
        return RawCodec(self.transport, told, secured)

    def _refused(self, why: TlsRefused) -> None:
        if not self.shaken.done():
            self.shaken.set_exception(why)
        self.transport.close()

    # -- the end

    def _broken(self) -> None:
        """An alert, or bytes that are no records of this session."""
        why = _fault(self._session)
        self.failure = words(why.fault, why.detail)
        if why.fault is TlsFault.REFUSED and not self.heard and any(word in why.detail for word in _OF_HANDSHAKES):
            self.lost_by = Reason.CONNECT_FAILURE
            self.pool.endpoint.cx_connect_fail += 1
        self._side.failed(self.pool, why.fault, why.detail)
        self.transport.abort()

    def _peer_ended(self, now: float) -> None:
        """The peer's close_notify: its side is over, and not cut short."""
        if self.sink is None and not self.pool.raw:
            self.transport.close()
        else:
            self.codec.feed_eof(now)


def _fault(session: Session) -> TlsRefused:
    """What ended the session; an alert of the peer's is its refusal of us."""
    fault = session.fault or (TlsFault.CLOSED if session.ended else TlsFault.PROTOCOL)
    if fault is TlsFault.PROTOCOL and " alert " in f" {session.detail} ":
        fault = TlsFault.REFUSED
    return TlsRefused(fault, session.detail)
