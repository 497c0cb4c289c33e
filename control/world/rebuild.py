"""World, rebuilding: brings the indexes of a new world up to date after a batch of events, copying only what changes.

In: a world whose tables are those after the batch and whose indexes are those before it, and what the batch touched. Out: that
world, right. Nobody else has seen it yet, so its private parts are written here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from control.resources.core import EndpointSlice
from control.resources.destination_rule import DestinationRule
from control.resources.workload_entry import WorkloadEntry
from control.world import config as indexing
from control.world import security
from control.world.endpoints import WorldEndpoint, pods_of, service_endpoints, service_entry_endpoints
from control.world.pods import PodInfo, pod_info
from control.world.reporting import index_telemetry
from control.world.services import EndpointsKey, MeshService, from_service, from_service_entry
from control.world.settings import mesh_settings

if TYPE_CHECKING:
    from control.world.world import World

__all__ = ["Rebuild", "Touched", "WorldProblem"]

Name = tuple[str, str]  # namespace, name

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


class WorldProblem(NamedTuple):
    """A stored object that could not be used. ``message`` is one line and ends in the field's path."""

    kind: str
    namespace: str
    name: str
    message: str


class Touched:
    """Which names of which kind may have changed, with the value before the batch."""

    def __init__(self) -> None:
        self.before: dict[str, dict[Name, Any]] = {}
        self.after: dict[str, dict[Name, Any]] = {}

    def add(self, kind: str, name: Name, before: Any, after: Any) -> None:
        self.before.setdefault(kind, {}).setdefault(name, before)
        self.after.setdefault(kind, {})[name] = after

    def names(self, kind: str) -> Collection[Name]:
        return self.after.get(kind, {})

    def meaningful(self, kind: str) -> bool:
        """Whether a configuration kind changed in what translation reads: spec or age, not its status or version."""
        for name, after in self.after.get(kind, {}).items():
            before = self.before[kind][name]
            if before is after:
                continue
            if before is None or after is None or before.spec != after.spec or indexing.age(before) != indexing.age(after):
                return True
        return False


class Rebuild:
    """Brings the indexes of a fresh world up to date with its tables, copying only what changes."""

    def __init__(self, world: World, touched: Touched) -> None:
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
        self.rebuild_telemetry()

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
            by_host, selectors = indexing.index_services((s for found in world._services.values() for s in found), old.selectors)
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
        if not any(map(self.touched.names, security.KINDS)):
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

    def rebuild_telemetry(self) -> None:
        if self.touched.meaningful("Telemetry"):
            world = self.world
            world.config = replace(world.config, telemetry=index_telemetry(self.values("Telemetry"), world.config.telemetry))


def _service_of(value: Any) -> Name | None:
    if value is None:
        return None
    name = (value.metadata.labels or {}).get(SERVICE_NAME_LABEL, "")
    return (value.metadata.namespace, name) if name else None
