"""Translate, chains: what is done with connections that iptables sends to the sidecar's outbound listener.

In: a ``Scope`` and answers about destinations. Out: ``Chains``: the model's chains, of which none is like another in port and
address, and what is still to be had from endpoints. As Istio's outbound listeners: a port of HTTP is one chain for any address
(``0.0.0.0_8080``), whose route table tells services apart; bytes are told apart by the service's addresses (``10.96.0.7_5432``),
TLS also by server name, a headless service's by its pods' addresses. What nobody knows passes through, or is shut out under
REGISTRY_ONLY. Who claims a place that an older service has loses, and is told so.

At a port of HTTP other bytes than HTTP pass as well, unless the address is that of a service of HTTP: a client that is slow to
speak there is waited for. HTTP/2 goes by its service's address, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Literal

from msgspec import structs

from control.translate.cluster import BLACK_HOLE, PASSTHROUGH
from control.translate.memo import Destinations
from control.translate.scope import Scope
from control.translate.snapshot import Problem
from control.translate.streams import Streams, service_stream, to_cluster
from control.world.config import HostedVirtualService
from control.world.endpoints import WorldEndpoint
from control.world.hosts import covers, specificity
from control.world.services import EndpointsKey, MeshService, ServicePort
from meshproxy.model.tcp import Chain, TcpRoute

__all__ = ["Chains", "Headless", "headless_chains", "intercepted_chains", "tunnel_chains"]

ANY = "0.0.0.0"
_Protocol = Literal["HTTP", "TCP", "AUTO"]
_ALL: tuple[TcpRoute, ...] = ()
NamesOf = Callable[[MeshService], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Headless:
    """A chain that is still to be given the addresses of these endpoints."""

    service: EndpointsKey
    port: int
    chain: Chain


@dataclass(frozen=True, slots=True)
class Chains:
    chains: tuple[Chain, ...] = ()
    headless: tuple[Headless, ...] = ()


@dataclass(slots=True)
class _Port:
    """One port: who claims which place of it ("": any address), and where explicit HTTP stands."""

    claims: dict[str, list[tuple[MeshService, ServicePort]]] = field(default_factory=dict)
    http: dict[str, None] = field(default_factory=dict)


def places(service: MeshService) -> tuple[str, ...]:
    """A service's addresses and blocks in one spelling; () where any address is its."""
    found: dict[str, None] = {}
    for text in (*service.addresses, *service.blocks):
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            continue
        if network.network_address.is_unspecified:
            return ()
        whole = network.prefixlen == network.max_prefixlen
        found[str(network.network_address) if whole else str(network)] = None
    return tuple(found)


class _Maker:
    """What both kinds of chains are made with: the streams of a service, by its VirtualServices."""

    def __init__(self, scope: Scope, destinations: Destinations, names_of: NamesOf, problems: list[Problem]) -> None:
        self.scope, self.destinations, self.names_of, self.problems = scope, destinations, names_of, problems
        self._exact: dict[str, list[HostedVirtualService]] = {}
        self._patterns: list[tuple[str, HostedVirtualService]] = []
        for vs in scope.virtual_services:
            if vs.resource.spec.tcp or vs.resource.spec.tls:
                for host in vs.hosts:
                    if host.startswith("*"):
                        self._patterns.append((host, vs))
                    else:
                        self._exact.setdefault(host, []).append(vs)
        self._patterns.sort(key=lambda item: specificity(item[0])[:2])

    def _streams(self, service: MeshService, port: int) -> Streams | None:
        found = list(self._exact.get(service.host, ()))
        found += [vs for pattern, vs in self._patterns if covers(pattern, service.host) and vs not in found]
        if not found:
            return None
        return Streams(found, self.scope.config.mesh, self.scope.client((port,)), self.destinations, self.problems)

    def bytes(self, service: MeshService, port: ServicePort) -> tuple[TcpRoute, ...]:
        """Where the bytes of a service's port go that is not TLS."""
        streams = self._streams(service, port.number)
        routes, whole = streams.tcp(port.number) if streams is not None else (_ALL, False)
        return routes if whole else (*routes, service_stream(service, port.number, self.destinations))

    def tls(self, service: MeshService, port: ServicePort, named: bool) -> tuple[TcpRoute, ...]:
        """``named``: only connections for its own name are its. With rules of its own nothing else is."""
        streams = self._streams(service, port.number)
        routes = streams.tls(port.number) if streams is not None else ()
        if routes:
            return routes
        return (service_stream(service, port.number, self.destinations, (service.host,) if named else ()),)

    def named(self, service: MeshService, port: ServicePort) -> tuple[TcpRoute, ...]:
        """Of a TLS port by the name that a tunnel was asked for."""
        streams = self._streams(service, port.number)
        for route in streams.tls(port.number) if streams is not None else ():
            if any(covers(name, service.host) for name in route.sni):
                return (TcpRoute(clusters=route.clusters, addresses=route.addresses, source=route.source),)
        return (service_stream(service, port.number, self.destinations),)


def intercepted_chains(
    scope: Scope, destinations: Destinations, http_ports: Iterable[int], names_of: NamesOf, problems: list[Problem]
) -> Chains:
    """``http_ports``: those that have a route table. ``names_of``: what a client may call a service."""
    maker = _Maker(scope, destinations, names_of, problems)
    rest = to_cluster(BLACK_HOLE if scope.policy == "REGISTRY_ONLY" else PASSTHROUGH)
    ports: dict[int, _Port] = {number: _Port() for number in http_ports}
    headless: list[Headless] = []
    for service, allowed in sorted(scope.services.values(), key=lambda item: (item[0].age, item[0].host)):
        where: tuple[str, ...] | None = None
        for port in service.ports:
            kind = port.carried
            if port.number not in allowed or not kind or (kind == "HTTP" and service.headless):
                continue
            if service.headless:
                headless.append(_headless(maker, service, port))
                continue
            if where is None:
                where = places(service)
            known = ports.setdefault(port.number, _Port())
            if kind == "HTTP":
                known.http.update(dict.fromkeys(where))
                continue
            for place in where or ("",):
                known.claims.setdefault(place, []).append((service, port))
    tables = frozenset(http_ports)
    chains: list[Chain] = []
    for number, known in sorted(ports.items()):
        chains += _of_port(number, known, number in tables, maker, rest)
    chains.append(Chain(name="passthrough" if scope.policy != "REGISTRY_ONLY" else "blackhole", protocol="TCP", tcp=(rest,)))
    return Chains(tuple(chains), tuple(headless))


def _of_port(number: int, known: _Port, table: bool, maker: _Maker, rest: TcpRoute) -> Iterable[Chain]:
    """Places with equal claims share a chain, so that no service of several addresses has several."""
    if table:
        known.claims.setdefault("", [])
    groups: dict[tuple[object, ...], list[str]] = {}
    for place, claims in known.claims.items():
        key = (place == "", place in known.http, *(id(service) for service, _ in claims), *(id(port) for _, port in claims))
        groups.setdefault(key, []).append(place)
    for group in groups.values():
        claims = known.claims[group[0]]
        anywhere = group[0] == ""
        http = table and (anywhere or group[0] in known.http or any(port.http for _, port in claims))
        yield _chain(number, group, claims, http, maker, rest if anywhere else None)
    sure = tuple(sorted(place for place in known.http if place not in known.claims))
    if sure and table:
        yield Chain(name=f"http_{number}", port=number, addresses=sure, protocol="HTTP", route=str(number))


def _chain(
    number: int,
    group: list[str],
    claims: list[tuple[MeshService, ServicePort]],
    http: bool,
    maker: _Maker,
    rest: TcpRoute | None,
) -> Chain:
    secured = [claim for claim in claims if claim[1].carried == "TLS"]
    plain = [claim for claim in claims if claim[1].carried != "TLS"]
    named = rest is not None or len(secured) > 1 or bool(plain) or any("/" in place for place in group)
    tcp = [route for service, port in secured for route in maker.tls(service, port, named)]
    if plain:
        tcp += maker.bytes(*plain[0])
        _lost(plain, group, number, maker.problems)
    elif rest is not None:
        tcp.append(rest)
    named_by = plain[0][0] if plain else secured[0][0] if secured and not named else None
    if not secured and plain and all(port.carried == "HTTP2" for _, port in plain) and rest is None:
        protocol: _Protocol = "HTTP" if http else "TCP"
    else:
        protocol = "AUTO" if http else "TCP"
    return Chain(
        name=f"{min(group) or ANY}_{number}",
        port=number,
        addresses=tuple(sorted(group)) if group[0] else (),
        protocol=protocol,
        route=str(number) if http else "",
        tcp=tuple(tcp),
        hosts=maker.names_of(named_by) if named_by is not None else (),
    )


def _lost(plain: list[tuple[MeshService, ServicePort]], group: list[str], number: int, problems: list[Problem]) -> None:
    first = plain[0][0]
    for service, port in plain[1:]:
        if service.host != first.host:
            what = "connections" if port.carried == "TCP" else "connections that are not HTTP/1.1"
            where = f"address {group[0]}" if group[0] else "no address of its own"
            problems.append(
                Problem(
                    f"{service.source} port {number}",
                    f'"{service.host}" has {where}, as "{first.host}" has, which is older: {what} go there',
                )
            )


def _headless(maker: _Maker, service: MeshService, port: ServicePort) -> Headless:
    """``HTTP2`` and ``AUTO`` too: bytes go to the very pod that was chosen, as HTTP does (its cluster passes through)."""
    tcp = maker.tls(service, port, named=False) if port.carried == "TLS" else maker.bytes(service, port)
    protocol: dict[str, _Protocol] = {"TLS": "TCP", "TCP": "TCP", "HTTP2": "HTTP", "AUTO": "AUTO"}
    chain = Chain(
        name=f"{service.host}_{port.number}",
        port=port.number,
        protocol=protocol[port.carried],
        route=str(port.number) if port.http else "",
        tcp=tcp,
        hosts=maker.names_of(service),
    )
    return Headless(service.endpoints, port.number, chain)


def headless_chains(found: Chains, endpoints: Mapping[EndpointsKey, tuple[WorldEndpoint, ...]]) -> tuple[Chain, ...]:
    """The chains of headless services. A pod behind two of them belongs to the older."""
    taken = {(chain.port, address) for chain in found.chains for address in chain.addresses}
    made: list[Chain] = []
    for one in found.headless:
        addresses: dict[str, None] = {}
        for endpoint in endpoints.get(one.service, ()):
            place = _address(endpoint.address)
            if place and endpoint.port(one.port) is not None and (one.chain.port, place) not in taken:
                taken.add((one.chain.port, place))
                addresses[place] = None
        if addresses:
            made.append(structs.replace(one.chain, addresses=tuple(sorted(addresses))))
    return tuple(made)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def tunnel_chains(
    scope: Scope,
    destinations: Destinations,
    names_of: NamesOf,
    problems: list[Problem],
) -> tuple[Chain, ...]:
    """Where nothing is intercepted: services of bytes by their names, for ``CONNECT``."""
    maker = _Maker(scope, destinations, names_of, problems)
    made: list[Chain] = []
    for service, allowed in sorted(scope.services.values(), key=lambda item: item[0].host):
        names: tuple[str, ...] = ()
        for port in service.ports:
            if port.number not in allowed or port.carried not in ("TCP", "TLS"):
                continue
            names = names or names_of(service)
            tcp = maker.named(service, port) if port.carried == "TLS" else maker.bytes(service, port)
            made.append(
                Chain(name=f"{service.host}_{port.number}", port=port.number, protocol="TCP", tcp=tcp, hosts=names, by_name=True)
            )
    return tuple(made)
