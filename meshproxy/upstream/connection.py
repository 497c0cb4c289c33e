"""Room 6, loud: one connection to an endpoint, an ``asyncio.Protocol`` around the client codec.

In: bytes and the transport's events. Out: calls of the codec, and of the pool when a lease ends. Assumes that the codec calls
the sink's last event as the very last thing it does for a message, with ``reusable`` already true or false.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from meshproxy.codec.h1 import ClientCodec
from meshproxy.codec.raw import RawCodec
from meshproxy.message.ports import ResponseSink
from meshproxy.message.reason import Reason
from meshproxy.message.secured import Secured
from meshproxy.upstream.plan import Plan
from meshproxy.upstream.pool import Pool

__all__ = ["HIGH_WATER", "UpstreamConnection", "reset"]

HIGH_WATER = 256 * 1024
_PEEK_AFTER = 0.02  # seconds of idleness after which a connection is looked at before it is used again


def reset(transport: Any) -> None:
    """Abort so that the peer sees a reset, not an end (SO_LINGER with no time, socket(7))."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class UpstreamConnection(asyncio.Protocol):
    """Leased to one request at a time. ``sink`` is that request's attempt."""

    __slots__ = (
        "_crash",
        "_loop",
        "blocked",
        "codec",
        "expires",
        "failure",
        "idle_since",
        "local",
        "lost_by",
        "opened",
        "plan",
        "pool",
        "secured",
        "served",
        "sink",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, crash: Callable[[str, BaseException], None]) -> None:
        self._loop = loop
        self._crash = crash
        self.pool = pool
        self.served = 0
        self.idle_since = 0.0
        self.opened = 0.0
        self.expires = 0.0
        self.sink: Any = None
        self.blocked = False
        self.transport: Any = None
        self.codec: Any = None
        self.local: tuple[str, int] | None = None
        self.plan: Plan | None = None  # how it was made
        self.secured: Secured | None = None
        self.failure = ""  # why the transport failed, in words, for the client and the log
        self.lost_by = Reason.UPSTREAM_TERMINATION

    # -- transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.local = transport.get_extra_info("sockname")
        self.codec = RawCodec(self.transport) if self.pool.raw else ClientCodec(self.transport)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        try:
            self.codec.feed(data, now)
            sink = self.sink
            if sink is not None:
                sink.on_response_flush(now)
            elif not self.codec.reusable:  # bytes nobody asked for
                self.transport.close()
        except Exception as bug:
            self._crash("upstream data", bug)
            self.transport.abort()

    def eof_received(self) -> bool:
        now = self._loop.time()
        try:
            if self.sink is None and not self.pool.raw:
                return False
            self.codec.feed_eof(now)
        except Exception as bug:
            self._crash("upstream eof", bug)
            self.transport.abort()
        # A tunnel may still send after its peer has finished; everything else closes.
        return (self.sink is not None or self.pool.raw) and self.codec.tunnel

    def connection_lost(self, exc: BaseException | None) -> None:
        try:
            self.pool.lost(self)
            if self.sink is not None:
                self.codec.closed(self._loop.time(), self.lost_by)
                self.sink = None
        except Exception as bug:
            self._crash("upstream lost", bug)

    def pause_writing(self) -> None:
        self.blocked = True
        if self.sink is not None:
            self.sink.on_upstream_blocked(True)

    def resume_writing(self) -> None:
        self.blocked = False
        if self.sink is not None:
            self.sink.on_upstream_blocked(False)

    # -- the lease

    def begin(self, sink: ResponseSink) -> None:
        """Bind the lease to a request; the codec's calls go to ``sink`` until ``end``."""
        self.sink = self.codec.sink = sink

    def end(self, reusable: bool) -> None:
        """The request is done with this connection. Not reusable: it is closed at once."""
        self.sink = self.codec.sink = None
        reusable = reusable and not self.transport.is_closing() and not self.blocked
        if reusable:
            self.codec.free_reading()  # the client was told to wait within the last bytes of its answer
        self.pool.released(self, reusable, self._loop.time())

    def usable(self, now: float) -> bool:
        """False when closing, or when the peer's EOF (or a stray byte) is already waiting in the kernel.

        The look costs a system call, so only connections that were idle for a while pay for it: the race with a server's
        keep-alive timeout (semantics B3.6) needs idleness.
        """
        if self.transport.is_closing() or not self.codec.reusable:
            return False
        if now - self.idle_since < _PEEK_AFTER:
            return True
        sock = self.transport.get_extra_info("socket")
        if sock is None:  # a transport without a socket has nothing to look at
            return True
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not poller.poll(0)

    def cut(self) -> None:
        """So that the endpoint sees a reset, not an end."""
        reset(self.transport)

    def close(self) -> None:
        self.transport.abort() if self.blocked else self.transport.close()
