"""Analysis, ports of Services: their names tell the protocol. Code IST0118.

In: a scene. Out: findings. Semantics A1 (protocol selection). Kubernetes' own namespaces are nobody's business here.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.world.services import protocol_of

__all__ = ["SYSTEM_NAMESPACES", "names"]

SYSTEM_NAMESPACES = frozenset(("kube-system", "kube-public", "kube-node-lease", "local-path-storage"))


def names(scene: Scene) -> Iterator[Finding]:
    for service in scene.all("Service"):
        if service.metadata.namespace in SYSTEM_NAMESPACES or service.spec.type == "ExternalName":
            continue
        for index, port in enumerate(service.spec.ports):
            if protocol_of(port.name, port.app_protocol or "", port.port, port.protocol) != "auto":
                continue
            target = port.target_port if port.target_port is not None else port.port
            said = f"Port name {port.name}" if port.name else "Port without a name"
            message = (
                f"{said} (port: {port.port}, targetPort: {target}) doesn't follow the naming convention of Istio port: "
                "what its clients send first decides, and without interception it is HTTP. "
                f"Name it http, tcp or grpc{'-' + port.name if port.name else ''}, or set appProtocol."
            )
            yield found("IST0118", Subject.of(service), f"spec.ports[{index}].name", message)
