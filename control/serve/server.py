"""Control's HTTP servers (room ``serve``): sockets that are listened on, applications on them, an end within a bounded time.

In: addresses, ASGI applications. Out: ``listen``, ``reached_at``, ``Servers``: ``serve`` each, wait until they have ``started``,
``stop`` them together. A task in ``tasks`` ends only when its server does. Signals are the process's business (``__main__``).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from control.files import FileProblem
from control.serve.patience import Patient
from control.serve.tls import ServerTls
from control.tasks import spawn

__all__ = ["Servers", "listen", "reached_at"]

KEEP_ALIVE = 300  # seconds; sidecars post on one connection now and then, and a handshake costs more than a socket
GRACE = 2  # seconds that answers have to finish when control stops
BACKLOG = 4096


def listen(bind: str, port: int, option: str) -> socket.socket:
    """``bind`` ``::``: every address of both families, of IPv4 where there is no IPv6. ``port`` 0: any free one.

    Raises ``FileProblem`` that names ``option``, by which the user gave the port.
    """
    try:
        try:
            return _listening(bind, port)
        except OSError as error:
            if bind != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            return _listening("0.0.0.0", port)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not a port"
        raise FileProblem(f"{option} {port}: cannot listen on {bind}: {reason}; give another one") from error


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # named as TCP, or asyncio leaves Nagle's algorithm on: 40 ms for every answer of a head and a body
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def reached_at(bind: str, sock: socket.socket) -> str:
    """``host:port`` for others: an address of all interfaces is no destination."""
    host = "127.0.0.1" if bind in ("0.0.0.0", "::") else bind
    port: int = sock.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Servers:
    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self._servers: list[_Server] = []

    def serve(self, app: ASGIApp, sock: socket.socket, name: str, tls: ServerTls | None = None) -> None:
        """Begin to serve ``app``. Without ``tls`` in plain HTTP."""
        config = uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE + 2,  # ours comes first, see stop
            backlog=BACKLOG,
            ssl_context_factory=None if tls is None else lambda config, default: tls.context,
        )
        server = _Server(config)
        self._servers.append(server)
        self.tasks.append(spawn(server.serve(sockets=[sock]), f"serve-{name}"))

    async def started(self) -> None:
        """Returns when all of them answer. Raises ``FileProblem`` when one ended instead."""
        while not all(server.started for server in self._servers):
            if any(task.done() for task in self.tasks):
                raise FileProblem("a server ended while starting: see the log")
            await asyncio.sleep(0.01)  # uvicorn has no event for it

    async def stop(self) -> None:
        """Let answers finish, but not for long."""
        for server in self._servers:
            server.should_exit = True
        if not self.tasks:
            return
        _, late = await asyncio.wait(self.tasks, timeout=GRACE)
        if late:  # peers that do not read would hold up the farewell of TLS
            for server in self._servers:
                for connection in list(server.server_state.connections):
                    connection.transport.abort()
            await asyncio.wait(self.tasks, timeout=GRACE + 1)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
