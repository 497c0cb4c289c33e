"""The composition root: opens the doors of every room, in flow order, and closes them again.

In: a ``Bootstrap``. Out: a running sidecar until SIGTERM or SIGINT (drain, then exit 0), ``/quitquitquit``, or ``Cannot`` (a
line for the user). Owns no judgement of its own: configuration goes to the traffic, questions are answered from it.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from meshproxy import explain as explaining
from meshproxy.admin.dump import config_dump, shown
from meshproxy.admin.server import AdminServer
from meshproxy.agent.client import Agent, AgentConfig
from meshproxy.agent.identity import Enrolment
from meshproxy.agent.identity_files import IdentityFiles
from meshproxy.agent.state import Candidate, State, receive
from meshproxy.agent.tasks import spawn
from meshproxy.apply import trust_of
from meshproxy.bootstrap import Bootstrap
from meshproxy.credentials import Credentials
from meshproxy.ending import plan_of
from meshproxy.model.base import encode
from meshproxy.model.delivery import Ack, Answer, Nack, Push, Query
from meshproxy.reporting import Reporting
from meshproxy.standalone import FileSource
from meshproxy.tapping import Tapping
from meshproxy.telemetry.appmetrics import AppMetrics, together
from meshproxy.telemetry.exposition import exposition, stats
from meshproxy.telemetry.failures import Failure
from meshproxy.telemetry.failures import chosen as chosen_failures
from meshproxy.telemetry.family import Family, Row
from meshproxy.telemetry.version import VERSION
from meshproxy.traffic import Traffic, traffic

__all__ = ["Cannot", "Sidecar", "run"]

log = logging.getLogger("meshproxy")


class Cannot(Exception):
    """The sidecar cannot start; one line."""


class Sidecar:
    """One sidecar; what the admin room asks of us (``AdminPort``) is answered here."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._loop = asyncio.get_running_loop()
        self._started = time.time()
        self._stopping = asyncio.Event()
        self._draining = self._asked = False
        self.state = State()
        self.updates = 0
        self.rejected = 0
        self.agent: Agent | None = None
        self.enrolment: Enrolment | None = None
        self.files: FileSource | None = None
        self.identity_files: IdentityFiles | None = None
        self.traffic: Traffic = traffic(bootstrap)
        self.reporting = Reporting(self.traffic.deltas)
        self.tapping = Tapping(self.traffic, self._tapped, self._stream)
        self.admin = AdminServer(self, bootstrap)
        app = bootstrap.app_metrics
        self.app_metrics = AppMetrics(app.host or bootstrap.ip, app.port, app.path, not app.host) if app is not None else None

    # -- life

    async def run(self) -> None:
        """Serve until told to stop; then drain."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._loop.add_signal_handler(signal.SIGUSR1, self.traffic.reopen_logs)  # as Envoy's: after a log rotation
        tasks = []
        self._identify()
        try:
            await self.admin.open()
        except OSError as error:
            raise Cannot(error.strerror or str(error)) from None
        try:
            await self.traffic.start()
            log.info("%s", self._introduction())
            tasks.append(spawn(self._configure(), "configuration"))
            if self.identity_files is not None:
                tasks.append(spawn(self.identity_files.run(), "identity files"))
            gc.freeze()  # what start-up made stays for good: the collector need not look at it again
            await self._stopping.wait()
            self._draining = True
            await self.traffic.drain(plan_of(self._bootstrap, self._asked))
            if self.agent is not None:
                await self.reporting.last(self.agent)
        finally:
            if self.agent is not None:
                self.agent.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.tapping.aclose()
            await self.traffic.aclose()
            await self.admin.aclose()

    def _identify(self) -> None:
        """The identity from files, where files have it; ``_configure`` gets it from control."""
        own = self._bootstrap
        if own.identity_cert is None or own.identity_key is None or own.identity_roots is None:
            return
        self.identity_files = IdentityFiles(own.identity_cert, own.identity_key, own.identity_roots, self.traffic.identify)
        self.identity_files.load()
        if self.identity_files.problem:
            raise Cannot(self.identity_files.problem)

    async def _configure(self) -> None:
        bootstrap = self._bootstrap
        if bootstrap.config is not None:
            self.files = FileSource(bootstrap.config, self.state, self._install)
            self._loop.add_signal_handler(signal.SIGHUP, self._reload)
            await self.files.run()
            return
        assert bootstrap.control_ca is not None and bootstrap.token_file is not None
        config = AgentConfig(
            control=bootstrap.control,
            ca_file=bootstrap.control_ca,
            token_file=bootstrap.token_file,
            namespace=bootstrap.namespace,
            pod=bootstrap.pod,
        )
        self.enrolment = Enrolment(config, self.traffic.identify)
        self.agent = Agent(config, self._push, self._answer, lambda: self.state.version, roots=self.enrolment.roots)
        helpers = [spawn(self.enrolment.run(), "identity"), spawn(self.reporting.run(self.agent), "reports")]
        try:
            await self.enrolment.asked.wait()  # so that the first configuration finds the identity that it speaks of
            await self.agent.run()
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _reload(self) -> None:
        """SIGHUP: read all files again."""
        if self.identity_files is not None:
            self.identity_files.load()
        if self.files is not None:
            self.files.load()

    # -- configuration

    def _push(self, push: Push) -> Ack:
        if self.enrolment is not None:
            self.enrolment.reached()
        ack = receive(self.state, push, self._install)
        self.rejected += bool(ack.nacks)
        return ack

    def _install(self, candidate: Candidate) -> list[Nack]:
        nacks = self.traffic.install(candidate)
        if not nacks and not self.updates:
            listeners = ", ".join(candidate.held["listener"]) or "none"
            log.info("first configuration in force: version %s, listeners %s", candidate.version, listeners)
        self.updates += not nacks
        if self.enrolment is not None and not nacks and (trust := trust_of(candidate.resources)) is not None:
            self.enrolment.trusted(trust)
        return nacks

    def _introduction(self) -> str:
        """Who starts, for the log's first line."""
        own = self._bootstrap
        ports = f"admin :{own.admin_port}, health :{own.health_port}, metrics :{own.metrics_port}"
        source = own.control if own.config is None else own.config
        return f"meshproxy {VERSION} starts: {own.role} {own.node} on {own.ip}, {ports}, configuration from {source}"

    # -- questions over the stream

    async def _answer(self, query: Query) -> Answer:
        verbs: dict[str, Callable[[], Any]] = {
            "dump": self._whole,
            "clusters": self.traffic.clusters,
            "listeners": self.traffic.listeners,
            "callers": self.called,
            "secrets": lambda: self._credentials().rows(time.time()),
            "server_info": self.info,
            "explain": lambda: self._explained(query.args),
            "failures": lambda: self._failures(query.args),
            "tap": lambda: self.tapping.open(query.args),
            "untap": lambda: self.tapping.close(query.args),
        }
        if query.verb not in verbs:
            return Answer(id=query.id, ok=False, error=f"verb: {query.verb!r} is not one of {', '.join(sorted(verbs))}")
        try:
            result = verbs[query.verb]()
            if inspect.isawaitable(result):
                result = await result
        except (KeyError, ValueError) as error:
            return Answer(id=query.id, ok=False, error=str(error.args[0]))
        return Answer(id=query.id, result=msgspec.Raw(encode(result)))

    async def _tapped(self, batch: bytes) -> int:
        return await self.agent.tapped(batch) if self.agent is not None else 0

    def _stream(self) -> int:
        """Which stream to control is open, counted; 0: none."""
        return self.agent.status.connects if self.agent is not None and self.agent.status.connected else 0

    async def _whole(self) -> dict[str, Any]:
        """For ``meshctl proxy-config``: resources, what endpoints are ejected, and how we were started."""
        state = {
            cluster["name"]: {one["address"]: {"ejected": one["health"] != "healthy"} for one in cluster["endpoints"]}
            for cluster in await self.traffic.clusters()
        }
        resources = [
            {"kind": kind, "name": name, "version": held.version, "body": shown(held.value)}
            for kind, items in self.state.held.items()
            for name, held in items.items()
        ]
        return {"version": self.state.version, "resources": resources, "state": state, "bootstrap": self.info()}

    async def _failures(self, args: dict[str, Any]) -> list[Failure]:
        """What failed here lately, and of that what is asked for. Raises ``ValueError`` with one line."""
        chosen_failures((), args, 0.0)  # a wrong question is refused before anybody is asked
        return chosen_failures(await self.traffic.failures(), args, time.time())

    async def _explained(self, args: dict[str, Any]) -> dict[str, Any]:
        told = self.explain(args)
        if self._bootstrap.concurrency > 1:  # our own compilation carries no traffic: the workers know the endpoints' state
            explaining.overlay(told, await self.traffic.clusters())
        return told

    def explain(self, args: dict[str, Any]) -> dict[str, Any]:
        """The decision for a described request. Raises ``KeyError`` or ``ValueError`` with one line."""
        snapshot = self.traffic.snapshot
        if snapshot is None:
            raise ValueError("no configuration yet")
        asked = {key: value for key, value in args.items() if key != "listener"}
        wanted = str(args.get("listener") or "")
        listener = wanted if wanted not in ("", "inbound") else explaining.listener_for(snapshot, asked, wanted)
        told = explaining.explain(snapshot, listener, asked, now=self._loop.time(), wall=time.time()).as_dict()
        own = self._credentials().identity
        told["own"] = {"address": self._bootstrap.ip, "principal": own.uri.removeprefix("spiffe://") if own is not None else ""}
        return told

    # -- what the admin room asks

    def ready(self) -> str:
        """ "" when configuration is in force and no drain has begun; else why not."""
        if self._draining:
            return "draining"
        if self.enrolment is not None and self.enrolment.identity is None:
            return "no certificate yet"
        return self.traffic.ready()

    def info(self) -> dict[str, Any]:
        bootstrap = self._bootstrap
        return {
            "version": VERSION,
            "uptime_seconds": int(time.time() - self._started),
            "node": bootstrap.node,
            "role": bootstrap.role,
            "ip": bootstrap.ip,
            "concurrency": bootstrap.concurrency,
            "control": {"url": bootstrap.control, "connected": self.connected, "last_error": self.problem},
            "config": {"version": self.state.version, "updates": self.updates, "rejected": self.rejected},
            "identity": self._credentials().line(),
            "labels": dict(bootstrap.labels),
        }

    def _credentials(self) -> Credentials:
        if self.enrolment is not None:
            identity, problem = self.enrolment.identity, self.enrolment.status.last_error
        elif self.identity_files is not None:
            identity, problem = self.identity_files.identity, self.identity_files.problem
        else:
            identity, problem = None, ""
        return Credentials.of(identity, self.state.resources, problem)

    def certs(self) -> dict[str, Any]:
        """Every certificate that is used here, own and given; no key."""
        return self._credentials().page(time.time())

    @property
    def connected(self) -> bool:
        return self.agent is not None and self.agent.status.connected

    @property
    def problem(self) -> str:
        """What last went wrong with the configuration's source, or ""."""
        if self.files is not None:
            return self.files.problem
        return self.agent.status.last_error if self.agent is not None else ""

    def dump(self) -> dict[str, Any]:
        """Every resource in force, by kind and name, with its version. There is no secret in it."""
        return config_dump(self._bootstrap.node, self.state.version, self.state.held)

    async def clusters(self) -> list[dict[str, Any]]:
        return await self.traffic.clusters()

    async def listeners(self) -> list[dict[str, Any]]:
        return await self.traffic.listeners()

    async def plaintext(self) -> list[dict[str, Any]]:
        return [row for row in await self.traffic.callers() if row["how"] == "plaintext"]

    async def called(self) -> dict[str, Any]:
        """Each inbound listener's demands, and who has called there since we started, and how."""
        snapshot = self.traffic.snapshot
        models = [one.model for one in snapshot.listeners.values() if one.direction == "inbound"] if snapshot is not None else []
        listeners = [{"name": one.name, "port": one.port, "mtls": one.mtls, "source": one.mtls_source} for one in models]
        return {"since": round(self._started, 3), "listeners": listeners, "callers": await self.traffic.callers()}

    async def stats(self) -> list[tuple[str, float]]:
        return stats(await self.families())

    async def metrics(self, accept: str) -> tuple[str, Iterator[bytes]]:
        return exposition(await self.families(), accept)

    async def scrape(self, accept: str, patience: float) -> tuple[str, Iterator[bytes]]:
        page = await self.app_metrics.fetch(accept, patience) if self.app_metrics is not None else None
        return exposition(await self.families(), accept) if page is None else together(page, await self.families())

    def log_level(self) -> str:
        return logging.getLevelName(logging.getLogger().level).lower()

    def set_log_level(self, level: str) -> None:
        logging.getLogger().setLevel(level.upper())

    def drain(self) -> None:
        """Send callers away; serve what is in flight, and the app. The process stays."""
        self._draining = True
        self.traffic.drain_soon()

    async def families(self) -> list[Family]:
        """Every metric."""

        def one(name: str, kind: Any, text: str, stat: str, value: float) -> Family:
            return Family(name, kind, text, (), [Row((), value)], stat=stat)

        renewals, failures = 0, 0
        if self.enrolment is not None:
            renewals, failures = self.enrolment.status.renewals, self.enrolment.status.failures
        elif self.identity_files is not None:
            renewals, failures = max(0, self.identity_files.loads - 1), self.identity_files.failures
        renewed, failed = "mesh_certificate_renewals_total", "mesh_certificate_renewal_failures_total"
        return [
            *await self.traffic.families(),
            *(self.app_metrics.families() if self.app_metrics is not None else []),
            *self.reporting.families(),
            one(renewed, "counter", "Own certificates that took the place of one.", "certificate.renewals", renewals),
            one(failed, "counter", "Requests for an own certificate that failed.", "certificate.renewal_failures", failures),
            one("mesh_uptime_seconds", "gauge", "Since the start.", "server.uptime", time.time() - self._started),
            one("mesh_config_rejected_total", "counter", "Configurations refused.", "control.update_rejected", self.rejected),
            one("mesh_control_connected", "gauge", "1: control's stream is open.", "control.connected_state", self.connected),
            one("mesh_draining", "gauge", "1: stopping.", "server.draining", self._draining),
        ]

    def quit(self) -> None:
        """Drain and exit; who asks for it is the app, and is done."""
        self._asked = True
        self._stopping.set()
        self.traffic.hurry(plan_of(self._bootstrap, True))


async def run(bootstrap: Bootstrap) -> None:
    """A sidecar's whole life. Raises ``Cannot``."""
    level = logging.getLevelNamesMapping()[bootstrap.log_level.upper()]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if bootstrap.ignored:
        log.debug("flags of Istio's that say nothing to this proxy: %s", " ".join(bootstrap.ignored))
    await Sidecar(bootstrap).run()
