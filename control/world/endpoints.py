"""World, endpoints: who stands behind a service, with the labels that subsets select by.

In: a service, its EndpointSlices (or the older Endpoints object), pods, WorkloadEntries. Out: a tuple of ``WorldEndpoint`` in
a stable order: pod name, address. Only ready endpoints; ports are resolved here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from control.resources.core import Endpoints, EndpointSlice
from control.resources.service_entry import ServiceEntry
from control.resources.workload_entry import WorkloadEntry, WorkloadEntrySpec
from control.world.pods import PodInfo, labels_workload, parse_locality
from control.world.services import MeshService, ServicePort
from meshproxy.model.cluster import Locality, Workload

__all__ = ["TLS_MODE_LABEL", "WorldEndpoint", "pods_of", "selects", "service_endpoints", "service_entry_endpoints"]

TLS_MODE_LABEL = "security.istio.io/tlsMode"

Found = dict[tuple[str, tuple[tuple[int, int], ...]], "WorldEndpoint"]
Pods = Mapping[tuple[str, str], PodInfo]


class WorldEndpoint(msgspec.Struct, frozen=True):
    """One endpoint. ``ports`` maps the service's port numbers to this endpoint's. ``tls``: a sidecar there takes mutual TLS, but
    on ``bypassed`` ports, where callers meet the app itself.
    """

    address: str
    ports: tuple[tuple[int, int], ...]
    labels: tuple[tuple[str, str], ...] = ()
    weight: int = 1
    locality: Locality | None = None
    workload: Workload | None = None
    tls: bool = False
    bypassed: tuple[int, ...] = ()

    @property
    def account(self) -> tuple[str, str] | None:
        """(namespace, service account) of who stands there, when that is known."""
        workload = self.workload
        return (workload.namespace, workload.service_account) if workload is not None and workload.service_account else None

    def port(self, service_port: int) -> int | None:
        for number, target in self.ports:
            if number == service_port:
                return target
        return None


def selects(selector: Iterable[tuple[str, str]], labels: Mapping[str, str]) -> bool:
    """Whether ``labels`` hold every pair of ``selector``."""
    return all(labels.get(key) == value for key, value in selector)


def service_endpoints(
    service: MeshService,
    slices: Iterable[EndpointSlice],
    legacy: Endpoints | None,
    pods: Pods,
    entries: Iterable[WorkloadEntry],
) -> tuple[WorldEndpoint, ...]:
    """Endpoints of a Kubernetes Service: its slices, else its Endpoints object, and the WorkloadEntries it selects."""
    found: Found = {}
    any_slice = False
    for piece in slices:
        any_slice = True
        if piece.address_type == "FQDN":  # Kubernetes gives such names no meaning
            continue
        by_name = {port.name: port.port for port in piece.ports or () if port.port is not None}
        ports = tuple((p.number, by_name[p.name]) for p in service.ports if p.name in by_name)
        for endpoint in piece.endpoints or ():
            if endpoint.conditions is not None and endpoint.conditions.ready is False:
                continue
            pod = endpoint.target_ref.name if endpoint.target_ref and endpoint.target_ref.kind == "Pod" else ""
            locality = Locality(zone=endpoint.zone) if endpoint.zone else None
            for address in endpoint.addresses:
                _add(found, _of_address(address, ports, pods.get((service.namespace, pod)), locality))
    if not any_slice and legacy is not None:
        for subset in legacy.subsets:
            by_name = {port.name: port.port for port in subset.ports if port.port is not None}
            ports = tuple((p.number, by_name[p.name]) for p in service.ports if p.name in by_name)
            for place in subset.addresses:
                pod = place.target_ref.name if place.target_ref else ""
                _add(found, _of_address(place.ip, ports, pods.get((service.namespace, pod)), None))
    found = _once(found, service.namespace, pods)
    if service.selector:
        for entry in entries:
            if entry.spec.address and selects(service.selector, entry.spec.labels):
                _add(found, _of_entry(entry.spec, service.ports, entry.metadata.namespace, entry.metadata.name))
    return _sorted(found.values())


def _once(found: Found, namespace: str, pods: Pods) -> Found:
    """A pod of two IP families is one endpoint, at its first address: in two slices it would get twice its share."""
    at_first = set()
    for endpoint in found.values():
        pod = pods.get((namespace, endpoint.workload.pod)) if endpoint.workload is not None else None
        if pod is not None and endpoint.address == pod.ip:
            at_first.add((pod.name, tuple(number for number, _ in endpoint.ports)))
    return {
        key: endpoint
        for key, endpoint in found.items()
        if endpoint.workload is None
        or (endpoint.workload.pod, tuple(number for number, _ in endpoint.ports)) not in at_first
        or endpoint.address == pods[namespace, endpoint.workload.pod].ip
    }


def service_entry_endpoints(
    entry: ServiceEntry, service: MeshService, pods: Iterable[PodInfo], entries: Iterable[WorkloadEntry]
) -> tuple[WorldEndpoint, ...]:
    """Endpoints of a ServiceEntry: its own list, or the pods and WorkloadEntries of its namespace that it selects."""
    found: Found = {}
    for inline in entry.spec.endpoints:
        if inline.address:
            _add(found, _of_entry(inline, service.ports, entry.metadata.namespace, ""))
    if entry.spec.workload_selector is not None and service.selector:
        for pod in pods:
            if pod.ready and pod.ip and selects(service.selector, dict(pod.labels)):
                targets = ((p.number, _pod_target(p, pod)) for p in service.ports)
                _add(found, _of_address(pod.ip, tuple((n, t) for n, t in targets if t is not None), pod, None))
        for other in entries:
            if other.spec.address and selects(service.selector, other.spec.labels):
                _add(found, _of_entry(other.spec, service.ports, other.metadata.namespace, other.metadata.name))
    return _sorted(found.values())


def pods_of(slices: Iterable[EndpointSlice], legacy: Endpoints | None) -> frozenset[str]:
    """The names of the pods that the slices refer to, so that a pod's change finds its services."""
    names = {
        endpoint.target_ref.name for piece in slices for endpoint in piece.endpoints or () if endpoint.target_ref is not None
    }
    if legacy is not None:
        names |= {place.target_ref.name for subset in legacy.subsets for place in subset.addresses if place.target_ref}
    return frozenset(names)


def _pod_target(port: ServicePort, pod: PodInfo) -> int | None:
    if isinstance(port.target, str):
        return dict(pod.ports).get(port.target)
    return port.target or port.number


def _of_address(
    address: str, ports: tuple[tuple[int, int], ...], pod: PodInfo | None, locality: Locality | None
) -> WorldEndpoint:
    if pod is None:
        return WorldEndpoint(address=address, ports=ports, locality=locality)
    return WorldEndpoint(
        address=address,
        ports=ports,
        labels=pod.labels,
        locality=pod.locality or locality,
        workload=pod.workload,
        tls=(TLS_MODE_LABEL, "istio") in pod.labels,
        bypassed=tuple(target for _, target in ports if pod.bypassed(target)) if pod.intercepted else (),
    )


def _of_entry(spec: WorkloadEntrySpec, ports: tuple[ServicePort, ...], namespace: str, name: str) -> WorldEndpoint:
    targets = []
    for port in ports:
        fallback = port.target if isinstance(port.target, int) else port.number
        targets.append((port.number, spec.ports.get(port.name, fallback)))
    described = bool(spec.labels or spec.service_account or name)
    return WorldEndpoint(
        address=spec.address,
        ports=tuple(targets),
        labels=tuple(sorted(spec.labels.items())),
        weight=spec.weight or 1,
        locality=parse_locality(spec.locality),
        workload=labels_workload(spec.labels, namespace=namespace, workload=name, service_account=spec.service_account)
        if described
        else None,
        tls=spec.labels.get(TLS_MODE_LABEL) == "istio",
    )


def _add(found: Found, endpoint: WorldEndpoint) -> None:
    """The same address may stand in two slices for a moment (Kubernetes says so): it counts once."""
    if endpoint.ports or not endpoint.address:
        key = (endpoint.address, endpoint.ports)
        previous = found.get(key)
        if previous is None or _order(endpoint) < _order(previous):
            found[key] = endpoint


def _order(endpoint: WorldEndpoint) -> tuple[str, str, tuple[tuple[int, int], ...], bytes]:
    workload = endpoint.workload
    # The last member only settles two descriptions of one address, whatever order they came in.
    return (workload.pod if workload else "", endpoint.address, endpoint.ports, msgspec.json.encode(endpoint))


def _sorted(endpoints: Iterable[WorldEndpoint]) -> tuple[WorldEndpoint, ...]:
    return tuple(sorted(endpoints, key=_order))
