"""Translate, inbound: the listeners through which others reach a pod's app, one per port.

In: a proxy and the services of its namespace that select it. Out: a layer with listener, route, cluster and endpoint per port.
The port is the target port, as peers dial it; the app behind it is at the pod's own address, on the port that the annotation
``mesh.dev/inbound-ports`` says, or on the same (then only interception leads to the sidecar). Semantics A2 "Inbound retry".
Each listener says by PeerAuthentication whether callers must prove themselves; the workload's tokens and rules are beside them.
"""

from __future__ import annotations

from control.translate.peers import peer_mode
from control.translate.proxy import ProxyId
from control.translate.security import WorkloadSecurity
from control.translate.snapshot import Entry, Key, Layer, Problem, entry, make_layer
from control.world.config import SelectorIndex
from control.world.services import MeshService, ServicePort
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, Service
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster

__all__ = ["WORKLOAD", "inbound_layer", "target_port"]

WORKLOAD: Key = ("security", "workload")


def target_port(port: ServicePort, container_ports: tuple[tuple[str, int], ...]) -> int | None:
    """The pod's port behind a service port; ``None`` when no container names it."""
    if isinstance(port.target, str):
        return dict(container_ports).get(port.target)
    return port.target or port.number


def inbound_layer(selectors: SelectorIndex | None, security: WorkloadSecurity, proxy: ProxyId) -> Layer:
    problems = [*proxy.problems, *security.problems]
    served = _served(selectors, proxy, problems)
    if proxy.inbound_ports is None:
        apps = {port: port for port in served}
    else:
        apps = dict(proxy.inbound_ports)
        for port, service in served.items():
            if port not in apps:
                text = f'"{service.name}" sends to port {port}, which mesh.dev/inbound-ports does not name'
                problems.append(Problem(f"Pod {proxy.namespace}/{proxy.pod}", text))
    entries: dict[Key, Entry] = {}
    for port, app in sorted(apps.items()):
        _one(security, proxy, port, app, served.get(port), entries)
    if security.entry is not None:
        entries[WORKLOAD] = security.entry
    return make_layer("inbound", entries, problems)


def _served(selectors: SelectorIndex | None, proxy: ProxyId, problems: list[Problem]) -> dict[int, MeshService]:
    """Target port -> the oldest service behind which it stands. Only ports that speak HTTP."""
    found: dict[int, MeshService] = {}
    for service in selectors.matching(proxy.labels) if selectors is not None else ():
        for port in service.ports:
            target = target_port(port, proxy.container_ports)
            source = f"Service {service.namespace}/{service.resource} port {port.number}"
            if target is None:
                text = f"targetPort {port.target!r} is no container port of pod {proxy.namespace}/{proxy.pod}"
                problems.append(Problem(source, text))
            elif not port.http:
                problems.append(Problem(source, f"protocol {port.protocol} is not carried yet: no inbound listener"))
            else:
                found.setdefault(target, service)
    return found


def _one(
    security: WorkloadSecurity, proxy: ProxyId, port: int, app: int, service: MeshService | None, entries: dict[Key, Entry]
) -> None:
    mesh = security.mesh
    mtls, source = peer_mode(security.root, security.own, dict(proxy.labels), port)
    name, cluster_name = f"inbound|{port}", f"inbound|{port}||"
    forward = Forward(clusters=(WeightedCluster(cluster=cluster_name),), retry=mesh.inbound_retry)
    host = VirtualHost(name=f"inbound|http|{port}", domains=("*",), routes=(Route(name="default", action=forward),))
    whom = Service(host=service.host, name=service.name, namespace=service.namespace) if service is not None else None
    endpoint = Endpoint(address=proxy.ip or "127.0.0.1", port=app, locality=proxy.locality, workload=proxy.workload)
    entries[("cluster", cluster_name)] = entry("cluster", Cluster(name=cluster_name, type="STATIC", service=whom))
    entries[("endpoints", cluster_name)] = entry("endpoints", Endpoints(name=cluster_name, endpoints=(endpoint,)))
    entries[("route", name)] = entry("route", RouteConfig(name=name, virtual_hosts=(host,)))
    entries[("listener", name)] = entry(
        "listener",
        Listener(
            name=name,
            direction="inbound",
            port=port,
            route=name,
            path_normalization=mesh.path_normalization,
            mtls=mtls,
            mtls_source=source,
        ),
    )
