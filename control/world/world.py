"""World: an immutable, indexed picture of every object, shared between versions.

In: stored objects (plain dicts) and store events. Out: ``World``; ``apply`` gives a new one that shares what did not change,
so a reader may compare ``config``, ``endpoints`` and single values by identity. An object that does not decode is left out
and listed in ``problems``; it never breaks the rest. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from control.resources.check import Invalid, decode, validate
from control.resources.core import EndpointSlice
from control.resources.destination_rule import DestinationRule
from control.resources.kinds import Kind, kind_of
from control.resources.mesh_config import MESH_CONFIG
from control.resources.meta import Resource
from control.resources.workload_entry import WorkloadEntry
from control.world import config as indexing
from control.world import security
from control.world.config import Config
from control.world.endpoints import WorldEndpoint, pods_of, service_endpoints, service_entry_endpoints
from control.world.mesh import MeshSettings
from control.world.pods import PodInfo, pod_info
from control.world.services import EndpointsKey, MeshService, from_service, from_service_entry
from control.world.settings import mesh_settings

__all__ = ["Change", "World", "WorldProblem"]

Obj = dict[str, Any]
Name = tuple[str, str]  # namespace, name

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


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


class WorldProblem(NamedTuple):
    """A stored object that could not be used. ``message`` is one line and ends in the field's path."""

    kind: str
    namespace: str
    name: str
    message: str


class _Item(NamedTuple):
    obj: Obj
    value: Any  # the typed object; None when it did not decode


# The kinds that configuration follows from; all others pass by.
_READ = frozenset(("Service", "Pod", "Endpoints", "EndpointSlice", "ServiceEntry", "WorkloadEntry", "Secret")) | frozenset(
    ("VirtualService", "DestinationRule", "Gateway", "Sidecar", "ConfigMap", *security.KINDS)
)


class World:
    """See the module. Build with ``empty`` or ``of``; never mutate."""

    __slots__ = (
        "_base",
        "_by_ip",
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
        self._by_ip: dict[str, PodInfo] | None = None

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

    def pod_at(self, ip: str) -> PodInfo | None:
        """The pod with this address; the first by name when two claim it."""
        if self._by_ip is None:
            self._by_ip = {p.ip: p for _, p in sorted(self.pods.items(), reverse=True) if p.ip}
        return self._by_ip.get(ip)

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
        world._by_ip = self._by_ip
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
        touched = _Touched()
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
        _Rebuild(world, touched).run()
        if world.pods is self.pods:
            world._by_ip = self._by_ip
        return world


class _Touched:
    """Which names of which kind may have changed, with the value before the batch."""

    def __init__(self) -> None:
        self.before: dict[str, dict[Name, Any]] = {}
        self.after: dict[str, dict[Name, Any]] = {}

    def add(self, kind: str, name: Name, before: Any, after: Any) -> None:
        self.before.setdefault(kind, {}).setdefault(name, before)
        self.after.setdefault(kind, {})[name] = after

    def names(self, kind: str) -> Iterable[Name]:
        return self.after.get(kind, {})

    def meaningful(self, kind: str) -> bool:
        """Whether a configuration kind changed in what translation reads: spec or age, not its status or version."""
        for name, after in self.after.get(kind, {}).items():
            before = self.before[kind][name]
            if before is after:
                continue
            if (
                before is None
                or after is None
                or before.spec != after.spec
                or indexing.age(before) != indexing.age(after)
            ):
                return True
        return False


class _Rebuild:
    """Brings the indexes of a fresh world up to date with its tables, copying only what changes."""

    def __init__(self, world: World, touched: _Touched) -> None:
        self.world = world
        self.touched = touched
        self.dirty: set[EndpointsKey] = set()

    def run(self) -> None:
        pods = self.rebuild_pods()
        self.rebuild_slices()
        services_changed = self.rebuild_services()
        mesh_changed = self.rebuild_mesh()
        self.spread(pods)
        self.rebuild_endpoints()
        self.rebuild_config(services_changed, mesh_changed)
        self.rebuild_security()

    def values(self, kind: str) -> list[Any]:
        return [item.value for item in self.world._tables.get(kind, {}).values() if item.value is not None]

    def rebuild_pods(self) -> set[Name]:
        """Returns the names of the pods whose facts changed."""
        changed: dict[Name, PodInfo | None] = {}
        for name in self.touched.names("Pod"):
            value = self.touched.after["Pod"][name]
            info = pod_info(value) if value is not None else None
            if info != self.world.pods.get(name):
                changed[name] = info
        if changed:
            pods = dict(self.world.pods)
            for name, info in changed.items():
                if info is None:
                    pods.pop(name, None)
                else:
                    pods[name] = info
            self.world.pods = pods
        return set(changed)

    def rebuild_slices(self) -> None:
        for name in self.touched.names("Endpoints"):
            self.dirty.add(("Service", *name))
        names = list(self.touched.names("EndpointSlice"))
        if not names:
            return
        removed: dict[Name, set[str]] = {}
        added: dict[Name, list[EndpointSlice]] = {}
        for name in names:
            before, after = self.touched.before["EndpointSlice"][name], self.touched.after["EndpointSlice"][name]
            for value in (before, after):
                service = _service_of(value)
                if service is not None:
                    removed.setdefault(service, set()).add(name[1])
            service = _service_of(after)
            if service is not None:
                added.setdefault(service, []).append(after)
        slices = dict(self.world._slices)
        for service, gone in removed.items():
            kept = [s for s in slices.get(service, ()) if s.metadata.name not in gone]
            now = tuple(sorted([*kept, *added.get(service, ())], key=lambda s: s.metadata.name))
            if now:
                slices[service] = now
            else:
                slices.pop(service, None)
            self.dirty.add(("Service", *service))
        self.world._slices = slices

    def rebuild_services(self) -> bool:
        names = [("Service", name) for name in self.touched.names("Service")]
        names += [("ServiceEntry", name) for name in self.touched.names("ServiceEntry")]
        services = dict(self.world._services)
        changed = False
        for kind, name in names:
            key: EndpointsKey = (kind, *name)
            value = self.touched.after[kind][name]
            if value is None:
                now: tuple[MeshService, ...] = ()
            elif kind == "Service":
                one = from_service(value, self.world.mesh.cluster_domain)
                now = (one,) if one is not None else ()
            else:
                now = from_service_entry(value)
            self.dirty.add(key)
            if now != services.get(key, ()):
                changed = True
                if now:
                    services[key] = now
                else:
                    services.pop(key, None)
        if changed:
            self.world._services = services
        return changed

    def spread(self, pods: set[Name]) -> None:
        """Marks the services behind which a changed pod or WorkloadEntry stands."""
        entries = {name[0] for name in self.touched.names("WorkloadEntry")}
        if not pods and not entries:
            return
        by_namespace: dict[str, set[str]] = {}
        for namespace, pod in pods:
            by_namespace.setdefault(namespace, set()).add(pod)
        for key, services in self.world._services.items():
            kind, namespace, name = key
            if namespace in entries and services[0].selector:
                self.dirty.add(key)
            elif namespace in by_namespace:
                if kind == "ServiceEntry":
                    if services[0].selector:
                        self.dirty.add(key)
                elif not self.world._refs.get((namespace, name), frozenset()).isdisjoint(by_namespace[namespace]):
                    self.dirty.add(key)

    def rebuild_endpoints(self) -> None:
        if not self.dirty:
            return
        world = self.world
        entries: dict[str, list[WorkloadEntry]] = {}
        for entry in self.values("WorkloadEntry"):
            entries.setdefault(entry.metadata.namespace, []).append(entry)
        endpoints, refs = dict(world.endpoints), dict(world._refs)
        changed = False
        for key in self.dirty:
            kind, namespace, name = key
            services = world._services.get(key)
            found: tuple[WorldEndpoint, ...] = ()
            if kind == "Service":
                slices = world._slices.get((namespace, name), ())
                legacy = world.get("Endpoints", namespace, name)
                refs[(namespace, name)] = pods_of(slices, legacy)
                if services:
                    found = service_endpoints(services[0], slices, legacy, world.pods, entries.get(namespace, ()))
            elif services:
                own = (pod for (space, _), pod in world.pods.items() if space == namespace)
                value = world.get("ServiceEntry", namespace, name)
                found = service_entry_endpoints(value, services[0], own, entries.get(namespace, ()))
            if found != endpoints.get(key, ()):
                changed = True
                if found:
                    endpoints[key] = found
                else:
                    endpoints.pop(key, None)
        world._refs = refs
        if changed:
            world.endpoints = endpoints

    def rebuild_mesh(self) -> bool:
        """The users' MeshConfig over the settings of the start; the last good one stays when it cannot be used."""
        world, mesh = self.world, self.world.mesh
        for name in self.touched.names("ConfigMap"):
            value = self.touched.after["ConfigMap"][name]
            text = ((value.data or {}).get("mesh") or "") if value is not None else ""
            gone = name not in world._tables["ConfigMap"]
            if value is None and not gone:
                continue  # its shape is wrong: said among the problems already
            try:
                mesh = mesh_settings(world._base, text)
            except ValueError as error:
                world._problems[("ConfigMap", *name)] = WorldProblem("ConfigMap", *name, str(error))
        if mesh == world.mesh:
            return False
        world.mesh = mesh
        return True

    def rebuild_config(self, services_changed: bool, mesh_changed: bool) -> None:
        touched, world, old = self.touched, self.world, self.world.config
        vs_changed, dr_changed = touched.meaningful("VirtualService"), touched.meaningful("DestinationRule")
        sidecar_changed, gateway_changed = touched.meaningful("Sidecar"), touched.meaningful("Gateway")
        if not (services_changed or mesh_changed or vs_changed or dr_changed or sidecar_changed or gateway_changed):
            return
        domain = world.mesh.cluster_domain
        services, selectors = old.services, old.selectors
        if services_changed:
            by_host, selectors = indexing.index_services(
                (s for found in world._services.values() for s in found), old.selectors
            )
            services = by_host
        virtual_services = old.virtual_services
        if vs_changed:
            virtual_services = indexing.index_virtual_services(self.values("VirtualService"), domain)
        rules: list[DestinationRule] = self.values("DestinationRule")
        destination_rules, uses_locality, keys = old.destination_rules, old.uses_locality, old.label_keys
        if dr_changed:
            destination_rules = indexing.index_rules(rules, domain)
            uses_locality, keys = indexing.locality_needs(rules)
        sidecars = indexing.index_sidecars(self.values("Sidecar")) if sidecar_changed else old.sidecars
        gateways = tuple(sorted(self.values("Gateway"), key=indexing.age)) if gateway_changed else old.gateways
        pairs = old.label_pairs
        if vs_changed or dr_changed or sidecar_changed:
            pairs = indexing.label_pairs(virtual_services, rules, (s for found in sidecars.values() for s in found))
        world.config = replace(
            old,
            mesh=world.mesh,
            services=services,
            selectors=selectors,
            virtual_services=virtual_services,
            destination_rules=destination_rules,
            sidecars=sidecars,
            gateways=gateways,
            label_pairs=pairs,
            label_keys=keys,
            uses_locality=uses_locality,
            routing=object(),
        )

    def rebuild_security(self) -> None:
        """Policies do not go away when they cannot be used: they are indexed as such, and obeyed as refusals."""
        world = self.world
        if not any(True for kind in security.KINDS for _ in self.touched.names(kind)):
            return
        found = []
        for kind in security.KINDS:
            for name, item in world._tables.get(kind, {}).items():
                if item.value is not None:
                    found.append(security.scoped(item.value))
                else:
                    found.append(security.broken(kind, *name, item.obj, world._problems[(kind, *name)].message))
        index = security.index_security(found, world.config.security)
        if index is not world.config.security:
            world.config = replace(world.config, security=index)


def _service_of(value: Any) -> Name | None:
    if value is None:
        return None
    name = (value.metadata.labels or {}).get(SERVICE_NAME_LABEL, "")
    return (value.metadata.namespace, name) if name else None


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
