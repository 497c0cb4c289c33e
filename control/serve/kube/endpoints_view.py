"""v1 Endpoints as they follow from EndpointSlices: a store for reading that has one for every Service with a selector.

Room: control/serve/kube. In: a store. Out: the same store, but Endpoints that nobody wrote are made up from Service and slices
when they are read or watched; ready addresses only. Writes go through untouched: a view cannot be written (it is NotFound), and
an Endpoints object that somebody stored stands before the view of its name.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from control.resources.kinds import Kind, by_kind
from control.sources.slices import SERVICE_NAME, selector_of
from control.store.api import Event, NotFound, Store

__all__ = ["EndpointsView"]

Obj = dict[str, Any]
_Name = tuple[str, str]
_Everything = list[tuple[Kind, Obj]]
_ObjList = list[Obj]  # inside the class, list is the method
_ENDPOINTS = by_kind("v1", "Endpoints")
_SERVICE = by_kind("v1", "Service")
_SLICE = by_kind("discovery.k8s.io/v1", "EndpointSlice")


class EndpointsView:
    """Keeps the contract of ``Store``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj:
        try:
            return await self._store.get(kind, namespace, name)
        except NotFound:
            if kind != _ENDPOINTS or not namespace:
                raise
            service = await self._store.get(_SERVICE, namespace, name)
            if selector_of(service) is None:
                raise
            slices, _ = await self._store.list(_SLICE, namespace)
            return _view(service, [one for one in slices if _service_of(one) == (namespace, name)])

    async def list(self, kind: Kind, namespace: str | None = None) -> tuple[_ObjList, int]:
        if kind != _ENDPOINTS:
            return await self._store.list(kind, namespace)
        facts = await _Facts.of(self._store, namespace)
        found = {**{name: view for name in facts.services if (view := facts.view(name)) is not None}, **facts.stored}
        return [found[name] for name in sorted(found)], facts.version

    async def snapshot(self) -> tuple[_Everything, int]:
        return await self._store.snapshot()

    async def version_of(self, kind: Kind, namespace: str | None, name: str, given: int | None = None) -> int:
        return await self._store.version_of(kind, namespace, name, given)

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        return await self._store.create(kind, obj)

    async def update(self, kind: Kind, obj: Obj, expected: int | None = None) -> Obj:
        return await self._store.update(kind, obj, expected)

    async def delete(self, kind: Kind, namespace: str | None, name: str, expected: int | None = None) -> Obj:
        return await self._store.delete(kind, namespace, name, expected)

    def watch(self, since: int, kind: Kind | None = None, namespace: str | None = None) -> AsyncIterator[Event]:
        if kind != _ENDPOINTS:
            return self._store.watch(since, kind, namespace)
        return self._watch(since, namespace)

    async def _watch(self, since: int, namespace: str | None) -> AsyncIterator[Event]:
        """What the store says of Services and slices, as changes of Endpoints. What came before is told as it is now."""
        facts = await _Facts.of(self._store, namespace)
        told: dict[_Name, Any] = {}
        async with aclosing(self._store.watch(since, None, namespace)) as events:  # type: ignore[type-var]
            async for event in events:
                if event.kind not in (_ENDPOINTS, _SERVICE, _SLICE):
                    continue
                name = _service_of(event.object) if event.kind == _SLICE else _name_of(event.object)
                if name is None:
                    continue
                past = event.version <= facts.version
                before = past or name in facts.stored or name in facts.services
                if not past:
                    facts.see(event)
                made = _change(event, facts.stored.get(name) or facts.view(name), name, before)
                if made is None:
                    continue
                content = None if made.type == "DELETED" else (made.object["metadata"].get("labels"), made.object.get("subsets"))
                if event.kind == _ENDPOINTS or name not in told or told[name] != content:
                    told[name] = content
                    yield made


def _change(event: Event, now: Obj | None, name: _Name, before: bool) -> Event | None:
    """What an event means for the Endpoints of this name, which are ``now``."""
    version = {"resourceVersion": str(event.version)}
    if now is not None:
        fresh = event.type == "ADDED" and event.kind != _SLICE and not before
        obj = {**now, "metadata": {**now["metadata"], **version}}
        return Event("ADDED" if fresh else "MODIFIED", _ENDPOINTS, obj, event.version)
    if event.kind == _ENDPOINTS and event.type == "DELETED":
        return event
    if event.kind == _SERVICE and event.type == "DELETED" and before and selector_of(event.object) is not None:
        return Event("DELETED", _ENDPOINTS, _view(event.object, [], version), event.version)
    return None


class _Facts:
    """What views are made of, and the version they are of at least."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.stored: dict[_Name, Obj] = {}
        self.services: dict[_Name, Obj] = {}
        self.slices: dict[_Name, dict[str, Obj]] = {}

    @classmethod
    async def of(cls, store: Store, namespace: str | None) -> _Facts:
        stored, version = await store.list(_ENDPOINTS, namespace)  # the oldest of the three: a watch from here misses nothing
        facts = cls(version)
        for kind, found in (
            (_ENDPOINTS, stored),
            (_SERVICE, (await store.list(_SERVICE, namespace))[0]),
            (_SLICE, (await store.list(_SLICE, namespace))[0]),
        ):
            for obj in found:
                facts.see(Event("ADDED", kind, obj, version))
        return facts

    def see(self, event: Event) -> None:
        obj, gone = event.object, event.type == "DELETED"
        if event.kind == _SLICE:
            name = _service_of(obj)
            if name is not None:
                slices = self.slices.setdefault(name, {})
                slices.pop(obj["metadata"]["name"], None)
                if not gone:
                    slices[obj["metadata"]["name"]] = obj
            return
        kept = self.stored if event.kind == _ENDPOINTS else self.services
        kept.pop(_name_of(obj), None)
        if not gone and (event.kind == _ENDPOINTS or selector_of(obj) is not None):
            kept[_name_of(obj)] = obj

    def view(self, name: _Name) -> Obj | None:
        service = self.services.get(name)
        return None if service is None else _view(service, self.slices.get(name, {}).values())


def _name_of(obj: Obj) -> _Name:
    return (str(obj["metadata"].get("namespace") or ""), str(obj["metadata"].get("name") or ""))


def _service_of(obj: Obj) -> _Name | None:
    labels = obj["metadata"].get("labels")
    service = labels.get(SERVICE_NAME) if isinstance(labels, dict) else None
    return (_name_of(obj)[0], service) if isinstance(service, str) else None


def _view(service: Obj, slices: Any, meta: Obj | None = None) -> Obj:
    """The Endpoints of a Service: a subset for every set of ports."""
    found = sorted(slices, key=_name_of)
    subsets: dict[str, Obj] = {}
    for one in found:
        ports = [{key: port[key] for key in ("name", "port", "protocol") if port.get(key)} for port in one.get("ports") or ()]
        for endpoint in one.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            made = subsets.setdefault(repr(ports), {"addresses": [], **({"ports": ports} if ports else {})})
            for address in endpoint.get("addresses") or ():
                kept = {key: endpoint[key] for key in ("hostname", "nodeName", "targetRef") if endpoint.get(key)}
                made["addresses"].append({"ip": address, **kept})
    owner = service["metadata"]
    versions = [int(one["metadata"].get("resourceVersion") or 0) for one in (service, *found)]
    metadata = {
        "name": owner["name"],
        "namespace": owner.get("namespace"),
        "uid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"endpoints of {owner.get('uid')}")),
        "resourceVersion": str(max(versions)),
        "creationTimestamp": owner.get("creationTimestamp"),
        **({"labels": owner["labels"]} if owner.get("labels") else {}),
        **(meta or {}),
    }
    whole: Obj = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
    return {**whole, "subsets": list(subsets.values())} if subsets else whole
