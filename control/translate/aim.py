"""Translate, aim: which cluster a destination of a rule means to one client.

In: a ``Destination``, the namespace of its rule, and answers about destinations (``Targets``). Out: the cluster's name, also when
there is no such cluster: the proxy then refuses (semantics A1). ``note`` hears what is wrong; ``fate`` says what it comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from control.resources.virtual_service import Destination
from control.translate.cluster import cluster_name
from control.world.hosts import expand
from control.world.services import MeshService

__all__ = ["Aim", "Targets"]


class Targets(Protocol):
    """What a route needs to know about destinations. ``used`` is told every cluster that a route names."""

    def find(self, host: str) -> MeshService | None: ...
    def hashed(self, cluster: str) -> bool: ...
    def has_subset(self, service: MeshService, subset: str) -> bool: ...
    def used(self, service: MeshService | None, cluster: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Aim:
    """``ports``: those that the client may have asked for."""

    namespace: str
    domain: str
    ports: Iterable[int]
    targets: Targets
    note: Callable[[str, str], None]
    fate: str

    def cluster(self, target: Destination, path: str) -> str:
        host = expand(target.host, self.namespace, self.domain)
        service = self.targets.find(host)
        if service is None:
            self.note(f"{path}.host", f'no service "{host}" is visible here: {self.fate}')
        elif target.subset and not self.targets.has_subset(service, target.subset):
            self.note(f"{path}.subset", f'no DestinationRule gives "{service.host}" a subset "{target.subset}": {self.fate}')
        port = self._port(target, service, path)
        name = cluster_name(port, target.subset, service.host if service is not None else host)
        self.targets.used(service, name)
        return name

    def _port(self, target: Destination, service: MeshService | None, path: str) -> int:
        """Explicit; else the service's only port; else the port the client came to (semantics A1)."""
        if target.port is not None:
            if service is not None and service.port(target.port.number) is None:
                self.note(f"{path}.port.number", f'"{service.host}" has no port {target.port.number}: {self.fate}')
            return target.port.number
        if service is not None and len(service.ports) == 1:
            return service.ports[0].number
        same = [p for p in self.ports if service is None or service.port(p) is not None]
        if not same and service is not None:
            self.note(f"{path}.port", f'"{service.host}" has several ports, none like the one asked for: say which')
        return min(same or self.ports, default=80)
