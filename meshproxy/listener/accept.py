"""Room 1, loud: the listening sockets of one worker and the sweeping of their connections.

A listener is named as in the model; its socket stays while its address stays, whatever the configuration does. An end loses no
request: who is in the kernel's queue is still taken, and an idle connection stays for a moment, because its client may have
written just now; its next answer says ``connection: close``.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from contextlib import suppress
from typing import Any

from meshproxy.exchange.corridor import Slot
from meshproxy.listener.doorway import Doorway
from meshproxy.listener.downstream import Downstream, Gate
from meshproxy.listener.entrance import Entrance

__all__ = ["Acceptor", "listening_socket"]

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it
_GRACE = 0.5  # seconds that an idle connection stays open after the drain has begun or its last byte came


def listening_socket(host: str, port: int, *, shared: bool = False, backlog: int | None = 2048) -> socket.socket:
    """A bound TCP socket; ``shared`` sets SO_REUSEPORT so that several workers can hold the same address. ``backlog`` None: it
    does not listen, so that nobody comes to it.

    Raises ``OSError`` with the address in its text.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
        if backlog is not None:
            sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    sock.setblocking(False)
    return sock


def _let_nobody_in(sock: socket.socket) -> None:
    """From now on the kernel drops who knocks, so that the queue can be emptied for good before the socket closes.

    A filter of one instruction, "keep 0 bytes" (linux/filter.h). Who knocks now tries again after a second, and finds another
    worker or a closed door; without the filter he would be let in and reset. Where there are no filters it goes without.
    """
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))


class Acceptor:
    """One listening address. Binding happens at construction (raises ``OSError``), accepting with ``open``.

    before: who has held this address until now and leaves it; its socket goes on, with all who wait in its queue.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        gate: Gate,
        slot: Slot,
        host: str,
        port: int,
        *,
        shared: bool = False,
        before: Acceptor | None = None,
    ) -> None:
        self._loop = loop
        self.name = name
        self.gate = gate
        self.slot = slot
        self.host = host
        self.wanted_port = port
        self._before = before
        self._sock: socket.socket = listening_socket(host, port, shared=shared) if before is None else before._sock.dup()
        self.port: int = self._sock.getsockname()[1]
        self._server: Any = None
        self._closed = False
        self._handed_over = False
        self._taking: set[asyncio.Task[Any]] = set()
        self._drained = 0.0

    def succeed(self) -> None:
        """From now on the queue of the one before is ours."""
        if self._before is not None:
            self._before._handed_over = True
            self._before = None

    async def open(self) -> None:
        """Start accepting."""
        if self._closed:
            return
        server = await self._loop.create_server(self._protocol, sock=self._sock, backlog=2048)
        self._server = server
        if self._closed:
            server.close()

    def _protocol(self) -> Downstream | Doorway:
        """Where no TLS is spoken nobody has to look: such a connection is as if there were no TLS at all."""
        listener = self.slot.current
        if listener is not None and listener.chains is not None:
            return Entrance(self._loop, self.gate)
        return Downstream(self._loop, self.gate) if listener is None or listener.plain else Doorway(self._loop, self.gate)

    def close(self) -> None:
        """Stop accepting; connections live on."""
        if self._closed:
            return
        self._closed = True
        if self._server is not None:
            self._server.close()
            self._server = None
        else:
            self._sock.close()

    def send_away(self) -> None:
        """Connections end with their request, or once they have been idle for a moment (``sweep``); who comes is still let in."""
        if not self.gate.draining:
            self.gate.drain()
            self._drained = self._loop.time()
            for connection in self.gate.connections:
                connection.drain()

    def drain(self) -> None:
        """No new connections, and open ones are sent away."""
        self.send_away()
        self._take_queue()
        self.close()

    def _take_queue(self) -> None:
        """Closing the socket would reset those whom the kernel has accepted already."""
        if self._closed or self._handed_over:
            return
        _let_nobody_in(self._sock)
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:  # BlockingIOError: nobody is left
                return
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, sock), name=f"take {self.name}")
            self._taking.add(task)
            task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[Any]) -> None:
        self._taking.discard(task)
        if not task.cancelled():
            task.exception()  # it went before we had it

    @property
    def connections(self) -> int:
        """Open ones, and those that are being taken."""
        return len(self.gate.connections) + len(self._taking)

    @property
    def buffered(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        transports = [connection.transport for connection in self.gate.connections]
        return sum(transport.get_write_buffer_size() for transport in transports if transport is not None)

    @property
    def active(self) -> int:
        """Requests and tunnels in flight."""
        return sum(not connection.quiet for connection in self.gate.connections)

    def sweep(self, now: float, idle: float, head: float) -> None:
        """Close connections idle for ``idle`` seconds, and those that take longer than ``head`` seconds over a request head."""
        if self.gate.draining:
            idle = min(idle, _GRACE)
        for connection in list(self.gate.connections):
            quiet = now - max(connection.last_activity, self._drained)
            if connection.quiet:
                patience = min(idle, connection.patience, _GRACE if connection.leaving else idle)
                if quiet > patience and not connection.waiting:
                    connection.transport.close()
            elif connection.gone:
                connection.transport.abort()
            else:
                connection.overdue(now, head)

    def reconfigured(self, wall: float) -> None:
        """The configuration in force has changed. Who could not come in any more (plaintext where it is STRICT now, a gateway's
        server that is gone) leaves after the request in flight, as Istio drains a listener's old filter chains; whose peer is
        revoked is cut.
        """
        self.gate.reconfigured()
        for connection in list(self.gate.connections):
            fault = connection.revoked(wall)
            if fault is not None:
                self.gate.vault.tally.failure(
                    "server", fault, connection.secured.peer.identity, "open connection", self._loop.time()
                )
                connection.expel(f"peer_{fault.name.lower()}")
            elif connection.gate.gone or not connection.fits(connection.gate.corridor.slot.current):
                connection.drain()

    def abort(self) -> None:
        for connection in list(self.gate.connections):
            connection.expel("drain_time_over")
