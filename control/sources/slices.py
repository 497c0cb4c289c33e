"""Which EndpointSlices a Service is to have (room ``sources``). Pure.

In: a Service and facts about the pods that its selector picks. Out: the wanted EndpointSlice objects, by name, the same whatever
the order of the pods. As Kubernetes' endpointslice controller does it: pods with an address that have not ended are listed,
ready or not, with the conditions saying which; ``targetPort`` names are resolved per pod; at most 100 endpoints per slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["MANAGED_BY", "SERVICE_NAME", "PodFacts", "pod_facts", "selector_of", "wanted_slices"]

Obj = dict[str, Any]
MANAGED_BY = ("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io")
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
MAX_ENDPOINTS = 100


class PodFacts(NamedTuple):
    """What endpoints are made from. ``ports`` maps (name, protocol) to the number."""

    namespace: str
    name: str
    uid: str
    labels: frozenset[tuple[str, str]]
    addresses: tuple[str, ...]
    ready: bool
    terminating: bool
    ended: bool
    node: str
    ports: tuple[tuple[tuple[str, str], int], ...]


def _dict(value: Any) -> Obj:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Obj]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def pod_facts(pod: Obj) -> PodFacts:
    """Reads leniently: what is missing or of the wrong type is as if absent."""
    meta, spec, status = _dict(pod.get("metadata")), _dict(pod.get("spec")), _dict(pod.get("status"))
    ips = [str(ip.get("ip", "")) for ip in _list(status.get("podIPs"))] or [str(status.get("podIP") or "")]
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in _list(status.get("conditions")))
    sidecars = [c for c in _list(spec.get("initContainers")) if c.get("restartPolicy") == "Always"]
    ports = {
        (str(port.get("name")), str(port.get("protocol") or "TCP")): port["containerPort"]
        for container in reversed([*_list(spec.get("containers")), *sidecars])  # the first container with the name wins
        for port in reversed(_list(container.get("ports")))
        if port.get("name") and isinstance(port.get("containerPort"), int)
    }
    return PodFacts(
        namespace=str(meta.get("namespace") or "default"),
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        labels=frozenset((str(k), str(v)) for k, v in _dict(meta.get("labels")).items()),
        addresses=tuple(ip for ip in ips if ip),
        ready=ready,
        terminating=bool(meta.get("deletionTimestamp")),
        ended=status.get("phase") in ("Succeeded", "Failed"),
        node=str(spec.get("nodeName") or ""),
        ports=tuple(sorted(ports.items())),
    )


def selector_of(service: Obj) -> dict[str, str] | None:
    """The selector of a Service whose endpoints we keep; None for one that is left alone (no selector, ExternalName)."""
    spec = _dict(service.get("spec"))
    selector = _dict(spec.get("selector"))
    if not selector or spec.get("type") == "ExternalName":
        return None
    return {str(key): str(value) for key, value in selector.items()}


def wanted_slices(service: Obj, pods: Iterable[PodFacts]) -> dict[str, Obj]:
    """The slices for ``service`` from the pods that its selector picks, by slice name."""
    meta, spec = _dict(service.get("metadata")), _dict(service.get("spec"))
    publish = spec.get("publishNotReadyAddresses") is True
    groups: dict[tuple[str, tuple[tuple[str, int, str], ...]], list[Obj]] = {}
    for pod in sorted(pods, key=lambda pod: pod.name):
        if pod.ended:
            continue
        ports = _ports(spec, pod)
        if ports is None:
            continue
        for address in pod.addresses:
            family = "IPv6" if ":" in address else "IPv4"
            groups.setdefault((family, ports), []).append(_endpoint(pod, address, publish))
    slices: dict[str, Obj] = {}
    for (family, ports), endpoints in groups.items():
        for start in range(0, len(endpoints), MAX_ENDPOINTS):
            made = _slice(meta, spec, family, ports, endpoints[start : start + MAX_ENDPOINTS], start // MAX_ENDPOINTS)
            slices[made["metadata"]["name"]] = made
    return slices


def _ports(spec: Mapping[str, Any], pod: PodFacts) -> tuple[tuple[str, int, str], ...] | None:
    """(name, number, protocol) for each service port that the pod has; None when it has none of them."""
    declared, found = _list(spec.get("ports")), []
    by_name = dict(pod.ports)
    for port in declared:
        protocol = str(port.get("protocol") or "TCP")
        target = port.get("targetPort", port.get("port"))
        if isinstance(target, str):
            number = int(target) if target.isascii() and target.isdigit() else by_name.get((target, protocol), 0)
        else:
            number = target if isinstance(target, int) else 0
        if number:
            found.append((str(port.get("name") or ""), number, protocol))
    return tuple(found) if found or not declared else None


def _endpoint(pod: PodFacts, address: str, publish: bool) -> Obj:
    serving = pod.ready or publish
    endpoint: Obj = {
        "addresses": [address],
        "conditions": {"ready": serving and (publish or not pod.terminating), "serving": serving, "terminating": pod.terminating},
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
    }
    if pod.node:
        endpoint["nodeName"] = pod.node
    return endpoint


def _slice(
    service: Obj, spec: Obj, family: str, ports: tuple[tuple[str, int, str], ...], endpoints: list[Obj], number: int
) -> Obj:
    name, namespace = str(service.get("name")), str(service.get("namespace") or "default")
    # The name says which ports and which hundred it holds, so that every run of control finds its own slices again.
    digest = hashlib.sha256(repr((family, ports, number)).encode()).hexdigest()[:5]
    labels = {SERVICE_NAME: name, MANAGED_BY[0]: MANAGED_BY[1]}
    if spec.get("clusterIP") == "None":
        labels[HEADLESS] = ""
    owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": str(service.get("uid", ""))}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{digest}",
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": port, "port": target, "protocol": protocol} for port, target, protocol in ports],
    }
