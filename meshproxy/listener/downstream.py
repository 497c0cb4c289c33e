"""Room 1, loud: one client connection, an ``asyncio.Protocol`` around the server codec.

In: bytes and the transport's events. Out: an exchange per request, opened when the codec has a head. The crash barrier: an
exception here is a bug of ours; it is counted, logged, and costs this connection only. Under TLS (``SecureDownstream``) the
transport is a ``TlsWire`` and the bytes go through its session first; ``doorway`` has made it and judged the peer.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
from collections.abc import Callable
from typing import Any

from meshproxy.codec.h1 import ServerCodec
from meshproxy.exchange.corridor import Corridor, Slot
from meshproxy.exchange.exchange import Exchange
from meshproxy.exchange.spec import TUNNEL
from meshproxy.listener.callers import Callers
from meshproxy.listener.original import original_destination
from meshproxy.message.ports import RequestSink
from meshproxy.message.reason import Reason
from meshproxy.message.secured import Secured, TlsFault
from meshproxy.model.security import ServerTls
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from meshproxy.tls.wire import TlsWire
from meshproxy.upstream.connection import reset

__all__ = ["Downstream", "Gate", "PlainCaller", "SecureDownstream", "plain_address", "polled", "reset"]

_HIGH_WATER = 256 * 1024
_PROBE = 15  # seconds; Linux keeps the state of a connection that its program has closed for 60


class Gate:
    """What the connections of one listener share: the corridor, the set of open connections, who may come in, and what to
    report.

    served: of a gateway with TLS, the corridor of each of its servers' route configurations. callers: who came in plaintext where
    mutual TLS was welcome; peers: who came over it; turned_away: who came in plaintext where it is demanded, by connections.

    original(transport): where an intercepted connection was meant to go. captures(address): whether one from there is ours. Each
    chain of the listener has a gate of its own (``of``), which shares all but the corridor; ``gone``: the chain is out of the
    configuration, or is another one now.
    """

    __slots__ = (
        "accepts",
        "callers",
        "captures",
        "chains",
        "connections",
        "corridor",
        "crash",
        "draining",
        "gone",
        "original",
        "peers",
        "refused",
        "served",
        "server_name",
        "turned_away",
        "vault",
    )

    def __init__(
        self,
        corridor: Corridor,
        crash: Callable[[str, BaseException], None],
        refused: Callable[[Reason, str, float], None],
        accepts: Callable[[str], bool] = lambda address: True,
        server_name: bytes = b"meshproxy",
        vault: Vault | None = None,
        captures: Callable[[str], bool] = lambda address: True,
        original: Callable[[Any], tuple[str, int] | None] = original_destination,
    ) -> None:
        self.captures = captures
        self.original = original
        self.chains: dict[str, Gate] = {}
        self.gone = False
        self.corridor = corridor
        self.crash = crash
        self.refused = refused
        self.accepts = accepts
        self.server_name = server_name
        self.vault = vault if vault is not None else Vault()
        self.connections: set[Any] = set()  # Downstream and Doorway
        self.served: dict[str, Corridor] = {}
        self.callers = Callers()
        self.peers = Callers()
        self.turned_away = Callers()
        self.draining = False

    def of(self, chain: Any) -> Gate:
        """The gate of a chain, made when its first connection comes."""
        found = self.chains.get(chain.name)
        if found is None:
            corridor = self.corridor.at(Slot(chain))
            found = self.chains[chain.name] = Gate(corridor, self.crash, self.refused, vault=self.vault)
            found.server_name = self.server_name
            found.connections = self.connections
            found.callers, found.peers, found.turned_away = self.callers, self.peers, self.turned_away
            found.draining = self.draining
        return found

    def drain(self) -> None:
        self.draining = True
        for chain in self.chains.values():
            chain.draining = True

    def reconfigured(self) -> None:
        """The listener has another configuration: its chains, too."""
        chains = self.corridor.slot.current.chains
        known = chains.by_name if chains is not None else {}
        for name, gate in list(self.chains.items()):
            compiled = known.get(name)
            if compiled is None or (compiled.protocol == "TCP") != (gate.corridor.slot.current.protocol == "TCP"):
                gate.gone = True
                del self.chains[name]
            else:
                gate.corridor.slot.current = compiled


def polled(transport: Any, events: int = select.POLLIN) -> bool:
    """Whether the kernel has this for us, which the loop has not seen yet; errors and hang-ups are told in any case."""
    sock = transport.get_extra_info("socket")
    if sock is None or transport.is_closing():
        return False
    poller = select.poll()
    poller.register(sock.fileno(), events)
    return bool(poller.poll(0))


def plain_address(address: Any) -> tuple[str, int]:
    """IPv4 as such, also at a listener on "::"."""
    return (address[0].removeprefix("::ffff:"), address[1]) if address else ("", 0)


class Downstream(asyncio.Protocol):
    """``last_activity`` is written per read; the listener's sweeper acts on it (no timer per connection)."""

    __slots__ = (
        "_loop",
        "codec",
        "ended",
        "exchange",
        "gate",
        "last_activity",
        "leaving",
        "local",
        "remote",
        "source",
        "transport",
    )

    patience = math.inf  # a quiet one may stay for as long as the acceptor lets it

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate) -> None:
        self._loop = loop
        self.gate = gate
        self.exchange: Exchange | None = None
        self.transport: Any = None
        self.codec: Any = None
        self.source = ""
        self.remote: tuple[str, int] | None = None
        self.local: tuple[str, int] | None = None
        self.last_activity = 0.0
        self.ended = False  # the client's end has come
        self.leaving = False  # it goes as soon as it is quiet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gate = self.gate
        self.transport = transport
        self.remote = plain_address(transport.get_extra_info("peername"))
        self.local = plain_address(transport.get_extra_info("sockname"))
        self.source = self.remote[0]
        if not gate.accepts(self.source):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.last_activity = self._loop.time()
        self.codec = self._codec()
        self.codec.draining = gate.draining
        gate.connections.add(self)
        listener = gate.corridor.slot.current
        if listener is not None and not self.fits(listener):  # the configuration has changed since it was chosen what this is
            self.drain()

    def _codec(self) -> Any:
        gate = self.gate
        return ServerCodec(
            self.transport, self._open, server_name=gate.server_name, on_refused=gate.refused, clock=self._loop.time
        )

    def _open(self, codec: ServerCodec) -> RequestSink:
        self.exchange = exchange = Exchange(self.gate.corridor, codec, self.source, self.remote, self.local)
        return exchange

    def data_received(self, data: bytes) -> None:
        if self.codec is None:
            return
        now = self.last_activity = self._loop.time()
        try:
            self.codec.feed(data, now)
        except Exception as bug:
            self._bug("downstream data", bug)

    def eof_received(self) -> bool:
        if self.codec is None:
            return False
        try:
            self.codec.feed_eof(self._loop.time())
        except Exception as bug:
            self._bug("downstream eof", bug)
        self.ended = True
        if not self.codec.idle:
            self._probe()
        return True  # half-close is legal; the codec closes when it is done (RFC 9112 section 9.6)

    def _probe(self) -> None:
        """A client that has closed altogether looks just like one that only sends no more. Its kernel forgets the connection
        after a while and then answers a probe with a reset, so that its request does not wait for its app for ever. The loop
        no longer listens to this socket, so the acceptor's sweep looks (``gone``).
        """
        sock = self.transport.get_extra_info("socket")
        if sock is None or self.transport.is_closing():
            return
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in ((socket.TCP_KEEPIDLE, _PROBE), (socket.TCP_KEEPINTVL, _PROBE), (socket.TCP_KEEPCNT, 4)):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:
            pass  # gone already

    def connection_lost(self, exc: BaseException | None) -> None:
        self.gate.connections.discard(self)
        if self.codec is None:
            return
        try:
            self.codec.closed(self._loop.time())
        except Exception as bug:
            self._bug("downstream lost", bug)
        self.exchange = None

    def pause_writing(self) -> None:
        if self.codec is not None:
            self.codec.pause_writing()  # no further pipelined request is read, or its answers would pile up here
        if self.exchange is not None:
            self.exchange.on_downstream_blocked(True)

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_blocked(False)
        if self.codec is not None:
            try:
                self.codec.resume_writing()
            except Exception as bug:
                self._bug("downstream resumed", bug)

    @property
    def quiet(self) -> bool:
        """No request in flight and nothing of one received."""
        return self.codec is None or self.codec.idle

    @property
    def requests(self) -> int:
        """That have come so far."""
        return self.codec.requests if self.codec is not None else 0

    def drain(self) -> None:
        """From now on every response says ``connection: close``; who stays idle is closed by the acceptor's sweep."""
        self.leaving = True
        if self.codec is not None:
            self.codec.draining = True

    def fits(self, listener: Any) -> bool:
        """Whether this connection could come in now, under a new configuration."""
        model = listener.model
        return model.mtls != "STRICT" and not model.tls

    def expel(self, why: str) -> None:
        """Cut at once. ``why``: for the log of those whose loss is told of."""
        reset(self.transport)

    def revoked(self, wall: float) -> TlsFault | None:
        """Why the peer is no longer welcome."""
        return None

    def overdue(self, now: float, head: float) -> None:
        """The client has owed something for more than ``head`` seconds, if it does."""
        codec = self.codec
        if codec.waiting_for_head and now - codec.head_since > head:
            codec.timed_out(now)

    @property
    def waiting(self) -> bool:
        """Bytes are here that the loop has not read yet."""
        return polled(self.transport)

    @property
    def gone(self) -> bool:
        """The connection was reset after its client's end."""
        return self.ended and polled(self.transport, 0)

    def _bug(self, where: str, bug: BaseException) -> None:
        self.gate.crash(where, bug)
        if self.transport is not None:
            self.transport.abort()


class PlainCaller(Downstream):
    """In plaintext where mutual TLS would have been welcome."""

    __slots__ = ()

    @property
    def caller(self) -> str:
        return self.source

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.gate.callers.came(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.gate.callers.went(self)


class SecureDownstream(Downstream):
    """A handshaken connection of a judged peer. ``server``: of a gateway, the one that it came in by."""

    __slots__ = ("_corridor", "_partial_since", "secured", "server", "session")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        gate: Gate,
        corridor: Corridor,
        session: Session,
        secured: Secured,
        server: ServerTls | None,
    ) -> None:
        super().__init__(loop, gate)
        self._corridor = corridor
        self._partial_since = 0.0
        self.session = session
        self.secured = secured
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(TlsWire(transport, self.session))  # type: ignore[arg-type]
        if self.secured.mesh:
            self.gate.peers.came(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.gate.peers.went(self)

    @property
    def caller(self) -> str:
        return self.secured.who

    def _open(self, codec: ServerCodec) -> RequestSink:
        self.exchange = exchange = Exchange(self._corridor, codec, self.source, self.remote, self.local, self.secured)
        return exchange

    def begin(self) -> None:
        """What came along with the end of the handshake."""
        if self.session.pending:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        if self.codec is None:
            return
        now = self.last_activity = self._loop.time()
        session = self.session
        try:
            plain = session.receive(data)
            if plain:
                self.codec.feed(plain, now)
            if session.fault is not None:
                self._broken(now)
            else:
                self.transport.flush()
                if session.ended:  # close_notify: half-closed, as by a FIN
                    self.codec.feed_eof(now)
        except Exception as bug:
            self._bug("downstream data", bug)

    def _broken(self, now: float) -> None:
        """Not TLS any more, or tampered with: what we say is OpenSSL's alert."""
        self.transport.flush()
        self.codec.closed(now)
        self.transport.close()

    def eof_received(self) -> bool:
        """FIN. Without close_notify before it somebody may have cut the end off (RFC 8446 section 6.1): a message that says its
        own length is cut short anyway, and between messages it does no harm; but a tunnel must not look complete.
        """
        exchange = self.exchange
        if not self.session.ended and exchange is not None and exchange.state == TUNNEL:
            self.transport.abort()
            return True
        return super().eof_received()

    @property
    def quiet(self) -> bool:
        return super().quiet and not self.session.partial

    def overdue(self, now: float, head: float) -> None:
        """A part of a record is a part of a head, as far as time goes. (A key update without data looks like one, too; its
        connection is closed a minute later unless it is used.)
        """
        if not self.session.partial or not self.codec.idle:
            self._partial_since = 0.0
        elif not self._partial_since:
            self._partial_since = now
        elif now - self._partial_since > head:
            self.transport.close()
        super().overdue(now, head)

    def fits(self, listener: Any) -> bool:
        model = listener.model
        return self.server in model.tls if self.server is not None else model.mtls != "DISABLE"

    def revoked(self, wall: float) -> TlsFault | None:
        """Only of the mesh: a gateway's other clients are judged when they come."""
        if not self.secured.mesh or self.secured.peer is None:
            return None
        fault = self.gate.vault.judge(self.secured.peer, wall)
        return fault if fault is TlsFault.REVOKED else None
