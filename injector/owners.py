"""Whose pod it is: the workload's name and kind, read from the pod alone. Quiet.

In: a pod, the request's namespace. Out: ``Owner``, by Istio's rules (``GetDeployMetaFromPod``): the controller's name, where a
ReplicaSet with the pod's template hash stands for its Deployment (or Argo Rollout), a Job with a time in its name for its
CronJob, a ReplicationController of OpenShift for its DeploymentConfig. Nobody is asked, so nothing can be slow or away.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from injector.names import WORKLOAD_NAME, Obj

__all__ = ["Owner", "owner_of"]

_CRON_JOB = re.compile(r"(.+)-\d{8,10}")


class Owner(NamedTuple):
    """``name`` "": nobody can tell."""

    api_version: str
    kind: str
    name: str
    namespace: str

    @property
    def reference(self) -> str:
        """For ISTIO_META_OWNER."""
        return f"kubernetes://apis/{self.api_version}/namespaces/{self.namespace}/{self.kind.lower()}s/{self.name}"


def owner_of(pod: Obj, namespace: str) -> Owner:
    metadata = pod.get("metadata") or {}
    labels = metadata.get("labels") or {}
    namespace = metadata.get("namespace") or namespace or "default"
    owner = Owner("v1", "Pod", metadata.get("name") or "", namespace)
    controller = next((ref for ref in metadata.get("ownerReferences") or () if ref.get("controller") is True), None)
    if metadata.get("generateName") and controller is not None:
        owner = _controlled(controller, labels, namespace)
    elif not owner.name:
        owner = owner._replace(name=str(metadata.get("generateName") or "").rstrip("-."))
    named = labels.get(WORKLOAD_NAME)
    return owner._replace(name=named) if named else owner


def _controlled(controller: Obj, labels: Obj, namespace: str) -> Owner:
    kind, name = str(controller.get("kind") or ""), str(controller.get("name") or "")
    if kind == "ReplicaSet":
        for label, api_version, above in (
            ("rollouts-pod-template-hash", "argoproj.io/v1alpha1", "Rollout"),
            ("pod-template-hash", "apps/v1", "Deployment"),
        ):
            value = labels.get(label)
            if value and name.endswith(f"-{value}"):
                return Owner(api_version, above, name.removesuffix(f"-{value}"), namespace)
    elif kind == "ReplicationController" and labels.get("deploymentconfig"):
        return Owner("apps.openshift.io/v1", "DeploymentConfig", labels["deploymentconfig"], namespace)
    elif kind == "Job" and (made := _CRON_JOB.fullmatch(name)):
        return Owner("batch/v1", "CronJob", made[1], namespace)
    return Owner(str(controller.get("apiVersion") or "v1"), kind, name, namespace)
