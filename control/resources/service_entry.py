"""ServiceEntry (networking.istio.io): a service that Kubernetes does not know.

Room: control/resources.
"""

from __future__ import annotations

from typing import Literal

from control.resources.meta import LocalPort, Part, PortNumber, Resource
from control.resources.workload_entry import WorkloadEntrySpec

__all__ = ["NetworkWorkloadSelector", "ServiceEntry", "ServiceEntrySpec", "ServicePort"]


class ServicePort(Part, frozen=True, kw_only=True):
    number: PortNumber
    name: str
    protocol: str = ""
    target_port: LocalPort = 0


class NetworkWorkloadSelector(Part, frozen=True, kw_only=True):
    """Selects workloads of the same namespace whose labels hold all of ``labels``."""

    labels: dict[str, str] = {}


class ServiceEntrySpec(Part, frozen=True, kw_only=True):
    exclusive = (("endpoints", "workloadSelector"),)

    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: tuple[WorkloadEntrySpec, ...] = ()
    workload_selector: NetworkWorkloadSelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()


class ServiceEntry(Resource, frozen=True, kw_only=True):
    """A service added to the mesh by hand."""

    spec: ServiceEntrySpec
