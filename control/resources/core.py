"""The Kubernetes core kinds that a mesh reads: only the fields that it needs.

Room: control/resources. These structs are lenient: fields that are not listed stay in the stored object and are ignored here.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from control.resources.meta import Lenient, ObjectMeta, PortNumber

__all__ = [
    "ConfigMap",
    "Container",
    "ContainerPort",
    "ContainerStatus",
    "CoreResource",
    "Deployment",
    "DeploymentSpec",
    "Endpoint",
    "EndpointAddress",
    "EndpointConditions",
    "EndpointPort",
    "EndpointSlice",
    "EndpointSubset",
    "Endpoints",
    "Event",
    "LabelSelector",
    "Namespace",
    "ObjectReference",
    "Pod",
    "PodCondition",
    "PodIP",
    "PodSpec",
    "PodStatus",
    "PodTemplateSpec",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServicePort",
    "ServiceSpec",
]


class CoreResource(Lenient, frozen=True, kw_only=True):
    """A core object; ``metadata.name`` and ``metadata.namespace`` are also properties."""

    api_version: str
    kind: str
    metadata: ObjectMeta

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace


class ObjectReference(Lenient, frozen=True, kw_only=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Namespace(CoreResource, frozen=True, kw_only=True):
    """A namespace; its labels decide injection."""


class ServicePort(Lenient, frozen=True, kw_only=True):
    """``target_port`` is a number, a container port's name, or None: the same as ``port``."""

    name: str = ""
    port: PortNumber
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str = ""


class ServiceSpec(Lenient, frozen=True, kw_only=True):
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] | None = None
    type: str = "ClusterIP"
    cluster_ip: str = field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = field(name="externalIPs", default=())
    external_name: str = ""
    publish_not_ready_addresses: bool = False
    session_affinity: str = ""


class Service(CoreResource, frozen=True, kw_only=True):
    """A name and ports for the pods that a selector picks."""

    spec: ServiceSpec = ServiceSpec()
    status: dict[str, Any] | None = None


class ContainerPort(Lenient, frozen=True, kw_only=True):
    name: str = ""
    container_port: PortNumber
    protocol: str = "TCP"


class Container(Lenient, frozen=True, kw_only=True):
    name: str
    image: str = ""
    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str = ""


class PodSpec(Lenient, frozen=True, kw_only=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    service_account_name: str = ""
    node_name: str = ""
    host_network: bool = False
    subdomain: str = ""
    hostname: str = ""


class PodCondition(Lenient, frozen=True, kw_only=True):
    type: str
    status: str = ""
    reason: str = ""
    message: str = ""


class ContainerStatus(Lenient, frozen=True, kw_only=True):
    name: str
    ready: bool = False
    restart_count: int = 0
    state: dict[str, Any] | None = None


class PodIP(Lenient, frozen=True, kw_only=True):
    ip: str = ""


class PodStatus(Lenient, frozen=True, kw_only=True):
    phase: str = ""
    pod_ip: str = field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = field(name="podIPs", default=())
    host_ip: str = field(name="hostIP", default="")
    conditions: tuple[PodCondition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    reason: str = ""


class Pod(CoreResource, frozen=True, kw_only=True):
    """A workload instance."""

    spec: PodSpec = PodSpec()
    status: PodStatus | None = None


class EndpointAddress(Lenient, frozen=True, kw_only=True):
    ip: str
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointPort(Lenient, frozen=True, kw_only=True):
    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSubset(Lenient, frozen=True, kw_only=True):
    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(CoreResource, frozen=True, kw_only=True):
    """The old form of EndpointSlice."""

    subsets: tuple[EndpointSubset, ...] = ()


class EndpointConditions(Lenient, frozen=True, kw_only=True):
    """``ready`` None counts as ready, as in Kubernetes."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Lenient, frozen=True, kw_only=True):
    addresses: tuple[str, ...]
    conditions: EndpointConditions | None = None
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: ObjectReference | None = None


class EndpointSlice(CoreResource, frozen=True, kw_only=True):
    """Addresses of a service; label ``kubernetes.io/service-name`` names it."""

    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None


class ServiceAccount(CoreResource, frozen=True, kw_only=True):
    """The identity of pods."""


class Secret(CoreResource, frozen=True, kw_only=True):
    """``data`` values are base64. The repr shows none of them, nor does any message about a fault."""

    covered = True

    type: str = "Opaque"
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None
    immutable: bool | None = None

    def __repr__(self) -> str:
        return f"Secret({self.namespace}/{self.name}, keys={sorted({**(self.data or {}), **(self.string_data or {})})})"

    __str__ = __repr__


class ConfigMap(CoreResource, frozen=True, kw_only=True):
    """Plain settings."""

    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None
    immutable: bool | None = None


class LabelSelector(Lenient, frozen=True, kw_only=True):
    match_labels: dict[str, str] | None = None
    match_expressions: tuple[dict[str, Any], ...] = ()


class PodTemplateSpec(Lenient, frozen=True, kw_only=True):
    metadata: dict[str, Any] | None = None
    spec: PodSpec = PodSpec()


class DeploymentSpec(Lenient, frozen=True, kw_only=True):
    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()


class Deployment(CoreResource, frozen=True, kw_only=True):
    """Accepted and stored so that a user's files apply; nothing here starts its pods."""

    spec: DeploymentSpec = DeploymentSpec()
    status: dict[str, Any] | None = None


class Event(CoreResource, frozen=True, kw_only=True):
    """What happened to an object; ``kubectl describe`` lists them."""

    involved_object: ObjectReference | None = None
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int | None = None
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    source: dict[str, Any] | None = None
