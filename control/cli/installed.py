"""What of a mesh is in a cluster, ours or another's: for ``install``, ``uninstall``, ``verify-install``, ``x precheck``,
``upgrade``.

In: an API client. Out: paths of objects, ``Cluster`` (what was found), and comparisons of what was wanted with what is
there. Lists are read without their objects' bodies where names and labels are enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control.client.api import Api
    from control.install.plan import Plan

__all__ = ["KINDS", "Cluster", "collection", "differences", "get", "inspect", "ours", "path", "said", "survey"]

Obj = dict[str, Any]
PATIENCE = 5.0  # seconds for a cluster that may not be there
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=1,application/json"
ADMISSION, RBAC = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
# kind -> group and version, plural, namespaced; in the order in which they are removed
KINDS: dict[str, tuple[str, str, bool]] = {
    "MutatingWebhookConfiguration": (f"apis/{ADMISSION}/v1", "mutatingwebhookconfigurations", False),
    "ValidatingWebhookConfiguration": (f"apis/{ADMISSION}/v1", "validatingwebhookconfigurations", False),
    "Deployment": ("apis/apps/v1", "deployments", True),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets", True),
    "Service": ("api/v1", "services", True),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies", True),
    "ConfigMap": ("api/v1", "configmaps", True),
    "RoleBinding": (f"apis/{RBAC}/v1", "rolebindings", True),
    "Role": (f"apis/{RBAC}/v1", "roles", True),
    "ClusterRoleBinding": (f"apis/{RBAC}/v1", "clusterrolebindings", False),
    "ClusterRole": (f"apis/{RBAC}/v1", "clusterroles", False),
    "ServiceAccount": ("api/v1", "serviceaccounts", True),
    "Secret": ("api/v1", "secrets", True),
    "Lease": ("apis/coordination.k8s.io/v1", "leases", True),
    "CustomResourceDefinition": ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "Namespace": ("api/v1", "namespaces", False),
}


def collection(kind: str, namespace: str = "") -> str:
    group, plural, namespaced = KINDS[kind]
    return f"/{group}/namespaces/{namespace}/{plural}" if namespaced and namespace else f"/{group}/{plural}"


def path(obj: Obj) -> str:
    metadata = obj["metadata"]
    return f"{collection(obj['kind'], metadata.get('namespace', ''))}/{metadata['name']}"


def said(obj: Obj) -> str:
    """As kubectl says it: ``deployment.apps/istiod``."""
    group = KINDS[obj["kind"]][0].split("/")[1] if KINDS[obj["kind"]][0].startswith("apis/") else ""
    word = f"{obj['kind'].lower()}.{group}" if group else obj["kind"].lower()
    return f"{word}/{obj['metadata']['name']}"


def ours(obj: Obj) -> bool:
    from control.install.plan import PART_OF

    labels = obj["metadata"].get("labels") or {}
    return bool(labels.get("app.kubernetes.io/part-of") == PART_OF)


def get(api: Api, obj: Obj) -> Obj | None:
    from control.client.api import ApiError

    try:
        found: Obj = api.request("GET", path(obj))
    except ApiError as refused:
        if refused.code == 404:
            return None
        raise
    return found


def survey(api: Api, kind: str, selector: str = "", namespace: str = "") -> list[Obj]:
    """Names and labels of all; a kind that the cluster has not: none."""
    from control.client.api import ApiError

    params = {"labelSelector": selector} if selector else {}
    try:
        found = api.request("GET", collection(kind, namespace), params=params, accept=NAMES_ONLY)["items"]
    except ApiError as refused:
        if refused.code == 404:
            return []
        raise
    return [{**one, "kind": kind} for one in found]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """``problem``: why there is nothing to know. ``foreign``: Deployments and webhook configurations of another mesh."""

    problem: str = ""
    version: str = ""
    kubelet: str = ""  # the oldest
    foreign: tuple[Obj, ...] = ()
    foreign_crds: tuple[str, ...] = ()
    crds: tuple[str, ...] = ()
    gateways: tuple[Obj, ...] = ()  # Deployments that bear a gateway's name and are not ours
    validating: str = ""  # the failurePolicy that ours has now
    revisions: tuple[str, ...] = ()  # of ours


def inspect(api: Api, plan: Plan | None) -> Cluster:
    """Raises what the API client raises."""
    version = str(api.request("GET", "/version").get("gitVersion") or "")
    if version.endswith("+pymesh"):
        return Cluster(problem=f"{api.target.source} is of a mesh without a cluster", version=version)
    istiods = survey(api, "Deployment", "app in (istiod, istio-pilot, pilot)")
    hooks = survey(api, "MutatingWebhookConfiguration", "app=sidecar-injector")
    # a revision's tag is a webhook configuration as well; without a control plane it injects nothing
    others = [one for one in (*istiods, *hooks) if not ours(one)]
    crds = [one for one in survey(api, "CustomResourceDefinition") if one["metadata"]["name"].endswith(".istio.io")]
    validating, gateways = "", []
    if plan is not None:
        from control.install.webhooks import validating as wanted

        live = get(api, wanted(plan))
        hooks_there = (live or {}).get("webhooks") or ()
        if live is not None and ours(live) and all(hook.get("clientConfig", {}).get("caBundle") for hook in hooks_there):
            validating = next((str(hook.get("failurePolicy") or "") for hook in hooks_there), "")
        for one in plan.gateways:
            there = get(api, {"kind": "Deployment", "metadata": {"name": one.name, "namespace": one.namespace}})
            gateways += [{**there, "kind": "Deployment"}] if there is not None and not ours(there) else []
    return Cluster(
        version=version,
        kubelet=_oldest(api),
        foreign=tuple(others),
        foreign_crds=tuple(one["metadata"]["name"] for one in crds if not ours(one)),
        crds=tuple(one["metadata"]["name"] for one in crds),
        gateways=tuple(gateways),
        validating=validating,
        revisions=tuple(sorted({revision(one) for one in istiods if ours(one)})),
    )


def revision(obj: Obj) -> str:
    return str((obj["metadata"].get("labels") or {}).get("istio.io/rev") or "default")


def _oldest(api: Api) -> str:
    """Of all kubelets: what they can do decides on native sidecars. "" when they may not be seen."""
    from control.client.api import ApiError

    try:
        nodes = api.request("GET", "/api/v1/nodes")["items"]
    except ApiError:
        return ""
    found = [str(node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion") or "") for node in nodes]
    numbered = [(tuple(map(int, match.groups())), text) for text in found if (match := re.match(r"v?(\d+)\.(\d+)", text))]
    if not numbered or len(numbered) < len(found):
        return ""
    major, minor = min(numbered)[0]
    return f"{major}.{minor}"


def differences(wanted: Any, live: Any, at: str = "") -> list[str]:
    """Where what is there is not what was wanted; what the cluster adds is no difference."""
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return [at]
        return [one for key, value in wanted.items() for one in differences(value, live.get(key), f"{at}.{key}" if at else key)]
    if isinstance(wanted, list):
        if wanted and all(isinstance(one, dict) and "name" in one for one in wanted) and isinstance(live, list):
            named = {one.get("name"): one for one in live if isinstance(one, dict)}
            return [hit for one in wanted for hit in differences(one, named.get(one["name"]), f"{at}[{one['name']}]")]
        if not isinstance(live, list) or len(live) != len(wanted):
            return [] if not wanted and live is None else [at]
        return [
            hit for i, (one, there) in enumerate(zip(wanted, live, strict=True)) for hit in differences(one, there, f"{at}[{i}]")
        ]
    if wanted in ("", None, False) and live is None:
        return []
    return [] if wanted == live or _amount(at, wanted, live) else [at]


def _amount(at: str, wanted: Any, live: Any) -> bool:
    """``2000m`` is ``2``: an API server writes quantities its own way."""
    if ".requests." not in at and ".limits." not in at and not at.endswith("sizeLimit"):
        return False
    from injector.quantity import read

    try:
        return bool(read(str(wanted)) == read(str(live)))
    except ValueError:
        return False
