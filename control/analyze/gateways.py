"""Analysis, gateways: ports and hosts that collide, pods that are missing, tokens that nobody verifies.

Codes IST0101 (selector), IST0145, IST0149, IST0162. In: a scene. Out: findings. Semantics A7, A1 (JWT-claim routing).
"""

from __future__ import annotations

from collections.abc import Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.resources.gateway import Gateway, Server
from control.translate.match import claim_keys
from control.translate.proxy import proxy_of_pod
from control.world import PodInfo

__all__ = ["claims", "conflicts", "workloads"]


def conflicts(scene: Scene) -> Iterator[Finding]:
    gateways = scene.config.gateways  # oldest first
    for position, gateway in enumerate(gateways):
        for other in gateways[:position]:
            if not _same_pods(scene, gateway, other):
                continue
            for index, server in enumerate(gateway.spec.servers):
                for theirs in other.spec.servers:
                    shared = _shared(server, gateway.metadata.namespace, theirs, other.metadata.namespace)
                    if shared:
                        name = f"{other.metadata.namespace}/{other.metadata.name}"
                        message = (
                            f"Conflict with gateways {name} (workload selector {_selector(gateway)}, port {server.port.number}, "
                            f"hosts {', '.join(shared)}). Give the host to one of them only."
                        )
                        yield found("IST0145", Subject.of(gateway), f"spec.servers[{index}]", message)


def _same_pods(scene: Scene, one: Gateway, other: Gateway) -> bool:
    a, b = one.spec.selector, other.spec.selector
    if a.items() <= b.items() or b.items() <= a.items():
        return True
    names = {(pod.namespace, pod.name) for pod in scene.pods(a)}
    return any((pod.namespace, pod.name) in names for pod in scene.pods(b))


def _shared(one: Server, own: str, other: Server, their: str) -> list[str]:
    if one.port.number != other.port.number or (one.bind and other.bind and one.bind != other.bind):
        return []
    found: dict[str, None] = {}
    for a in one.hosts:
        for b in other.hosts:
            (space, host), (theirs, pattern) = _host(a, own), _host(b, their)
            # Equal names collide; a wildcard beside a name under it is what wildcards are for.
            if (space == theirs or "*" in (space, theirs)) and host == pattern:
                found[host] = None
    return list(found)


def _host(text: str, namespace: str) -> tuple[str, str]:
    space, slash, host = text.lower().rpartition("/")
    return ((namespace if space == "." else space) if slash else "*", host)


def _selector(gateway: Gateway) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(gateway.spec.selector.items())) or "(none)"


def workloads(scene: Scene) -> Iterator[Finding]:
    if not scene.knows_workloads:
        return
    for gateway in scene.all("Gateway"):
        selector = gateway.spec.selector
        pods = scene.pods(selector) if selector else [pod for pod in scene.pods({}) if pod.role == "gateway"]
        if not pods:
            if not scene.usual_gateway(selector):
                message = f'Referenced selector not found: "{_selector(gateway)}": no pod has these labels, so nobody opens it'
                yield found("IST0101", Subject.of(gateway), "spec.selector", message)
            continue
        for index, server in enumerate(gateway.spec.servers):
            if not any(_led_to(scene, pod, server.port.number) for pod in pods):
                message = (
                    f"The gateway is listening on port {server.port.number}, to which no Service of its pods leads "
                    f"({_selector(gateway)}): from outside it is not reached. Add the port to the Service."
                )
                yield found("IST0162", Subject.of(gateway), f"spec.servers[{index}].port.number", message)


def _led_to(scene: Scene, pod: PodInfo, port: int) -> bool:
    """True also for a pod that no Service is for: people reach it by its address."""
    if any(number == port for number, _, _ in proxy_of_pod(pod).gateway_bind):
        return True
    index = scene.config.selectors.get(pod.namespace)
    services = index.matching(pod.labels) if index is not None else ()
    return not services or any(one.number == port or one.target == port for service in services for one in service.ports)


def claims(scene: Scene) -> Iterator[Finding]:
    authentications = scene.all("RequestAuthentication")
    for vs in scene.config.virtual_services:
        keys = [
            (f"spec.http[{index}].match[{number}]", key)
            for index, rule in enumerate(vs.resource.spec.http)
            for number, match in enumerate(rule.match)
            for key in claim_keys(match)[:1]
        ]
        if not keys:
            continue
        for gateway in scene.config.gateways:
            name = f"{gateway.metadata.namespace}/{gateway.metadata.name}"
            if name not in vs.gateways:
                continue
            for pod in scene.pods(gateway.spec.selector):
                if any(_authenticates(scene, one, pod) for one in authentications):
                    continue
                for path, key in keys:
                    message = (
                        f"routes by a JWT claim ({key}), but no RequestAuthentication is for the pods of Gateway {name} "
                        f"({pod.namespace}/{pod.name}): it never holds. Apply one there first."
                    )
                    yield found("IST0149", Subject.of(vs.resource), path, message)


def _authenticates(scene: Scene, one: object, pod: PodInfo) -> bool:
    spec, namespace = one.spec, one.metadata.namespace  # type: ignore[attr-defined]
    labels = spec.selector.match_labels if spec.selector is not None else {}
    if namespace not in (pod.namespace, scene.mesh.root_namespace):
        return False
    return bool(labels.items() <= dict(pod.labels).items())
