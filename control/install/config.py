"""Namespaces, and the two ConfigMaps that are the mesh's settings (room ``install``).

In: ``Plan``. Out: manifests: ``istio`` (``mesh``: the MeshConfig) and ``istio-sidecar-injector`` (``values``: the injector's
settings).
"""

from __future__ import annotations

from typing import Any

import yaml

from control.install.plan import Plan

__all__ = ["maps", "namespace"]

Obj = dict[str, Any]


def namespace(plan: Plan, name: str) -> Obj:
    """Without the labels of an installation: who removes that leaves the namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def maps(plan: Plan) -> list[Obj]:
    return [
        _map(plan, plan.mesh_map, "istiod", {"mesh": _yaml(plan.mesh)}),
        _map(plan, plan.injector_name, "istio-sidecar-injector", {"values": _yaml(plan.injector)}),
    ]


def _map(plan: Plan, name: str, component: str, data: dict[str, str]) -> Obj:
    metadata = {"name": name, "namespace": plan.namespace, "labels": plan.labels(component)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _yaml(value: Obj) -> str:
    dumped: str = yaml.safe_dump(value, default_flow_style=False, allow_unicode=True)
    return dumped
