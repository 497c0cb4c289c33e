"""A cluster as ``api.Store`` (room ``store/kubernetes``), loud.

In: an ``ApiServer``. Out: reads from a mirror that reflectors keep, writes to the API server, which are seen here before they
return. ``open`` returns when everything that a configuration follows from is known; from then on the API server may be away for
as long as it likes. Versions are the mirror's own, objects keep the cluster's ``resourceVersion``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from control.resources.kinds import Kind, by_kind
from control.resources.mesh_config import MESH_CONFIG
from control.store.api import AlreadyExists, Conflict, NotFound, Obj, StoreError
from control.store.kubernetes.client import ApiServer, Refused, Unreachable
from control.store.kubernetes.mirror import Mirror
from control.store.kubernetes.nodes import Nodes
from control.store.kubernetes.reflector import Place, Reflector, Timing
from control.store.kubernetes.slim import slim
from control.store.kubernetes.watched import NODE, SECRET, places, secrets
from control.store.table import Key, Record, thaw
from control.tasks import cancel, spawn

__all__ = ["KubernetesStore", "is_gateway"]

log = logging.getLogger("mesh.control.kubernetes")
POD = by_kind("", "Pod")
SEEN = 10.0  # seconds that a write waits to be seen here; it is done all the same
SAY = 10.0  # seconds between words about what is waited for


def is_gateway(pod: Obj) -> bool:
    """Whether a Pod is a gateway, whose Secrets are of interest: by its labels, by its template, or because it says so."""
    meta = pod["metadata"]
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    templates = str(notes.get("inject.istio.io/templates", "")).split(",")
    by_label = labels.get("istio") in ("ingressgateway", "egressgateway")
    return by_label or notes.get("mesh.dev/role") == "gateway" or "gateway" in (one.strip() for one in templates)


class _Kind:
    """The sink of one reflector: the mirror's rows of one kind, in one namespace, of one name.

    A revision's MeshConfig has another name in the cluster; in the mirror it is the mesh's."""

    def __init__(self, store: KubernetesStore, place: Place) -> None:
        self._store = store
        self._kind = place.kind
        self._namespace = place.namespace or None
        self._name = place.fields.partition("metadata.name=")[2] or None
        self._renamed = self._kind.kind == "ConfigMap" and self._name not in (None, MESH_CONFIG)
        if self._renamed:
            self._name = MESH_CONFIG

    def put(self, obj: Obj) -> None:
        self._store.put(self._kind, self._shown(obj))

    def drop(self, obj: Obj) -> None:
        self._store.drop(self._kind, self._shown(obj))

    def replace(self, objs: Iterable[Obj]) -> int:
        return self._store.replace(self._kind, map(self._shown, objs) if self._renamed else objs, self._namespace, self._name)

    def _shown(self, obj: Obj) -> Obj:
        return {**obj, "metadata": {**obj["metadata"], "name": MESH_CONFIG}} if self._renamed else obj


class _NodeSink:
    def __init__(self, store: KubernetesStore, nodes: Nodes) -> None:
        self._store, self._nodes = store, nodes

    def put(self, obj: Obj) -> None:
        if self._nodes.see(obj):
            self._store.moved({obj["metadata"]["name"]})

    def drop(self, obj: Obj) -> None:
        if self._nodes.see(obj, gone=True):
            self._store.moved({obj["metadata"]["name"]})

    def replace(self, objs: Iterable[Obj]) -> int:
        changed = self._nodes.replace(objs)
        self._store.moved(changed)
        return len(changed)


class KubernetesStore(Mirror):
    def __init__(
        self,
        api: ApiServer,
        root_namespace: str = "istio-system",
        timing: Timing | None = None,
        mesh_config: str = MESH_CONFIG,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self._mesh_config = mesh_config
        self._api = api
        self._timing = timing
        self._nodes = Nodes()
        self._tasks: list[asyncio.Task[None]] = []
        self._gateways: dict[str, set[str]] = {}  # namespace -> pods there that are gateways
        self._secrets: dict[str, asyncio.Task[None]] = {}  # namespaces whose Secrets are followed
        self._root = root_namespace
        self.reflectors: list[Reflector] = []
        self._closed = True

    async def open(self) -> None:
        """Returns when everything needed is known, however long that takes."""
        self._closed = False
        for place in places(self._root, self._mesh_config):
            sink = _NodeSink(self, self._nodes) if place.kind is NODE else _Kind(self, place)
            self._follow(place, sink)
        self._follow_secrets(self._root)
        while waiting := [one for one in self.reflectors if not one.synced.is_set() and not one.place.optional]:
            tasks = [spawn(one.synced.wait(), "kubernetes-first") for one in waiting]
            try:
                await asyncio.wait(tasks, timeout=SAY)
            finally:
                await cancel(*tasks)
            if late := [one for one in waiting if not one.synced.is_set()]:
                names = (f"{one.place.name}{f' ({one.problem})' if one.problem else ''}" for one in late)
                log.warning("still waiting to read %s", ", ".join(names))
        self._reset(self._table)  # nobody watches yet, and how all this came in is of no use to those who will

    async def close(self) -> None:
        self._close()
        await cancel(*self._tasks, *self._secrets.values())

    def _follow(self, place: Place, sink: Any) -> asyncio.Task[None]:
        reflector = Reflector(self._api, place, sink, self._timing)
        self.reflectors.append(reflector)
        task = spawn(reflector.run(), f"follow-{place.name}")
        self._tasks.append(task)
        return task

    def problems(self) -> dict[str, str]:
        """What is not followed now, and why."""
        return {one.place.name: one.problem for one in self.reflectors if one.problem}

    # -- what reflectors tell --------------------------------------------------------------------------------------------

    def put(self, kind: Kind, obj: Obj) -> None:
        if kind is POD:
            self._nodes.place(obj)
            self._see_gateway(obj, is_gateway(obj))
        super().put(kind, obj)

    def drop(self, kind: Kind, obj: Obj) -> None:
        if kind is POD:
            self._nodes.forget(obj)
            self._see_gateway(obj, False)
        super().drop(kind, obj)

    def replace(self, kind: Kind, objs: Iterable[Obj], namespace: str | None = None, name: str | None = None) -> int:
        if kind is POD:
            objs = list(objs)
            there = set()
            for obj in objs:
                self._nodes.place(obj)
                self._see_gateway(obj, is_gateway(obj))
                there.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))
            for space, pods in list(self._gateways.items()):
                for pod in [one for one in pods if (space, one) not in there]:
                    self._see_gateway({"metadata": {"namespace": space, "name": pod}}, False)
        return super().replace(kind, objs, namespace, name)

    def moved(self, nodes: set[str]) -> None:
        """Where these nodes are has changed: their pods are told anew."""
        if not nodes:
            return
        for record in self._table.rows(POD, None):
            pod = thaw(record.body)
            if (pod.get("spec") or {}).get("nodeName") in nodes:
                self.put(POD, pod)

    def _see_gateway(self, pod: Obj, is_one: bool) -> None:
        space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        pods = self._gateways.setdefault(space, set())
        if is_one:
            pods.add(name)
            self._follow_secrets(space)
        else:
            pods.discard(name)
        if not pods:
            del self._gateways[space]  # Secrets of a namespace are followed on: its gateways come back

    def _follow_secrets(self, namespace: str) -> None:
        if namespace not in self._secrets and not self._closed:
            place = secrets(namespace)
            self._secrets[namespace] = self._follow(place, _Kind(self, place))

    # -- writing ---------------------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        key = _named(kind, obj)
        async with self._refusals(key):
            return await self._create(key, obj)

    async def _create(self, key: Key, obj: Obj) -> Obj:
        made = await self._send("POST", key, _path(key, ""), obj)
        await self._seen(key, made)
        return made

    async def update(self, kind: Kind, obj: Obj, expected: int | None = None) -> Obj:
        key = _named(kind, obj)
        async with self._refusals(key):
            return await self._update(key, obj, expected)

    async def _update(self, key: Key, obj: Obj, expected: int | None) -> Obj:
        meta = dict(obj["metadata"])
        if expected is not None:
            meta["resourceVersion"] = str(expected)
        given = meta.get("resourceVersion")
        if not given:  # the API server wants one for most kinds: what is there now
            meta["resourceVersion"] = (await self._live(key))["metadata"]["resourceVersion"]
        elif not str(given).isdigit():
            raise Conflict(f"metadata.resourceVersion is not one of the cluster's: {given!r}")
        for attempt in range(5):
            try:
                made = await self._send("PUT", key, _path(key, key.name), {**obj, "metadata": meta})
                if "status" in obj and made.get("status") != obj["status"]:
                    made = await self._send("PUT", key, _path(key, key.name) + "/status", {**made, "status": obj["status"]})
                break
            except Conflict:
                if given or attempt == 4:
                    raise
                meta["resourceVersion"] = (await self._live(key))["metadata"]["resourceVersion"]
        await self._seen(key, made)
        return made

    async def delete(self, kind: Kind, namespace: str | None, name: str, expected: int | None = None) -> Obj:
        key = Key(kind, (namespace or "") if kind.namespaced else "", name)
        async with self._refusals(key):
            return await self._delete(key, expected)

    async def _delete(self, key: Key, expected: int | None) -> Obj:
        was = await self._live(key)
        meta = was["metadata"]
        if expected is not None and meta["resourceVersion"] != str(expected):
            raise _modified(key)
        bound = {"uid": meta["uid"], **({"resourceVersion": str(expected)} if expected is not None else {})}
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": bound}
        await self._send("DELETE", key, _path(key, key.name), options)
        await self._until(lambda: self._gone(key, meta["uid"]))
        return was

    @asynccontextmanager
    async def _refusals(self, key: Key) -> AsyncIterator[None]:
        """Who is refused can read here why: a refusal that came before its cause would make callers try again in vain."""
        try:
            yield
        except (Conflict, AlreadyExists, NotFound):
            with suppress(StoreError):
                await self.version_of(key.kind, key.namespace, key.name)
            raise

    def _gone(self, key: Key, uid: str) -> bool:
        found = self._table.find(key)
        return found is None or thaw(found.body)["metadata"].get("uid") != uid

    async def version_of(self, kind: Kind, namespace: str | None, name: str, given: int | None = None) -> int:
        """As it is in the cluster now: waits until that is known here. ``given`` is a version of the cluster's: of no use.

        Of what is not followed nothing follows, and single Secrets may not be asked for: for these what is known now counts.
        """
        key = Key(kind, (namespace or "") if kind.namespaced else "", name)
        if kind is SECRET or not any(one.place.kind is kind for one in self.reflectors):
            record = self._table.find(key)
            return record.version if record is not None else self.version
        try:
            live = await self._live(key)
        except NotFound:
            await self._until(lambda: self._table.find(key) is None)
            if given is None:
                raise
            return self.version
        await self._seen(key, live)
        found = self._table.find(key)
        return found.version if found is not None else self.version

    async def _live(self, key: Key) -> Obj:
        return await self._send("GET", key, _path(key, key.name))

    async def _send(self, method: str, key: Key, path: str, obj: Obj | None = None) -> Obj:
        if obj is not None:
            try:
                obj = msgspec.json.decode(msgspec.json.encode(obj))
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise StoreError(f"{key} cannot be stored: {error}") from None
        try:
            found = await self._api.get(path) if method == "GET" else await self._api.send(method, path, obj)
        except Refused as refused:
            raise _problem(key, refused) from None
        except (Unreachable, msgspec.DecodeError) as problem:
            raise StoreError(str(problem)) from None
        if isinstance(found, dict) and isinstance(found.get("metadata"), dict):
            found["metadata"].pop("managedFields", None)
        return found if isinstance(found, dict) else {}

    async def _seen(self, key: Key, obj: Obj) -> None:
        kept = slim(key.kind, msgspec.json.decode(msgspec.json.encode(obj)))
        if kept is None or not any(one.place.kind is key.kind for one in self.reflectors):
            return
        version = str(obj["metadata"].get("resourceVersion") or "")
        await self._until(lambda: _at_least(self._table.find(key), version, obj["metadata"].get("uid")))

    async def _until(self, holds: Any) -> None:
        try:
            async with asyncio.timeout(SEEN):
                while not holds() and not self._closed:
                    await self._news.wait()
        except TimeoutError:
            log.warning("a write was not seen in the cluster's watch within %g s", SEEN)


def _at_least(record: Record | None, version: str, uid: str | None) -> bool:
    """Whether the mirror has this version of the object or a later one."""
    if record is None:
        return False
    meta = thaw(record.body)["metadata"]
    have = str(meta.get("resourceVersion") or "")
    if have == version or (uid and meta.get("uid") != uid):
        return True
    return have.isdigit() and version.isdigit() and int(have) >= int(version)


def _path(key: Key, name: str) -> str:
    return Place(kind=key.kind, namespace=key.namespace).path(key.kind.versions[0]) + (f"/{name}" if name else "")


def _named(kind: Kind, obj: Obj) -> Key:
    meta = obj.get("metadata") or {}
    name = meta.get("name")
    if not isinstance(name, str) or not name:
        raise StoreError(f"{kind.resource}: metadata.name is required")
    return Key(kind, str(meta.get("namespace") or "default") if kind.namespaced else "", name)


def _modified(key: Key) -> Conflict:
    return Conflict(f"{key}: the object has been modified; please apply your changes to the latest version and try again")


def _problem(key: Key, refused: Refused) -> StoreError:
    if refused.code == 404:
        return NotFound(f"{key} not found")
    if refused.code == 409 and refused.reason == "AlreadyExists":
        return AlreadyExists(f"{key} already exists")
    if refused.code == 409:
        made_anew = "uid" in str(refused).lower()
        return Conflict(f"{key}: it has been deleted and created anew") if made_anew else _modified(key)
    return StoreError(f"{key}: the API server answered {refused.code}: {refused}")
