"""The injector's process: the two ports, the certificate that is renewed under them, the settings that change.

In: ``Options``. Out: ``run``, until it is told to stop. Files are looked at every ``LOOK`` seconds, since a mounted ConfigMap
or Secret changes by a symbolic link that no watch on a file sees. New connections get the new certificate, open ones go on;
settings or certificates that are wrong change nothing, are told once and counted, and the last good ones stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from cryptography import x509
from starlette.types import ASGIApp

from injector.annotations import check_settings
from injector.app import Metrics, monitor, webhook
from injector.settings import BadSettings, Settings, with_mesh

__all__ = ["Cannot", "Options", "Server"]

log = logging.getLogger("mesh.injector")
LOOK = 2.0
GRACE = 10  # seconds that answers have to finish
KEEP_ALIVE = 75  # longer than an API server leaves a connection idle between two pods


class Cannot(RuntimeError):
    """It cannot serve; one line."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Ports may be 0: any free one. ``settings`` None: Istio's defaults. ``mesh``: the mesh's own ConfigMap, if mounted."""

    certificate: Path
    key: Path
    settings: Path | None = None
    mesh: Path | None = None
    bind: str = "::"
    port: int = 15017
    metrics_port: int = 15014
    look: float = LOOK
    drain: float = 0.0  # seconds, from being told to stop, that it still answers and is not ready


class Server:
    """Construct, ``await start()``, ``await run(stop)``."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.port = self.metrics_port = 0
        self.metrics = Metrics()
        self._settings: Settings | None = None
        self._texts: tuple[str, ...] = ()
        self._pair = (b"", b"")
        self._told = ""
        self._stopping = False
        self._context = _context()  # the server's for good; whole contexts change hands in it, one handshake each
        self._context.sni_callback = self._choose
        self._current = self._context
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when both ports answer. Raises ``Cannot``."""
        options = self.options
        self._settings = await asyncio.to_thread(self._read_settings)
        try:
            await asyncio.to_thread(self._read_certificate)
        except (OSError, ValueError) as error:
            raise Cannot(f"the certificate cannot be used: {error}") from None
        app = webhook(self.settings, self._ready, self.metrics)
        sock = _listen(options.bind, options.port, "--port")
        plain = _listen(options.bind, options.metrics_port, "--metrics-port")
        self.port, self.metrics_port = sock.getsockname()[1], plain.getsockname()[1]
        self._serve(app, sock, "webhook", self._context)
        self._serve(monitor(self._ready, self.metrics), plain, "metrics", None)
        while not all(server.started for server in self._servers):
            if any(task.done() for task in self._tasks):
                raise Cannot("a server ended while starting: see the log")
            await asyncio.sleep(0.01)  # uvicorn has no event for it

    def settings(self) -> Settings:
        assert self._settings is not None
        return self._settings

    def _ready(self) -> str:
        return "stopping" if self._stopping else ""

    def _serve(self, app: ASGIApp, sock: socket.socket, name: str, context: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
            ssl_context_factory=None if context is None else lambda config, default: context,
        )
        server = _Server(config)
        self._servers.append(server)
        self._tasks.append(asyncio.get_running_loop().create_task(server.serve(sockets=[sock]), name=name))

    async def run(self, stop: asyncio.Event, now: asyncio.Event | None = None) -> None:
        """Serve until ``stop`` is set and ``drain`` is over, or ``now`` is set; then let answers finish.

        Raises ``Cannot`` when a server ended by itself.
        """
        stopped = asyncio.get_running_loop().create_task(stop.wait(), name="stop")
        try:
            while not stopped.done():
                done, _ = await asyncio.wait(
                    {stopped, *self._tasks}, timeout=self.options.look, return_when=asyncio.FIRST_COMPLETED
                )
                if done - {stopped}:
                    raise Cannot(f"{', '.join(task.get_name() for task in self._tasks if task.done())} ended: see the log")
                await self.look()
            self._stopping = True
            if self.options.drain:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for((now or asyncio.Event()).wait(), self.options.drain)
        finally:
            stopped.cancel()
            self._stopping = True
            for server in self._servers:
                server.should_exit = True
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> None:
        """Take over what has changed in the files."""
        try:
            self._settings = await asyncio.to_thread(self._read_settings)
            await asyncio.to_thread(self._read_certificate)
            self._told = ""
            self.metrics.settings_good.set(1)
        except (Cannot, OSError, ValueError) as problem:
            self.metrics.settings_good.set(0)
            if str(problem) != self._told:
                self._told = str(problem)
                log.error("a changed file is not used, the last good one stays: %s", problem)

    def _read_settings(self) -> Settings:
        texts = tuple(_text(path) for path in (self.options.settings, self.options.mesh))
        if self._settings is not None and texts == self._texts:
            return self._settings
        try:
            made = Settings.read(texts[0])
            found = check_settings(with_mesh(made, texts[1]) if texts[1] else made)
        except BadSettings as bad:
            raise Cannot(f"settings: {bad}") from None
        if self._settings is not None:
            log.info("the settings have changed")
        self._texts = texts
        self.metrics.settings_good.set(1)
        return found

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read_certificate(self) -> None:
        pair = (self.options.certificate.read_bytes(), self.options.key.read_bytes())
        if pair == self._pair:
            return
        # A context of its own: half of a new pair must spoil nothing, and this thread must not change one that shakes hands now.
        made = _context()
        made.load_cert_chain(self.options.certificate, self.options.key)
        expiry = x509.load_pem_x509_certificate(pair[0]).not_valid_after_utc
        self._current = made
        self.metrics.certificate_expiry.set(expiry.timestamp())
        if self._pair[0]:
            log.info("the certificate was renewed, it is good until %s", expiry.isoformat())
        self._pair = pair


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Cannot(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _listen(bind: str, port: int, option: str) -> socket.socket:
    """``bind`` ``::``: every address of both families, of IPv4 where there is no IPv6."""
    try:
        try:
            return _listening(bind, port)
        except OSError as error:
            if bind != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            return _listening("0.0.0.0", port)
    except (OSError, OverflowError) as error:
        raise Cannot(f"{option} {port}: cannot listen on {bind}: {getattr(error, 'strerror', None) or error}") from None


def _listening(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(1024)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the process's business
