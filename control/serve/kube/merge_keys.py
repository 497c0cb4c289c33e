"""How lists merge under a strategic merge patch: Kubernetes' own patchStrategy and patchMergeKey tags, as data.

Room: control/serve/kube. In: nothing. Out: ``types()`` (the fields of every core type) and ``strategy(type, field)``. Types come
from ``core_fields.json``, written from the Kubernetes API's published models (v1.36, Apache-2.0): field -> ``s`` string,
``i`` integer, ``b`` boolean, ``n`` number, ``*`` anything, ``[T`` list, ``{T`` map, else a type's name.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Strategy", "extensions", "field_type", "strategy", "types"]


class Strategy(NamedTuple):
    """``merge`` an element list by ``key`` (or, with no key, as a set of scalars) instead of replacing it."""

    merge: bool
    key: str = ""


_REPLACE = Strategy(False)
_BY_TYPE = Strategy(True, "type")
_BY_NAME = Strategy(True, "name")

# From the patchStrategy tags in k8s.io/api {core,apps,discovery}/v1 types.go and apimachinery meta/v1.
_MERGED: dict[tuple[str, str], Strategy] = {
    ("ObjectMeta", "ownerReferences"): Strategy(True, "uid"),
    ("ObjectMeta", "finalizers"): Strategy(True),
    ("PodSpec", "containers"): _BY_NAME,
    ("PodSpec", "initContainers"): _BY_NAME,
    ("PodSpec", "ephemeralContainers"): _BY_NAME,
    ("PodSpec", "volumes"): _BY_NAME,
    ("PodSpec", "imagePullSecrets"): _BY_NAME,
    ("PodSpec", "hostAliases"): Strategy(True, "ip"),
    ("PodSpec", "topologySpreadConstraints"): Strategy(True, "topologyKey"),
    ("PodSpec", "schedulingGates"): _BY_NAME,
    ("PodSpec", "resourceClaims"): _BY_NAME,
    ("Container", "ports"): Strategy(True, "containerPort"),
    ("Container", "env"): _BY_NAME,
    ("Container", "volumeMounts"): Strategy(True, "mountPath"),
    ("Container", "volumeDevices"): Strategy(True, "devicePath"),
    ("EphemeralContainer", "ports"): Strategy(True, "containerPort"),
    ("EphemeralContainer", "env"): _BY_NAME,
    ("EphemeralContainer", "volumeMounts"): Strategy(True, "mountPath"),
    ("EphemeralContainer", "volumeDevices"): Strategy(True, "devicePath"),
    ("PodStatus", "conditions"): _BY_TYPE,
    ("PodStatus", "podIPs"): Strategy(True, "ip"),
    ("PodStatus", "hostIPs"): Strategy(True, "ip"),
    ("PodStatus", "resourceClaimStatuses"): _BY_NAME,
    ("ServiceSpec", "ports"): Strategy(True, "port"),
    ("ServiceStatus", "conditions"): _BY_TYPE,
    ("NamespaceStatus", "conditions"): _BY_TYPE,
    ("DeploymentStatus", "conditions"): _BY_TYPE,
    ("ServiceAccount", "secrets"): _BY_NAME,
}

# Unions: a patch also says which members stay, so that the others go (patchStrategy retainKeys).
_RETAINED = frozenset({("PodSpec", "volumes"), ("PodSpec", "resourceClaims"), ("DeploymentSpec", "strategy")})


@cache
def types() -> dict[str, dict[str, str]]:
    """Every core type: its fields and what they hold."""
    text = files("control.serve.kube").joinpath("core_fields.json").read_text()
    loaded: dict[str, dict[str, str]] = json.loads(text)
    return loaded


def field_type(owner: str, field: str) -> str:
    """What a field of a type holds; ``*`` when the type or field is not known."""
    return types().get(owner, {}).get(field, "*")


def strategy(owner: str, field: str) -> Strategy:
    """How the list ``field`` of type ``owner`` takes a patch."""
    return _MERGED.get((owner, field), _REPLACE)


def extensions(owner: str, field: str) -> dict[str, str]:
    """The same as OpenAPI extensions, from which kubectl makes its patches."""
    plan = strategy(owner, field)
    words = [word for word, holds in (("merge", plan.merge), ("retainKeys", (owner, field) in _RETAINED)) if holds]
    found = {"x-kubernetes-patch-strategy": ",".join(words)} if words else {}
    if plan.key:
        found["x-kubernetes-patch-merge-key"] = plan.key
    return found
