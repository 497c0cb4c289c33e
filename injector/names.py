"""The field's names: annotations, labels, containers and paths of injection. Quiet.

In: nothing. Out: constants, spelled as in Istio, so that pods made for it mean the same here.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "APP_PROBERS",
    "CANONICAL_NAME",
    "CANONICAL_REVISION",
    "CLUSTER",
    "INIT",
    "INJECT",
    "NETWORK",
    "Obj",
    "OVERRIDES",
    "PROMETHEUS_ENV",
    "PROXY",
    "PROXY_CONFIG",
    "STATUS",
    "TEMPLATES",
    "VALIDATION",
    "WORKLOAD_NAME",
    "name_of",
]

Obj = dict[str, Any]

PROXY = "istio-proxy"
INIT = "istio-init"
VALIDATION = "istio-validation"

INJECT = "sidecar.istio.io/inject"
STATUS = "sidecar.istio.io/status"
OVERRIDES = "proxy.istio.io/overrides"
PROXY_CONFIG = "proxy.istio.io/config"
TEMPLATES = "inject.istio.io/templates"

CANONICAL_NAME = "service.istio.io/canonical-name"
CANONICAL_REVISION = "service.istio.io/canonical-revision"
WORKLOAD_NAME = "service.istio.io/workload-name"
NETWORK = "topology.istio.io/network"
CLUSTER = "topology.istio.io/cluster"

APP_PROBERS = "ISTIO_KUBE_APP_PROBERS"
PROMETHEUS_ENV = "ISTIO_PROMETHEUS_ANNOTATIONS"


def name_of(metadata: Obj) -> str:
    """What to call a pod that may have no name yet."""
    if metadata.get("name"):
        return str(metadata["name"])
    return f"{metadata['generateName']}***** (actual name not yet known)" if metadata.get("generateName") else "(unnamed)"
