"""Analysis, the scene: everything that the checks may ask about, indexed once.

In: plain objects (and, in control, the world that exists already). Out: ``Scene``. ``live``: it is a whole mesh; otherwise files
are looked at, and what they do not hold may well exist elsewhere, so that some checks keep quiet. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from control.resources.check import Invalid, decode
from control.resources.destination_rule import DestinationRule
from control.resources.kinds import kind_of
from control.resources.shape import nearest
from control.translate.destination import MergedRule, merge
from control.world import MeshService, MeshSettings, PodInfo, World
from control.world.hosts import covers, expand, most_specific
from control.world.services import exported

__all__ = ["Facts", "Obj", "Scene", "Target", "known"]

Obj = dict[str, Any]
Labels = Mapping[str, str]

# Kinds that checks read and the world does not hold.
_BESIDE = frozenset(
    ("Namespace", "Secret", "PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy", "Telemetry", "ProxyConfig")
)
# Istio's own gateways: files speak about them without holding them (istioctl adds them as well).
_USUAL_GATEWAYS = ({"istio": "ingressgateway"}, {"istio": "egressgateway"})


class Target(NamedTuple):
    """Whom a service, or a subset of it, stands for. ``labels``: one mapping per pod, WorkloadEntry or inline endpoint."""

    service: MeshService
    labels: tuple[Labels, ...]

    def selected(self, labels: Labels) -> tuple[Labels, ...]:
        return tuple(found for found in self.labels if labels.items() <= found.items())


class Facts(NamedTuple):
    """What only a running mesh knows. ``wall``: Unix seconds; 0.0: nobody says. ``keys``: rows about key sets, as ``GET
    /mesh/v1/jwks`` gives them; ``callers``: about sidecars' callers, as ``GET /mesh/v1/callers`` does.
    """

    wall: float = 0.0
    keys: tuple[Mapping[str, Any], ...] = ()
    callers: tuple[Mapping[str, Any], ...] = ()


class Scene:
    def __init__(self, world: World, objects: Iterable[Obj], live: bool, facts: Facts = Facts()) -> None:
        self.world = world
        self.facts = facts
        self.config = world.config
        self.mesh = world.mesh
        self.live = live
        self.objects = tuple(objects)
        self._targets: dict[tuple[str, str, str], Target] = {}
        self._beside: dict[str, list[Any]] = {}
        for obj in self.objects:
            if obj.get("kind") in _BESIDE:
                try:
                    self._beside.setdefault(str(obj["kind"]), []).append(decode(obj))
                except Invalid:
                    continue  # the schema family tells of it

    @classmethod
    def of(cls, objects: Iterable[Obj], mesh: MeshSettings | None = None, *, live: bool = False, facts: Facts = Facts()) -> Scene:
        """A scene of these objects alone; each has a namespace unless its kind has none."""
        kept = tuple(objects)
        return cls(World.of((obj for obj in kept if known(obj)), mesh), kept, live, facts)

    # -- objects ---------------------------------------------------------------------------------------------------------

    def all(self, kind: str) -> tuple[Any, ...]:
        """Typed objects of a kind, by namespace and name."""
        if kind in _BESIDE:
            return tuple(sorted(self._beside.get(kind, ()), key=lambda one: (one.metadata.namespace, one.metadata.name)))
        return self.world.all(kind)

    def expand(self, host: str, namespace: str) -> str:
        return expand(host, namespace, self.mesh.cluster_domain)

    # -- pods ------------------------------------------------------------------------------------------------------------

    @cached_property
    def knows_workloads(self) -> bool:
        """Whether anything can be said about pods: always of a mesh, of files only if they hold some."""
        return self.live or bool(self.world.pods) or bool(self._entries)

    @cached_property
    def _pods_by_pair(self) -> dict[tuple[str, str, str], list[PodInfo]]:
        table: dict[tuple[str, str, str], list[PodInfo]] = {}
        for (namespace, _), pod in sorted(self.world.pods.items()):
            for key, value in pod.labels:
                table.setdefault((namespace, key, value), []).append(pod)
        return table

    def pods(self, selector: Labels, namespace: str | None = None) -> list[PodInfo]:
        """The pods that a selector picks, in one namespace or (None) in all; an empty selector picks every one."""
        if namespace is None:
            spaces = {space for space, _ in self.world.pods}
            return [pod for space in sorted(spaces) for pod in self.pods(selector, space)]
        if not selector:
            return [pod for (space, _), pod in sorted(self.world.pods.items()) if space == namespace]
        filed = [self._pods_by_pair.get((namespace, key, value), []) for key, value in selector.items()]
        smallest = min(filed, key=len)
        return [pod for pod in smallest if selector.items() <= dict(pod.labels).items()]

    def usual_gateway(self, selector: Labels) -> bool:
        """Files may name Istio's own gateways without holding their pods."""
        return not self.live and dict(selector) in _USUAL_GATEWAYS

    @cached_property
    def _entries(self) -> tuple[Any, ...]:
        return self.world.all("WorkloadEntry")

    @cached_property
    def _wildcards(self) -> tuple[str, ...]:
        return tuple(host for host in self.config.services if host.startswith("*"))

    def plaintext_callers(self) -> dict[tuple[str, str], set[str]]:
        """Who was seen calling in plaintext where mutual TLS is welcome, by the pod (namespace, name) that was called."""
        found: dict[tuple[str, str], set[str]] = {}
        for row in self.facts.callers:
            for listener in row["listeners"]:
                for caller in listener["callers"] if listener["mtls"] == "PERMISSIVE" else ():
                    if caller["how"] == "plaintext" and caller["source"]:
                        who = f"{caller['namespace']}/{caller['workload']}" if caller["workload"] else caller["source"]
                        found.setdefault((row["namespace"], row["pod"]), set()).add(who)
        return found

    # -- services --------------------------------------------------------------------------------------------------------

    def service(self, host: str, namespace: str) -> MeshService | None:
        """The service that a full host name means to a client in ``namespace``; wildcard ServiceEntries count."""
        services = self.config.services
        name = host if host in services else most_specific(self._wildcards, host)
        for service in services.get(name or "", ()):
            if service.visible_in(namespace):
                return service
        return None

    def near(self, host: str) -> str | None:
        """The host that was probably meant. Only first names are compared: what follows them is alike for all services."""
        name, _, rest = host.partition(".")
        meant: dict[str, str] = {}
        for known in self.config.services:
            first, _, domain = known.partition(".")
            if first not in meant or domain == rest:  # the same namespace is likelier
                meant[first] = known
        close = nearest(name, meant)
        return meant[close] if close is not None and meant[close] != host else None

    def hidden(self, host: str) -> bool:
        """Whether there is such a service, seen or not."""
        return host in self.config.services

    def target(self, service: MeshService) -> Target:
        """Who stands behind a service, ready or not."""
        known = self._targets.get(service.endpoints)
        if known is None or known.service is not service:
            known = self._targets[service.endpoints] = Target(service, self._labels(service))
        return known

    def _labels(self, service: MeshService) -> tuple[Labels, ...]:
        if not service.selector:
            return tuple(dict(endpoint.labels) for endpoint in self.world.endpoints_of(service))
        selector = dict(service.selector)
        found = [dict(pod.labels) for pod in self.pods(selector, service.namespace)]
        found += [
            entry.spec.labels
            for entry in self._entries
            if entry.metadata.namespace == service.namespace and selector.items() <= entry.spec.labels.items()
        ]
        return tuple(found)

    def judgeable(self, service: MeshService) -> bool:
        """Whether it can be said who stands behind it: not of names that DNS resolves, nor of files without any pod."""
        if service.resolution in ("DNS", "PASSTHROUGH") and not self.target(service).labels:
            return False
        if service.kubernetes and not service.selector:
            return bool(self.target(service).labels) or self.live
        return self.knows_workloads or not service.selector

    # -- DestinationRules ------------------------------------------------------------------------------------------------

    def rules_of(self, rule: DestinationRule) -> tuple[MeshService, ...]:
        """The services that a rule speaks about."""
        namespace = rule.metadata.namespace
        host = self.expand(rule.spec.host, namespace)
        if not host.startswith("*"):
            service = self.service(host, namespace)
            return (service,) if service is not None else ()
        services = sorted(self.config.services.items())
        return tuple(found[0] for name, found in services if covers(host, name) and found[0].visible_in(namespace))

    def rule_for(self, service: MeshService, namespace: str) -> MergedRule | None:
        """The rule that clients of ``namespace`` obey for a service; selectors are not judged: any client is meant."""
        for space in dict.fromkeys((namespace, service.namespace, self.mesh.root_namespace)):
            index = self.config.destination_rules.get(space)
            rules = index.lookup(service.host) if index is not None else ()
            rules = tuple(rule for rule in rules if exported(rule.spec.export_to, space, namespace) or space == namespace)
            if rules:
                return merge(rules)
        return None


def known(obj: Obj) -> bool:
    """Whether the object is of a kind that the mesh knows, and has metadata at all."""
    try:
        kind_of(obj)
    except KeyError:
        return False
    return isinstance(obj.get("metadata"), dict)
