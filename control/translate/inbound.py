"""Translate, inbound: through what others reach a pod's app.

In: a proxy, the services of its namespace that select it, its Sidecar resource. Out: a layer with route, cluster and listener.
Where iptables sends connections to the sidecar there is one listener, ``virtualInbound``, with a chain per port; the app is
dialed where the caller meant to go, from 127.0.0.6 or ::6, by which iptables knows it; what no service is known for passes
through. Elsewhere there is a listener per port; the app is at the pod's own address, on the port that the annotation
``mesh.dev/inbound-ports`` says, or on the same.

Ports are target ports, as peers dial them. Of several services behind one the oldest counts (semantics A1); where they say both
HTTP and bytes, the first bytes of each connection do. Each port says by PeerAuthentication whether callers must prove themselves;
the workload's tokens and rules are beside them. Semantics A2 "Inbound retry".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from control.resources.sidecar import IstioIngressListener, Sidecar
from control.translate import traffic
from control.translate.peers import peer_mode, peer_ports
from control.translate.proxy import ProxyId
from control.translate.security import WorkloadSecurity
from control.translate.snapshot import Entry, Key, Layer, Problem, entry, make_layer
from control.translate.streams import to_cluster
from control.world.config import SelectorIndex
from control.world.services import MeshService, ServicePort, protocol_of
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, Service
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.tcp import Chain

__all__ = ["INBOUND_PASSTHROUGH", "VIRTUAL_INBOUND", "WORKLOAD", "inbound_layer", "target_port"]

WORKLOAD: Key = ("security", "workload")
VIRTUAL_INBOUND = "virtualInbound"
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
APP_SOURCE = "127.0.0.6"  # ::6 where the app is dialed by IPv6
_PASSTHROUGH_ROUTE = "inbound|passthrough"
_POOL = ConnectionPool()
_Protocol = Literal["HTTP", "TCP", "AUTO"]
_CARRIED: dict[str, _Protocol] = {"HTTP": "HTTP", "HTTP2": "HTTP", "AUTO": "AUTO", "TLS": "TCP", "TCP": "TCP"}


@dataclass(frozen=True, slots=True)
class _Served:
    protocol: _Protocol
    service: MeshService


@dataclass(frozen=True, slots=True)
class _App:
    """One port and who stands behind it. ``endpoint``: None where callers' own destination is dialed."""

    port: int
    protocol: _Protocol
    service: MeshService | None
    endpoint: Endpoint | None
    bind: str = ""
    pool: ConnectionPool = _POOL
    reachable: bool = True


def target_port(port: ServicePort, container_ports: tuple[tuple[str, int], ...]) -> int | None:
    """The pod's port behind a service port; ``None`` when no container names it."""
    if isinstance(port.target, str):
        return dict(container_ports).get(port.target)
    return port.target or port.number


def inbound_layer(
    selectors: SelectorIndex | None, security: WorkloadSecurity, proxy: ProxyId, sidecar: Sidecar | None = None
) -> Layer:
    problems = [*proxy.problems, *security.problems]
    served = _served(selectors, proxy, problems)
    entries: dict[Key, Entry] = {}
    if proxy.capture:
        _intercepted(security, proxy, served, sidecar, entries, problems)
    else:
        _listeners(security, proxy, served, sidecar, entries, problems)
    if security.entry is not None:
        entries[WORKLOAD] = security.entry
    return make_layer("inbound", entries, problems)


def _served(selectors: SelectorIndex | None, proxy: ProxyId, problems: list[Problem]) -> dict[int, _Served]:
    """Target port -> the oldest service behind which it stands."""
    found: dict[int, _Served] = {}
    for service in selectors.matching(proxy.labels) if selectors is not None else ():
        for port in service.ports:
            protocol = _CARRIED.get(port.carried)
            if protocol is None:
                continue
            target = target_port(port, proxy.container_ports)
            source = f"{service.source} port {port.number}"
            if target is None:
                text = f"targetPort {port.target!r} is no container port of pod {proxy.namespace}/{proxy.pod}"
                problems.append(Problem(source, text))
                continue
            known = found.setdefault(target, _Served(protocol, service))
            if known.protocol != protocol:
                if "AUTO" not in (known.protocol, protocol):
                    text = f'port {target} of its pods is {known.protocol} by "{known.service.name}", which is older, and'
                    problems.append(Problem(source, f"{text} {protocol} by this: each connection's first bytes decide"))
                found[target] = _Served("AUTO", known.service)
    return found


# -- a listener for each port --------------------------------------------------------------------------------------------


def _listeners(
    security: WorkloadSecurity,
    proxy: ProxyId,
    served: Mapping[int, _Served],
    sidecar: Sidecar | None,
    entries: dict[Key, Entry],
    problems: list[Problem],
) -> None:
    if sidecar is not None and sidecar.spec.ingress:
        problems.append(Problem(f"{_name(sidecar)} ingress", "needs a sidecar that connections are sent to by iptables: ignored"))
    apps = {port: port for port in served} if proxy.inbound_ports is None else dict(proxy.inbound_ports)
    for port, known in served.items():
        if port not in apps:
            text = f'"{known.service.name}" sends to port {port}, which mesh.dev/inbound-ports does not name'
            problems.append(Problem(f"Pod {proxy.namespace}/{proxy.pod}", text))
    pool = _pool(sidecar)
    for port, app in sorted(apps.items()):
        of = served.get(port)
        endpoint = Endpoint(address=proxy.ip or "127.0.0.1", port=app, locality=proxy.locality, workload=proxy.workload)
        one = _App(port, of.protocol if of else "HTTP", of.service if of else None, endpoint, pool=pool)
        # A port that nobody has named is HTTP here, as ever: a listener is met by its own address, not in somebody's place.
        bytes_too = of is not None and (of.protocol == "TCP" or _disputed(of))
        chain = _chain(security, proxy, one, f"inbound|{port}") if bytes_too else None
        mtls, source = peer_mode(security.root, security.own, dict(proxy.labels), port)
        name = f"inbound|{port}"
        _add_cluster(one, entries)
        if chain is None or chain.route:
            _add_route(security, name, _cluster(port), entries)
        entries[("listener", name)] = entry(
            "listener",
            Listener(
                name=name,
                direction="inbound",
                port=port,
                route="" if chain is not None else name,
                path_normalization=security.mesh.path_normalization,
                mtls="DISABLE" if chain is not None else mtls,
                mtls_source="" if chain is not None else source,
                chains=(chain,) if chain is not None else (),
                detection_timeout=security.mesh.detection_timeout,
            ),
        )


def _disputed(of: _Served) -> bool:
    """AUTO because services do not agree."""
    return of.protocol == "AUTO" and all(port.carried != "AUTO" for port in of.service.ports)


# -- one listener for all ------------------------------------------------------------------------------------------------


def _intercepted(
    security: WorkloadSecurity,
    proxy: ProxyId,
    served: Mapping[int, _Served],
    sidecar: Sidecar | None,
    entries: dict[Key, Entry],
    problems: list[Problem],
) -> None:
    labels, mesh = dict(proxy.labels), security.mesh
    apps: dict[int, _App] = {}
    if sidecar is not None and sidecar.spec.ingress:
        for index, ingress in enumerate(sidecar.spec.ingress):
            one = _ingress(ingress, f"{_name(sidecar)} ingress[{index}]", proxy, served, _pool(sidecar), problems)
            apps[one.port] = one
    else:
        pool = _pool(sidecar)
        apps = {port: _App(port, of.protocol, of.service, None, APP_SOURCE, pool) for port, of in served.items()}
    chains: list[Chain] = []
    for port, one in sorted(apps.items()):
        if port in proxy.excluded_ports:
            continue
        chain = _chain(security, proxy, one, f"inbound|{port}")
        _add_cluster(one, entries)
        if chain.route:
            _add_route(security, chain.route, _cluster(port), entries)
        chains.append(chain)
    through = (to_cluster(INBOUND_PASSTHROUGH),)
    wide = peer_mode(security.root, security.own, labels, 0)
    for number in peer_ports(security.root, security.own, labels):
        mode = peer_mode(security.root, security.own, labels, number)
        if number not in apps and number not in proxy.excluded_ports and mode[0] != wide[0]:
            name = f"inbound|{number}"
            chains.append(Chain(name=name, port=number, route=_PASSTHROUGH_ROUTE, tcp=through, mtls=mode[0], mtls_source=mode[1]))
    catch_all = f"{VIRTUAL_INBOUND}-catchall"
    chains.append(Chain(name=catch_all, route=_PASSTHROUGH_ROUTE, tcp=through, mtls=wide[0], mtls_source=wide[1]))
    cluster = Cluster(name=INBOUND_PASSTHROUGH, type="PASSTHROUGH", bind=APP_SOURCE, pool=_pool(sidecar))
    entries[("cluster", INBOUND_PASSTHROUGH)] = entry("cluster", cluster)
    _add_route(security, _PASSTHROUGH_ROUTE, INBOUND_PASSTHROUGH, entries)
    entries[("listener", VIRTUAL_INBOUND)] = entry(
        "listener",
        Listener(
            name=VIRTUAL_INBOUND,
            direction="inbound",
            port=mesh.inbound_port,
            bind=proxy.capture,
            path_normalization=mesh.path_normalization,
            chains=tuple(chains),
            detection_timeout=mesh.detection_timeout,
        ),
    )


def _ingress(
    ingress: IstioIngressListener,
    source: str,
    proxy: ProxyId,
    served: Mapping[int, _Served],
    pool: ConnectionPool,
    problems: list[Problem],
) -> _App:
    """One port of a Sidecar resource, which replaces what services say. Without ``defaultEndpoint`` the app has the same port."""
    number = ingress.port.number
    given = _CARRIED.get(ServicePort(number, "", protocol_of(ingress.port.protocol, "", number)).carried, "TCP")
    service = served[number].service if number in served else None
    if ingress.connection_pool is not None:
        pool = traffic.connection_pool(ingress.connection_pool)
    where = ingress.default_endpoint
    if not where:
        return _App(number, given, service, None, APP_SOURCE, pool)
    if where.startswith("unix://"):
        problems.append(Problem(f"{source}.defaultEndpoint", "Unix sockets are not dialed: every call is refused"))
        return _App(number, given, service, None, "", pool, reachable=False)
    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    own = host in ("", "0.0.0.0", "::")
    endpoint = Endpoint(address=proxy.ip if own else host, port=int(port), locality=proxy.locality, workload=proxy.workload)
    return _App(number, given, service, endpoint, APP_SOURCE if own else "", pool)


def _name(sidecar: Sidecar) -> str:
    return f"Sidecar {sidecar.metadata.namespace}/{sidecar.metadata.name}"


def _pool(sidecar: Sidecar | None) -> ConnectionPool:
    return traffic.connection_pool(sidecar.spec.inbound_connection_pool if sidecar is not None else None)


# -- what both have ------------------------------------------------------------------------------------------------------


def _cluster(port: int) -> str:
    return f"inbound|{port}||"


def _chain(security: WorkloadSecurity, proxy: ProxyId, app: _App, name: str) -> Chain:
    mtls, source = peer_mode(security.root, security.own, dict(proxy.labels), app.port)
    return Chain(
        name=name,
        port=app.port,
        protocol=app.protocol,
        route="" if app.protocol == "TCP" else f"inbound|{app.port}",
        tcp=(to_cluster(_cluster(app.port)),),
        mtls=mtls,
        mtls_source=source,
    )


def _add_cluster(app: _App, entries: dict[Key, Entry]) -> None:
    name, service = _cluster(app.port), app.service
    whom = Service(host=service.host, name=service.name, namespace=service.namespace) if service is not None else None
    original = app.endpoint is None and app.reachable
    cluster = Cluster(name=name, type="PASSTHROUGH" if original else "STATIC", service=whom, bind=app.bind, pool=app.pool)
    entries[("cluster", name)] = entry("cluster", cluster)
    if not original:
        there = (app.endpoint,) if app.endpoint is not None else ()
        entries[("endpoints", name)] = entry("endpoints", Endpoints(name=name, endpoints=there))


def _add_route(security: WorkloadSecurity, name: str, cluster: str, entries: dict[Key, Entry]) -> None:
    forward = Forward(clusters=(WeightedCluster(cluster=cluster),), retry=security.mesh.inbound_retry)
    stem = name.partition("|")[2]
    host = VirtualHost(name=f"inbound|http|{stem}", domains=("*",), routes=(Route(name="default", action=forward),))
    entries[("route", name)] = entry("route", RouteConfig(name=name, virtual_hosts=(host,)))
