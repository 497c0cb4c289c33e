"""The node: one process that keeps pods for a mesh. The demo and ``meshctl run`` are both built on it.

In: the state directory, pod plans. Out: running pods with tokens and objects; waiting until they are ready and known
everywhere. Loud.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from control.client.api import ApiError, AsyncApi, Unreachable
from control.client.kubeconfig import BadKubeconfig, load
from control.demo.kubelet.events import COMPONENT
from control.demo.kubelet.pod import KUBELET, Pod
from control.demo.kubelet.process import start_time
from control.demo.netns.pods import PodNetwork
from control.demo.plan import CONTROL_PORT, Addresses, PodPlan, Sidecar
from control.demo.present import Reporter, summary
from control.demo.state import State
from control.files import FileProblem, write_private
from control.tasks import cancel, spawn

__all__ = ["Node", "NotReady"]

_RENEW = 6 * 3600.0  # seconds; a quarter of a token's life
_LOOK = 1.0  # seconds between looks for what dead kubelets left
_NAMES = 0.5  # seconds between looks for Services without an address, or that pods do not know yet
_OLD = 3600  # seconds after which an Event is forgotten, as Kubernetes does


class NotReady(Exception):
    """Something did not come up; one line that says what, and where its log is."""


class Node:
    def __init__(self, state: State, addresses: Addresses, reporter: Reporter) -> None:
        """Starts nothing."""
        self.state = state
        self.sidecar = Sidecar(f"https://{addresses.control}:{CONTROL_PORT}", state.ca, state.tokens)
        self.pods: list[Pod] = []
        self.made: list[tuple[str, str]] = []  # (collection, name) of what is to be deleted in the end
        self.api: AsyncApi | None = None
        self.fronts: list[asyncio.Server] = []
        self.settled = False  # once everything was ready, changes are no longer progress
        self.network = PodNetwork(addresses.layout) if addresses.netns else None
        self._reporter = reporter
        self._ending = False
        self.me = f"{os.getpid()}.{start_time(os.getpid())}"  # the value of the annotation ``KUBELET``
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, plan: PodPlan) -> Pod:
        """Run a pod from now on. Raises ``NoNetwork``."""
        if self.network is not None:
            plan = self.network.place(plan)
        pod = Pod(plan, self.state.logs, lambda: self.api, self.me, note=self._note, changed=self._progress)
        self.pods.append(pod)
        self._tasks.append(spawn(pod.run(), f"pod {plan.namespace}/{plan.name}"))
        return pod

    def _note(self, line: str) -> None:
        if not self._ending:
            self._reporter.note(line)

    def _progress(self) -> None:
        if not self.settled:
            self._reporter.progress(summary(self.pods))

    async def admit(self, plan: PodPlan) -> None:
        """Give the pod's sidecar its join token, and a new one in time, again and again."""
        await self._token(plan)

        async def renew() -> None:
            while True:
                await asyncio.sleep(_RENEW)
                with contextlib.suppress(ApiError, Unreachable, FileProblem):
                    await self._token(plan)

        self._tasks.append(spawn(renew(), f"token {plan.name}"))

    async def _token(self, plan: PodPlan) -> None:
        body = {"namespace": plan.namespace, "pod": plan.name, "serviceAccount": plan.service_account}
        answer = await self.ask("POST", "/mesh/v1/tokens", body=body)
        write_private(self.sidecar.token_file(plan.namespace, plan.name), answer["token"].encode())

    async def connect(self, patience: float = 30.0) -> AsyncApi:
        """Wait until the API answers. Raises ``NotReady``."""
        why = "no kubeconfig was written"
        deadline = asyncio.get_running_loop().time() + patience
        while asyncio.get_running_loop().time() < deadline:
            self._raise_crashed()
            api: AsyncApi | None = None
            try:
                api = AsyncApi(load([self.state.kubeconfig]), again=lambda: load([self.state.kubeconfig]))
                await api.request("GET", "/version")
                self.api = api
                return api
            except (BadKubeconfig, Unreachable, ApiError, OSError) as failure:
                why = str(failure)
            if api is not None:
                await api.close()
            await asyncio.sleep(0.05)
        raise NotReady(f"control does not answer: {why}; its log: {self.state.logs}")

    async def ask(
        self, method: str, path: str, *, body: object = None, patience: float = 10.0, content_type: str = "application/json"
    ) -> Any:
        """One request, repeated while control is away. Raises ``ApiError`` or, after ``patience``, ``Unreachable``."""
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            if self.api is None:  # not yet, or we are stopping while a task still looks
                raise Unreachable("not connected to control")
            try:
                return await self.api.request(method, path, body=body, content_type=content_type)
            except Unreachable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            except ApiError as refused:
                if refused.code < 500 or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def ensure(self, collection: str, body: dict[str, Any]) -> bool:
        """Create the object unless it is there; true when it was made."""
        try:
            await self.ask("POST", collection, body=body)
        except ApiError as refused:
            if refused.code != 409:
                raise
            return False
        return True

    async def patch(self, path: str, change: dict[str, Any]) -> None:
        """A JSON merge patch."""
        await self.ask("PATCH", path, body=change, content_type="application/merge-patch+json")

    async def forget_strays(self) -> None:
        """Delete pods, and Services made for them, whose kubelet is dead: what a node that was killed left in the store."""
        mine = {("pods", pod.plan.namespace, pod.plan.name) for pod in self.pods}
        for plural in ("services", "pods"):
            for one in (await self.ask("GET", f"/api/v1/{plural}"))["items"]:
                meta = one["metadata"]
                pid, _, began = (meta.get("annotations") or {}).get(KUBELET, "").partition(".")
                if not pid.isdigit() or start_time(int(pid)) == began or (plural, meta["namespace"], meta["name"]) in mine:
                    continue
                same = {"preconditions": {"uid": meta["uid"]}}  # somebody alive may have taken the name since we looked
                with contextlib.suppress(ApiError):
                    await self.ask("DELETE", f"/api/v1/namespaces/{meta['namespace']}/{plural}/{meta['name']}", body=same)

    async def forget_events(self, older: float = _OLD) -> None:
        """Delete the kubelets' Events that are older than so many seconds."""
        limit = (datetime.now(UTC) - timedelta(seconds=older)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for event in (await self.ask("GET", "/api/v1/events"))["items"]:
            meta = event["metadata"]
            if (event.get("source") or {}).get("component") == COMPONENT and (event.get("lastTimestamp") or "") < limit:
                with contextlib.suppress(ApiError):
                    await self.ask("DELETE", f"/api/v1/namespaces/{meta['namespace']}/events/{meta['name']}")

    def watch_strays(self) -> None:
        """From now on: a kubelet cannot report its own death, so one that lives does."""

        async def watch() -> None:
            for look in itertools.count():
                with contextlib.suppress(ApiError, Unreachable):
                    if look % (_OLD // 6) == 0:
                        await self.forget_events()
                    await self.forget_strays()
                await asyncio.sleep(_LOOK)

        self._tasks.append(spawn(watch(), "strays"))

    async def tend_network(self) -> None:
        """Addresses for Services, names for pods: now, and from now on."""
        if (network := self.network) is None:
            return

        async def tend() -> None:
            await network.tend((await self.ask("GET", "/api/v1/services"))["items"], self.patch)

        async def again() -> None:
            while True:
                await asyncio.sleep(_NAMES)
                with contextlib.suppress(ApiError, Unreachable):
                    await tend()

        await tend()
        self._tasks.append(spawn(again(), "names"))

    async def delete_pod(self, namespace: str, name: str) -> None:
        with contextlib.suppress(ApiError):
            await self.ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", patience=1.0)

    async def ready(self, pods: Iterable[Pod], patience: float = 60.0) -> None:
        """Wait until these pods are ready and the API knows it. Raises ``NotReady``."""
        waiting = list(pods)
        deadline = asyncio.get_running_loop().time() + patience
        while not all(pod.ready and pod.reported for pod in waiting):
            self._raise_crashed()
            if asyncio.get_running_loop().time() > deadline:
                late = [self._why(pod) for pod in waiting if not pod.ready]
                raise NotReady("; ".join(late) or f"control does not take the pods' status; logs: {self.state.logs}")
            await asyncio.sleep(0.02)

    def _raise_crashed(self) -> None:
        for pod in self.pods:
            if any(not container.ready and container.restarts >= 3 for container in pod.containers):
                raise NotReady(self._why(pod))

    def _why(self, pod: Pod) -> str:
        for container in pod.containers:
            if not container.ready:
                probe = container.plan.probe
                at = f"{probe.host}:{probe.port}"
                silent = f"nothing at {at} answers GET {probe.path} with a status below 400"
                said = container.said or (silent if probe.path else f"it listens on nothing at {at}")
                return f"{pod.plan.name}: container {container.plan.name} is not ready: {said} (log: {container.log})"
        return f"{pod.plan.name} is ready"

    async def served(self, services: Iterable[tuple[str, str, tuple[str, ...]]], patience: float = 20.0) -> None:
        """Wait until every (namespace, service, addresses) is in the endpoints and every sidecar knows it."""
        deadline = asyncio.get_running_loop().time() + patience
        for namespace, service, addresses in services:
            while True:
                versions = await self._slices(namespace, service, addresses)
                if versions is not None and all([await self._distributed(namespace, *version) for version in versions]):
                    break
                if asyncio.get_running_loop().time() > deadline:
                    late = f"{', '.join(addresses)} did not reach every sidecar in {patience:g} s"
                    raise NotReady(f"service {namespace}/{service}: {late}")
                await asyncio.sleep(0.03)

    async def _slices(self, namespace: str, service: str, addresses: tuple[str, ...]) -> list[tuple[str, str]] | None:
        """(name, resourceVersion) of the service's slices, once every address is in one of them."""
        found = (await self.ask("GET", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"))["items"]
        slices = [one for one in found if (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == service]
        there = {address for one in slices for endpoint in _ready(one) for address in endpoint["addresses"]}
        if not there.issuperset(addresses):
            return None
        return [(one["metadata"]["name"], one["metadata"]["resourceVersion"]) for one in slices]

    async def _distributed(self, namespace: str, name: str, version: str) -> bool:
        query = f"group=discovery.k8s.io&plural=endpointslices&namespace={namespace}&name={name}&resourceVersion={version}"
        return not (await self.ask("GET", f"/mesh/v1/distribution?{query}"))["pending"]

    async def stop(self, pods: Iterable[Pod] | None = None) -> None:
        """End these pods (all when None): objects first, so that nothing is routed to what goes away, then processes."""
        self._ending = True
        ending = list(self.pods if pods is None else pods)
        for pod in ending:
            pod.retire()
        if self.api is not None:
            await asyncio.gather(*(self.delete_pod(pod.plan.namespace, pod.plan.name) for pod in ending), return_exceptions=True)
        if pods is None and self.api is not None:
            api, self.api = self.api, None
            await api.close()  # before control ends: it waits for its connections
        await asyncio.gather(*(pod.stop() for pod in ending))
        if pods is None:
            await cancel(*self._tasks)
            if self.network is not None:
                self.network.close()


def _ready(piece: dict[str, Any]) -> list[dict[str, Any]]:
    """The endpoints of a slice that take traffic; absent conditions count as ready, as Kubernetes has it."""
    return [one for one in piece.get("endpoints") or () if (one.get("conditions") or {}).get("ready") is not False]
