"""Analysis, hosts: which VirtualService speaks for a host, and whether anybody serves it. Codes IST0109, IST0132, MESH0009.

In: a scene. Out: findings. Semantics A1: of several VirtualServices for one host only the oldest counts for sidecars; gateways
merge them.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.resources.gateway import Server
from control.world.config import HostedVirtualService
from control.world.hosts import intersect

__all__ = ["conflicts", "not_in_gateway", "unknown"]


def conflicts(scene: Scene) -> Iterator[Finding]:
    by_host: dict[str, list[HostedVirtualService]] = {}
    for vs in scene.config.virtual_services:  # oldest first
        if "mesh" in vs.gateways:
            for host in vs.hosts:
                by_host.setdefault(host, []).append(vs)
    for host, group in sorted(by_host.items()):
        for position, vs in enumerate(group):
            elder = next((one for one in group[:position] if _meet(one, vs)), None)
            if elder is None:
                continue
            message = (
                f'{elder.source} speaks for host "{host}" already, and only the oldest counts inside the mesh: this one is '
                "ignored there. Merge the two into one VirtualService."
            )
            yield found("IST0109", Subject.of(vs.resource), "spec.hosts", message)


def _meet(one: HostedVirtualService, other: HostedVirtualService) -> bool:
    """Whether some client sees both."""

    def seen_by(vs: HostedVirtualService) -> set[str]:
        return {vs.namespace if space == "." else space for space in vs.resource.spec.export_to}

    a, b = seen_by(one), seen_by(other)
    if not a or "*" in a:
        return "~" not in b
    if not b or "*" in b:
        return "~" not in a
    return bool((a & b) - {"~"})


def not_in_gateway(scene: Scene) -> Iterator[Finding]:
    gateways = {f"{one.metadata.namespace}/{one.metadata.name}": one for one in scene.all("Gateway")}
    for vs in scene.config.virtual_services:
        for name in sorted(vs.gateways - {"mesh"}):
            gateway = gateways.get(name)
            if gateway is None:
                continue  # IST0101
            lost = [
                host
                for host in vs.hosts
                if not any(_serves(server, host, vs.namespace, gateway.metadata.namespace) for server in gateway.spec.servers)
            ]
            if lost:
                offered = ", ".join(dict.fromkeys(host for server in gateway.spec.servers for host in server.hosts))
                message = f"{_list(lost)} not found in Gateway {name}, which serves {offered}: requests for it get 404 there"
                yield found("IST0132", Subject.of(vs.resource), "spec.hosts", message)


def _serves(server: Server, host: str, namespace: str, own: str) -> bool:
    for text in server.hosts:
        space, slash, pattern = text.lower().rpartition("/")
        if slash and space != "*" and (own if space == "." else space) != namespace:
            continue
        if intersect(pattern, host) is not None:
            return True
    return False


def _list(hosts: list[str]) -> str:
    return ("host " if len(hosts) == 1 else "hosts ") + ", ".join(f'"{host}"' for host in hosts)


def unknown(scene: Scene) -> Iterator[Finding]:
    """Only names that can be nothing but services of the mesh: others may be outside, and routing them is legitimate."""
    suffix = f".svc.{scene.mesh.cluster_domain}"
    for vs in scene.config.virtual_services:
        if "mesh" not in vs.gateways:
            continue
        for index, given in enumerate(vs.resource.spec.hosts):
            host = scene.expand(given, vs.namespace)
            if not host.endswith(suffix) or host.startswith("*") or scene.service(host, vs.namespace) is not None:
                continue
            message = f'no service has the name "{given}" ({host}): nothing is routed by this. Mend the name or make a Service.'
            yield found("MESH0009", Subject.of(vs.resource), f"spec.hosts[{index}]", message)
