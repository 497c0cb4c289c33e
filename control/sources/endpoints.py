"""The endpoint controller (room ``sources``): keeps EndpointSlices in step with Services and Pods, as Kubernetes does.

In: a ``Store``. Out: creates, updates and deletes of EndpointSlices that carry our managed-by label; all others are left alone,
and so are Services without a selector. A readiness flip becomes a slice update at once, not at some interval. Idempotent: what is
already right is not written. Construct, then ``run``.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from control.resources.kinds import by_kind
from control.sources.picking import PodIndex, SelectorIndex
from control.sources.slices import MANAGED_BY, SERVICE_NAME, pod_facts, selector_of, wanted_slices
from control.store.api import Event, Gone, Store, StoreError
from control.tasks import cancel, spawn

__all__ = ["EndpointController"]

log = logging.getLogger("mesh.control")
Obj = dict[str, Any]
Name = tuple[str, str]  # namespace, name
SLICE = by_kind("discovery.k8s.io", "EndpointSlice")
COMPARED = ("addressType", "endpoints", "ports")
TOGETHER = 64  # services written at once: the store commits them together
RETRY_AFTER = 0.5  # seconds, after a write that failed for a reason of the store's own


class EndpointController:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._services: dict[Name, Obj] = {}
        self._selectors = SelectorIndex()
        self._pods = PodIndex()
        self._owners: dict[Name, Name] = {}  # slice -> service, by its label; ours only
        self._slices: dict[Name, dict[str, Obj]] = {}  # service -> slice name -> object; ours only
        self._dirty: dict[Name, None] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Keep slices right for ever."""
        while True:
            since = await self.load()
            reader = spawn(self._read(since), "endpoints-read")
            try:
                while not reader.done():
                    await self.settle()
                    self._changed.clear()
                    if not self._dirty and not reader.done():
                        await self._changed.wait()
                reader.result()  # returns when history is gone: load again
            finally:
                await cancel(reader)

    async def load(self) -> int:
        """Read everything and mark every service; returns the store's version."""
        everything, version = await self._store.snapshot()
        self._services, self._slices, self._owners, self._dirty = {}, {}, {}, {}
        self._selectors, self._pods = SelectorIndex(), PodIndex()
        for kind, obj in everything:
            self.see(Event("ADDED", kind, obj, version))
        for service in self._slices:  # of services that went while nobody looked
            self._mark(service)
        return version

    async def settle(self) -> None:
        """Write until nothing is left to do."""
        while self._dirty:
            batch = list(self._dirty)[:TOGETHER]
            for service in batch:
                del self._dirty[service]
            await asyncio.gather(*(self._try(service) for service in batch))

    async def _try(self, service: Name) -> None:
        try:
            await self._sync(service)
        except StoreError as error:
            # Somebody else wrote our slice: look at the store's truth and try again.
            log.info("endpoints of %s/%s: %s; trying again", *service, error)
            await asyncio.sleep(RETRY_AFTER)
            await self._reload(service)

    def see(self, event: Event) -> None:
        """Take in one change and mark the services that it concerns."""
        kind, obj = event.kind, event.object
        meta = obj.get("metadata") or {}
        name = (str(meta.get("namespace") or "default"), str(meta.get("name", "")))
        gone = event.type == "DELETED"
        if kind.kind == "Service" and not kind.group:
            if gone:
                self._services.pop(name, None)
            else:
                self._services[name] = obj
            self._selectors.put(name, None if gone else selector_of(obj))
            self._mark(name)
        elif kind.kind == "Pod" and not kind.group:
            after = None if gone else pod_facts(obj)
            before = self._pods.put(name, after)
            if before != after:
                for pod in (before, after):
                    for service in self._selectors.matching(pod) if pod is not None else ():
                        self._mark(service)
        elif kind == SLICE:
            self._see_slice(name, obj, gone)

    def _see_slice(self, name: Name, obj: Obj, gone: bool) -> None:
        labels = (obj.get("metadata") or {}).get("labels") or {}
        service = (name[0], str(labels.get(SERVICE_NAME, "")))
        ours = labels.get(MANAGED_BY[0]) == MANAGED_BY[1]
        owner = self._owners.get(name)
        if owner is not None and (owner != service or not ours):  # its labels were changed by hand
            del self._owners[name]
            self._slices.get(owner, {}).pop(name[1], None)
            self._mark(owner)
        if not ours:
            return
        if gone:
            self._owners.pop(name, None)
        else:
            self._owners[name] = service
        slices = self._slices.setdefault(service, {})
        known = slices.get(name[1])
        if known is not None and _version(known) >= _version(obj):
            return  # the echo of our own write
        if gone:
            if slices.pop(name[1], None) is None:
                return
        else:
            slices[name[1]] = obj
        self._mark(service)

    def _mark(self, service: Name) -> None:
        self._dirty[service] = None
        self._changed.set()

    async def _read(self, since: int) -> None:
        try:
            async with aclosing(self._store.watch(since)) as events:  # type: ignore[type-var]
                async for event in events:
                    self.see(event)
        except Gone:
            log.info("the store's history is gone; reading pods and services again")
        finally:
            self._changed.set()

    async def _sync(self, name: Name) -> None:
        service = self._services.get(name)
        have = self._slices.setdefault(name, {})
        if service is None:
            wanted: dict[str, Obj] = {}
        else:
            selector = selector_of(service)
            if selector is None:
                return
            wanted = wanted_slices(service, self._pods.matching(name[0], selector))
        for slice_name in sorted(wanted):
            obj, old = wanted[slice_name], have.get(slice_name)
            if old is None:
                have[slice_name] = await self._store.create(SLICE, obj)
            elif _differs(old, obj):
                merged = {**old, **{field: obj[field] for field in COMPARED}}
                merged["metadata"] = {**old["metadata"], **obj["metadata"]}
                have[slice_name] = await self._store.update(SLICE, merged)
        for slice_name in sorted(have.keys() - wanted.keys()):
            await self._store.delete(SLICE, name[0], slice_name)
            have.pop(slice_name, None)
        if service is None:
            self._slices.pop(name, None)

    async def _reload(self, service: Name) -> None:
        found, _ = await self._store.list(SLICE, service[0])
        self._slices[service] = {
            obj["metadata"]["name"]: obj
            for obj in found
            if (labels := obj["metadata"].get("labels") or {}).get(SERVICE_NAME) == service[1]
            and labels.get(MANAGED_BY[0]) == MANAGED_BY[1]
        }
        self._mark(service)


def _version(obj: Obj) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)


def _differs(old: Obj, new: Obj) -> bool:
    if any(old.get(field) != new[field] for field in COMPARED):
        return True
    meta, wanted = old["metadata"], new["metadata"]
    return bool(meta.get("labels") != wanted["labels"] or meta.get("ownerReferences") != wanted["ownerReferences"])
