"""What the API fills in or keeps on a write, as a Kubernetes API server does.

Room: control/serve/kube; pure. In: an object as a client sent it, and the stored one. Out: the object to store. The user's fields
are never changed, only missing ones filled, and always the same way, so that ``kubectl diff`` of an applied file is empty.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

__all__ = ["carry_over", "fill"]

Obj = dict[str, Any]

# Which fields are the server's: a client's values for them are not believed.
_SERVER_META = ("uid", "creationTimestamp", "generation", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds")


def carry_over(obj: Obj, stored: Obj | None, subresource: str) -> Obj:
    """The object to store: what this request may change from ``obj``, all else from ``stored`` (None: a creation).

    A plain write leaves ``status`` alone and ``/status`` leaves everything else alone, as for every kind with a status
    subresource.
    """
    meta = dict(obj.get("metadata") or {})
    before: Obj = (stored or {}).get("metadata") or {}
    meta.pop("managedFields", None)
    for key in _SERVER_META:
        meta.pop(key, None)
        if key in before:
            meta[key] = before[key]
    for key in ("labels", "annotations"):
        if key in meta and not meta[key]:
            del meta[key]
    if subresource == "status":
        assert stored is not None
        kept = dict(stored)
        kept.pop("status", None)
        kept_meta = dict(before)
        if meta.get("resourceVersion"):
            kept_meta["resourceVersion"] = meta["resourceVersion"]
        kept["metadata"] = kept_meta
        return {**kept, "status": obj["status"]} if obj.get("status") is not None else kept
    made = {**obj, "metadata": meta}
    if obj.get("kind") in _STATELESS:
        return made
    made.pop("status", None)
    if stored is not None and "status" in stored:
        made["status"] = stored["status"]
    return made


_STATELESS = frozenset({"Event", "Endpoints", "EndpointSlice", "ConfigMap", "Secret", "ServiceAccount"})


def fill(obj: Obj) -> Obj:
    """The defaults of core kinds, in place; other kinds are left as they are given."""
    filler = _FILLERS.get(str(obj.get("kind"))) if obj.get("apiVersion") in _CORE else None
    if filler is not None:
        filler(obj)
    return obj


_CORE = ("v1", "apps/v1", "discovery.k8s.io/v1")


def _objects(values: Any) -> list[Obj]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _spec(obj: Obj) -> Obj:
    spec = obj.get("spec")
    return spec if isinstance(spec, dict) else {}


def _service(obj: Obj) -> None:
    spec = _spec(obj)
    if not spec:
        return
    spec.setdefault("type", "ClusterIP")
    if spec["type"] != "ExternalName":
        spec.setdefault("sessionAffinity", "None")
    for port in _objects(spec.get("ports")):
        port.setdefault("protocol", "TCP")
        if "port" in port:
            port.setdefault("targetPort", port["port"])


def _pod_spec(spec: Any) -> None:
    if not isinstance(spec, dict):
        return
    spec.setdefault("restartPolicy", "Always")
    for container in _objects(spec.get("containers")) + _objects(spec.get("initContainers")):
        for port in _objects(container.get("ports")):
            port.setdefault("protocol", "TCP")


def _pod(obj: Obj) -> None:
    _pod_spec(obj.get("spec"))
    status = obj.setdefault("status", {})
    if isinstance(status, dict):
        status.setdefault("phase", "Pending")


def _namespace(obj: Obj) -> None:
    name = (obj.get("metadata") or {}).get("name")
    if isinstance(name, str):
        labels = obj["metadata"].get("labels")
        obj["metadata"]["labels"] = {
            **(labels if isinstance(labels, dict) else {}),
            "kubernetes.io/metadata.name": name,
        }
    status = obj.setdefault("status", {})
    if isinstance(status, dict):
        status.setdefault("phase", "Active")


def _secret(obj: Obj) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        data = dict(obj.get("data") or {})
        data.update({key: base64.b64encode(str(text).encode()).decode() for key, text in plain.items()})
        obj["data"] = data


def _deployment(obj: Obj) -> None:
    spec = _spec(obj)
    if not spec:
        return
    spec.setdefault("replicas", 1)
    template = spec.get("template")
    if isinstance(template, dict):
        _pod_spec(template.get("spec"))


_FILLERS: dict[str, Callable[[Obj], None]] = {
    "Service": _service,
    "Pod": _pod,
    "Namespace": _namespace,
    "Secret": _secret,
    "Deployment": _deployment,
}
