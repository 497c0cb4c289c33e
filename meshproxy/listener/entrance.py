"""Room 1, loud: an intercepted connection before anybody has said what it is; afterwards a ``Downstream`` or a ``Stream``.

In: where it was meant to go (``gate.original``), then its first bytes. Out: HTTP under the chain's routes, a relay of its bytes,
or an end with a reason. At an outbound listener a connection that nobody has redirected is a forward proxy's and goes on at once.

What is looked at is what the chain leaves open: TLS where mutual TLS is welcome or a server name decides, HTTP where the protocol
is AUTO. Who sends nothing within the listener's ``detection_timeout`` waits for the server's first words, so his bytes are
relayed; so are those of a client that stops in the midst of what could be a method. A request line that has a blank in it
already, or a ClientHello, has as long as a handshake.
"""

from __future__ import annotations

import asyncio
from typing import Any

from meshproxy.codec.peer_exchange import PEER_EXCHANGE
from meshproxy.codec.sniff import Guess, guess, preface
from meshproxy.listener.doorway import HANDSHAKE, MESH, Doorway
from meshproxy.listener.downstream import Downstream, Gate, PlainCaller, SecureDownstream, plain_address, reset
from meshproxy.listener.streams import PlainStream, SecureStream, Stream
from meshproxy.message.ports import Cancel
from meshproxy.message.reason import Reason
from meshproxy.message.record import StreamRecord
from meshproxy.message.secured import Secured, TlsFault
from meshproxy.model.security import ServerTls
from meshproxy.tls.hello import ClientHello, Look
from meshproxy.tls.session import Session

__all__ = ["Entrance"]

_TLS = 0x16


class Entrance(Doorway):
    """``_chain``: None until it is chosen. ``_main``: the gateway's own gate, whose TLS servers come after the chain's names."""

    __slots__ = ("_chain", "_main", "_original", "_sni", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate) -> None:
        super().__init__(loop, gate)
        self._chain: Any = None
        self._main = gate
        self._original: tuple[str, int] | None = None
        self._timer: Cancel | None = None
        self._sni = ""

    # -- transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        try:
            self._arrive()
        except Exception as bug:
            self.gate.crash("entrance", bug)
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._disarm()
        if self._reader.data[:1] != bytes((_TLS,)):
            self._since = 0.0  # no handshake has failed
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """A client that has said all it has to say."""
        data = bytes(self._reader.data)
        if not data or self._session is not None or self._over or not self._may_be_bytes:
            return False
        following = self._stream(data)
        return following.eof_received()

    # -- where to

    def _arrive(self) -> None:
        gate = self.gate
        listener = gate.corridor.slot.current
        local = plain_address(self.transport.get_extra_info("sockname"))
        if listener.direction == "gateway":
            original: tuple[str, int] | None = local
        else:
            original = gate.original(self.transport)
            if original is None or original == local:
                if listener.direction == "outbound":
                    self._become(Downstream(self._loop, gate), b"")
                    return
                own = listener.chains.find(*local) if listener.chains is not None else None
                if own is None or not own.port:  # only where a port of bytes is listened on by itself
                    self._turn_away(listener, Reason.LOOP_DETECTED)
                    return
                original = local
            if not gate.captures(plain_address(self.transport.get_extra_info("peername"))[0]):
                self._turn_away(listener, Reason.EGRESS_REFUSED)
                return
        assert original is not None
        self._original = original
        self._choose(original, listener)

    def _choose(self, original: tuple[str, int], listener: Any) -> None:
        """By the chain that is in force for it."""
        chain = self._chain = listener.chains.find(*original) if listener.chains is not None else None
        if chain is None:
            self._turn_away(listener, Reason.NO_ROUTE)
            return
        self.gate = self._main.of(chain)
        self._corridor = self.gate.corridor
        data = bytes(self._reader.data)
        if chain.model.mtls == "DISABLE" and not listener.model.tls:
            if chain.protocol == "HTTP" and not chain.streams.routes:
                self._become(Downstream(self._loop, self.gate), data)
                return
            if chain.protocol == "TCP" and not chain.streams.by_name:
                self._stream(data)
                return
        if data:
            self._look(b"")
        else:
            self._arm()

    def _turn_away(self, listener: Any, reason: Reason) -> None:
        """Nobody here wants it: reset, and told of like any other."""
        now = self._over = self._loop.time()
        remote = plain_address(self.transport.get_extra_info("peername"))
        record = StreamRecord(listener, now, now + self._corridor.wall_offset, remote, self._original)
        record.flag(reason)
        record.reason = "" if reason.flag else reason.detail
        if listener.direction == "outbound" and reason is Reason.NO_ROUTE:
            record.cluster_name = "BlackHoleCluster"
        record.ended = now
        self._corridor.observer.streamed(record, now, True)
        reset(self.transport)

    # -- what is it

    @property
    def _now(self) -> Any:
        """The chain, as it is in force."""
        return self.gate.corridor.slot.current

    @property
    def _may_be_bytes(self) -> bool:
        chain = self._now
        if self._chain is None or chain.protocol == "HTTP" or chain.model.mtls == "STRICT" or self._servers:
            return False
        return not self._by_name_only

    @property
    def _by_name_only(self) -> bool:
        """Every way of bytes asks for a server's name: who has named none yet has to be waited for."""
        streams = self._now.streams
        return bool(streams.by_name) and all(route.hosts for route in streams.routes)

    @property
    def _servers(self) -> tuple[ServerTls, ...]:
        servers: tuple[ServerTls, ...] = self._main.corridor.slot.current.model.tls
        return servers

    def _arm(self) -> None:
        self._disarm()
        seconds = self._now.model.detection_timeout
        if seconds and self._may_be_bytes:
            self._timer = self._corridor.timers.later(seconds, self._silence)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer()
            self._timer = None

    def _silence(self) -> None:
        """Nothing has come for a while."""
        self._timer = None
        data = bytes(self._reader.data)
        if data[:1] != bytes((_TLS,)) and b" " not in data and self._may_be_bytes and not self.transport.is_closing():
            self._stream(data)

    def _look(self, data: bytes) -> None:
        if self._chain is None:
            return
        seen = self._reader.feed(data)
        chain = self._now
        if seen is Look.MORE:
            self._arm()
        elif isinstance(seen, ClientHello):
            self._disarm()
            self._hello = seen
            self._tls(chain, seen)
        elif self._servers:
            self._reset(TlsFault.NOT_TLS)
        elif chain.model.mtls == "STRICT":
            if seen is Look.NOT_TLS:
                self.gate.turned_away.add(self._address(), 1, self._since)
            self._reset(TlsFault.PLAINTEXT if seen is Look.NOT_TLS else TlsFault.PROTOCOL)
        elif chain.protocol == "HTTP":
            if seen is Look.NOT_TLS or chain.model.mtls == "DISABLE":
                self._known_http(chain)
            else:
                self._reset(TlsFault.PROTOCOL, seen.value)
        elif chain.protocol == "TCP":
            self._stream(bytes(self._reader.data))
        else:
            self._auto()

    def _auto(self) -> None:
        verdict = guess(self._reader.data)
        if verdict is Guess.MORE:
            self._arm()
        elif verdict is Guess.HTTP:
            self._http()
        else:
            self._stream(bytes(self._reader.data))

    def _known_http(self, chain: Any) -> None:
        """HTTP/2 passes as bytes where the chain has a way for them."""
        verdict = preface(self._reader.data) if chain.streams.routes else Guess.HTTP
        if verdict is Guess.HTTP:
            self._http()
        elif verdict is Guess.BYTES:
            self._stream(bytes(self._reader.data))

    def _tls(self, chain: Any, hello: ClientHello) -> None:
        mtls = chain.model.mtls
        if self._servers:
            address = self._original[0] if self._original is not None else ""
            if self._main.corridor.slot.current.passes_through(chain, hello.sni, address):
                self._sni = hello.sni
                self._stream(bytes(self._reader.data))
            else:
                self.gate = self._main
                self._begin(self.gate.corridor.slot.current)
        elif mtls == "STRICT" or (mtls == "PERMISSIVE" and not MESH.isdisjoint(hello.alpn)):
            self._begin(chain)
        elif chain.protocol == "HTTP" and mtls == "PERMISSIVE":
            self._reset(TlsFault.NOT_MESH, ",".join(hello.alpn))
        elif chain.protocol == "HTTP":
            self._http()  # whose codec refuses it in words
        else:
            self._sni = hello.sni
            self._stream(bytes(self._reader.data))

    # -- what becomes of it

    def _http(self) -> None:
        kind = Downstream if self._now.model.mtls == "DISABLE" else PlainCaller
        self._become(kind(self._loop, self.gate), bytes(self._reader.data))

    def _stream(self, data: bytes) -> Stream:
        kind = Stream if self._now.model.mtls == "DISABLE" else PlainStream
        following = kind(self._loop, self.gate, self._sni)
        self._become(following, data)
        return following

    def _welcome(self, session: Session, secured: Secured, server: ServerTls | None) -> None:
        chain = self._now
        if server is not None:
            http = not server.tcp
        elif chain.protocol == "HTTP":  # a peer may know better: HTTP/2 comes as bytes
            http = secured.alpn != PEER_EXCHANGE or not chain.streams.routes
        else:
            http = chain.protocol == "AUTO" and secured.alpn.startswith("istio-http/")
        if http:
            following = SecureDownstream(self._loop, self.gate, self._corridor, session, secured, server)
        else:
            following = SecureStream(self._loop, self.gate, self._corridor, session, secured, server)
        self._become(following, b"")
        following.begin()

    def _become(self, following: Downstream, data: bytes) -> None:
        self._disarm()
        self.gate.connections.discard(self)
        self.transport.set_protocol(following)
        following.connection_made(self.transport)
        if self._original is not None:
            following.local = self._original
        if isinstance(following, (Stream, SecureStream)):
            following.begin_relay()
        if self.gate.gone:  # within the handshake
            following.drain()
        if data:
            following.data_received(data)

    # -- what the acceptor asks

    def drain(self) -> None:
        """Its chain may be out of the configuration: then another one has it, or none."""
        if self._original is None or not self.gate.gone or self._session is not None or self._over:
            return
        self._disarm()
        try:
            self._choose(self._original, self._main.corridor.slot.current)
        except Exception as bug:
            self.gate.crash("entrance", bug)
            self.transport.abort()

    @property
    def patience(self) -> float:
        """A gateway's client that must name a server has as long as for a handshake."""
        if self._chain is not None and self._main.corridor.slot.current.direction == "gateway":
            return HANDSHAKE
        return super().patience

    def overdue(self, now: float, head: float) -> None:
        if self._session is None and not self._over and self._may_be_bytes:
            if now - self._since > HANDSHAKE:
                self._stream(bytes(self._reader.data))
        else:
            super().overdue(now, head)
