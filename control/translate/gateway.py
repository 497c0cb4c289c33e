"""Translate, gateway: the listeners that Gateway resources open on a gateway proxy, and the routes bound to them.

In: the world's ``Config`` and a proxy. Out: clusters, routes and listeners, and the slots of the clusters that routes use.
Servers that end up on the same address and port are one listener (semantics A7). VirtualServices of the same host are merged,
oldest first, rules that catch everything last, as Istio does. A host that nobody routes is answered 404.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from control.resources.gateway import Gateway, Server
from control.translate.cluster import Slot
from control.translate.inbound import target_port
from control.translate.match import Client
from control.translate.memo import Destinations, Memo
from control.translate.proxy import ProxyId
from control.translate.route import virtual_service_routes
from control.translate.scope import visible_services
from control.translate.snapshot import Entry, Key, Problem, entry
from control.world.config import Config, HostedVirtualService
from control.world.hosts import intersect, specificity
from control.world.services import MeshService, exported
from meshproxy.model.listener import Listener
from meshproxy.model.match import RouteMatch
from meshproxy.model.route import Redirect, Route, RouteConfig, VirtualHost

__all__ = ["Opened", "gateway_entries", "gateways_of", "listens_on"]

HTTP_SERVERS = frozenset(("HTTP", "HTTP2", "GRPC", "GRPC-WEB"))

Place = tuple[str, int]  # bind address ("": the proxy's own), port


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """One server of one Gateway. ``name`` is the Gateway's ``namespace/name``."""

    gateway: Gateway
    index: int
    server: Server

    @property
    def name(self) -> str:
        return f"{self.gateway.metadata.namespace}/{self.gateway.metadata.name}"

    @property
    def source(self) -> str:
        return f"Gateway {self.name} servers[{self.index}]"

    @property
    def redirects(self) -> bool:
        """Every request is sent to https (``tls.httpsRedirect``)."""
        return self.server.tls is not None and self.server.tls.https_redirect


def gateways_of(config: Config, proxy: ProxyId) -> tuple[Gateway, ...]:
    """The Gateways that select this proxy, oldest first. An empty selector selects every gateway proxy."""
    if proxy.every_gateway:
        return config.gateways
    labels = dict(proxy.labels)
    return tuple(g for g in config.gateways if all(labels.get(k) == v for k, v in g.spec.selector.items()))


def listens_on(config: Config, proxy: ProxyId, server: Server) -> Place:
    """Where a server's port is really opened: the pod's annotation, the mesh's setting, the Service in front, or as written."""
    number = server.port.number
    for table in (proxy.gateway_bind, config.mesh.gateway_bind):
        for port, address, bound in table:
            if port == number:
                return (address, bound)
    selectors = config.selectors.get(proxy.namespace)
    for service in selectors.matching(proxy.labels) if selectors is not None else ():
        for service_port in service.ports:
            if service_port.number == number:
                return (server.bind, target_port(service_port, proxy.container_ports) or number)
    return (server.bind, number)


def gateway_entries(
    config: Config,
    proxy: ProxyId,
    memo: Memo,
    problems: list[Problem],
    also: Iterable[tuple[MeshService, str]] = (),
) -> tuple[dict[Key, Entry], tuple[Slot, ...]]:
    """``also``: clusters that are needed besides those of routes, each with its service."""
    places: dict[Place, list[Opened]] = {}
    for gateway in gateways_of(config, proxy):
        for index, server in enumerate(gateway.spec.servers):
            opened = Opened(gateway, index, server)
            if server.port.protocol.upper() not in HTTP_SERVERS:
                problems.append(
                    Problem(opened.source, f"protocol {server.port.protocol} is not served yet: not opened")
                )
                continue
            places.setdefault(listens_on(config, proxy, server), []).append(opened)
    destinations = Destinations(
        memo, config, proxy.namespace, dict(proxy.labels), visible_services(config, proxy.namespace)
    )
    entries: dict[Key, Entry] = {}
    ports = [port for _, port in places]
    for (bind, port), servers in sorted(places.items()):
        suffix = f"{port}" if ports.count(port) == 1 else f"{port}|{bind}"
        name = f"http.{suffix}"
        hosts = _virtual_hosts(config, proxy, servers, destinations, problems, port)
        entries[("route", name)] = entry("route", RouteConfig(name=name, virtual_hosts=hosts))
        entries[("listener", f"gateway|{suffix}")] = entry(
            "listener",
            Listener(
                name=f"gateway|{suffix}",
                direction="gateway",
                port=port,
                bind=bind,
                route=name,
                path_normalization=config.mesh.path_normalization,
            ),
        )
    for service, name in also:
        destinations.used(service, name)
    slots: list[Slot] = []
    for name, service in sorted(destinations.names.items()):
        made = destinations.clusters(service)
        cluster = made.entries.get(("cluster", name))
        if cluster is not None:
            entries[("cluster", name)] = cluster
            slots += [slot for slot in made.slots if slot.name == name]
    return entries, tuple(slots)


def _virtual_hosts(
    config: Config,
    proxy: ProxyId,
    servers: list[Opened],
    destinations: Destinations,
    problems: list[Problem],
    port: int,
) -> tuple[VirtualHost, ...]:
    routes: dict[str, list[Route]] = {}
    for vs in config.virtual_services:  # oldest first
        bound = [s for s in servers if s.name in vs.gateways]
        if not bound or not exported(vs.resource.spec.export_to, vs.namespace, proxy.namespace):
            continue
        hosts: dict[str, list[Opened]] = {}
        for opened in bound:
            for host in _shared_hosts(opened, vs):
                hosts.setdefault(host, []).append(opened)
        if not hosts:
            problems.append(Problem(vs.source, f"none of its hosts is served by {bound[0].source}"))
        for host, on in hosts.items():
            redirecting = next((opened for opened in on if opened.redirects), None)
            if redirecting is not None:
                routes[host] = [_to_https(redirecting)]
                continue
            client = Client(
                namespace=proxy.namespace,
                labels=dict(proxy.labels),
                gateways=frozenset(s.name for s in on),
                ports=frozenset(s.server.port.number for s in on),
            )
            found = virtual_service_routes(vs, config.mesh, client, destinations, problems)
            if found:
                routes.setdefault(host, []).extend(found)
    for opened in servers:
        if opened.redirects:  # also where no VirtualService has anything to say
            for text in opened.server.hosts:
                routes.setdefault(text.lower().rpartition("/")[2], [_to_https(opened)])
    return tuple(
        VirtualHost(name=f"{host}:{port}", domains=(host,), routes=_catch_all_last(routes[host]))
        for host in sorted(routes, key=specificity)
    )


def _to_https(opened: Opened) -> Route:
    return Route(name="https_redirect", action=Redirect(scheme="https"), source=f"{opened.source} tls.httpsRedirect")


def _shared_hosts(opened: Opened, vs: HostedVirtualService) -> Iterable[str]:
    """The hosts that both the server (``[namespace/]host``) and the VirtualService name, the narrower of each pair."""
    found: dict[str, None] = {}
    for text in opened.server.hosts:
        space, slash, pattern = text.lower().rpartition("/")
        if slash and space == ".":
            space = opened.gateway.metadata.namespace
        if slash and space not in ("*", vs.namespace):
            continue
        for host in vs.hosts:
            shared = intersect(pattern, host)
            if shared is not None:
                found[shared] = None
    return found


def _catch_all_last(routes: list[Route]) -> tuple[Route, ...]:
    """Keeps the order but puts routes that match anything behind the others, so that no VirtualService hides a younger one."""
    return tuple(sorted(routes, key=_matches_anything))


def _matches_anything(route: Route) -> bool:
    match = route.match
    if match == RouteMatch():
        return True
    path = match.path
    if path is None or match != RouteMatch(path=path):
        return False
    return (path.kind == "prefix" and path.value == "/") or (path.kind == "regex" and path.value == ".*")
