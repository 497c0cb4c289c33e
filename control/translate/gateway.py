"""Translate, gateway: the listeners that Gateway resources open on a gateway proxy, and the routes bound to them.

In: the world's ``Config`` and a proxy. Out: clusters, routes and listeners, the slots of the clusters that routes use, and the
Secrets that are needed. Servers that end up on the same address and port are one listener (semantics A7); a TLS server has a
route configuration of its own, since its connections are chosen by server name. VirtualServices of the same host are merged,
oldest first, rules that catch everything last, as Istio does. A host that nobody routes is answered 404. At a port of TCP, in TLS
that ends here and has no HTTP in it, the oldest applying ``tcp`` rule counts; TLS that passes through goes by ``tls`` rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from control.translate.cluster import BLACK_HOLE, Slot, fixed_entries
from control.translate.credentials import Need
from control.translate.match import Client
from control.translate.memo import Destinations, Memo
from control.translate.proxy import ProxyId
from control.translate.route import virtual_service_routes
from control.translate.scope import visible_services
from control.translate.servers import Opened, Place, opened_servers, server_needs, server_tls
from control.translate.snapshot import Entry, Key, Problem, entry
from control.translate.streams import Streams, to_cluster
from control.world.config import Config, HostedVirtualService
from control.world.hosts import intersect, specificity
from control.world.services import MeshService, exported
from meshproxy.model.listener import Listener
from meshproxy.model.match import RouteMatch
from meshproxy.model.route import Redirect, Route, RouteConfig, VirtualHost
from meshproxy.model.security import ServerTls
from meshproxy.model.tcp import Chain, TcpRoute

__all__ = ["Gated", "gateway_entries"]


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """What a gateway proxy runs, but for endpoints and the content of Secrets."""

    entries: dict[Key, Entry]
    slots: tuple[Slot, ...]
    needs: tuple[Need, ...]


def gateway_entries(
    config: Config,
    proxy: ProxyId,
    memo: Memo,
    problems: list[Problem],
    also: Iterable[tuple[MeshService, str]] = (),
) -> Gated:
    """``also``: clusters that are needed besides those of routes, each with its service."""
    places = opened_servers(config, proxy, problems)
    destinations = Destinations(
        memo, config, proxy.namespace, dict(proxy.labels), visible_services(config, proxy.namespace), gateway=True
    )
    entries: dict[Key, Entry] = {}
    needs: dict[Need, None] = {}
    ports = [port for _, port in places]
    for (bind, port), servers in places.items():
        suffix = f"{port}" if ports.count(port) == 1 else f"{port}|{bind}"
        opening = _Opening(config, proxy, destinations, problems, port)
        if servers[0].family == "HTTP":
            name = f"http.{suffix}"
            hosts = _virtual_hosts(config, proxy, servers, destinations, problems, port)
            entries[("route", name)] = entry("route", RouteConfig(name=name, virtual_hosts=hosts))
        else:
            entries.update(_nowhere())
            name = opening.add(servers, entries, needs)
        entries[("listener", f"gateway|{suffix}")] = entry(
            "listener",
            Listener(
                name=f"gateway|{suffix}",
                direction="gateway",
                port=port,
                bind=bind,
                route=name,
                path_normalization=config.mesh.path_normalization,
                tls=tuple(opening.ended),
                chains=opening.chains(f"gateway|{suffix}|bytes"),
            ),
        )
    _unserved(config, proxy, places, problems)
    for service, name in also:
        destinations.used(service, name)
    slots: list[Slot] = []
    for name, service in sorted(destinations.names.items()):
        made = destinations.clusters(service)
        cluster = made.entries.get(("cluster", name))
        if cluster is not None:
            entries[("cluster", name)] = cluster
            slots += [slot for slot in made.slots if slot.name == name]
            if name in made.needs:
                needs[made.needs[name]] = None
    return Gated(entries, tuple(slots), tuple(needs))


class _Opening:
    """A port of TLS or TCP on its way to the model: servers that end TLS, and the routes of bytes that come as they are."""

    def __init__(self, config: Config, proxy: ProxyId, destinations: Destinations, problems: list[Problem], port: int) -> None:
        self.config, self.proxy, self.destinations, self.problems, self.port = config, proxy, destinations, problems, port
        self.ended: list[ServerTls] = []
        self.through: list[TcpRoute] = []
        self._bytes = False

    def add(self, servers: list[Opened], entries: dict[Key, Entry], needs: dict[Need, None]) -> str:
        """Returns the name of the first route configuration, "" when there is none."""
        names: list[str] = []
        for opened in servers:
            if opened.family == "TCP":
                self._bytes = True
                self.through += self._routes(opened)
                continue
            if opened.passthrough:
                self._bytes = True
                self.through += self._streams(opened).tls(opened.server.port.number, opened.hosts)
                continue
            tcp: tuple[TcpRoute, ...] = ()
            if not opened.https:
                self._bytes = True
                tcp = self._routes(opened) or (to_cluster(BLACK_HOLE),)
            chain = server_tls(opened, self.proxy, tcp)
            self.ended.append(chain)
            needs.update(dict.fromkeys(server_needs(opened, chain)))
            if opened.https:
                hosts = _virtual_hosts(self.config, self.proxy, [opened], self.destinations, self.problems, self.port)
                entries[("route", chain.route)] = entry("route", RouteConfig(name=chain.route, virtual_hosts=hosts))
                names.append(chain.route)
        return names[0] if names else ""

    def chains(self, name: str) -> tuple[Chain, ...]:
        return (Chain(name=name, protocol="TCP", tcp=tuple(self.through)),) if self._bytes else ()

    def _routes(self, opened: Opened) -> tuple[TcpRoute, ...]:
        routes, _ = self._streams(opened).tcp(opened.server.port.number)
        if not routes:
            self.problems.append(Problem(opened.source, "no VirtualService has a tcp rule for it: connections are reset"))
        return routes

    def _streams(self, opened: Opened) -> Streams:
        client = Client(
            namespace=self.proxy.namespace,
            labels=dict(self.proxy.labels),
            gateways=frozenset((opened.name,)),
            ports=frozenset((opened.server.port.number,)),
        )
        bound = [
            vs
            for vs in self.config.virtual_services
            if opened.name in vs.gateways
            and exported(vs.resource.spec.export_to, vs.namespace, self.proxy.namespace)
            and _shared_hosts(opened, vs)
        ]
        return Streams(bound, self.config.mesh, client, self.destinations, self.problems, gateway=True)


def _nowhere() -> dict[Key, Entry]:
    """The cluster of what is refused."""
    return {key: found for key, found in fixed_entries().items() if key[1] == BLACK_HOLE}


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
            for host in opened.hosts:
                routes.setdefault(host, [_to_https(opened)])
    return tuple(
        VirtualHost(name=f"{host}:{port}", domains=(host,), routes=_catch_all_last(routes[host]))
        for host in sorted(routes, key=specificity)
    )


def _unserved(config: Config, proxy: ProxyId, places: Mapping[Place, list[Opened]], problems: list[Problem]) -> None:
    """VirtualServices that are bound to servers here of which none has any of their hosts."""
    for vs in config.virtual_services:
        bound = [opened for servers in places.values() for opened in servers if opened.name in vs.gateways]
        if not bound or not exported(vs.resource.spec.export_to, vs.namespace, proxy.namespace):
            continue
        if not any(_shared_hosts(opened, vs) for opened in bound):
            problems.append(Problem(vs.source, f"none of its hosts is served by {bound[0].source}"))


def _to_https(opened: Opened) -> Route:
    return Route(name="https_redirect", action=Redirect(scheme="https"), source=f"{opened.source} tls.httpsRedirect")


def _shared_hosts(opened: Opened, vs: HostedVirtualService) -> Collection[str]:
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
    return tuple(found)


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
