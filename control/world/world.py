"""World: an immutable, indexed picture of every object, shared between versions.

In: stored objects (plain dicts) and store events. Out: ``World``; ``apply`` gives a new one that shares what did not change,
so a reader may compare ``config``, ``endpoints`` and single values by identity. An object that does not decode is left out
(a policy is kept as a refusal) and listed in ``problems``; it never breaks the rest. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from control.resources.check import Invalid, decode, validate
from control.resources.core import EndpointSlice
from control.resources.kinds import Kind, kind_of
from control.resources.mesh_config import MESH_CONFIG
from control.resources.meta import Resource
from control.world import security
from control.world.config import Config
from control.world.endpoints import WorldEndpoint
from control.world.mesh import MeshSettings
from control.world.pods import PodInfo
from control.world.rebuild import Rebuild, Touched, WorldProblem
from control.world.services import EndpointsKey, MeshService

__all__ = ["Change", "World", "WorldProblem"]

Obj = dict[str, Any]
Name = tuple[str, str]  # namespace, name


class Change(Protocol):
    """What ``apply`` reads of a store event."""

    @property
    def type(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def object(self) -> Obj: ...


class Added(NamedTuple):
    """An event made from a plain object."""

    type: str
    kind: Kind
    object: Obj


class _Item(NamedTuple):
    obj: Obj
    value: Any  # the typed object; None when it did not decode


# The kinds that configuration follows from; all others pass by.
_READ = frozenset(("Service", "Pod", "Endpoints", "EndpointSlice", "ServiceEntry", "WorkloadEntry", "Secret")) | frozenset(
    ("VirtualService", "DestinationRule", "Gateway", "Sidecar", "ConfigMap", "Telemetry", *security.KINDS)
)


class World:
    """See the module. Build with ``empty`` or ``of``; never mutate."""

    __slots__ = (
        "_base",
        "_problems",
        "_refs",
        "_services",
        "_slices",
        "_tables",
        "config",
        "endpoints",
        "mesh",
        "pods",
    )

    mesh: MeshSettings
    _base: MeshSettings  # before the users' MeshConfig
    config: Config
    pods: Mapping[Name, PodInfo]
    endpoints: Mapping[EndpointsKey, tuple[WorldEndpoint, ...]]

    def __init__(self) -> None:
        self._tables: dict[str, dict[Name, _Item]] = {}
        self._problems: dict[tuple[str, str, str], WorldProblem] = {}
        self._slices: dict[Name, tuple[EndpointSlice, ...]] = {}  # by service
        self._refs: dict[Name, frozenset[str]] = {}  # service -> names of pods behind it
        self._services: dict[EndpointsKey, tuple[MeshService, ...]] = {}

    @staticmethod
    def empty(mesh: MeshSettings | None = None) -> World:
        world = World()
        world._base = world.mesh = mesh or MeshSettings()
        world.config = Config(world.mesh)
        world.pods = {}
        world.endpoints = {}
        return world

    @staticmethod
    def of(objs: Iterable[Obj], mesh: MeshSettings | None = None) -> World:
        """A world of these objects. Objects of kinds that nobody knows are listed in ``problems``."""
        events: list[Change] = []
        unknown: list[WorldProblem] = []
        for obj in objs:
            try:
                events.append(Added("ADDED", kind_of(obj), obj))
            except KeyError as error:
                meta = _metadata(obj)
                where = (str(obj.get("kind", "?")), str(meta.get("namespace", "")), str(meta.get("name", "")))
                unknown.append(WorldProblem(*where, str(error.args[0])))
        world = World.empty(mesh).apply(events)
        for problem in unknown:
            world._problems[problem[:3]] = problem
        return world

    # -- reading ---------------------------------------------------------------------------------------------------------

    @property
    def problems(self) -> tuple[WorldProblem, ...]:
        return tuple(self._problems[key] for key in sorted(self._problems))

    def get(self, kind: str, namespace: str, name: str) -> Any:
        """The typed object, or ``None`` when it is absent or did not decode."""
        item = self._tables.get(kind, {}).get((namespace, name))
        return item.value if item is not None else None

    def raw(self, kind: str, namespace: str, name: str) -> Obj | None:
        """The stored object as the user gave it."""
        item = self._tables.get(kind, {}).get((namespace, name))
        return item.obj if item is not None else None

    def all(self, kind: str) -> tuple[Any, ...]:
        """Every typed object of a kind (one of those the world reads), by namespace and name."""
        table = self._tables.get(kind, {})
        return tuple(table[key].value for key in sorted(table) if table[key].value is not None)

    def service(self, host: str) -> MeshService | None:
        """The oldest service of this full host name, whoever may see it."""
        found = self.config.services.get(host)
        return found[0] if found else None

    def endpoints_of(self, service: MeshService) -> tuple[WorldEndpoint, ...]:
        return self.endpoints.get(service.endpoints, ())

    # -- changing --------------------------------------------------------------------------------------------------------

    def with_keys(self, keys: Mapping[str, str]) -> World:
        """The same world with these key sets, by place (``security.KeysAt.place``)."""
        if keys == self.config.keys:
            return self
        world = self._copy()
        world._tables, world._problems = self._tables, self._problems
        world.config = replace(self.config, keys=dict(keys))
        return world

    def _copy(self) -> World:
        world = World()
        world._base, world.mesh = self._base, self.mesh
        world.config, world.pods, world.endpoints = self.config, self.pods, self.endpoints
        world._slices, world._refs, world._services = self._slices, self._refs, self._services
        return world

    def apply(self, events: Iterable[Change]) -> World:
        """The world after these events, in order. Returns ``self`` when nothing that matters here changed."""
        touched = Touched()
        tables, problems = dict(self._tables), dict(self._problems)
        owned: set[str] = set()
        for event in events:
            kind = event.kind.kind
            if kind not in _READ:
                continue
            meta = _metadata(event.object)
            name = (str(meta.get("namespace") or "default"), str(meta.get("name", "")))
            if kind == "ConfigMap" and name != (self._base.root_namespace, MESH_CONFIG):
                continue
            if kind not in owned:
                owned.add(kind)
                tables[kind] = dict(tables.get(kind, {}))
            table = tables[kind]
            before = table.get(name)
            problems.pop((kind, *name), None)
            if event.type == "DELETED":
                table.pop(name, None)
                touched.add(kind, name, before.value if before else None, None)
                continue
            value, problem = _decode(kind, name, event.object)
            if problem is not None:
                problems[(kind, *name)] = problem
            table[name] = _Item(event.object, value)
            touched.add(kind, name, before.value if before else None, value)
        if not owned:
            return self
        world = self._copy()
        world._tables, world._problems = tables, problems
        Rebuild(world, touched).run()
        return world


def _metadata(obj: Obj) -> Obj:
    meta = obj.get("metadata")
    return meta if isinstance(meta, dict) else {}


def _decode(kind: str, name: Name, obj: Obj) -> tuple[Any, WorldProblem | None]:
    meta = _metadata(obj)
    if not meta.get("namespace"):
        obj = {**obj, "metadata": {**meta, "namespace": name[0]}}
    try:
        value = decode(obj)
    except Invalid as error:
        return None, WorldProblem(kind, *name, str(error))
    if isinstance(value, Resource):
        # Checked when it was stored, but perhaps by an older version of us, or it comes from a file.
        errors = validate(obj).errors
        if errors:
            return None, WorldProblem(kind, *name, str(errors[0]))
    return value, None
