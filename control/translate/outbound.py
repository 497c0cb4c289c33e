"""Translate, outbound: the routes, clusters and listener through which a sidecar's app calls others.

In: a ``Scope``. Out: a ``Plan``: the layer of everything that does not depend on endpoints, and the slots that do. One route
configuration per service port; virtual hosts sorted by name, the catch-all last. Domains carry no port (semantics A1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec import structs

from control.translate.chains import Chains, headless_chains, intercepted_chains, tunnel_chains
from control.translate.cluster import PASSTHROUGH, Slot, fixed_entries
from control.translate.credentials import Need
from control.translate.memo import Destinations, Memo
from control.translate.route import service_route, virtual_service_routes
from control.translate.scope import Scope
from control.translate.snapshot import Entry, Key, Layer, Problem, entry, make_layer
from control.world.config import HostedVirtualService
from control.world.endpoints import WorldEndpoint
from control.world.hosts import covers, specificity
from control.world.services import EndpointsKey, MeshService
from meshproxy.model.base import encode
from meshproxy.model.listener import Listener
from meshproxy.model.route import DirectResponse, Forward, Route, VirtualHost, WeightedCluster

__all__ = ["Plan", "Unfinished", "domains_of", "outbound_plan"]

NO_SERVICE_PORT = 80  # where a VirtualService for hosts that no service has is served (as Istio)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a scope's configuration is, but for endpoints and the content of the Secrets that it needs."""

    layer: Layer
    slots: tuple[Slot, ...]
    needs: tuple[Need, ...] = ()
    listener: Unfinished | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The listener of a scope with headless services of bytes: their chains are for their pods' addresses, so that it stands in
    a layer of its own and follows endpoints.
    """

    listener: Listener
    chains: Chains

    @property
    def services(self) -> tuple[EndpointsKey, ...]:
        return tuple(dict.fromkeys(one.service for one in self.chains.headless))

    def finished(self, endpoints: Mapping[EndpointsKey, tuple[WorldEndpoint, ...]]) -> Entry:
        chains = (*self.chains.chains, *headless_chains(self.chains, endpoints))
        return entry("listener", structs.replace(self.listener, chains=chains))


@dataclass(slots=True)
class _Host:
    """One virtual host to be: its full name, its service if any, and the VirtualService that speaks for it."""

    host: str
    service: MeshService | None
    vs: HostedVirtualService | None
    domains: tuple[str, ...] = field(default=())


def outbound_plan(scope: Scope, memo: Memo, capture: str = "") -> Plan:
    """``capture``: the address on which intercepted connections are taken; "": none are, and there is a forward proxy only."""
    config, mesh = scope.config, scope.config.mesh
    callable_ = {host: service for host, (service, _) in scope.services.items()}
    destinations = Destinations(memo, config, scope.namespace, scope.labels, {**scope.hidden, **callable_})
    entries: dict[Key, Entry] = fixed_entries()
    slots: list[Slot] = []
    needs: dict[Need, None] = {}
    for service in destinations.services.values():
        made = destinations.clusters(service)
        entries.update(made.entries)
        slots += made.slots
        needs.update(dict.fromkeys(made.needs.values()))
    problems: list[Problem] = []
    by_port = _hosts_by_port(scope)
    for port, hosts in sorted(by_port.items()):
        entries[("route", str(port))] = _route_config(port, hosts, scope, destinations, memo, problems)
    listener = Listener(
        name="outbound",
        direction="outbound",
        port=mesh.outbound_port,
        bind=capture,
        route_ports=tuple(sorted(by_port)),
        default_policy="REGISTRY_ONLY" if scope.policy == "REGISTRY_ONLY" else "ALLOW_ANY",
        path_normalization=mesh.path_normalization,
        detection_timeout=mesh.detection_timeout,
    )

    def names_of(service: MeshService) -> tuple[str, ...]:
        return domains_of(service.host, service.addresses, scope.namespace, mesh.cluster_domain, service.headless)

    unfinished = None
    if capture:
        chains = intercepted_chains(scope, destinations, by_port, names_of, problems)
        unfinished = Unfinished(listener, chains) if chains.headless else None
    else:
        chains = Chains(tunnel_chains(scope, destinations, names_of, problems))
    if unfinished is None:
        entries[("listener", "outbound")] = entry("listener", structs.replace(listener, chains=chains.chains))
    return Plan(make_layer("outbound", entries, problems), tuple(slots), tuple(needs), unfinished)


def domains_of(
    host: str, addresses: Iterable[str], namespace: str, cluster_domain: str, headless: bool = False
) -> tuple[str, ...]:
    """Every name a client in ``namespace`` may write for ``host``, the full one first. ``headless``: its pods have names, too."""
    found = [host]
    if not host.startswith("*"):
        found.append(host + ".")
        stem = host.removesuffix(f".svc.{cluster_domain}")
        if stem != host and stem.count(".") == 1:
            name, _, space = stem.partition(".")
            found += [f"{stem}.svc", stem]
            if space == namespace:
                found.append(name)
    if headless:
        found += [f"*.{name}" for name in found if not name.endswith(".")]
    found += [f"[{a}]" if ":" in a else a for a in addresses]
    return tuple(found)


def _hosts_by_port(scope: Scope) -> dict[int, list[_Host]]:
    """Who is served on which port: services on their HTTP ports, and names that only VirtualServices know."""
    exact: dict[str, HostedVirtualService] = {}
    patterns: list[tuple[str, HostedVirtualService]] = []
    for vs in scope.virtual_services:  # oldest first: only one is effective per host
        for host in vs.hosts if vs.resource.spec.http else ():
            if host.startswith("*"):
                patterns.append((host, vs))
            else:
                exact.setdefault(host, vs)
    patterns.sort(key=lambda item: specificity(item[0])[:2])  # stable: the oldest first among equals
    by_port: dict[int, list[_Host]] = {}
    for host, (service, allowed) in scope.services.items():
        vs_of = exact.get(host) or next((v for pattern, v in patterns if covers(pattern, host)), None)
        for port in service.ports:
            if port.http and port.number in allowed:
                by_port.setdefault(port.number, []).append(_Host(host, service, vs_of))
    for host, vs in [*exact.items(), *_first(patterns).items()]:
        if host not in scope.services:
            for number in _ports_without_service(host, vs, scope):
                by_port.setdefault(number, []).append(_Host(host, None, vs))
    return by_port


def _first(patterns: Iterable[tuple[str, HostedVirtualService]]) -> dict[str, HostedVirtualService]:
    found: dict[str, HostedVirtualService] = {}
    for pattern, vs in patterns:
        found.setdefault(pattern, vs)
    return found


def _ports_without_service(host: str, vs: HostedVirtualService, scope: Scope) -> list[int]:
    """Ports for a name that no service has: those of the wildcard service over it, of its siblings, or 80."""
    over = [s for pattern, (s, _) in scope.services.items() if pattern.startswith("*") and covers(pattern, host)]
    siblings = [scope.services[h][0] for h in vs.hosts if h in scope.services]
    if host.startswith("*"):  # a pattern speaks for all the services it covers
        siblings += [s for name, (s, _) in scope.services.items() if covers(host, name)]
    found = {p.number for s in (over or siblings) for p in s.ports if p.http}
    return sorted(found) or [NO_SERVICE_PORT]


def _route_config(
    port: int, hosts: list[_Host], scope: Scope, destinations: Destinations, memo: Memo, problems: list[Problem]
) -> Entry:
    mesh = scope.config.mesh
    client = scope.client((port,))
    made: dict[int, tuple[Route, ...]] = {}
    parts: list[tuple[str, bytes]] = []
    anyone = False
    for host in _with_domains(hosts, scope):
        anyone = anyone or "*" in host.domains
        routes: tuple[Route, ...] = ()
        if host.vs is not None:
            if id(host.vs) not in made:
                made[id(host.vs)] = virtual_service_routes(host.vs, mesh, client, destinations, problems)
            routes = made[id(host.vs)]
        name = f"{host.host}:{port}"
        if routes:
            parts.append((name, encode(VirtualHost(name=name, domains=host.domains, routes=routes))))
        elif host.service is not None:
            # No VirtualService, or none of its rules is for this client.
            route = service_route(mesh, host.service, port, destinations)
            parts.append((name, memo.plain_host(host.service, port, host.domains, route)))
    parts.sort()
    if not anyone:
        parts.append(("", encode(_catch_all(scope.policy))))
    body = b'{"name":' + encode(str(port)) + b',"virtual_hosts":[' + b",".join(part for _, part in parts) + b"]}"
    return Entry("route", str(port), body)


def _with_domains(hosts: list[_Host], scope: Scope) -> list[_Host]:
    """Gives each host its domains; a name that two could claim goes to whose full name it is, then to Kubernetes services."""
    domain = scope.config.mesh.cluster_domain
    taken = {name for h in hosts for name in (h.host, h.host + ".")}
    ordered = sorted(hosts, key=lambda h: (h.service is None or not h.service.kubernetes, h.host))
    for host in ordered:
        of = host.service
        names = domains_of(host.host, of.addresses if of else (), scope.namespace, domain, of is not None and of.headless)
        own = (host.host, host.host + ".")
        host.domains = tuple(n for n in dict.fromkeys(names) if n in own or n not in taken)
        taken.update(host.domains)
    return ordered


def _catch_all(policy: str) -> VirtualHost:
    """Hosts that nobody knows: straight through, or 502 (semantics A1, ALLOW_ANY / REGISTRY_ONLY)."""
    if policy == "REGISTRY_ONLY":
        return VirtualHost(name="block_all", domains=("*",), routes=(Route(name="block_all", action=DirectResponse(status=502)),))
    forward = Forward(clusters=(WeightedCluster(cluster=PASSTHROUGH),))
    return VirtualHost(name="allow_any", domains=("*",), routes=(Route(name="allow_any", action=forward),))
