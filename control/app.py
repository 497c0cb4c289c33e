"""The control service, put together: the composition root of control.

In: ``Settings``. Out: ``Control``: construct, ``await start()``, ``await run(stop)``, ``await stop()``. Read ``start`` for the
order in which things come to life and ``stop`` for the reverse. Everything that this process keeps is under ``Settings.state``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from control.ca.authority import Authority
from control.ca.issuer import ServerCertificate
from control.ca.ledger import Ledger
from control.ca.rotation import Rotation
from control.ca.service import DEFAULT_CERT_TTL, CertificateAuthority
from control.ca.tokens import Tokens
from control.files import FileProblem
from control.history.history import History
from control.history.prometheus import Prometheus
from control.identity import Authenticator
from control.resources.kinds import by_kind
from control.resources.mesh_config import MESH_CONFIG
from control.serve import (
    admission,
    analysis,
    ca_api,
    callers,
    certificates,
    failures,
    keys,
    kube,
    mesh_api,
    reports,
    stream,
    targets,
    top,
    traces,
)
from control.serve import tokens as token_api
from control.serve.auth import CERTIFICATE_PATH, Door
from control.serve.dashboard.app import dashboard
from control.serve.dashboard.sessions import Sessions
from control.serve.dashboard.signin import code_routes
from control.serve.debounce import Debounce
from control.serve.hub import Hub
from control.serve.keeper import Keeper
from control.serve.metrics import Metrics
from control.serve.monitor import monitor
from control.serve.server import Servers, listen, reached_at
from control.serve.taps import Taps
from control.serve.tls import ServerTls
from control.sources.defaults import ensure_defaults
from control.sources.endpoints import EndpointController
from control.sources.fetching import Fetcher
from control.sources.jwks import Jwks
from control.statedir import StateDir
from control.store.api import NotFound, Store, StoreError
from control.store.sqlite import SqliteStore
from control.tasks import cancel, spawn
from control.traces.store import LIMIT, RETENTION, TraceStore
from control.translate.translator import Translator
from control.world import MeshSettings
from control.world.reporting import Reporting
from control.world.settings import trust_domain_at_start
from meshproxy.model.telemetry import AccessLog

__all__ = ["Control", "Settings"]

log = logging.getLogger("mesh.control")
CERTIFICATE_LIFE = 48 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``port`` and ``metrics_port`` 0: any free one. ``names``: more names for the server certificate. Seconds for times."""

    state: Path
    bind: str = "127.0.0.1"
    port: int = 15012
    metrics_port: int = 15014
    webhook_port: int | None = None  # where a cluster's API server has the mesh's resources judged
    names: tuple[str, ...] = ()
    logs: Path | None = None
    trust_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    outbound_policy: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    debounce: float = 0.1
    debounce_max: float = 0.5
    demo_jwks: Path | None = None
    beat: float = 5.0
    ca_dir: Path | None = None  # an authority of the user's own, in Istio's four files
    workload_cert_ttl: float = DEFAULT_CERT_TTL
    trace_retention: float = RETENTION
    trace_limit: int = LIMIT  # bytes
    trace_sampling: float = 1.0  # percent
    access_log: str = ""
    prometheus: str = ""  # URL; the page reads from there instead of from control's own history


class Control:
    """``server`` and ``metrics`` are the URLs really listened on, known once started."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.server = ""
        self.metrics_url = ""
        self.webhook = ""
        self._state = StateDir(settings.state)
        self._debounce = Debounce(settings.debounce, settings.debounce_max)
        self._metrics = Metrics()
        self._hub = Hub(Translator(time.time).translate, self._metrics)
        self._taps = Taps(self._hub, self._metrics.registry)
        self._sessions = Sessions()
        self._history = History(self._hub.workload)
        self._prometheus = Prometheus(settings.prometheus) if settings.prometheus else None
        self._stopping = asyncio.Event()
        self._sqlite: SqliteStore | None = None
        self._traces = TraceStore(self._state.traces, retention=settings.trace_retention, limit=settings.trace_limit)
        self._ca: CertificateAuthority | None = None
        self._rotation: Rotation | None = None
        self._jwks: Jwks | None = None
        self._tokens: Tokens | None = None
        self._door: Door | None = None
        self._roots = b""  # those that the kubeconfig names
        self._tls: ServerTls | None = None
        self._issuer = ""  # who signed the certificate that our own door shows
        self._writing = asyncio.Lock()
        self._servers = Servers()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when both ports answer. Raises ``FileProblem`` (one line) for everything that the user can put right."""
        settings = self.settings
        self._state.lock()
        authority, ledger = await self._open_authority()
        ca = self._ca = CertificateAuthority(authority, ledger, self._domain, settings.workload_cert_ttl)
        tls = self._tls = ServerTls(lambda now: self._certificate(authority, now))
        self._traces.open()
        api_socket = listen(settings.bind, settings.port, "--port")
        metrics_socket = listen(settings.bind, settings.metrics_port, "--metrics-port")
        hook = None if settings.webhook_port is None else listen(settings.bind, settings.webhook_port, "--webhook-port")
        store = await self._open_store()
        mesh = MeshSettings(
            trust_domain=await self._trust_domain(store),
            root_namespace=settings.root_namespace,
            outbound_policy=settings.outbound_policy,
            reporting=Reporting(
                receiver=True,
                sampling=settings.trace_sampling,
                log=(AccessLog(path=settings.access_log),) if settings.access_log else None,
            ),
        )
        on_loopback = ipaddress.ip_address(api_socket.getsockname()[0]).is_loopback
        jwks = self._jwks = Jwks(self._state.key_sets, Fetcher(loopback=on_loopback).fetch, counted=self._fetched)
        keeper = Keeper(store, self._hub, mesh, self._debounce, self._metrics, want=jwks.want, tried=jwks.tried)
        jwks.changed = keeper.keys
        keeper.keys(jwks.load())
        ca.changed = self._trusted
        self.server = f"https://{reached_at(settings.bind, api_socket)}"
        self.metrics_url = f"http://{reached_at(settings.bind, metrics_socket)}"
        await ca.changed()
        await keeper.start()  # a world first, so that the first sidecar gets its configuration at once

        rotation = self._rotation = self._make_rotation(ca)
        app = self._door = Door(self._api(store, ca, rotation, jwks), self._authenticator(), time.time, self._turned_away)
        page = self._page(store, jwks, metrics_socket)
        found = targets.routes(lambda: self._hub.world)
        health = monitor(self._metrics, self._why_not_ready, settings.demo_jwks, page, found)
        self._servers.serve(app, api_socket, "api", tls)
        if hook is not None:
            self.webhook = f"https://{reached_at(settings.bind, hook)}"
            self._servers.serve(admission.webhook(self._why_not_ready, self._metrics.judged), hook, "webhook", tls)
        self._servers.serve(health, metrics_socket, "metrics")
        await self._servers.started()
        self._tasks = [
            spawn(keeper.run(), "keeper"),
            spawn(jwks.run(), "jwks"),
            spawn(tls.run(), "certificate-renewal"),
            spawn(ca.run(), "certificate-ledger"),
            *self._more_tasks(store, rotation),
        ]
        self._state.write_running(self.server, self.metrics_url)

    def _why_not_ready(self) -> str:
        return "" if self._hub.world is not None else "no world yet"

    # -- what is otherwise in a cluster ----------------------------------------------------------------------------------

    async def _open_authority(self) -> tuple[Authority, Ledger]:
        """Who signs, and what was issued and taken back."""
        authority = Authority.open(self._state.ca, time.time(), self.settings.ca_dir)
        self._tokens = Tokens.open(self._state.ca)
        return authority, Ledger(self._state.ledger)

    async def _open_store(self) -> Store:
        """Where resources are, with everything in it that a mesh starts with."""
        store = SqliteStore(self._state.database)
        try:
            await store.open()
            self._sqlite = store
            await ensure_defaults(store, self.settings.root_namespace)
        except StoreError as error:
            raise FileProblem(str(error)) from error
        return store

    def _authenticator(self) -> Authenticator:
        assert self._tokens is not None
        return self._tokens

    def _make_rotation(self, ca: CertificateAuthority) -> Rotation:
        return Rotation(ca, self._hub)

    def _more_tasks(self, store: Store, rotation: Rotation) -> list[asyncio.Task[None]]:
        return [spawn(EndpointController(store).run(), "endpoints"), spawn(rotation.run(), "rotation")]

    def _more_routes(self, store: Store) -> list[BaseRoute]:
        """What belongs to a mesh that is its own cluster: tokens, and resources by the Kubernetes-shaped API."""
        assert self._tokens is not None
        return [*token_api.routes(self._tokens, self._revoked, self._write_kubeconfig), *self._kube(store)]

    async def _announce(self, roots: bytes) -> None:
        """Write down whom to believe, for those who will come."""
        await self._write_kubeconfig()

    # --------------------------------------------------------------------------------------------------------------------

    async def _trusted(self) -> None:
        """Tell everybody whom the mesh trusts now: all sidecars, those who will come, our own door. Repeated when it fails."""
        ca = self._ca
        assert ca is not None
        await self._hub.trust(ca.trust())
        roots, issuer = ca.authority.root_pem, ca.authority.issuer.id
        if self._roots != roots:
            await self._announce(roots)
            self._roots = roots
        if self._issuer != issuer:
            assert self._tls is not None
            self._tls.renew()
            self._issuer = issuer
        self._metrics.root_expiry.set(min(root.not_valid_after_utc.timestamp() for root in ca.authority.roots))
        self._metrics.issuer_expiry.set(ca.authority.expires)

    async def _write_kubeconfig(self) -> None:
        """Waits for the disk, but not on the loop. One at a time, each with what holds by then: the newest is what stays."""
        ca, tokens = self._ca, self._tokens
        assert ca is not None and tokens is not None
        async with self._writing:
            roots, token = ca.authority.root_pem, tokens.admin_token
            await asyncio.to_thread(self._state.write_kubeconfig, self.server, roots, token)

    async def _trust_domain(self, store: Store) -> str:
        """What the users' MeshConfig says now counts until control is started again."""
        with contextlib.suppress(NotFound):
            found = await store.get(by_kind("", "ConfigMap"), self.settings.root_namespace, MESH_CONFIG)
            return trust_domain_at_start(str((found.get("data") or {}).get("mesh") or "")) or self.settings.trust_domain
        return self.settings.trust_domain

    def _domain(self) -> str:
        world = self._hub.world
        return self.settings.trust_domain if world is None else world.mesh.trust_domain

    def _fetched(self, success: bool) -> None:
        (self._metrics.jwks_fetched if success else self._metrics.jwks_failed).inc()

    def _revoked(self, token: str) -> None:
        if self._door is not None:
            self._door.revoked(token)
        self._sessions.revoked(token)

    def _turned_away(self, path: str) -> None:
        if path == CERTIFICATE_PATH:
            self._metrics.unauthenticated.inc()

    def _api(self, store: Store, ca: CertificateAuthority, rotation: Rotation, jwks: Jwks) -> Starlette:
        routes: list[BaseRoute] = [
            *stream.routes(self._hub, stream.StreamSettings(beat=self.settings.beat)),
            *reports.routes(self._history, self._metrics),
            *self._taps.routes(),
            *code_routes(self._sessions, lambda: self.metrics_url),
            *certificates.routes(ca, self._metrics),
            *ca_api.routes(ca, rotation, self._hub, self.settings.root_namespace),
            *mesh_api.routes(self._hub, store),
            *callers.routes(self._hub),
            *top.routes(self._history, self._hub),
            *failures.routes(self._hub),
            *analysis.routes(self._hub, store, jwks.report, time.time),
            *keys.routes(jwks.report),
            *traces.routes(self._traces, self._metrics.registry),
            *self._more_routes(store),
        ]
        app = Starlette(routes=routes, exception_handlers=kube.handlers())
        app.router.redirect_slashes = False  # a path is right or unknown; a redirect would repeat whatever Host was sent
        return app

    def _kube(self, store: Store) -> list[Route]:
        return kube.routes(store, logs_dir=self.settings.logs, stopping=self._stopping, judged=self._metrics.judged)

    def _page(self, store: Store, jwks: Jwks, sock: socket.socket) -> ASGIApp:
        names = {sock.getsockname()[0], *self.settings.names} - {"0.0.0.0", "::"}
        history, report = self._history, jwks.report
        return dashboard(
            self._hub, store, self._kube(store), history, self._traces, self._sessions, names, report, self._prometheus
        )

    def _certificate(self, authority: Authority, now: float) -> ServerCertificate:
        bind, root = self.settings.bind, self.settings.root_namespace
        names = [bind, "localhost", "127.0.0.1", f"istiod.{root}.svc", f"mesh-control.{root}.svc", *self.settings.names]
        return authority.issue_server(names, now, CERTIFICATE_LIFE)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set. Raises ``RuntimeError`` when a part of control ended by itself."""
        stopped = spawn(stop.wait(), "stop")
        try:
            done, _ = await asyncio.wait({stopped, *self._servers.tasks, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(stopped)
        if stopped not in done:
            raise RuntimeError(f"{', '.join(sorted(task.get_name() for task in done))} ended: see the log")

    async def stop(self) -> None:
        """End streams and watches, let answers finish (bounded), close the store. Safe after a start that failed half-way."""
        self._stopping.set()
        self._taps.close()
        self._hub.close()
        await self._servers.stop()
        await cancel(*self._servers.tasks, *self._tasks)
        await self._close_store()
        if self._prometheus is not None:
            await self._prometheus.aclose()
        if self._ca is not None:
            await self._ca.close()
        if self._tokens is not None:
            self._tokens.close()
        await asyncio.to_thread(self._traces.close)
        self._state.release()

    async def _close_store(self) -> None:
        if self._sqlite is not None:
            await self._sqlite.close()
