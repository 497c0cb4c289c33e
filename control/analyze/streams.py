"""Analysis, ports of bytes: what is meant for HTTP and never sees any, servers that speak first, places that two claim.

Codes MESH0024 to MESH0027. In: a scene. Out: findings. Semantics A1 (protocol selection, TCP routing), B6.8, D10.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.policies import policies_of, selected, subject
from control.analyze.ports import SYSTEM_NAMESPACES
from control.analyze.scene import Scene
from control.resources.security import Rule
from control.translate.chains import places
from control.translate.inbound import target_port
from control.world import MeshService, PodInfo
from control.world.services import protocol_of

__all__ = ["claims", "http_rules", "server_first", "unused_rules"]

_HTTP_SOURCE = ("request_principals", "not_request_principals")
_HTTP_OPERATION = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")
_COMES_TO = {
    "ALLOW": "this rule allows nothing there, so its connections are denied unless another rule allows them",
    "DENY": "what is left of this rule denies more there than it says",
    "CUSTOM": "nobody can be asked about them, so its connections are denied",
}
# Whose servers greet their clients: ftp, ssh, telnet, smtp, pop3, nntp, imap, smtp, vnc, mysql beside its usual port, nats.
_SPEAK_FIRST = frozenset((21, 22, 23, 110, 119, 143, 587, 2525, 3307, 4222, 5900, 33060))


def http_rules(scene: Scene) -> Iterator[Finding]:
    """Policies that ask for something of HTTP where there are only bytes."""
    for one, spec in policies_of(scene):
        comes_to = _COMES_TO.get(spec.action)
        asking = [(number, what) for number, rule in enumerate(spec.rules) if (what := _of_http(rule, spec.action))]
        if comes_to is None or not asking:
            continue
        ports = _byte_ports(scene, [pod for pod in selected(scene, one) if pod.role != "gateway"])
        for number, what in asking:
            named = {port for to in spec.rules[number].to or () if to.operation is not None for port in to.operation.ports}
            meant = [(port, service) for port, service in sorted(ports.items()) if not named or str(port) in named]
            if meant:
                port, service = meant[0]
                message = (
                    f"{what} is of HTTP, but port {port} of {service.source} has only bytes: {comes_to}. Name ports in the rule."
                )
                yield found("MESH0024", subject(one), f"spec.rules[{number}]", message)


def _of_http(rule: Rule, action: str) -> str:
    """The first thing in a rule that only HTTP has; of CUSTOM the rule itself."""
    for origin in rule.from_ or ():
        for name in _HTTP_SOURCE if origin.source is not None else ():
            if getattr(origin.source, name):
                return _camel(name)
    for to in rule.to or ():
        for name in _HTTP_OPERATION if to.operation is not None else ():
            if getattr(to.operation, name):
                return _camel(name)
    asked = next((when.key for when in rule.when if when.key.startswith("request.")), "")
    return asked or ("asking an authoriser" if action == "CUSTOM" else "")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _byte_ports(scene: Scene, pods: list[PodInfo]) -> dict[int, MeshService]:
    """The pods' ports that services say are bytes, each with one of them."""
    ports: dict[int, MeshService] = {}
    for pod in pods:
        index = scene.config.selectors.get(pod.namespace)
        for service in index.matching(pod.labels) if index is not None else ():
            for port in service.ports:
                target = target_port(port, pod.ports)
                if target is not None and port.carried in ("TCP", "TLS"):
                    ports.setdefault(target, service)
    return ports


def server_first(scene: Scene) -> Iterator[Finding]:
    """Ports whose name says nothing, of protocols whose clients wait to be spoken to."""
    for service in scene.all("Service"):
        if service.metadata.namespace in SYSTEM_NAMESPACES or service.spec.type == "ExternalName":
            continue
        for index, port in enumerate(service.spec.ports):
            spoken = {port.port, port.target_port} & _SPEAK_FIRST
            if spoken and protocol_of(port.name, port.app_protocol or "", port.port, port.protocol) == "auto":
                message = (
                    f"port {min(spoken)} is usual for a server that speaks first, and nothing says that this port is not HTTP: "
                    f"each connection waits {scene.mesh.detection_timeout:g} s for the client. Name it tcp"
                    f"{'-' + port.name if port.name else ''}, or set appProtocol: tcp."
                )
                yield found("MESH0025", Subject.of(service), f"spec.ports[{index}].name", message)


def claims(scene: Scene) -> Iterator[Finding]:
    """ServiceEntries that cannot be told apart: bytes, one port, no address or the same."""
    first: dict[tuple[str, int], MeshService] = {}
    services = sorted((s for found_ in scene.config.services.values() for s in found_), key=lambda s: (s.age, s.host))
    for service in services:
        if service.headless or (service.kubernetes and not service.addresses):
            continue  # by pods' addresses; not intercepted
        for port in service.ports:
            if port.carried != "TCP":
                continue
            for place in places(service) or ("",):
                older = first.setdefault((place, port.number), service)
                if older.host != service.host and any(older.visible_in(space) for space in (service.namespace, older.namespace)):
                    where = f"address {place}" if place else "no address"
                    message = (
                        f'"{service.host}" has {where} on port {port.number}, and so has "{older.host}" ({older.source}), '
                        "which is older: connections of bytes go there. Give each addresses of its own."
                    )
                    yield found("MESH0026", Subject(service.endpoints[0], service.namespace, service.resource), "", message)


def unused_rules(scene: Scene) -> Iterator[Finding]:
    """``tcp`` and ``tls`` rules for services that have no port of that kind."""
    for vs in scene.config.virtual_services:
        spec, meta = vs.resource.spec, vs.resource.metadata
        if "mesh" not in vs.gateways:
            continue
        services = [service for host in vs.hosts if (service := scene.service(host, meta.namespace)) is not None]
        if not services:
            continue
        kinds = {port.carried for service in services for port in service.ports}
        for given, name, fits in ((spec.tcp, "tcp", {"TCP", "AUTO", "HTTP2"}), (spec.tls, "tls", {"TLS"})):
            if given and not kinds & fits:
                message = (
                    f'{name} rules are for ports that are {"bytes" if name == "tcp" else "TLS"}, and "{services[0].host}" has '
                    f"none: sidecars never use them. Name its port {name}, or write {'tls' if 'TLS' in kinds else 'http'} rules."
                )
                yield found("MESH0027", Subject.of(vs.resource), f"spec.{name}", message)
