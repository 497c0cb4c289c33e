"""World, services: one ``MeshService`` per host, whether it comes from a Kubernetes Service or a ServiceEntry.

In: typed Service and ServiceEntry objects. Out: frozen values with resolved protocols. May assume that the object decoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from control.resources.core import Service
from control.resources.service_entry import ServiceEntry
from control.world.hosts import expand

__all__ = [
    "HTTP_PROTOCOLS",
    "Carried",
    "EndpointsKey",
    "MeshService",
    "ServicePort",
    "from_service",
    "from_service_entry",
    "nearest_visible",
    "protocol_of",
]

EXPORT_TO_ANNOTATION = "networking.istio.io/exportTo"

# "auto" (unnamed ports) is served by route tables as well: where connections are intercepted their first bytes say what they are.
HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc", "grpc-web", "auto"})
_TLS_PROTOCOLS = frozenset({"https", "tls"})
_HTTP2_PROTOCOLS = frozenset({"http2", "grpc"})
Carried = Literal["HTTP", "HTTP2", "AUTO", "TLS", "TCP", ""]
_KNOWN = ("grpc-web", "http2", "https", "http", "grpc", "tls", "tcp", "udp", "mongo", "mysql", "redis")
_APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
_SERVER_FIRST = frozenset({25, 53, 3306, 27017})  # never sniffed: these servers speak first (semantics A1)

EndpointsKey = tuple[str, str, str]  # ("Service" | "ServiceEntry", namespace, name)


class ServicePort(msgspec.Struct, frozen=True):
    """``target`` is the endpoint's port: a number, a container port's name, or ``None`` for the same number."""

    number: int
    name: str
    protocol: str
    target: int | str | None = None

    @property
    def http(self) -> bool:
        return self.protocol in HTTP_PROTOCOLS

    @property
    def carried(self) -> Carried:
        """As what its connections are carried; "": not at all."""
        if self.protocol in HTTP_PROTOCOLS:
            return "AUTO" if self.protocol == "auto" else "HTTP2" if self.protocol in _HTTP2_PROTOCOLS else "HTTP"
        if self.protocol in _TLS_PROTOCOLS:
            return "TLS"
        return "" if self.protocol == "udp" else "TCP"


class MeshService(msgspec.Struct, frozen=True):
    """One host of the mesh. ``resolution`` uses the model's cluster types; ``endpoints`` names where endpoints are kept.

    ``blocks``: CIDRs of a ServiceEntry, which stand for no single name. ``headless``: its clients choose among its pods.
    """

    host: str
    name: str
    namespace: str
    ports: tuple[ServicePort, ...]
    addresses: tuple[str, ...]
    resolution: Literal["EDS", "STATIC", "DNS", "PASSTHROUGH"]
    export_to: tuple[str, ...]  # "*", "~" or namespaces; "." is resolved
    selector: tuple[tuple[str, str], ...]
    endpoints: EndpointsKey
    created: str
    kubernetes: bool
    external: bool = False
    resource: str = ""  # the resource's own name, for messages
    blocks: tuple[str, ...] = ()
    headless: bool = False
    sans: tuple[str, ...] = ()  # names that a server's certificate may carry besides its service account

    @property
    def age(self) -> tuple[int, str, str, str]:
        """Sort key: Kubernetes services first, then the oldest."""
        return (0 if self.kubernetes else 1, self.created, self.resource, self.namespace)

    @property
    def source(self) -> str:
        return f"{self.endpoints[0]} {self.namespace}/{self.resource}"

    def port(self, number: int) -> ServicePort | None:
        for port in self.ports:
            if port.number == number:
                return port
        return None

    def visible_in(self, namespace: str) -> bool:
        return exported(self.export_to, self.namespace, namespace)


def exported(export_to: tuple[str, ...], owner: str, client: str) -> bool:
    """Whether a resource of ``owner``'s namespace with this exportTo is seen from ``client``. Empty means everywhere."""
    if not export_to:
        return True
    return "*" in export_to or client in export_to or ("." in export_to and owner == client)


def nearest_visible(found: Iterable[MeshService], namespace: str) -> MeshService | None:
    """Of services of one host, sorted by age, the one that a client sees: its own namespace's, else the first."""
    best = None
    for service in found:
        if not service.visible_in(namespace):
            continue
        if service.namespace == namespace:
            return service
        best = best or service
    return best


def protocol_of(name: str, app_protocol: str, number: int, transport: str = "TCP") -> str:
    """Protocol selection (semantics A1): appProtocol, then the port name's prefix, then well-known ports, then ``auto``."""
    if transport.upper() == "UDP":
        return "udp"
    app = app_protocol.lower()
    if app in _APP_PROTOCOLS:
        return _APP_PROTOCOLS[app]
    for given in (app, name.lower()):
        for known in _KNOWN:
            if given == known or given.startswith(known + "-"):
                return known
    return "tcp" if number in _SERVER_FIRST else "auto"


def from_service(service: Service, domain: str) -> MeshService | None:
    """``None`` for a Service that is only an alias (ExternalName): it has no endpoints of its own."""
    spec, meta = service.spec, service.metadata
    if spec.type == "ExternalName":
        return None
    export_to = (meta.annotations or {}).get(EXPORT_TO_ANNOTATION, "")
    addresses = [a for a in (spec.cluster_ip, *spec.cluster_ips) if a and a.lower() != "none"]
    ports = [
        ServicePort(p.port, p.name, protocol_of(p.name, p.app_protocol or "", p.port, p.protocol), _target(p.target_port))
        for p in spec.ports
    ]
    return MeshService(
        host=expand(meta.name, meta.namespace, domain),
        name=meta.name,
        namespace=meta.namespace,
        ports=tuple(p for p in ports if p.protocol != "udp"),
        addresses=tuple(sorted(set(addresses))),
        resolution="EDS",
        export_to=tuple(sorted(e.strip() for e in export_to.split(",") if e.strip())),
        selector=tuple(sorted((spec.selector or {}).items())),
        endpoints=("Service", meta.namespace, meta.name),
        created=meta.creation_timestamp or "",
        kubernetes=True,
        resource=meta.name,
        headless=spec.cluster_ip.lower() == "none",
    )


def from_service_entry(entry: ServiceEntry) -> tuple[MeshService, ...]:
    """One service per host of the entry."""
    spec, meta = entry.spec, entry.metadata
    ports = tuple(ServicePort(p.number, p.name, protocol_of(p.protocol, "", p.number), p.target_port or None) for p in spec.ports)
    resolution: Literal["STATIC", "DNS", "PASSTHROUGH"]
    if spec.resolution == "STATIC":
        resolution = "STATIC"
    elif spec.resolution in ("DNS", "DNS_ROUND_ROBIN"):
        resolution = "DNS"
    else:
        resolution = "PASSTHROUGH"
    selector = spec.workload_selector.labels if spec.workload_selector else {}
    return tuple(
        MeshService(
            host=host.lower(),
            name=host.lower(),
            namespace=meta.namespace,
            ports=ports,
            addresses=tuple(sorted(a for a in spec.addresses if "/" not in a)),
            blocks=tuple(sorted(a for a in spec.addresses if "/" in a)),
            resolution="EDS" if spec.workload_selector else resolution,
            export_to=tuple(sorted(spec.export_to)),
            selector=tuple(sorted(selector.items())),
            endpoints=("ServiceEntry", meta.namespace, meta.name),
            created=meta.creation_timestamp or "",
            kubernetes=False,
            external=spec.location == "MESH_EXTERNAL",
            resource=meta.name,
            sans=tuple(sorted(set(spec.subject_alt_names))),
        )
        for host in dict.fromkeys(spec.hosts)
    )


def _target(value: int | str | None) -> int | str | None:
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value or None
