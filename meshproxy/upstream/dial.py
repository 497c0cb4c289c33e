"""Room 6, loud: opens connections for pools. A task per dial, never per request.

In: ``dial(pool)``. Out: exactly one ``pool.connected`` or ``pool.dial_failed``. Outbound sockets are bound to the pod's own
address (without reserving a port, so that the four-tuple stays the limit), which is how the other side knows the peer.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from meshproxy.message.reason import Reason
from meshproxy.message.secured import TlsFault
from meshproxy.upstream.connection import UpstreamConnection
from meshproxy.upstream.own import plain
from meshproxy.upstream.plan import Plan
from meshproxy.upstream.pool import Pool
from meshproxy.upstream.secure import ClientSide, TlsRefused, words
from meshproxy.upstream.secured import SecuredConnection

__all__ = ["TcpDialer", "failure_text"]

_MARKS = ("127.0.0.6", "::6")
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python 3.11 has no name for it


def failure_text(exc: OSError) -> str:
    """Envoy's words for a failed connect: ``delayed connect error: Connection refused``."""
    words = os.strerror(exc.errno) if exc.errno else str(exc)
    return f"delayed connect error: {words}"


class _Refused(Exception):
    """An address that we must not dial. (PermissionError is the kernel's: a broadcast address, a firewall.)"""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


def _source(bind: str, family: int) -> str:
    """The address that a cluster wants its connections to come from. Istio's marks (127.0.0.6, ::6) stand for each other: by them
    iptables knows what goes on to the app, and without them it would come back to us.
    """
    if bind in _MARKS:
        return _MARKS[family == socket.AF_INET6]
    return bind


class TcpDialer:
    """Dials for every pool of one worker.

    source: own address to bind to, or "" for none. refuse: why an address and port must never be dialed (the sidecar's own
    ports: a loop), or None. secure: makes TLS of it where the pool's cluster wants that; without it such a dial fails.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        crash: Callable[[str, BaseException], None],
        source: str = "",
        refuse: Callable[[str, int], Reason | None] = lambda address, port: None,
        secure: ClientSide | None = None,
    ) -> None:
        self._loop = loop
        self._crash = crash
        self._source = source
        self._refuse = refuse
        self._secure = secure
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, pool: Pool) -> None:
        task = self._loop.create_task(self._dial(pool), name="dial")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel what is being dialed."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dial(self, pool: Pool) -> None:
        seconds = pool.cluster.config.pool.connect_timeout
        try:
            async with asyncio.timeout(seconds or None):
                connection = await self._connect(pool)
                while connection.plan != self._plan(pool):  # the configuration changed meanwhile: what is new needs the new way
                    connection.transport.abort()
                    connection = await self._connect(pool)
        except TimeoutError:
            self._failed(pool, Reason.CONNECT_TIMEOUT, "")
        except _Refused as no:
            self._failed(pool, no.reason, "")
        except TlsRefused as no:
            if self._secure is not None:
                self._secure.failed(pool, no.fault, no.detail, no.who)
            self._failed(pool, Reason.CONNECT_FAILURE, words(no.fault, no.detail))
        except OSError as exc:
            self._failed(pool, Reason.CONNECT_FAILURE, failure_text(exc))
        except asyncio.CancelledError:
            self._failed(pool, Reason.CONNECT_FAILURE, "shutting down")
            raise
        except Exception as bug:
            self._crash("dial", bug)
            self._failed(pool, Reason.CONNECT_FAILURE, "internal error")
        else:
            pool.endpoint.cx_total += 1
            try:
                pool.connected(connection, self._loop.time())
            except Exception as bug:
                self._crash("dialed", bug)
                connection.transport.abort()

    def _failed(self, pool: Pool, reason: Reason, failure: str) -> None:
        pool.endpoint.cx_connect_fail += 1
        try:
            pool.dial_failed(reason, failure, self._loop.time())
        except Exception as bug:
            self._crash("dial failed", bug)

    async def _connect(self, pool: Pool) -> UpstreamConnection:
        last: OSError = OSError(errno.EADDRNOTAVAIL, "no address")
        for family, address in await self._resolve(pool.endpoint.address, pool.endpoint.port):
            if (reason := self._refuse(address[0], address[1])) is not None:
                raise _Refused(reason)
            try:
                return await self._open(pool, family, address)
            except OSError as exc:
                last = exc
        raise last

    async def _resolve(self, host: str, port: int) -> list[tuple[int, Any]]:
        if ":" not in (bare := plain(host)):
            host = bare  # an IPv4 address is dialed as one, or it would not come from our own
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, host)
            except OSError:
                continue
            return [(family, (host, port))]
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            raise OSError(errno.EHOSTUNREACH, f"{host}: {exc.strerror}") from exc
        except UnicodeError as exc:  # no name of a host: an empty label, or one over 63 bytes
            raise OSError(errno.EHOSTUNREACH, f"{host}: not a host name") from exc
        return [(family, address) for family, _, _, _, address in found]

    async def _open(self, pool: Pool, family: int, address: Any) -> UpstreamConnection:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keepalive(sock, pool.cluster.config.pool.tcp_keepalive)
            source = _source(pool.cluster.config.bind, family) or self._source
            if source and (family == socket.AF_INET6) == (":" in source):
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
            made = self._protocol(pool)
            await self._loop.sock_connect(sock, address)
            _, connection = await self._loop.create_connection(lambda: made, sock=sock)
        except BaseException:
            sock.close()
            raise
        if isinstance(connection, SecuredConnection):
            await self._shaken(pool, connection)
        return connection

    def _protocol(self, pool: Pool) -> UpstreamConnection:
        """Plaintext or TLS, as the configuration says now. Raises ``TlsRefused``."""
        secure = self._secure
        if secure is None:
            if pool.cluster.config.tls is not None:  # nobody here to make it: never in the clear instead
                raise TlsRefused(TlsFault.NO_IDENTITY)
            return UpstreamConnection(self._loop, pool, self._crash)
        plan = self._plan(pool)
        if plan is None:
            return UpstreamConnection(self._loop, pool, self._crash)
        return SecuredConnection(self._loop, pool, self._crash, secure, plan, secure.session(pool, plan))

    def _plan(self, pool: Pool) -> Plan | None:
        return None if self._secure is None else self._secure.plan(pool)

    async def _shaken(self, pool: Pool, connection: SecuredConnection) -> None:
        """Wait for the handshake; what is cancelled with it (a timeout) leaves nothing open."""
        try:
            await connection.shaken
        except asyncio.CancelledError:
            connection.transport.abort()
            connection.give_up()
            raise
        if connection.transport.is_closing():  # refused, or cut, before anybody could use it
            raise ConnectionResetError(errno.ECONNRESET, connection.failure)

    @staticmethod
    def _keepalive(sock: socket.socket, setting: tuple[int, int, int] | None) -> None:
        if setting is None:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = (socket.TCP_KEEPCNT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        for option, value in zip(options, setting, strict=True):
            if value:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
