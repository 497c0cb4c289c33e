"""Analysis, references: what VirtualServices and Gateways name must exist. Codes IST0101, IST0112, IST0161.

In: a scene. Out: findings. Assumes decoded objects; semantics A1 (destination host, subset, port).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.analyze.walk import gateway_names, uses
from control.resources.gateway import Gateway
from control.resources.shape import nearest
from control.resources.virtual_service import VirtualService
from control.translate.credentials import credential
from control.world import MeshService

__all__ = ["delegates", "destinations", "gateways", "secrets"]

MISSING = "IST0101"
_SOON = 30 * 86400.0  # seconds before a certificate's end


def gateways(scene: Scene) -> Iterator[Finding]:
    known = {f"{one.metadata.namespace}/{one.metadata.name}" for one in scene.all("Gateway")}
    for vs in scene.all("VirtualService"):
        for path, name in gateway_names(vs):
            if name not in known:
                yield found(MISSING, Subject.of(vs), path, f'Referenced gateway not found: "{name}"{_meant(name, known)}')


def destinations(scene: Scene) -> Iterator[Finding]:
    for vs in scene.all("VirtualService"):
        subject = Subject.of(vs)
        for use in uses(vs):
            to, namespace = use.destination, vs.metadata.namespace
            host = scene.expand(to.host, namespace)
            service = scene.service(host, namespace)
            if service is None:
                near = scene.near(host)
                why = f'; did you mean "{near}"?' if near else ""
                why = "; it is not exported to this namespace" if scene.hidden(host) else why
                yield found(MISSING, subject, f"{use.path}.host", f'Referenced host not found: "{to.host}"{why}')
                continue
            if to.subset:
                yield from _subset(scene, vs, use.path, to.subset, service)
            yield from _port(vs, use.path, to.port.number if to.port is not None else None, service)


def _subset(scene: Scene, vs: VirtualService, path: str, subset: str, service: MeshService) -> Iterator[Finding]:
    rule = scene.rule_for(service, vs.metadata.namespace)
    names = rule.subsets if rule is not None else {}
    if subset not in names:
        known = f"; there are {', '.join(names)}" if names else ""
        hint = _meant(subset, names) or known or f'; give a DestinationRule for host "{service.host}" a subset of that name'
        message = f'Referenced host+subset in destinationrule not found: "{service.name}+{subset}"{hint}'
        yield found(MISSING, Subject.of(vs), f"{path}.subset", message)


def _port(vs: VirtualService, path: str, port: int | None, service: MeshService) -> Iterator[Finding]:
    numbers = ", ".join(str(one.number) for one in service.ports)
    if port is None:
        if len(service.ports) > 1:
            message = f'"{service.host}" has several ports ({numbers}): say which one with port.number'
            # A warning only: translation, here as in Istio, takes the port asked for if it is one of them.
            yield found("IST0112", Subject.of(vs), path, message, "Warning")
    elif service.ports and service.port(port) is None:
        message = f'Referenced port not found: "{service.host}" has no port {port}, only {numbers}'
        yield found(MISSING, Subject.of(vs), f"{path}.port.number", message)


def delegates(scene: Scene) -> Iterator[Finding]:
    known = {(one.metadata.namespace, one.metadata.name) for one in scene.all("VirtualService")}
    for vs in scene.all("VirtualService"):
        for index, rule in enumerate(vs.spec.http):
            if rule.delegate is not None:
                name = (rule.delegate.namespace or vs.metadata.namespace, rule.delegate.name)
                if name not in known:
                    message = f'Referenced delegate VirtualService not found: "{name[0]}/{name[1]}"'
                    yield found(MISSING, Subject.of(vs), f"spec.http[{index}].delegate", message)


def secrets(scene: Scene) -> Iterator[Finding]:
    """Files seldom hold secrets, so only a mesh is asked for those that are missing. Texts show nothing of what is in them."""
    known = {(one.metadata.namespace, one.metadata.name): one for one in scene.all("Secret")}
    for gateway in scene.all("Gateway"):
        spaces = {pod.namespace for pod in scene.pods(gateway.spec.selector)} or {gateway.metadata.namespace}
        for path, name in _credentials(gateway):
            absent = sorted(space for space in spaces if (space, name) not in known)
            if absent and scene.live:
                message = f'Referenced credentialName not found: "{name}"; make a Secret of that name in namespace {absent[0]}'
                yield found(MISSING, Subject.of(gateway), path, message)
            for space in sorted(spaces.difference(absent)):
                given, wall = credential(known[space, name]), scene.facts.wall
                if given.error:
                    message = f"Secret {space}/{name}: {given.error}; connections to this server are refused"
                    yield found("IST0161", Subject.of(gateway), path, message)
                elif wall and 0 < given.expires <= wall:
                    message = f"Secret {space}/{name}: its certificate has expired; connections to this server are refused"
                    yield found("IST0161", Subject.of(gateway), path, message)
                elif wall and 0 < given.expires < wall + _SOON:
                    days = int((given.expires - wall) / 86400)
                    message = f"Secret {space}/{name}: its certificate expires in {days} days; renew it"
                    yield found("IST0161", Subject.of(gateway), path, message, "Warning")


def _credentials(gateway: Gateway) -> Iterator[tuple[str, str]]:
    for index, server in enumerate(gateway.spec.servers):
        tls, at = server.tls, f"spec.servers[{index}].tls"
        if tls is not None and tls.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
            given = [("credentialName", tls.credential_name), ("caCertCredentialName", tls.ca_cert_credential_name)]
            given += [(f"credentialNames[{i}]", name) for i, name in enumerate(tls.credential_names)]
            yield from ((f"{at}.{field}", name) for field, name in given if name)


def _meant(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f'; did you mean "{near}"?' if near and near != name else ""
