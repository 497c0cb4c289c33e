"""What is kept of an object (room ``store/kubernetes``), quiet: a large cluster's pods would not fit otherwise.

In: an object as the API server sends it, and its kind. Out: the same, less what nothing here reads, or None when it is no object.
The mesh's own kinds are kept whole but for the bookkeeping of writers. Of Secrets only the members that gateways use are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from control.resources.kinds import Kind
from control.store.api import Obj

__all__ = ["slim"]

_META = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_CREDENTIALS = frozenset(("tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"))
_POD_SPEC = ("serviceAccountName", "nodeName", "hostNetwork", "hostname", "subdomain")
_CONTAINER = ("name", "image", "ports", "restartPolicy")
_POD_STATUS = ("phase", "podIP", "podIPs", "hostIP", "reason")
_CONTAINER_STATUS = ("name", "ready", "restartCount")


def slim(kind: Kind, obj: Any, *, whole: bool = False) -> Obj | None:
    """Changes ``obj``, which is the caller's own. ``whole``: only what writers note about themselves goes."""
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        return None
    meta = obj["metadata"]
    if not isinstance(meta.get("name"), str) or not meta["name"]:
        return None
    if kind.namespaced and not isinstance(meta.get("namespace"), str):
        return None
    if not kind.is_mesh:
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind  # where only metadata was asked for, they say so instead
    else:
        obj.setdefault("apiVersion", kind.api_version)  # the items of a list have none
        obj.setdefault("kind", kind.kind)
        meta.pop("managedFields", None)
        return obj
    obj["metadata"] = meta = _pick(meta, _META)
    if isinstance(meta.get("annotations"), dict):
        meta["annotations"].pop(_LAST_APPLIED, None)
        if not meta["annotations"]:
            del meta["annotations"]
    shorten = _SHORTEN.get(kind.kind) if not whole else None
    return shorten(obj) if shorten is not None else obj


def _pod(obj: Obj) -> Obj:
    spec, status = _dict(obj.get("spec")), _dict(obj.get("status"))
    kept = _pick(spec, _POD_SPEC)
    for field in ("containers", "initContainers"):
        if isinstance(spec.get(field), list):
            kept[field] = [_pick(one, _CONTAINER) if isinstance(one, dict) else one for one in spec[field]]
    obj["spec"] = kept
    if status:
        said = _pick(status, _POD_STATUS)
        # Times of transitions change nothing that a mesh does.
        said["conditions"] = [_pick(one, ("type", "status", "reason")) for one in _dicts(status.get("conditions"))]
        for field in ("containerStatuses", "initContainerStatuses"):
            if status.get(field):
                said[field] = [_pick(one, _CONTAINER_STATUS) for one in _dicts(status[field])]
        obj["status"] = said
    return obj


def _secret(obj: Obj) -> Obj:
    data = _dict(obj.get("data"))
    obj["data"] = {name: value for name, value in data.items() if name in _CREDENTIALS}
    obj.pop("stringData", None)
    return obj


def _metadata_only(obj: Obj) -> Obj:
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": obj["metadata"]}


_SHORTEN: dict[str, Callable[[Obj], Obj]] = {
    "Pod": _pod,
    "Secret": _secret,
    "ServiceAccount": _metadata_only,
    "Node": _metadata_only,
}


def _pick(given: Obj, fields: Iterable[str]) -> Obj:
    return {field: given[field] for field in fields if field in given}


def _dict(value: Any) -> Obj:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Obj]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
