"""WorkloadEntry (networking.istio.io): one endpoint outside Kubernetes.

Room: control/resources. Also the shape of a ServiceEntry's inline endpoints and a WorkloadGroup's template.
"""

from __future__ import annotations

from control.resources.meta import Part, PortNumber, Resource, Uint32

__all__ = ["WorkloadEntry", "WorkloadEntrySpec"]


class WorkloadEntrySpec(Part, frozen=True, kw_only=True):
    """``ports`` maps a service's port name to this workload's port; ``locality`` is region/zone/subzone."""

    address: str = ""
    ports: dict[str, PortNumber] = {}
    labels: dict[str, str] = {}
    network: str = ""
    locality: str = ""
    weight: Uint32 = 0
    service_account: str = ""


class WorkloadEntry(Resource, frozen=True, kw_only=True):
    """A workload that is not a Pod."""

    spec: WorkloadEntrySpec = WorkloadEntrySpec()
