"""The control service in a cluster: what ``app`` does otherwise when the cluster is the store.

In: ``Settings`` and where the cluster is. Out: ``ClusterControl``, used as ``Control`` is. Resources come from the API server and
are changed there, callers are judged by TokenReview, the authority is in a Secret. Of several replicas one leads: it makes the
authority, keeps the webhooks' certificate and the roots of all namespaces, drives rotations and writes status. All of them sign
and serve configuration, with or without an API server: what is known is served on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Gauge
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from control.analyze import Scene, analyze
from control.analyze.finding import Finding
from control.analyze.scene import Facts
from control.app import Control, Settings
from control.ca.authority import Authority, Rotating
from control.ca.issuer import ServerCertificate
from control.ca.ledger import Ledger
from control.ca.rotation import Rotation
from control.ca.service import CertificateAuthority
from control.cluster.authority import ClusterAuthority
from control.cluster.keeping import Keeping
from control.cluster.lease import Election
from control.cluster.names import LEASE, named
from control.cluster.reviews import TokenReviews
from control.cluster.revocations import ClusterLedger
from control.cluster.roots import Roots
from control.cluster.secrets import Changed
from control.cluster.status import StatusWriter
from control.cluster.webhooks import Webhooks, service_names
from control.identity import Authenticator
from control.resources.kinds import by_kind
from control.resources.mesh_config import MESH_CONFIG
from control.serve.kube.status import ApiError
from control.store.api import Store
from control.store.kubernetes.client import ApiServer, Refused, Unreachable
from control.store.kubernetes.store import KubernetesStore
from control.store.table import thaw
from control.tasks import cancel, spawn

__all__ = ["Cluster", "ClusterControl"]

log = logging.getLogger("mesh.control.cluster")
POD = by_kind("", "Pod")
TOLD = 60.0  # seconds that other replicas have to hand new roots to their sidecars


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """``kubeconfig`` None: the pod's own service account. ``lease``: seconds until another replica may lead. ``revision`` "": the
    default one."""

    kubeconfig: Path | None = None
    lease: float = 15.0
    revision: str = ""


class ClusterControl(Control):
    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        super().__init__(settings)
        root = settings.root_namespace
        name = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(4)}"
        self._cluster_api = api = ApiServer(cluster.kubeconfig)
        self._revision = cluster.revision
        self._cluster = KubernetesStore(api, root, mesh_config=named(MESH_CONFIG, cluster.revision))
        lease = cluster.lease
        self._election = Election(
            api, root, name, name=named(LEASE, cluster.revision), duration=lease, renew=lease * 2 / 3, retry=lease * 2 / 15
        )
        # In a cluster /tmp is in memory: the authority's key comes on no node's disk.
        self._keeping = Keeping(api, root, Path(tempfile.gettempdir()))
        self._webhooks = Webhooks(api, root, self._authority, revision=cluster.revision)
        self._namespaces = Roots(api, self._cluster, lambda: self._authority().root_pem)
        self._serving = asyncio.Event()
        self._electing: asyncio.Task[None] | None = None
        self._following: list[asyncio.Task[None]] = []
        self._kept: tuple[ClusterAuthority, ClusterLedger] | None = None
        registry = self._metrics.registry
        leader = Gauge("mesh_leader", "1 where this replica does what only one does.", registry=registry)
        leader.set_function(lambda: float(self._election.leading))
        unread = Gauge("mesh_cluster_unread", "Kinds of objects that cannot be followed in the cluster now.", registry=registry)
        unread.set_function(lambda: float(len(self._cluster.problems())))

    def _authority(self) -> Authority:
        assert self._kept is not None
        return self._kept[0]

    @property
    def leading(self) -> bool:
        return self._election.leading

    # -- what app asks for -----------------------------------------------------------------------------------------------

    async def _open_authority(self) -> tuple[Authority, Ledger]:
        await self._cluster_api.connect()
        self._electing = spawn(self._election.run(self._lead), "leader-election")
        opening = asyncio.ensure_future(self._keeping.open(self._state.ledger))  # what it raises is for the user, not a crash
        await asyncio.wait({opening, self._electing}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            await cancel(opening)
            self._electing.result()  # the leader could not make one: raises why
        self._kept = opening.result()
        return self._kept

    async def _open_store(self) -> Store:
        await self._cluster.open()
        return self._cluster

    def _authenticator(self) -> Authenticator:
        return TokenReviews(self._cluster_api, self.settings.root_namespace, self._uid_of)

    def _uid_of(self, namespace: str, pod: str) -> str:
        record = self._cluster.record(POD, namespace, pod)
        return str(thaw(record.body)["metadata"].get("uid") or "") if record is not None else ""

    def _make_rotation(self, ca: CertificateAuthority) -> Rotation:
        rotation = Rotation(ca, self._hub, hold=self._hold)
        self._keeping.rotate = rotation.look
        self._keeping.leading = lambda: self._election.leading
        return rotation

    def _hold(self, rotating: Rotating, now: float) -> str:
        """The sidecars of other replicas, and certificates that were issued there, are only known by their time."""
        if not rotating.switched:
            left = rotating.started + TOLD - now
            return f"sidecars of other replicas are told of the new root ({left:.0f} s)" if left > 0 else ""
        left = rotating.switched + self.settings.workload_cert_ttl - now
        return f"certificates under the old root end in {left / 3600:.1f} h (--force: do not wait)" if left > 0 else ""

    def _more_tasks(self, store: Store, rotation: Rotation) -> list[asyncio.Task[None]]:
        assert self._kept is not None and self._ca is not None and self._electing is not None
        self._following = [
            spawn(self._keeping.follow(self._ca, *self._kept), "authority-follow"),
            *(spawn(watch.run(), f"follow-{watch.place.name}") for watch in self._keeping.watches),
        ]
        self._serving.set()
        return [self._electing, *self._following]

    def _more_routes(self, store: Store) -> list[BaseRoute]:
        return [Route("/mesh/v1/tokens", _no_tokens, methods=["GET", "POST"])]

    def _certificate(self, authority: Authority, now: float) -> ServerCertificate:
        names = service_names(named("istiod", self._revision), self.settings.root_namespace)
        more = (self.settings.bind, "localhost", "127.0.0.1", *self.settings.names)
        return authority.issue_server((*names, *more), now, 48 * 3600.0)

    async def _announce(self, roots: bytes) -> None:
        """The leader does it, when it hears of it."""

    async def _trusted(self) -> None:
        await super()._trusted()
        self._webhooks.look()
        self._namespaces.look()

    async def _close_store(self) -> None:
        """First give up leading: others need not wait then."""
        tasks = [task for task in (self._electing, *self._following) if task is not None]
        await cancel(*tasks)
        await self._cluster.close()

    async def stop(self) -> None:
        await super().stop()
        await self._cluster_api.close()

    # -- what only one replica does --------------------------------------------------------------------------------------

    async def _lead(self) -> None:
        await self._keeping.make()
        await self._serving.wait()
        assert self._ca is not None and self._rotation is not None and self._kept is not None
        status = StatusWriter(self._cluster_api, self._cluster, self._findings)
        work = {
            "webhooks": self._webhooks.run(),
            "roots": self._namespaces.run(),
            "roots-watch": self._namespaces.watch.run(),
            "status": status.run(),
            "rotation": self._rotation.run(),
            "authority-keep": self._keep_authority(),
            **{f"watch-{watch.place.kind.kind}": watch.run() for watch in self._webhooks.watches()},
        }
        tasks = [spawn(one, f"leader-{name}") for name, one in work.items()]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(*tasks)

    async def _keep_authority(self) -> None:
        """See that the Secret is there, and that the user's own authority, where there is one, is used."""
        assert self._ca is not None and self._kept is not None
        while True:
            try:
                await self._keeping.restore(self._kept[0])
                await self._keeping.plug_in(self._ca, self._kept[0])
            except (Refused, Unreachable, Changed) as problem:
                log.info("the authority's Secret: %s; trying again", problem)
            except Exception as problem:  # a user's authority that cannot be used: what signs now goes on signing
                log.error("%s", problem)
            await asyncio.sleep(30.0)

    async def _findings(self) -> Iterable[Finding]:
        world = self._hub.world
        if world is None or self._jwks is None:
            return ()
        stored, _ = await self._cluster.snapshot()
        facts = Facts(time.time(), tuple(self._jwks.report()), ())
        return await asyncio.to_thread(lambda: analyze(Scene(world, [obj for _, obj in stored], live=True, facts=facts)))


async def _no_tokens(request: Request) -> Response:
    advice = "make one of a service account: kubectl create token -n istio-system mesh-view --audience mesh-api"
    raise ApiError(404, "NotFound", f"in a cluster tokens are the cluster's: {advice}")
