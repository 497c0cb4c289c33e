"""Clients of a listener in memory: what comes to a sidecar's door, in every form that a table of tests wants."""

from __future__ import annotations

import ssl
from typing import Any

from meshproxy.apply import CompiledListener
from meshproxy.exchange.corridor import Corridor, Slot
from meshproxy.exchange.mirror import mirror
from meshproxy.listener.doorway import Doorway
from meshproxy.listener.downstream import Downstream
from meshproxy.model.listener import Listener
from meshproxy.model.security import ServerTls
from meshproxy.tls.contexts import client_context
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from tests.certs import Pair
from tests.flow.memnet import Wire, World, simple

__all__ = ["TlsClient", "foreign", "gateway", "inbound", "knock"]

REQUEST = b"GET /a HTTP/1.1\r\nhost: rating:8080\r\n\r\n"


def inbound(vault: Vault, mode: str) -> World:
    """The inbound listener of a sidecar with this vault."""
    world = World(_resources(Listener(name="in", direction="inbound", port=8080, route="8080", mtls=mode)), "in")  # type: ignore[arg-type]
    world.gate.vault = vault
    return world


def gateway(vault: Vault, *servers: ServerTls) -> World:
    """A gateway's listener with these servers; all judge by the route configuration that they name."""
    world = World(_resources(Listener(name="in", direction="gateway", port=8443, tls=servers)), "in")
    world.gate.vault = vault
    serve(world)
    return world


def serve(world: World) -> None:
    """What the data path does for a gateway's servers after each configuration."""
    listener: CompiledListener = world.slot.current
    for route, compiled in listener.served.items():
        world.gate.served[route] = Corridor(Slot(compiled), world.clock, lambda: 0.5, world, world.pool, mirror, 0.0)


def _resources(listener: Listener) -> dict[str, dict[str, Any]]:
    return simple(more={"listener": {"in": listener}}, endpoints=1)


def knock(world: World, source: str = "10.9.9.9") -> Wire:
    """A connection, as the acceptor makes it."""
    listener = world.slot.current
    protocol: Any = Downstream if listener.plain else Doorway
    made = protocol(world.clock, world.gate)
    wire = Wire(made, (source, 40000), ("127.1.0.1", 8080))
    made.connection_made(wire)
    return wire


def foreign(pair: Pair | None = None, *, alpn: tuple[str, ...] = ("http/1.1",), roots: bytes = b"") -> ssl.SSLContext:
    """A client of no mesh."""
    own = (pair.certificate, pair.key) if pair is not None else (b"", b"")
    return client_context(*own, roots=(roots,), alpn=alpn, verify=bool(roots))


class TlsClient:
    """The client's end of a wire. ``plain``: what it has read."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, name: str | None = None, step: int = 0) -> None:
        self.wire = wire
        self.session = Session(context, False, name)
        self.plain = b""
        self.session.start()
        self.carry(step)

    def carry(self, step: int = 0) -> None:
        """Bytes to and fro until nobody has more to say; ``step`` bytes at a time."""
        for _ in range(10):
            out = self.session.take()
            self._deliver(out, step)
            back = self.wire.take()
            if back:
                was = self.session.handshaken
                self.plain += self.session.receive(back)
                if self.session.handshaken and not was:
                    self.plain += self.session.read()
            if not out and not back:
                return

    def send(self, data: bytes, step: int = 0) -> None:
        self._deliver(self.session.send(data), step)
        self.carry()

    def _deliver(self, data: bytes, step: int) -> None:
        for at in range(0, len(data), step or len(data) or 1):
            if not self.wire.closing:
                self.wire.deliver(data[at : at + (step or len(data))])

    def read(self) -> bytes:
        self.carry()
        data, self.plain = self.plain, b""
        return data
