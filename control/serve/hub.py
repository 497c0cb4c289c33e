"""All connected sidecars (room ``serve``): who is there, what each is to run, who has it, and questions to them.

In: worlds (``publish``), trust (``trust``), streams (``connect``/``disconnect``), answers. Out: the state behind proxy-status,
distribution, rotation of roots, and queries. Runs on one loop; a pass over many sidecars gives way to other work every few
milliseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import operator
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from control.identity import ProxyIdentity
from control.serve.encode import Encoder
from control.serve.metrics import Metrics
from control.serve.session import Session
from control.translate.proxy import ProxyId, proxy_of_pod
from control.translate.snapshot import Layer, Problem, Snapshot
from control.translate.trust import trust_layer
from control.world import PodInfo, World
from control.world.mesh import MeshSettings
from meshproxy.model.delivery import Answer, Query
from meshproxy.model.security import Trust

__all__ = ["Distribution", "Hub", "NotAnswered"]

log = logging.getLogger("mesh.control")
SLICE = 0.01  # seconds of one pass before other work has its turn

Translate = Callable[[World, ProxyId], Snapshot]


class NotAnswered(Exception):
    """A question without an answer; one line. ``connected``: whether there was anybody to ask."""

    def __init__(self, message: str, connected: bool) -> None:
        super().__init__(message)
        self.connected = connected


class Distribution(NamedTuple):
    """Names (namespace/pod) of sidecars that have, and do not have, a version yet; ``errors`` says why, where known."""

    pending: tuple[str, ...]
    done: tuple[str, ...]
    errors: dict[str, str]


class Hub:
    """``clock`` is the steady clock, ``wall`` the time of day, both in seconds."""

    def __init__(
        self,
        translate: Translate,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._translate = translate
        self._metrics = metrics
        self._clock = clock
        self._wall = wall
        self._encoder = Encoder()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._facts: dict[tuple[str, str], tuple[PodInfo, ProxyId]] = {}
        self._numbers = itertools.count(1)
        self._stamp = secrets.token_hex(3)  # nonces of two runs of control must not be mistaken for each other
        self._waiting: dict[str, tuple[Session, asyncio.Future[Answer]]] = {}
        self._trust: Trust | None = None
        self._trust_layer: tuple[Trust, MeshSettings, Layer] | None = None
        self.world: World | None = None
        self.version = 0
        self.closed = False
        self.parted: Callable[[Session], None] = lambda session: None  # a stream is over

    # -- streams ---------------------------------------------------------------------------------------------------------

    def connect(self, proxy: ProxyIdentity, have: str) -> Session:
        """A new stream of ``proxy``, which says that it runs snapshot ``have``. An older stream of the same pod ends."""
        key = (proxy.namespace, proxy.pod)
        old = self._sessions.get(key)
        if old is not None:
            self._metrics.superseded.inc()
            old.close("a newer stream of the same pod took its place")
        number = f"{self._stamp}-{next(self._numbers)}"
        session = Session(proxy, have, number, self._encoder, self._metrics, self._wall())
        if self.closed:
            session.close("control is stopping")
        self._sessions[key] = session
        self._metrics.connected.set(len(self._sessions))
        self._evaluate(session, self._clock())
        return session

    def disconnect(self, session: Session) -> None:
        key = (session.proxy.namespace, session.proxy.pod)
        if self._sessions.get(key) is session:
            del self._sessions[key]
            self._facts.pop(key, None)
            self._metrics.connected.set(len(self._sessions))
        self.parted(session)
        for id_ in [id_ for id_, (asked, _) in self._waiting.items() if asked is session]:
            _, future = self._waiting.pop(id_)
            if not future.done():
                future.set_exception(NotAnswered(f"sidecar {session.proxy.name} went away", connected=False))

    def session(self, namespace: str, pod: str) -> Session | None:
        return self._sessions.get((namespace, pod))

    def close(self) -> None:
        """End all streams, now and later: control stops."""
        self.closed = True
        for session in self._sessions.values():
            session.close("control is stopping")

    # -- worlds ----------------------------------------------------------------------------------------------------------

    async def publish(self, world: World, version: int, since: float) -> None:
        """From now on the world is ``world``, of store version ``version``; ``since``: steady time of its first change."""
        started = self._clock()
        self.world, self.version = world, version
        await self._evaluate_all(since)
        self._metrics.world_version.set(version)
        self._metrics.translation.observe(self._clock() - started)
        self._measure(world)

    def _measure(self, world: World) -> None:
        config, metrics = world.config, self._metrics
        metrics.services.set(sum(map(len, config.services.values())))
        metrics.virtual_services.set(len(config.virtual_services))
        hosts = [(host, gateway) for one in config.virtual_services for gateway in one.gateways for host in one.hosts]
        metrics.conflict_hosts.set(len({pair for pair, many in Counter(hosts).items() if many > 1 and pair[1] == "mesh"}))
        rules = (found for index in config.destination_rules.values() for found in index.by_host.values())
        metrics.conflict_rules.set(sum(len(found) > 1 for found in rules))
        metrics.translation_problems.set(len(self.problems()))

    async def trust(self, trust: Trust) -> None:
        """From now on the mesh believes ``trust``; every sidecar is told at once. Domain and aliases come from the world."""
        self._trust = trust
        await self._evaluate_all(self._clock(), only_trust=True)

    async def _evaluate_all(self, since: float, only_trust: bool = False) -> None:
        turn = self._clock()
        for session in list(self._sessions.values()):
            nacks = session.plan.nacks
            why = f"it refused {nacks[0].kind} {nacks[0].name}: {nacks[0].error}" if nacks else ""
            if not (only_trust and why and self._retrust(session, since, why)):
                self._evaluate(session, since)
            if self._clock() - turn > SLICE:
                await asyncio.sleep(0)
                turn = self._clock()

    def _evaluate(self, session: Session, since: float) -> None:
        world = self.world
        if world is None:
            session.problem = "control has not read its store yet"
            return
        proxy = self._proxy(world, session.proxy)
        session.has_pod = proxy is not None
        if proxy is None:
            session.problem = f"there is no Pod {session.proxy.name}"
            return
        session.role = proxy.role
        try:
            snapshot = self._trusting(self._translate(world, proxy), session)
        except Exception as error:  # one resource must not stop the mesh: the sidecar keeps what it has
            self._metrics.failures.inc()
            session.problem = f"its configuration could not be computed: {type(error).__name__}"
            self._retrust(session, since, session.problem)
            log.exception("translation for %s failed", session.proxy.name)
            return
        session.want(snapshot, self.version, since)

    def _retrust(self, session: Session, since: float, why: str) -> bool:
        """Give a sidecar that cannot have a new configuration the one it runs, with the new trust: a revocation must not wait.

        False: nothing is known to run there.
        """
        running, layer = session.plan.running, self._layer()
        if running is None or layer is None:
            return False
        rest = (one for one in running.layers if one.slot != layer.slot)
        session.want(Snapshot((layer, *rest)), session.plan.world, since)
        session.problem = f"keeps its last good configuration: {why}"
        return True

    def _layer(self) -> Layer | None:
        """Whom to trust now, as resources; the same object as long as it says the same."""
        if self._trust is None or self.world is None:
            return None
        known, mesh = self._trust_layer, self.world.mesh
        if known is None or known[0] is not self._trust or known[1] is not mesh:
            layer = trust_layer(self._trust, mesh)
            if known is not None and known[2].digest == layer.digest:
                layer = known[2]
            known = self._trust_layer = (self._trust, mesh, layer)
        return known[2]

    def _trusting(self, snapshot: Snapshot, session: Session) -> Snapshot:
        """``snapshot`` with whom to trust in front; the one that the session wants already, when it is the same."""
        layer = self._layer()
        if layer is None:
            return snapshot
        layers = (layer, *snapshot.layers)
        wanted = session.plan.wanted
        if wanted is not None and len(wanted.layers) == len(layers) and all(map(operator.is_, wanted.layers, layers)):
            return wanted
        return Snapshot(layers)

    def _proxy(self, world: World, who: ProxyIdentity) -> ProxyId | None:
        """Facts about the pod, kept while the pod's own facts are the same object."""
        key = (who.namespace, who.pod)
        info = world.pods.get(key)
        if info is None:
            return None
        known = self._facts.get(key)
        if known is None or known[0] is not info:
            known = self._facts[key] = (info, proxy_of_pod(info))
        return known[1]

    # -- reading ---------------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        return len(self._sessions)

    def report(self) -> list[dict[str, Any]]:
        """One row per connected sidecar, by namespace and name."""
        return [self._sessions[key].report() for key in sorted(self._sessions)]

    def problems(self) -> list[Problem]:
        """What could not be done as written in any connected sidecar's configuration; each said once."""
        layers = {id(layer): layer for one in self._sessions.values() if one.plan.wanted for layer in one.plan.wanted.layers}
        return sorted({problem for layer in layers.values() for problem in layer.problems})

    def distribution(self, version: int) -> Distribution:
        """Who has confirmed a snapshot made from the store at ``version`` or later."""
        pending: list[str] = []
        done: list[str] = []
        errors: dict[str, str] = {}
        for key in sorted(self._sessions):
            session = self._sessions[key]
            name = session.proxy.name
            if session.plan.world >= version:
                done.append(name)
            elif session.has_pod:  # one whose Pod was deleted drains; nobody waits for it
                pending.append(name)
            why = session.problem or next((f"{n.kind} {n.name}: {n.error}" for n in session.plan.nacks), "")
            if why:
                errors[name] = why
        return Distribution(tuple(pending), tuple(done), errors)

    def distrusting(self) -> dict[str, str]:
        """Connected sidecars (namespace/pod) that have not confirmed whom the mesh believes now, and why, where known."""
        layer = self._layer()
        if layer is None:
            return {}
        found = {}
        for session in self._sessions.values():
            running, outstanding = session.plan.running, session.plan.outstanding
            told = running is not None and _believes(running, layer)
            if not session.has_pod or (told and (outstanding is None or _believes(outstanding.target, layer))):
                continue
            nacks = session.plan.nacks
            why = f"refuses its configuration: {nacks[0].kind} {nacks[0].name}: {nacks[0].error}" if nacks else ""
            found[session.proxy.name] = session.problem or why or "has not confirmed yet"
        return found

    def connected(self, namespace: str, pod: str) -> bool:
        return (namespace, pod) in self._sessions

    def exists(self, namespace: str, pod: str) -> bool:
        """Whether there is such a Pod, connected or not."""
        return self.world is not None and (namespace, pod) in self.world.pods

    def workload(self, namespace: str, pod: str) -> tuple[str, str] | None:
        """The workload (namespace, name) that this Pod is of; None: there is no such Pod."""
        info = self.world.pods.get((namespace, pod)) if self.world is not None else None
        return (info.workload.namespace, info.workload.workload) if info is not None else None

    def gateways(self) -> set[tuple[str, str]]:
        """Namespace and service account of connected gateways."""
        return {(one.proxy.namespace, one.proxy.service_account) for one in self._sessions.values() if one.role == "gateway"}

    # -- questions -------------------------------------------------------------------------------------------------------

    async def ask(self, namespace: str, pod: str, verb: str, args: dict[str, Any], timeout: float) -> Answer:
        """Ask a sidecar over its stream; ``timeout`` in seconds. Raises ``NotAnswered``."""
        session = self.session(namespace, pod)
        if session is None:
            raise NotAnswered(f"sidecar {namespace}/{pod} is not connected", connected=False)
        id_ = secrets.token_hex(8)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = (session, future)
        try:
            if not session.ask(Query(id=id_, verb=verb, args=args)):
                raise NotAnswered(f"sidecar {namespace}/{pod} has too many questions waiting", connected=True)
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise NotAnswered(f"sidecar {namespace}/{pod} did not answer within {timeout:g} s", connected=True) from None
        finally:
            self._waiting.pop(id_, None)

    def answered(self, proxy: ProxyIdentity, answer: Answer) -> bool:
        """Hand an answer to whoever asked. False: nobody asked this sidecar that, or no longer."""
        session, future = self._waiting.get(answer.id, (None, None))
        if session is None or future is None or (session.proxy.namespace, session.proxy.pod) != (proxy.namespace, proxy.pod):
            return False
        if not future.done():
            future.set_result(answer)
        return True


def _believes(snapshot: Snapshot, trust: Layer) -> bool:
    return any(one.slot == trust.slot and one.digest == trust.digest for one in snapshot.layers)
