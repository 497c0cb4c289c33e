"""World, config: the indexes over everything that is neither pod nor endpoint.

In: typed objects. Out: ``Config``, whose identity changes only when a service or a mesh resource changes, so that whoever
computed something from it may compare by identity. Nothing here depends on insertion order: all lists are sorted by age
(oldest first, then name, then namespace: Istio's tie-break), all lookups are by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from control.resources.destination_rule import DestinationRule, PortTrafficPolicy, TrafficPolicy
from control.resources.gateway import Gateway
from control.resources.meta import Resource
from control.resources.sidecar import Sidecar
from control.resources.virtual_service import VirtualService
from control.world.hosts import expand, most_specific
from control.world.mesh import MeshSettings
from control.world.reporting import NamespaceTelemetry
from control.world.security import NamespaceSecurity
from control.world.services import MeshService

__all__ = ["Config", "HostedVirtualService", "RuleIndex", "SelectorIndex", "age"]


def age(resource: Resource) -> tuple[str, str, str]:
    """Sort key, oldest first. An object without a creation time (a plain file) counts as the oldest."""
    meta = resource.metadata
    return (meta.creation_timestamp or "", meta.name, meta.namespace)


@dataclass(frozen=True, slots=True, eq=False)
class HostedVirtualService:
    """A VirtualService with its names made full: ``hosts`` in the order given, ``gateways`` as ``mesh`` or ``ns/name``."""

    resource: VirtualService
    hosts: tuple[str, ...]
    gateways: frozenset[str]

    @property
    def namespace(self) -> str:
        return self.resource.metadata.namespace

    @property
    def source(self) -> str:
        meta = self.resource.metadata
        return f"VirtualService {meta.namespace}/{meta.name}"


@dataclass(frozen=True, slots=True, eq=False)
class RuleIndex:
    """The DestinationRules of one namespace, by full host, each list oldest first."""

    by_host: Mapping[str, tuple[DestinationRule, ...]]
    wildcards: tuple[str, ...]

    def lookup(self, host: str) -> tuple[DestinationRule, ...]:
        """Those of the most specific host that covers ``host``."""
        found = self.by_host.get(host)
        if found is not None:
            return found
        pattern = most_specific(self.wildcards, host) if self.wildcards else None
        return self.by_host[pattern] if pattern is not None else ()


class SelectorIndex:
    """Finds the services of one namespace that select a pod, without asking every service."""

    __slots__ = ("_by_pair", "services")

    def __init__(self, services: tuple[MeshService, ...]) -> None:
        self.services = services
        self._by_pair: dict[tuple[str, str], list[MeshService]] = {}
        for service in services:
            if service.selector:
                # One pair is enough to find it; the last in key order tends to be the most telling one.
                self._by_pair.setdefault(service.selector[-1], []).append(service)

    def matching(self, labels: tuple[tuple[str, str], ...]) -> tuple[MeshService, ...]:
        """Services whose selector the labels satisfy, oldest first."""
        pairs = frozenset(labels)
        found = [s for pair in labels for s in self._by_pair.get(pair, ()) if pairs.issuperset(s.selector)]
        return tuple(sorted(found, key=lambda s: (s.age, s.host)))


@dataclass(frozen=True, slots=True, eq=False)
class Config:
    """See the module. ``label_pairs`` and ``label_keys`` are all that proxies' labels can be asked about by any routing resource.

    ``security`` and ``telemetry`` are by namespace; ``keys`` are the fetched key sets by place (``security.KeysAt.place``).
    ``routing`` is the same object in all configs that differ in nothing but those three.
    """

    mesh: MeshSettings
    services: Mapping[str, tuple[MeshService, ...]] = field(default_factory=dict)
    selectors: Mapping[str, SelectorIndex] = field(default_factory=dict)
    virtual_services: tuple[HostedVirtualService, ...] = ()
    destination_rules: Mapping[str, RuleIndex] = field(default_factory=dict)
    sidecars: Mapping[str, tuple[Sidecar, ...]] = field(default_factory=dict)
    gateways: tuple[Gateway, ...] = ()
    label_pairs: frozenset[tuple[str, str]] = frozenset()
    label_keys: frozenset[str] = frozenset()
    uses_locality: bool = False
    security: Mapping[str, NamespaceSecurity] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    telemetry: Mapping[str, NamespaceTelemetry] = field(default_factory=dict)
    routing: object = field(default_factory=object)


def index_services(
    services: Iterable[MeshService], old: Mapping[str, SelectorIndex]
) -> tuple[dict[str, tuple[MeshService, ...]], dict[str, SelectorIndex]]:
    """The services by host, and who selects pods per namespace; the index of an unchanged namespace stays the same object."""
    by_host: dict[str, list[MeshService]] = {}
    by_namespace: dict[str, list[MeshService]] = {}
    for service in services:
        by_host.setdefault(service.host, []).append(service)
        by_namespace.setdefault(service.namespace, []).append(service)
    selectors = {}
    for namespace, found in by_namespace.items():
        now = tuple(sorted(found, key=lambda s: (s.host, s.age)))
        known = old.get(namespace)
        selectors[namespace] = known if known is not None and known.services == now else SelectorIndex(now)
    return {host: tuple(sorted(found, key=lambda s: s.age)) for host, found in sorted(by_host.items())}, selectors


def index_virtual_services(found: Iterable[VirtualService], domain: str) -> tuple[HostedVirtualService, ...]:
    return tuple(
        HostedVirtualService(
            resource=vs,
            hosts=tuple(dict.fromkeys(expand(host, vs.metadata.namespace, domain) for host in vs.spec.hosts)),
            gateways=frozenset(gateway_name(g, vs.metadata.namespace) for g in vs.spec.gateways or ("mesh",)),
        )
        for vs in sorted(found, key=age)
    )


def gateway_name(name: str, namespace: str) -> str:
    """``mesh`` stays; ``gw`` becomes ``ns/gw``; the old ``gw.ns.svc.cluster.local`` form is understood."""
    if name == "mesh" or "/" in name:
        return name if not name.startswith("./") else f"{namespace}/{name[2:]}"
    if "." in name:
        short, _, rest = name.partition(".")
        return f"{rest.split('.', 1)[0]}/{short}"
    return f"{namespace}/{name}"


def index_rules(found: Iterable[DestinationRule], domain: str) -> dict[str, RuleIndex]:
    table: dict[str, dict[str, list[DestinationRule]]] = {}
    for rule in sorted(found, key=age):
        namespace = rule.metadata.namespace
        host = expand(rule.spec.host, namespace, domain)
        table.setdefault(namespace, {}).setdefault(host, []).append(rule)
    return {
        namespace: RuleIndex(
            {host: tuple(rules) for host, rules in hosts.items()},
            tuple(sorted(host for host in hosts if host.startswith("*"))),
        )
        for namespace, hosts in table.items()
    }


def index_sidecars(found: Iterable[Sidecar]) -> dict[str, tuple[Sidecar, ...]]:
    table: dict[str, list[Sidecar]] = {}
    for sidecar in sorted(found, key=age):
        table.setdefault(sidecar.metadata.namespace, []).append(sidecar)
    return {namespace: tuple(sidecars) for namespace, sidecars in table.items()}


def label_pairs(
    virtual_services: Iterable[HostedVirtualService], rules: Iterable[DestinationRule], sidecars: Iterable[Sidecar]
) -> frozenset[tuple[str, str]]:
    """Every label pair that a client's labels may be compared with."""
    return frozenset(pair for labels in _selectors(virtual_services, rules, sidecars) for pair in labels.items())


def _selectors(
    virtual_services: Iterable[HostedVirtualService], rules: Iterable[DestinationRule], sidecars: Iterable[Sidecar]
) -> Iterator[Mapping[str, str]]:
    for vs in virtual_services:
        spec = vs.resource.spec
        yield from (match.source_labels for rule in spec.http for match in rule.match)
        yield from (match.source_labels for rule in spec.tls for match in rule.match)
        yield from (match.source_labels for rule in spec.tcp for match in rule.match)
    for rule in rules:
        if rule.spec.workload_selector is not None:
            yield rule.spec.workload_selector.match_labels
    for sidecar in sidecars:
        if sidecar.spec.workload_selector is not None:
            yield sidecar.spec.workload_selector.labels


def locality_needs(rules: Iterable[DestinationRule]) -> tuple[bool, frozenset[str]]:
    """Whether any rule makes endpoints depend on the client's place, and by which label keys (failoverPriority)."""
    used, keys = False, set()
    for rule in rules:
        policies = [rule.spec.traffic_policy, *(s.traffic_policy for s in rule.spec.subsets)]
        blocks: list[TrafficPolicy | PortTrafficPolicy] = []
        for policy in policies:
            if policy is not None:
                blocks += [policy, *policy.port_level_settings]
        # Either block may be inherited from elsewhere in the rule, so judge the rule as a whole.
        if any(block.outlier_detection is not None for block in blocks):
            used = True
            for block in blocks:
                setting = block.load_balancer.locality_lb_setting if block.load_balancer else None
                if setting is not None:
                    keys |= {entry.partition("=")[0] for entry in setting.failover_priority}
    return used, frozenset(keys)
