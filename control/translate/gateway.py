"""Translate, gateway: the listeners that Gateway resources open on a gateway proxy, and the routes bound to them.

In: the world's ``Config`` and a proxy. Out: clusters, routes and listeners, the slots of the clusters that routes use, and the
Secrets that are needed. Servers that end up on the same address and port are one listener (semantics A7); a TLS server has a
route configuration of its own, since its connections are chosen by server name. VirtualServices of the same host are merged,
oldest first, rules that catch everything last, as Istio does. A host that nobody routes is answered 404.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from control.translate.cluster import Slot
from control.translate.credentials import Need
from control.translate.match import Client
from control.translate.memo import Destinations, Memo
from control.translate.proxy import ProxyId
from control.translate.route import virtual_service_routes
from control.translate.scope import visible_services
from control.translate.servers import Opened, Place, opened_servers, server_needs, server_tls
from control.translate.snapshot import Entry, Key, Problem, entry
from control.world.config import Config, HostedVirtualService
from control.world.hosts import intersect, specificity
from control.world.services import MeshService, exported
from meshproxy.model.listener import Listener
from meshproxy.model.match import RouteMatch
from meshproxy.model.route import Redirect, Route, RouteConfig, VirtualHost
from meshproxy.model.security import ServerTls

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
        chains: list[ServerTls] = []
        if servers[0].https:
            for opened in servers:
                chain = server_tls(opened, proxy)
                chains.append(chain)
                needs.update(dict.fromkeys(server_needs(opened, chain)))
                hosts = _virtual_hosts(config, proxy, [opened], destinations, problems, port)
                entries[("route", chain.route)] = entry("route", RouteConfig(name=chain.route, virtual_hosts=hosts))
            name = chains[0].route
        else:
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
                tls=tuple(chains),
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
