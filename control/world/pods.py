"""World, pods: the facts about a pod that configuration depends on, and the peer metadata made from them.

In: typed Pods, labels. Out: ``PodInfo`` and ``Workload``. A status change that alters none of these facts gives an equal
``PodInfo``, so that nothing is recomputed for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from control.resources.core import Pod
from meshproxy.model.cluster import Locality, Workload

__all__ = ["PodInfo", "labels_workload", "locality_of", "parse_locality", "pod_info"]

_TEMPLATES = "inject.istio.io/templates"
_INTERCEPTION = "sidecar.istio.io/interceptionMode"
_EXCLUDED = "traffic.sidecar.istio.io/excludeInboundPorts"
_INCLUDED = "traffic.sidecar.istio.io/includeInboundPorts"
_INITS = frozenset(
    ("istio-init", "istio-validation")
)  # who lays the rules, or, where a CNI plugin does, looks that they are there
_OVER = frozenset(("Succeeded", "Failed"))  # phases
_ANNOTATIONS = ("mesh.dev/inbound-ports", "mesh.dev/role", "mesh.dev/gateway-bind", _TEMPLATES, _EXCLUDED, _INCLUDED)
_REPLICA_SET = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\Z")
_TEMPLATE_HASH = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{6,10}\Z")
_POD_HASH = re.compile(r"-[0-9a-f]{8,10}\Z")


class PodInfo(msgspec.Struct, frozen=True):
    """``ports`` are (name, number) of container ports. ``annotations`` holds only those that configuration reads.

    ``intercepted``: iptables sends the pod's connections to its sidecar. ``dual``: some address of the pod is IPv6. ``ip`` is ""
    for a pod that is over: Kubernetes gives its address to others. ``on_host``: it is the node's, and not of this pod alone.
    """

    namespace: str
    name: str
    ip: str
    ready: bool
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, str], ...]
    service_account: str
    ports: tuple[tuple[str, int], ...]
    locality: Locality | None
    workload: Workload
    intercepted: bool = False
    dual: bool = False
    on_host: bool = False

    def annotation(self, name: str) -> str:
        for key, value in self.annotations:
            if key == name:
                return value
        return ""

    @property
    def excluded_ports(self) -> frozenset[int]:
        """Of connections that come in, those that are not intercepted."""
        return _numbers(self.annotation(_EXCLUDED))

    def bypassed(self, port: int) -> bool:
        """Whether who comes in on this port meets the app itself, not the sidecar."""
        if not self.intercepted:
            return False
        included = next((value.strip() for key, value in self.annotations if key == _INCLUDED), "*")
        return port in self.excluded_ports or (included != "*" and port not in _numbers(included))

    @property
    def role(self) -> str:
        """``gateway`` by annotation, by its injection template, or by the label of Istio's gateways; else ``sidecar``."""
        templates = (one.strip() for one in self.annotation(_TEMPLATES).split(","))
        if self.annotation("mesh.dev/role") == "gateway" or "gateway" in templates:
            return "gateway"
        for key, value in self.labels:
            if key == "istio" and value in ("ingressgateway", "egressgateway"):
                return "gateway"
        return "sidecar"


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(one) for one in map(str.strip, text.split(",")) if one.isdecimal())


def pod_info(pod: Pod) -> PodInfo:
    meta, status = pod.metadata, pod.status
    labels, annotations = meta.labels or {}, meta.annotations or {}
    ready = status is not None and any(c.type == "Ready" and c.status == "True" for c in status.conditions)
    account = pod.spec.service_account_name or "default"
    return PodInfo(
        namespace=meta.namespace,
        name=meta.name,
        ip=status.pod_ip if status and status.phase not in _OVER else "",
        ready=ready,
        labels=tuple(sorted(labels.items())),
        annotations=tuple((key, annotations[key]) for key in _ANNOTATIONS if key in annotations),
        service_account=account,
        ports=tuple((p.name, p.container_port) for c in pod.spec.containers for p in c.ports if p.name),
        locality=locality_of(labels, annotations),
        workload=labels_workload(
            labels,
            namespace=meta.namespace,
            pod=meta.name,
            workload=_workload_name(pod, labels),
            service_account=account,
        ),
        intercepted=_intercepted(pod, annotations),
        dual=status is not None and any(":" in ip for ip in (status.pod_ip, *(one.ip for one in status.pod_ips))),
        on_host=pod.spec.host_network,
    )


def _intercepted(pod: Pod, annotations: Mapping[str, str]) -> bool:
    """By the init container of an injected pod; without one, whoever lays the rules says so: ``interceptionMode: REDIRECT``.
    Where ports are moved there is nothing to intercept.
    """
    mode = annotations.get(_INTERCEPTION, "")
    if mode == "NONE" or "mesh.dev/inbound-ports" in annotations:
        return False
    return mode == "REDIRECT" or any(one.name in _INITS for one in pod.spec.init_containers)


def labels_workload(
    labels: Mapping[str, str], *, namespace: str, pod: str = "", workload: str = "", service_account: str = ""
) -> Workload:
    """Peer metadata from labels, by Istio's fallbacks (canonical service and revision: injection checklist F)."""
    name, version = labels.get("app.kubernetes.io/name", ""), labels.get("app.kubernetes.io/version", "")
    app = labels.get("app", "") or name
    workload = workload or app
    return Workload(
        pod=pod,
        namespace=namespace,
        workload=workload,
        app=app,
        version=labels.get("version", "") or version,
        canonical_service=labels.get("service.istio.io/canonical-name", "") or name or labels.get("app", "") or workload,
        canonical_revision=labels.get("service.istio.io/canonical-revision", "")
        or version
        or labels.get("version", "")
        or "latest",
        service_account=service_account,
    )


def locality_of(labels: Mapping[str, str], annotations: Mapping[str, str] | None = None) -> Locality | None:
    """Where a workload runs: label ``istio-locality`` (region.zone.subzone), else the topology labels or annotations."""
    if labels.get("istio-locality"):
        return parse_locality(labels["istio-locality"].replace(".", "/"))
    notes = annotations or {}
    region, zone, sub = (
        labels.get(key) or notes.get(key) or ""
        for key in ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
    )
    return Locality(region=region, zone=zone, sub_zone=sub) if region or zone or sub else None


def parse_locality(text: str) -> Locality | None:
    """``region/zone/subzone``, shorter forms allowed; empty is ``None``."""
    if not text:
        return None
    parts = [*text.split("/", 2), "", ""]
    return Locality(region=parts[0], zone=parts[1], sub_zone=parts[2])


def _workload_name(pod: Pod, labels: Mapping[str, str]) -> str:
    """The name of what made the pod: label, owner (its hash cut off), or the pod's own name.

    The demo's pods have no owner; two versions of one app must stay two workloads, so the pod's name is the better fallback
    there than ``app.kubernetes.io/name``.
    """
    explicit = labels.get("service.istio.io/workload-name", "")
    if explicit:
        return explicit
    for owner in pod.metadata.owner_references:
        if owner.controller or len(pod.metadata.owner_references) == 1:
            template_hash = labels.get("pod-template-hash", "")
            if owner.kind == "ReplicaSet" and template_hash:
                return owner.name.removesuffix("-" + template_hash)
            return _TEMPLATE_HASH.sub("", owner.name) if owner.kind == "ReplicaSet" else owner.name
    name = pod.metadata.name
    for pattern in (_REPLICA_SET, _POD_HASH):
        if pattern.search(name):
            return pattern.sub("", name)
    return name
