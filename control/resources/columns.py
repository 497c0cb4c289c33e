"""What ``kubectl get`` prints for each kind.

Room: control/resources. In: an object and the time. Out: table cells, the same that a Kubernetes server sends.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["TABLES", "Cell", "Column", "human_duration"]

Obj = dict[str, Any]
Cell = str | int


@dataclass(frozen=True, eq=False)
class Column:
    """``priority`` above 0: only with ``-o wide``. ``value(obj, now)`` takes wall time in Unix seconds. ``path``: of a field
    that is printed as it is."""

    name: str
    type: str
    priority: int
    value: Callable[[Obj, float], Cell]
    format: str = ""
    description: str = ""
    path: tuple[str, ...] = ()


def human_duration(seconds: float) -> str:
    """A span as kubectl writes ages: 45s, 3m20s, 12m, 5h, 3d4h, 12d, 2y30d."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 0:
        return "0s"
    if s < 120:
        return f"{s}s"
    m = s // 60
    if m < 10:
        return f"{m}m{s % 60}s" if s % 60 else f"{m}m"
    if m < 180:
        return f"{m}m"
    h = s // 3600
    if h < 8:
        return f"{h}h{m % 60}m" if m % 60 else f"{h}h"
    if h < 48:
        return f"{h}h"
    d = h // 24
    if d < 8:
        return f"{d}d{h % 24}h" if h % 24 else f"{d}d"
    if d < 365 * 2:
        return f"{d}d"
    y = d // 365
    if y < 8:
        return f"{y}y{d % 365}d" if d % 365 else f"{y}y"
    return f"{y}y"


def dig(obj: Any, *path: str) -> Any:
    """The value at a path, or None."""
    for key in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(key)
    return obj


def _since(stamp: Any, now: float) -> str:
    if not isinstance(stamp, str):
        return "<unknown>"
    try:
        return human_duration(now - datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp())
    except ValueError:
        return "<unknown>"


def _age(obj: Obj, now: float) -> Cell:
    return _since(dig(obj, "metadata", "creationTimestamp"), now)


def _name(obj: Obj, now: float) -> Cell:
    return str(dig(obj, "metadata", "name") or "")


def _at(*path: str) -> Callable[[Obj, float], Cell]:
    """A JSONPath column of a custom resource: lists print as JSON, a missing value as nothing."""

    def value(obj: Obj, now: float) -> Cell:
        found = dig(obj, *path)
        if found is None:
            return ""
        return json.dumps(found, separators=(",", ":")) if isinstance(found, (list, dict)) else str(found)

    return value


def _count(*path: str) -> Callable[[Obj, float], Cell]:
    def value(obj: Obj, now: float) -> Cell:
        found = dig(obj, *path)
        return len(found) if isinstance(found, (list, dict)) else 0

    return value


def _containers(obj: Obj) -> list[Any]:
    return [*(dig(obj, "spec", "containers") or []), *_native_sidecars(obj)]


def _native_sidecars(obj: Obj) -> list[Any]:
    inits = dig(obj, "spec", "initContainers") or []
    return [c for c in inits if isinstance(c, dict) and c.get("restartPolicy") == "Always"]


def _statuses(obj: Obj) -> list[Obj]:
    native = {c.get("name") for c in _native_sidecars(obj)}
    inits = [s for s in dig(obj, "status", "initContainerStatuses") or [] if s.get("name") in native]
    return [*(dig(obj, "status", "containerStatuses") or []), *inits]


def _pod_ready(obj: Obj, now: float) -> Cell:
    return f"{sum(1 for s in _statuses(obj) if s.get('ready'))}/{len(_containers(obj))}"


def _pod_status(obj: Obj, now: float) -> Cell:
    if dig(obj, "metadata", "deletionTimestamp"):
        return "Terminating"
    reason = dig(obj, "status", "reason") or dig(obj, "status", "phase") or "Unknown"
    running = False
    for status in reversed(_statuses(obj)):
        waiting = dig(status, "state", "waiting", "reason")
        ended = dig(status, "state", "terminated")
        if waiting:
            reason = waiting
        elif ended:
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
        elif status.get("ready"):
            running = True
    if reason == "Completed" and running:
        reason = "Running"
    return str(reason)


def _pod_restarts(obj: Obj, now: float) -> Cell:
    total = sum(int(s.get("restartCount") or 0) for s in _statuses(obj))
    ends = [dig(s, "lastState", "terminated", "finishedAt") for s in _statuses(obj)]
    last = max((e for e in ends if isinstance(e, str)), default=None)
    return f"{total} ({_since(last, now)} ago)" if total and last else str(total)


def _or_none(*path: str) -> Callable[[Obj, float], Cell]:
    def value(obj: Obj, now: float) -> Cell:
        return str(dig(obj, *path) or "<none>")

    return value


def _svc_type(obj: Obj, now: float) -> Cell:
    return str(dig(obj, "spec", "type") or "ClusterIP")


def _svc_external(obj: Obj, now: float) -> Cell:
    kind = _svc_type(obj, now)
    given = [str(ip) for ip in dig(obj, "spec", "externalIPs") or []]
    if kind == "ExternalName":
        return str(dig(obj, "spec", "externalName") or "<none>")
    if kind == "LoadBalancer":
        ingress = dig(obj, "status", "loadBalancer", "ingress") or []
        found = [str(i.get("ip") or i.get("hostname")) for i in ingress if isinstance(i, dict)] + given
        return ",".join(found) or "<pending>"
    return ",".join(given) or "<none>"


def _svc_ports(obj: Obj, now: float) -> Cell:
    def one(port: Obj) -> str:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        return f"{port.get('port')}{node}/{port.get('protocol') or 'TCP'}"

    return ",".join(one(p) for p in dig(obj, "spec", "ports") or []) or "<none>"


def labels_text(labels: Any) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items())) if isinstance(labels, dict) and labels else "<none>"


def _selector(obj: Obj, now: float) -> Cell:
    return labels_text(dig(obj, "spec", "selector"))


def _some(values: list[str]) -> str:
    more = f" + {len(values) - 3} more..." if len(values) > 3 else ""
    return ",".join(values[:3]) + more if values else "<none>"


def _endpoints(obj: Obj, now: float) -> Cell:
    found = []
    for subset in obj.get("subsets") or []:
        ports = [f":{p.get('port')}" for p in subset.get("ports") or []] or [""]
        found += [f"{a.get('ip')}{p}" for p in ports for a in subset.get("addresses") or []]
    return _some(found)


def _slice_ports(obj: Obj, now: float) -> Cell:
    return _some([str(p.get("port")) for p in obj.get("ports") or []]).replace("<none>", "<unset>")


def _slice_addresses(obj: Obj, now: float) -> Cell:
    found = [str(a) for e in obj.get("endpoints") or [] for a in e.get("addresses") or []]
    return _some(found).replace("<none>", "<unset>")


def _config_data(obj: Obj, now: float) -> Cell:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def _deploy_ready(obj: Obj, now: float) -> Cell:
    wanted = dig(obj, "spec", "replicas")
    return f"{dig(obj, 'status', 'readyReplicas') or 0}/{1 if wanted is None else wanted}"


def _deploy_count(field: str) -> Callable[[Obj, float], Cell]:
    return lambda obj, now: int(dig(obj, "status", field) or 0)


def _template_containers(field: str) -> Callable[[Obj, float], Cell]:
    return lambda obj, now: ",".join(str(c.get(field, "")) for c in dig(obj, "spec", "template", "spec", "containers") or [])


def _event_seen(obj: Obj, now: float) -> Cell:
    return _since(obj.get("lastTimestamp") or obj.get("eventTime") or dig(obj, "metadata", "creationTimestamp"), now)


def _event_object(obj: Obj, now: float) -> Cell:
    return f"{str(dig(obj, 'involvedObject', 'kind') or '').lower()}/{dig(obj, 'involvedObject', 'name') or ''}"


NAME = Column("Name", "string", 0, _name, format="name", description="Name, unique within the namespace.")
AGE = Column("Age", "string", 0, _age, description="Time since creation.")


def _text(name: str, value: Callable[[Obj, float], Cell], wide: bool = False, type: str = "string") -> Column:
    return Column(name, type, int(wide), value)


def _field(name: str, *path: str) -> Column:
    return Column(name, "string", 0, _at(*path), path=path)


TABLES: dict[str, tuple[Column, ...]] = {
    "VirtualService": (NAME, _field("Gateways", "spec", "gateways"), _field("Hosts", "spec", "hosts"), AGE),
    "DestinationRule": (NAME, _field("Host", "spec", "host"), AGE),
    "ServiceEntry": (
        NAME,
        _field("Hosts", "spec", "hosts"),
        _field("Location", "spec", "location"),
        _field("Resolution", "spec", "resolution"),
        AGE,
    ),
    "WorkloadEntry": (NAME, AGE, _field("Address", "spec", "address")),
    "PeerAuthentication": (NAME, _field("Mode", "spec", "mtls", "mode"), AGE),
    "AuthorizationPolicy": (NAME, _field("Action", "spec", "action"), AGE),
    "Namespace": (NAME, _text("Status", lambda o, now: str(dig(o, "status", "phase") or "Active")), AGE),
    "Pod": (
        NAME,
        _text("Ready", _pod_ready),
        _text("Status", _pod_status),
        _text("Restarts", _pod_restarts),
        AGE,
        _text("IP", _or_none("status", "podIP"), wide=True),
        _text("Node", _or_none("spec", "nodeName"), wide=True),
        _text("Nominated Node", _or_none("status", "nominatedNodeName"), wide=True),
        _text("Readiness Gates", lambda o, now: "<none>", wide=True),
    ),
    "Service": (
        NAME,
        _text("Type", _svc_type),
        _text("Cluster-IP", _or_none("spec", "clusterIP")),
        _text("External-IP", _svc_external),
        _text("Port(s)", _svc_ports),
        AGE,
        _text("Selector", _selector, wide=True),
    ),
    "Endpoints": (NAME, _text("Endpoints", _endpoints), AGE),
    "EndpointSlice": (
        NAME,
        _text("AddressType", lambda o, now: str(o.get("addressType") or "")),
        _text("Ports", _slice_ports),
        _text("Endpoints", _slice_addresses),
        AGE,
    ),
    "ServiceAccount": (NAME, _text("Secrets", _count("secrets")), AGE),
    "Secret": (NAME, _text("Type", lambda o, now: str(o.get("type") or "Opaque")), _text("Data", _count("data")), AGE),
    "ConfigMap": (NAME, _text("Data", _config_data), AGE),
    "Deployment": (
        NAME,
        _text("Ready", _deploy_ready),
        _text("Up-to-date", _deploy_count("updatedReplicas")),
        _text("Available", _deploy_count("availableReplicas")),
        AGE,
        _text("Containers", _template_containers("name"), wide=True),
        _text("Images", _template_containers("image"), wide=True),
        _text("Selector", lambda o, now: labels_text(dig(o, "spec", "selector", "matchLabels")), wide=True),
    ),
    "Event": (
        _text("Last Seen", _event_seen),
        _text("Type", lambda o, now: str(o.get("type") or "")),
        _text("Reason", lambda o, now: str(o.get("reason") or "")),
        _text("Object", _event_object),
        _text("Message", lambda o, now: str(o.get("message") or "").strip()),
        Column("Name", "string", 1, _name, format="name"),
    ),
}
