"""Room 1, loud: one client connection, an ``asyncio.Protocol`` around the server codec.

In: bytes and the transport's events. Out: an exchange per request, opened when the codec has a head. The crash barrier: an
exception here is a bug of ours; it is counted, logged, and costs this connection only.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any

from meshproxy.codec.h1 import ServerCodec
from meshproxy.exchange.corridor import Corridor
from meshproxy.exchange.exchange import Exchange
from meshproxy.message.ports import RequestSink
from meshproxy.message.reason import Reason

__all__ = ["Downstream", "Gate"]

_HIGH_WATER = 256 * 1024
_PROBE = 15  # seconds; Linux keeps the state of a connection that its program has closed for 60


class Gate:
    """What the connections of one listener share: the corridor, the set of open connections, who may come in, and what to
    report.
    """

    __slots__ = ("accepts", "connections", "corridor", "crash", "draining", "refused", "server_name")

    def __init__(
        self,
        corridor: Corridor,
        crash: Callable[[str, BaseException], None],
        refused: Callable[[Reason, str, float], None],
        accepts: Callable[[str], bool] = lambda address: True,
        server_name: bytes = b"meshproxy",
    ) -> None:
        self.corridor = corridor
        self.crash = crash
        self.refused = refused
        self.accepts = accepts
        self.server_name = server_name
        self.connections: set[Downstream] = set()
        self.draining = False


class Downstream(asyncio.Protocol):
    """``last_activity`` is written per read; the listener's sweeper acts on it (no timer per connection)."""

    __slots__ = ("_loop", "codec", "ended", "exchange", "gate", "last_activity", "local", "remote", "source", "transport")

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gate = self.gate
        self.transport = transport
        self.remote = (transport.get_extra_info("peername") or ("", 0))[:2]
        self.local = (transport.get_extra_info("sockname") or ("", 0))[:2]
        self.source = self.remote[0].removeprefix("::ffff:") if self.remote else ""  # IPv4 at a listener on "::"
        if not gate.accepts(self.source):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.last_activity = self._loop.time()
        self.codec = ServerCodec(
            self.transport, self._open, server_name=gate.server_name, on_refused=gate.refused, clock=self._loop.time
        )
        self.codec.draining = gate.draining
        gate.connections.add(self)

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

    def drain(self) -> None:
        """From now on every response says ``connection: close``; who stays idle is closed by the acceptor's sweep."""
        if self.codec is not None:
            self.codec.draining = True

    @property
    def waiting(self) -> bool:
        """Bytes are here that the loop has not read yet."""
        return self._polled(select.POLLIN)

    @property
    def gone(self) -> bool:
        """The connection was reset after its client's end."""
        return self.ended and self._polled(0)

    def _polled(self, events: int) -> bool:
        sock = self.transport.get_extra_info("socket")
        if sock is None or self.transport.is_closing():
            return False
        poller = select.poll()
        poller.register(sock.fileno(), events)  # errors and hang-ups are told in any case
        return bool(poller.poll(0))

    def _bug(self, where: str, bug: BaseException) -> None:
        self.gate.crash(where, bug)
        if self.transport is not None:
            self.transport.abort()
