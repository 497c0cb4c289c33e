"""One pod: its containers, and its object in the API kept true to them.

In: a ``PodPlan`` and the API. Out: the Pod object created, its status patched after every change, retried while control is
away. Loud. Assumes it alone writes this pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control.client.api import ApiError, AsyncApi, Unreachable
from control.demo.kubelet import logs
from control.demo.kubelet.container import Container
from control.demo.kubelet.events import Events, now
from control.demo.plan import PodPlan, pod_object
from control.tasks import cancel, spawn

__all__ = ["KUBELET", "Pod"]

KUBELET = "mesh.dev/kubelet"  # annotation: "<pid>.<start time>" of the process that keeps the pod
_RESYNC = 3.0  # seconds between looks whether the object is still there
_MERGE = "application/merge-patch+json"


class Pod:
    def __init__(
        self,
        plan: PodPlan,
        logs_dir: Path,
        api: Callable[[], AsyncApi | None],
        kubelet: str,
        *,
        note: Callable[[str], None] = lambda line: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan = plan
        self._api = api
        self._kubelet = kubelet
        self._since = now()
        self._turned = self._since  # when Ready last changed
        self._was_ready = False
        self._dirty = asyncio.Event()
        self._dirty.set()
        self._tell = changed
        self._note = note
        self._retired = False
        self._written = False  # the object was created or met by this process
        self._logs = [logs.path_of(logs_dir, plan.namespace, plan.name, container.name) for container in plan.containers]
        self._events = Events(plan.namespace, plan.name)
        self._uid = ""
        self.containers = self._make()

    def _make(self) -> list[Container]:
        name = self.plan.name
        return [
            Container(
                plan,
                log,
                self._change,
                lambda line: self._note(f"{name}: {line}"),
                event=functools.partial(self._events.add, plan.name),
            )
            for plan, log in zip(self.plan.containers, self._logs, strict=True)
        ]

    @property
    def ready(self) -> bool:
        return all(container.ready for container in self.containers)

    @property
    def reported(self) -> bool:
        """The API knows the present state."""
        return self._written and not self._dirty.is_set()

    def summary(self) -> str:
        return f"{sum(container.ready for container in self.containers)}/{len(self.containers)}"

    def _change(self) -> None:
        if self.ready is not self._was_ready:
            self._was_ready, self._turned = self.ready, now()
        self._dirty.set()
        self._tell()

    async def run(self) -> None:
        """Run the containers and keep the object, until cancelled."""
        parts = (self._containers, self._write, self._bound_logs)
        tasks = [spawn(part(), f"{part.__name__} {self.plan.name}") for part in parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel(*tasks)

    def retire(self) -> None:
        """The pod is about to go: write no more status, start no container again."""
        self._retired = True

    async def stop(self, grace: float = 5.0) -> None:
        await asyncio.gather(*(container.stop(grace) for container in self.containers))

    async def _containers(self) -> None:
        while True:
            await asyncio.gather(*(container.run() for container in self.containers))
            if self._retired:
                return
            # Stopped to be replaced (its object was deleted): begin again as a new pod does.
            self.containers = self._make()
            self._since = now()
            self._change()

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(10.0)
            for log in self._logs:
                logs.rotate(log)

    async def _write(self) -> None:
        wait = 0.1
        while not self._retired:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), _RESYNC)
            api = self._api()
            if api is None or self._retired:
                await asyncio.sleep(0.05)
                continue
            try:
                await self._sync(api)
                await self._events.write(api, self._uid)
                wait = 0.1
            except (ApiError, Unreachable):
                self._dirty.set()
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2.0)

    async def _sync(self, api: AsyncApi) -> None:
        collection = f"/api/v1/namespaces/{self.plan.namespace}/pods"
        at = f"{collection}/{self.plan.name}"
        changed = self._dirty.is_set()
        self._dirty.clear()
        try:
            if self._written:
                if changed:
                    await self._status(api, at)
                else:
                    await api.request("GET", at)
                return
        except ApiError as refused:
            if refused.code != 404:
                raise
            # Somebody deleted the pod: it comes back as a new one, as a Deployment's would.
            self._written = False
            for container in self.containers:
                self._events.add(container.plan.name, "Normal", "Killing", f"Stopping container {container.plan.name}")
            await self.stop()
        await self._create(api, collection, at)
        self._written = True
        await self._status(api, at)

    async def _create(self, api: AsyncApi, collection: str, at: str) -> None:
        try:
            made = await api.request("POST", collection, body=self.object())
        except ApiError as refused:
            if refused.code != 409:
                raise
            await api.request("DELETE", at)  # left by a kubelet that was killed
            made = await api.request("POST", collection, body=self.object())
        self._uid = made["metadata"].get("uid", "")

    async def _status(self, api: AsyncApi, at: str) -> None:
        merge = "application/merge-patch+json"
        await api.request("PATCH", f"{at}/status", body={"status": self.object()["status"]}, content_type=merge)

    def object(self) -> dict[str, Any]:
        """The Pod with its present status."""
        whole = pod_object(self.plan)
        whole["metadata"]["annotations"][KUBELET] = self._kubelet
        ready = self.ready
        unready = [container.plan.name for container in self.containers if not container.ready]

        def condition(name: str, true: bool) -> dict[str, Any]:
            said: dict[str, Any] = {"type": name, "status": "True" if true else "False"}
            said["lastTransitionTime"] = self._turned if name in ("Ready", "ContainersReady") else self._since
            if not true:
                said["reason"] = "ContainersNotReady"
                said["message"] = f"containers with unready status: [{' '.join(unready)}]"
            return said

        whole["status"] = {
            "phase": "Running" if any(container.pid for container in self.containers) or self._was_ready else "Pending",
            "podIP": self.plan.ip,
            "podIPs": [{"ip": self.plan.ip}],
            "hostIP": "127.0.0.1",
            "qosClass": "BestEffort",
            "startTime": self._since,
            "conditions": [
                condition("Initialized", True),
                condition("Ready", ready),
                condition("ContainersReady", ready),
                condition("PodScheduled", True),
            ],
            "containerStatuses": [container.status() for container in self.containers],
        }
        return whole
