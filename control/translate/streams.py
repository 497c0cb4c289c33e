"""Translate, streams: the ``tcp`` and ``tls`` rules of VirtualServices as one client gets them, and the plain way to a service.

In: VirtualServices with full names, a client, answers about destinations. Out: the model's ``TcpRoute``s in order, first match
wins. Semantics A1 (TCP/TLS routing); Istio: ``buildSidecarOutboundTCPTLSFilterChainOpts``. A rule without match, or one of whose
matches asks for no subnet, takes everything that comes after it. Weights count per connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from control.resources.virtual_service import L4MatchAttributes, RouteDestination, TLSMatchAttributes
from control.translate.aim import Aim, Targets
from control.translate.cluster import BLACK_HOLE, cluster_name
from control.translate.match import Client
from control.translate.snapshot import Problem
from control.world.config import HostedVirtualService, gateway_name
from control.world.hosts import covers
from control.world.mesh import MeshSettings
from control.world.services import MeshService
from meshproxy.model.route import WeightedCluster
from meshproxy.model.tcp import TcpRoute

__all__ = ["Streams", "service_stream", "to_cluster"]

FATE = "connections are reset"
_Match = L4MatchAttributes | TLSMatchAttributes


def to_cluster(name: str, sni: tuple[str, ...] = ()) -> TcpRoute:
    return TcpRoute(clusters=(WeightedCluster(cluster=name),), sni=sni)


def service_stream(service: MeshService, port: int, targets: Targets, sni: tuple[str, ...] = ()) -> TcpRoute:
    """The way to a service that no VirtualService speaks about."""
    name = cluster_name(port, "", service.host)
    targets.used(service, name)
    return to_cluster(name, sni)


class Streams:
    """The rules of some VirtualServices, oldest first, for one client. ``service_port``: what a match's ``port`` means."""

    def __init__(
        self,
        found: Iterable[HostedVirtualService],
        mesh: MeshSettings,
        client: Client,
        targets: Targets,
        problems: list[Problem],
        gateway: bool = False,
    ) -> None:
        self._found = tuple(found)
        self._mesh, self._client, self._targets, self._problems = mesh, client, targets, problems
        self._gateway = gateway  # where a connection was meant to go says nothing: it was for the gateway

    def tcp(self, port: int) -> tuple[tuple[TcpRoute, ...], bool]:
        """The routes of ``tcp`` rules, and whether they leave nothing over."""
        routes: list[TcpRoute] = []
        for vs in self._found:
            for index, rule in enumerate(vs.resource.spec.tcp):
                source = f"{vs.source} tcp[{index}]"
                applying = [match for match in rule.match if self._applies(vs, match, port)]
                if rule.match and not applying:
                    continue
                whole = self._gateway or not all(match.destination_subnets for match in applying)
                subnets = () if whole else _joined(match.destination_subnets for match in applying)
                routes.append(self._route(vs, rule.route, source, port, addresses=subnets))
                if whole:
                    return tuple(routes), True
        return tuple(routes), False

    def tls(self, port: int, served: Sequence[str] = ("*",)) -> tuple[TcpRoute, ...]:
        """The routes of ``tls`` rules. ``served``: the names that a gateway's server takes; others are left out."""
        routes: list[TcpRoute] = []
        for vs in self._found:
            for index, rule in enumerate(vs.resource.spec.tls):
                for at, match in enumerate(rule.match):
                    if not self._applies(vs, match, port):
                        continue
                    source = f"{vs.source} tls[{index}].match[{at}]"
                    names = tuple(
                        dict.fromkeys(
                            name for name in map(str.lower, match.sni_hosts) if any(covers(host, name) for host in served)
                        )
                    )
                    if not names:
                        self._problems.append(Problem(f"{source}.sniHosts", "none of them is a host of the server: left out"))
                        continue
                    subnets = () if self._gateway else match.destination_subnets
                    routes.append(self._route(vs, rule.route, source, port, sni=names, addresses=subnets))
        return tuple(routes)

    def _applies(self, vs: HostedVirtualService, match: _Match, port: int) -> bool:
        """The static part; all of it must hold (unlike in ``http``, gateways do not replace source labels)."""
        client = self._client
        if match.port and match.port != port:
            return False
        if match.gateways and client.gateways.isdisjoint(gateway_name(g, vs.namespace) for g in match.gateways):
            return False
        if self._gateway:
            return True
        if match.source_namespace and match.source_namespace != client.namespace:
            return False
        return all(client.labels.get(key) == value for key, value in match.source_labels.items())

    def _route(
        self,
        vs: HostedVirtualService,
        targets: tuple[RouteDestination, ...],
        source: str,
        port: int,
        sni: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
    ) -> TcpRoute:
        def note(path: str, message: str) -> None:
            self._problems.append(Problem(f"{source}.{path}", message))

        aim = Aim(vs.namespace, self._mesh.cluster_domain, (port,), self._targets, note, FATE)
        single = len(targets) == 1
        chosen = tuple(
            WeightedCluster(
                cluster=aim.cluster(target.destination, f"route[{index}].destination"), weight=1 if single else target.weight
            )
            for index, target in enumerate(targets)
            if single or target.weight > 0
        )
        if not chosen:
            note("route", f"no destination has any weight: {FATE}")
            chosen = (WeightedCluster(cluster=BLACK_HOLE),)
        return TcpRoute(clusters=chosen, sni=sni, addresses=addresses, source=source)


def _joined(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for group in groups for one in group))
