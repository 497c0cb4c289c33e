"""Which kinds control follows in a cluster, and how much of each (room ``store/kubernetes``), quiet.

In: the root namespace. Out: a ``Place`` per list and watch. What stands here is what control's role has to allow
(``control/cluster/rbac.py``): get, list and watch, nothing else. Secrets are followed only in namespaces where a gateway runs.
"""

from __future__ import annotations

from control.resources.kinds import KINDS, Kind, by_kind
from control.resources.mesh_config import MESH_CONFIG
from control.store.kubernetes.reflector import Place

__all__ = ["NODE", "SECRET", "places", "secrets"]

SECRET = by_kind("", "Secret")
# Nodes are no kind of ours: only their labels are read, for the region and zone of pods.
NODE = Kind("", ("v1",), "Node", "nodes", "node", (), False, dict, ())
# Endpoints repeat what EndpointSlices say, Deployments and Events change nothing that a mesh does.
_LEFT_OUT = frozenset(("Endpoints", "Event", "Deployment", "Secret", "ConfigMap", "ServiceAccount"))
# Of other Secrets a gateway has no use; tokens and releases are the largest of them.
_NOT = "type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1,type!=istio.io/ca-root"


def places(root_namespace: str, mesh_config: str = MESH_CONFIG) -> tuple[Place, ...]:
    """All but Secrets. Needed before a configuration can be made, unless ``optional``. ``mesh_config``: the ConfigMap's name."""
    every = (Place(kind=kind) for kind in KINDS if kind.kind not in _LEFT_OUT)
    config = Place(kind=by_kind("", "ConfigMap"), namespace=root_namespace, fields=f"metadata.name={mesh_config}")
    accounts = Place(kind=by_kind("", "ServiceAccount"), optional=True, metadata=True)
    return (*every, config, accounts, Place(kind=NODE, optional=True, metadata=True))


def secrets(namespace: str) -> Place:
    """Those that gateways of this namespace may name. Without leave to read them the gateways say so (NO_CREDENTIAL)."""
    return Place(kind=SECRET, namespace=namespace, fields=_NOT, optional=True)
