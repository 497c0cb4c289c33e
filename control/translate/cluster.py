"""Translate, clusters: one per service port and subset, and what their endpoints are made from.

In: a service and its merged DestinationRule. Out: ``ServiceClusters``: the cluster entries, and a ``Slot`` per cluster that
says how its ``Endpoints`` follow from the world. A cluster does not change when endpoints do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.identity import spiffe_uri
from control.resources.destination_rule import LocalityLoadBalancerSetting
from control.translate import traffic
from control.translate.credentials import Need
from control.translate.destination import MergedRule, Policy, policy_for
from control.translate.locality import priorities
from control.translate.plain import Judges, takes_tls
from control.translate.snapshot import Entry, Key, entry
from control.translate.tls import client_need, client_tls
from control.world.endpoints import WorldEndpoint
from control.world.mesh import MeshSettings
from control.world.services import EndpointsKey, MeshService, ServicePort
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, LoadBalancer, Locality, Service

__all__ = [
    "BLACK_HOLE",
    "PASSTHROUGH",
    "ServiceClusters",
    "Slot",
    "cluster_name",
    "fixed_entries",
    "service_clusters",
    "slot_endpoints",
]

PASSTHROUGH = "PassthroughCluster"
BLACK_HOLE = "BlackHoleCluster"


@dataclass(frozen=True, slots=True)
class Slot:
    """How the endpoints of one cluster follow from a service's. ``dns_host``: dialled by name when there are no endpoints.

    ``trust_domain``: whose identities the servers have; "" when the cluster does not speak the mesh's mutual TLS.
    """

    name: str
    service: EndpointsKey
    port: int
    labels: tuple[tuple[str, str], ...] = ()
    failover: bool = False
    setting: LocalityLoadBalancerSetting | None = None
    dns_host: tuple[str, int] | None = None
    trust_domain: str = ""
    sans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ServiceClusters:
    entries: Mapping[Key, Entry]
    slots: tuple[Slot, ...]
    hashed: frozenset[str]  # names of clusters that balance by hash: retries may stay on the same host there
    needs: Mapping[str, Need]  # by cluster: the Secret that its TLS is made of


def cluster_name(port: int, subset: str, host: str) -> str:
    return f"outbound|{port}|{subset}|{host}"


def service_clusters(mesh: MeshSettings, service: MeshService, rule: MergedRule | None, secrets: str = "") -> ServiceClusters:
    """Every cluster of one service: per port, the whole service and each subset of its rule.

    ``secrets``: the namespace in which credentials are looked up for this client; "" when it may have none.
    """
    found = _Found(secrets or (rule.rules[0].metadata.namespace if rule is not None else ""), bool(secrets))
    for port in service.ports:
        policy = policy_for(rule, port.number)
        _one(mesh, service, port, "", (), policy, rule.source if rule else "", found)
        if rule is None:
            continue
        for name, (subset, source) in rule.subsets.items():
            policy = policy_for(rule, port.number, subset)
            labels = tuple(sorted(subset.labels.items()))
            _one(mesh, service, port, name, labels, policy, f"{source} subset {name}", found)
    return ServiceClusters(found.entries, tuple(found.slots), frozenset(found.hashed), found.needs)


@dataclass(slots=True)
class _Found:
    """What ``service_clusters`` collects, and where credentials are looked up, and whether this client may have them."""

    secrets: str
    allowed: bool
    entries: dict[Key, Entry] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    hashed: set[str] = field(default_factory=set)
    needs: dict[str, Need] = field(default_factory=dict)


def _one(
    mesh: MeshSettings,
    service: MeshService,
    port: ServicePort,
    subset: str,
    labels: tuple[tuple[str, str], ...],
    policy: Policy,
    source: str,
    found: _Found,
) -> None:
    name = cluster_name(port.number, subset, service.host)
    balancer = traffic.load_balancer(policy.load_balancer, mesh.default_lb)
    if service.headless:  # its clients have chosen a pod already, where their connections are intercepted (as Istio)
        balancer = LoadBalancer(policy="PASSTHROUGH")
    # A service's own endpoints stay even under the balancer PASSTHROUGH: who asks by name names no destination to pass on to.
    passthrough = service.resolution == "PASSTHROUGH"
    outlier = traffic.outlier(policy.outlier_detection)
    tls = client_tls(mesh, service, port.number, subset, policy.tls, found.secrets)
    need = client_need(tls, source, found.allowed)
    if need is not None:
        found.needs[name] = need
    if balancer.policy == "RING_HASH":
        found.hashed.add(name)
    cluster = Cluster(
        name=name,
        type="PASSTHROUGH" if passthrough else service.resolution,
        service=Service(host=service.host, name=service.name, namespace=service.namespace),
        lb=balancer,
        pool=traffic.connection_pool(policy.connection_pool),
        outlier=outlier,
        retry_budget=traffic.retry_budget(policy.retry_budget),
        tls=tls,
        source=source,
    )
    found.entries[("cluster", name)] = entry("cluster", cluster)
    if passthrough:
        return
    setting = policy.load_balancer.locality_lb_setting if policy.load_balancer is not None else None
    target = port.target if isinstance(port.target, int) else port.number
    dialable = service.resolution == "DNS" and not service.host.startswith("*")
    found.slots.append(
        Slot(
            name=name,
            service=service.endpoints,
            port=port.number,
            labels=labels,
            failover=outlier is not None,
            setting=setting if outlier is not None else None,
            dns_host=(service.host, target) if dialable and not labels else None,
            trust_domain=mesh.trust_domain if tls is not None and tls.mode in ("AUTO", "ISTIO_MUTUAL") else "",
            sans=service.sans,
        )
    )


def slot_endpoints(
    slot: Slot,
    endpoints: tuple[WorldEndpoint, ...],
    place: Locality | None,
    labels: Mapping[str, str],
    judges: Judges | None = None,
) -> Endpoints:
    """The model's endpoints for one cluster. The world keeps them sorted by pod name and address: round robin's order."""
    chosen: list[WorldEndpoint] = []
    for endpoint in endpoints:
        if slot.labels:
            theirs = dict(endpoint.labels)
            if any(theirs.get(key) != value for key, value in slot.labels):
                continue
        if endpoint.port(slot.port) is not None:
            chosen.append(endpoint)
    if not chosen and not endpoints and slot.dns_host is not None:
        host, port = slot.dns_host
        return Endpoints(name=slot.name, endpoints=(Endpoint(address=host, port=port),), identities=_identities(slot, endpoints))
    ranks = priorities(chosen, slot.setting, place, labels) if slot.failover else (0,) * len(chosen)
    return Endpoints(
        name=slot.name,
        endpoints=tuple(
            Endpoint(
                address=e.address,
                port=e.port(slot.port) or 0,
                weight=e.weight,
                priority=rank,
                locality=e.locality,
                workload=e.workload,
                mtls=takes_tls(e, e.port(slot.port) or 0, judges),
            )
            for e, rank in zip(chosen, ranks, strict=True)
        ),
        identities=_identities(slot, endpoints),
    )


def _identities(slot: Slot, endpoints: tuple[WorldEndpoint, ...]) -> tuple[str, ...]:
    """Who may answer for the service: all its accounts, not only the subset's, so that labels never decide whom to trust."""
    if not slot.trust_domain:
        return ()
    accounts = {e.account for e in endpoints if e.account is not None}
    found = {spiffe_uri(slot.trust_domain, *account) for account in accounts}
    return tuple(sorted(found.union(slot.sans)))


def fixed_entries() -> dict[Key, Entry]:
    """The two clusters every sidecar has (semantics A1 ALLOW_ANY / REGISTRY_ONLY)."""
    through = Cluster(name=PASSTHROUGH, type="PASSTHROUGH")
    hole = Cluster(name=BLACK_HOLE, type="STATIC")
    return {
        ("cluster", PASSTHROUGH): entry("cluster", through),
        ("cluster", BLACK_HOLE): entry("cluster", hole),
        ("endpoints", BLACK_HOLE): entry("endpoints", Endpoints(name=BLACK_HOLE)),
    }
