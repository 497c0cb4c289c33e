"""Translate, scope: which services and VirtualServices a client sees (semantics A1 exportTo, Sidecar; B9.1).

In: the world's ``Config`` and a client's namespace and labels. Out: ``Scope``. Everything in it is in a stable order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from control.resources.sidecar import IstioEgressListener, Sidecar
from control.translate.authoriser import authoriser_services
from control.translate.match import Client
from control.world.config import Config, HostedVirtualService
from control.world.hosts import covers, expand, specificity
from control.world.services import MeshService, exported, nearest_visible

__all__ = ["Scope", "outbound_scope", "relevant_labels", "sidecar_for"]


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """``services``: what may be called by name, host -> (service, its ports that may be called).

    ``hidden``: services that only routes refer to. ``virtual_services``: those for the mesh, oldest first.
    """

    config: Config
    namespace: str
    labels: Mapping[str, str]
    services: Mapping[str, tuple[MeshService, frozenset[int]]]
    hidden: Mapping[str, MeshService]
    virtual_services: tuple[HostedVirtualService, ...]
    policy: str
    sidecar: Sidecar | None = None

    def client(self, ports: Iterable[int]) -> Client:
        return Client(self.namespace, self.labels, frozenset(("mesh",)), frozenset(ports))


def relevant_labels(config: Config, labels: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The part of a client's labels that any resource asks about: clients that agree on it share their configuration."""
    pairs, keys = config.label_pairs, config.label_keys
    return tuple(sorted(pair for pair in labels if pair in pairs or pair[0] in keys))


def sidecar_for(config: Config, namespace: str, labels: Mapping[str, str]) -> Sidecar | None:
    """The Sidecar resource that governs a workload: by selector, else the namespace's, else the root namespace's."""
    default = None
    for sidecar in config.sidecars.get(namespace, ()):
        selector = sidecar.spec.workload_selector
        if selector is None or not selector.labels:
            default = default or sidecar
        elif all(labels.get(key) == value for key, value in selector.labels.items()):
            return sidecar
    if default is not None or namespace == config.mesh.root_namespace:
        return default
    for sidecar in config.sidecars.get(config.mesh.root_namespace, ()):
        if sidecar.spec.workload_selector is None or not sidecar.spec.workload_selector.labels:
            return sidecar
    return None


def outbound_scope(config: Config, namespace: str, labels: Mapping[str, str], *, sidecar_applies: bool = True) -> Scope:
    sidecar = sidecar_for(config, namespace, labels) if sidecar_applies else None
    visible = visible_services(config, namespace)
    bound = [
        vs
        for vs in config.virtual_services
        if "mesh" in vs.gateways and exported(vs.resource.spec.export_to, vs.namespace, namespace)
    ]
    egress = sidecar.spec.egress if sidecar is not None else ()
    if not egress:
        services = {host: (s, frozenset(p.number for p in s.ports)) for host, s in visible.items()}
        hidden: dict[str, MeshService] = {}
    else:
        services, bound = _imported(egress, config, namespace, visible, bound)
        hidden = _referenced(config, visible, services, bound)
        for service in authoriser_services(config, namespace):  # policies need them whatever the app may call
            if service.host not in services:
                hidden[service.host] = service
    policy: str = config.mesh.outbound_policy
    if sidecar is not None and sidecar.spec.outbound_traffic_policy is not None:
        policy = sidecar.spec.outbound_traffic_policy.mode
    return Scope(
        config=config,
        namespace=namespace,
        labels=labels,
        services=services,
        hidden=hidden,
        virtual_services=tuple(bound),
        policy=policy,
        sidecar=sidecar,
    )


def visible_services(config: Config, namespace: str) -> dict[str, MeshService]:
    """One service per host: of several, the client's own namespace first, then Kubernetes', then the oldest."""
    visible = {}
    for host, found in config.services.items():
        best = nearest_visible(found, namespace)
        if best is not None:
            visible[host] = best
    return visible


def _imported(
    egress: tuple[IstioEgressListener, ...],
    config: Config,
    namespace: str,
    visible: Mapping[str, MeshService],
    bound: Iterable[HostedVirtualService],
) -> tuple[dict[str, tuple[MeshService, frozenset[int]]], list[HostedVirtualService]]:
    """What the egress listeners let through. A listener with a port imports only that port of the services it names."""
    rules = [
        (listener.port.number if listener.port else 0, parse_egress(host, namespace))
        for listener in egress
        for host in listener.hosts
    ]
    services: dict[str, tuple[MeshService, frozenset[int]]] = {}
    for host, found in config.services.items():
        ports: set[int] = set()
        chosen: MeshService | None = None
        for port, (space, pattern) in rules:
            if not covers(pattern, host):
                continue
            # The import names a namespace, so another namespace's service of the same host may be meant.
            service = visible.get(host) if space == "*" else None
            if space not in ("*", "~"):
                service = next((s for s in found if s.namespace == space and s.visible_in(namespace)), None)
            if service is None or (chosen is not None and service is not chosen):
                continue
            allowed = {p.number for p in service.ports if not port or p.number == port}
            if allowed:
                chosen = service
                ports |= allowed
        if chosen is not None:
            services[host] = (chosen, frozenset(ports))
    kept = [
        vs
        for vs in bound
        if any(
            space in ("*", vs.namespace) and any(covers(pattern, host) or covers(host, pattern) for host in vs.hosts)
            for _, (space, pattern) in rules
        )
    ]
    return services, kept


def parse_egress(text: str, namespace: str) -> tuple[str, str]:
    """``./*`` -> (own namespace, ``*``); ``~/*`` -> (``~``, ``*``); a host without a namespace means any."""
    space, slash, host = text.partition("/")
    if not slash:
        space, host = "*", text
    return (namespace if space == "." else space, host.lower())


def _referenced(
    config: Config,
    visible: Mapping[str, MeshService],
    services: Mapping[str, tuple[MeshService, frozenset[int]]],
    bound: Iterable[HostedVirtualService],
) -> dict[str, MeshService]:
    """Services that imported VirtualServices send to: they need clusters although they may not be called by name."""
    domain = config.mesh.cluster_domain
    hidden = {}
    for vs in bound:
        for host in destination_hosts(vs, domain):
            if host not in services and host in visible:
                hidden[host] = visible[host]
    return dict(sorted(hidden.items(), key=lambda item: specificity(item[0])))


def destination_hosts(vs: HostedVirtualService, domain: str) -> Iterable[str]:
    """Every full host name that a VirtualService's rules send or mirror to."""
    spec = vs.resource.spec
    for routes in (*(rule.route for rule in spec.tls), *(rule.route for rule in spec.tcp)):
        for sent in routes:
            yield expand(sent.destination.host, vs.namespace, domain)
    for rule in vs.resource.spec.http:
        targets = [r.destination for r in rule.route] + [m.destination for m in rule.mirrors]
        if rule.mirror is not None:
            targets.append(rule.mirror)
        for target in targets:
            yield expand(target.host, vs.namespace, domain)
