"""Room 1, loud: a connection before its first request, where TLS is demanded or may come; afterwards it is a ``Downstream``.

In: the first bytes. Out: a plaintext ``Downstream`` that gets those bytes, a ``SecureDownstream`` once the handshake has
succeeded and the peer was judged, or an end with a ``TlsFault``, counted and logged. A listener in plaintext has no doorway.

Which it is (semantics A3): plaintext passes unless the listener demands TLS; where mutual TLS is only welcome, TLS must name one
of the mesh's protocols, or it is a stranger's. A gateway chooses its server by the ClientHello's name. A refusal is an alert
where the keys allow it, and a reset where not; nothing that was decrypted reaches a codec before the judgement.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from meshproxy.exchange.corridor import Corridor
from meshproxy.listener.downstream import Downstream, Gate, PlainCaller, SecureDownstream, polled, reset
from meshproxy.message.secured import Secured, TlsFault
from meshproxy.model.security import ServerTls
from meshproxy.tls.hello import ClientHello, HelloReader, Look
from meshproxy.tls.session import Session, alert

__all__ = ["HANDSHAKE", "MESH", "Doorway"]

HANDSHAKE = 10.0  # seconds from its first byte to its end
_LINGER = 2.0  # seconds that a refused client has to read why
MESH = frozenset(("istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"))


class Doorway(asyncio.Protocol):
    """``last_activity`` and the other names are what the acceptor's sweep asks of a ``Downstream``, too."""

    __slots__ = (
        "_corridor",
        "_hello",
        "_loop",
        "_over",
        "_reader",
        "_server",
        "_session",
        "_since",
        "codec",
        "gate",
        "last_activity",
        "leaving",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate) -> None:
        self._loop = loop
        self.gate = gate
        self.transport: Any = None
        self.codec = None
        self.last_activity = 0.0
        self.leaving = False
        self._reader = HelloReader()
        self._hello = ClientHello("", (), ())
        self._session: Session | None = None
        self._server: ServerTls | None = None  # of a gateway
        self._corridor: Corridor = gate.corridor
        self._since = 0.0  # when its first byte came; 0: none has
        self._over = 0.0  # refused; when it is cut

    # -- transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.last_activity = self._loop.time()
        self.gate.connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.gate.connections.discard(self)
        if self._since and not self._over:
            self._count(TlsFault.CLOSED, "")

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        now = self.last_activity = self._loop.time()
        if not self._since:
            self._since = now
        try:
            if self._over:
                pass  # what a refused client had still to say
            elif self._session is None:
                self._look(data)
            else:
                self._shake(self._session, data)
        except Exception as bug:
            self._over = now
            self.gate.crash("doorway", bug)
            self.transport.abort()

    # -- judgement

    def _look(self, data: bytes) -> None:
        """What it is, by its first bytes, under the configuration of this moment."""
        seen = self._reader.feed(data)
        if seen is Look.MORE:
            return
        listener = self.gate.corridor.slot.current
        if listener.plain:
            self._become(Downstream(self._loop, self.gate), bytes(self._reader.data))
        elif seen is Look.NOT_TLS:
            if listener.model.tls or listener.model.mtls == "STRICT":
                self.gate.turned_away.add(self._address(), 1, self._since)
                self._reset(TlsFault.NOT_TLS if listener.model.tls else TlsFault.PLAINTEXT)
            else:
                self._become(PlainCaller(self._loop, self.gate), bytes(self._reader.data))
        elif isinstance(seen, ClientHello):
            self._hello = seen
            self._begin(listener)
        else:
            self._reset(TlsFault.PROTOCOL, seen.value)

    def _begin(self, listener: Any) -> None:
        """A ClientHello: whose server does it want?"""
        vault = self.gate.vault
        hello = self._hello
        if listener.model.tls:
            server = self._server = listener.server_of(hello.sni)
            if server is None:
                self._reset(TlsFault.UNKNOWN_NAME, hello.sni)
                return
            self._corridor = self.gate.served[server.route]
            context = vault.server(server)
        elif listener.model.mtls == "PERMISSIVE" and MESH.isdisjoint(hello.alpn):
            self._reset(TlsFault.NOT_MESH, ",".join(hello.alpn))
            return
        else:
            context = vault.mesh_server()
        if isinstance(context, TlsFault):
            self._refuse(context, alert(context))
            return
        self._session = session = Session(context, True)
        self._shake(session, bytes(self._reader.data))

    def _shake(self, session: Session, data: bytes) -> None:
        session.receive(data)
        if session.fault is not None:
            self._refuse(session.fault, session.take(), session.detail)
        elif session.handshaken:
            self._judge(session)
        else:
            said = session.take()
            if said:
                self.transport.write(said)

    def _judge(self, session: Session) -> None:
        vault = self.gate.vault
        server = self._server
        peer = session.peer()
        wall = self._loop.time() + self._corridor.wall_offset
        if server is not None:
            fault = vault.admit(peer, session.certificate, server, wall)
            mesh = server.mode == "ISTIO_MUTUAL"
        else:
            fault = vault.judge(peer, wall) if peer is not None else TlsFault.NO_CERTIFICATE
            mesh = True
        if fault is not None:
            said = session.refuse(fault)
            detail = peer.identity or peer.subject if peer is not None else ""
            if said:
                self._refuse(fault, said, detail)
            else:
                self._reset(fault, detail)
            return
        vault.tally.handshake("server")
        said = session.take()
        if said:
            self.transport.write(said)
        local = vault.identity.uri if mesh and vault.identity is not None else ""
        secured = session.secured(peer, self._hello.sni, mesh, local)
        self._welcome(session, secured, server)

    # -- what becomes of it

    def _welcome(self, session: Session, secured: Secured, server: ServerTls | None) -> None:
        following = SecureDownstream(self._loop, self.gate, self._corridor, session, secured, server)
        self._become(following, b"")
        following.begin()

    def _become(self, following: Downstream, data: bytes) -> None:
        self.gate.connections.discard(self)
        self.transport.set_protocol(following)
        following.connection_made(self.transport)
        if data:
            following.data_received(data)

    def _refuse(self, fault: TlsFault, said: bytes, detail: str = "") -> None:
        """Say why, and leave the client time to read it: what it has sent meanwhile would turn a close into a reset."""
        self._over = self._loop.time()
        self._count(fault, detail)
        if said:
            self.transport.write(said)
        self.transport.write_eof()

    def _reset(self, fault: TlsFault, detail: str = "") -> None:
        self._over = self._loop.time()
        self._count(fault, detail)
        reset(self.transport)

    def _count(self, fault: TlsFault, detail: str) -> None:
        who = f"{self._address()} at {self.gate.corridor.slot.current.name}"
        self.gate.vault.tally.failure("server", fault, who, detail, self._loop.time())

    def _address(self) -> str:
        address: str = (self.transport.get_extra_info("peername") or ("?",))[0]
        return address.removeprefix("::ffff:")  # IPv4 at a listener on "::"

    # -- what the acceptor asks

    @property
    def quiet(self) -> bool:
        """Nothing has come yet."""
        return not self._since

    @property
    def patience(self) -> float:
        """Seconds that it may stay quiet: who must begin a handshake has as long as for the handshake itself."""
        model = self.gate.corridor.slot.current.model
        return HANDSHAKE if model.tls or model.mtls == "STRICT" else math.inf

    @property
    def waiting(self) -> bool:
        return polled(self.transport)

    @property
    def gone(self) -> bool:
        return False

    def overdue(self, now: float, head: float) -> None:
        if self._over:
            if now - self._over > _LINGER:
                self.transport.abort()
        elif now - self._since > HANDSHAKE:
            self._reset(TlsFault.TIMEOUT)

    def drain(self) -> None:
        pass  # what it becomes will know

    def expel(self, why: str) -> None:
        self.transport.abort()

    def fits(self, listener: Any) -> bool:
        return True

    def revoked(self, wall: float) -> TlsFault | None:
        return None
