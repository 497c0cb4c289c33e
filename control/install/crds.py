"""CustomResourceDefinitions of the mesh's kinds, from the structs that control reads them with (room ``install``).

In: ``KINDS``. Out: manifests. Every version that Istio serves is served with one schema, and stored in Istio's storage
version, so that objects and definitions of Istio's that are there already go on being good. Schemas are structural; where
Istio has free form unknown fields are kept. ``status`` is a subresource.
"""

from __future__ import annotations

from typing import Any

from control.resources.kinds import KINDS, Kind
from control.resources.schema import openapi

__all__ = ["definition", "definitions", "storage_version"]

Obj = dict[str, Any]
KEEP = "x-kubernetes-preserve-unknown-fields"
FORMATS = ("date-time", "duration")  # of ours those that API servers know, and judge as we do
CREATED = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Time since creation."}


def definitions(labels: dict[str, str]) -> list[Obj]:
    return [definition(kind, labels) for kind in KINDS if kind.is_mesh]


def storage_version(kind: Kind) -> str:
    """Istio's: the oldest but one of those that are still written, not the newest."""
    return "v1beta1" if "v1beta1" in kind.versions else kind.versions[-1]


def definition(kind: Kind, labels: dict[str, str]) -> Obj:
    names: Obj = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "categories": list(kind.categories),
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource, "labels": labels},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [_version(kind, version) for version in kind.versions],
        },
    }


def _version(kind: Kind, version: str) -> Obj:
    return {
        "name": version,
        "served": True,
        "storage": version == storage_version(kind),
        "schema": {"openAPIV3Schema": schema(kind)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(kind),
    }


def schema(kind: Kind) -> Obj:
    """As structural schemas must be: nothing of the metadata, which is Kubernetes' own, and no form that it does not know."""
    found = openapi(kind)
    found.pop("x-kubernetes-group-version-kind", None)
    properties = found["properties"]
    properties["metadata"] = {"type": "object"}
    properties["status"] = {"type": "object", KEEP: True}
    made: Obj = _structural(found)
    return made


def _structural(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_structural(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        name: {field: _structural(one) for field, one in value.items()} if name == "properties" else _structural(value)
        for name, value in schema.items()
        if name != "format" or value in FORMATS
    }
    if KEEP in made and "type" not in made:
        made["type"] = "object"
    return made


def _columns(kind: Kind) -> list[Obj]:
    """``kubectl get`` prints the name by itself."""
    found: list[Obj] = []
    for column in kind.columns:
        if column.name == "Age":
            found.append(CREATED)
        elif column.path:
            path = "".join(f".{part}" for part in column.path)
            found.append({"name": column.name, "type": column.type, "jsonPath": path})
    return found
