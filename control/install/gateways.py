"""Ingress and egress gateways (room ``install``): Deployments that the injector makes gateways of.

In: ``Plan``. Out: manifests. The pods name the template ``gateway`` and hold a container ``istio-proxy`` of the image
``auto``: what runs in it is the injector's word, so that gateways are renewed as sidecars are, by a restart.
"""

from __future__ import annotations

from typing import Any

from control.install.access import account_of
from control.install.plan import Gateway, Plan
from control.install.workloads import budget, pod_spec, restricted

__all__ = ["PROMETHEUS", "gateway", "target_ports"]

Obj = dict[str, Any]
HEALTH, AGENT, PROMETHEUS = 15021, 15020, 15090


def target_ports(gateway: Gateway) -> list[int]:
    """Where its pods are reached, health among them."""
    return sorted({HEALTH, *(int(port["targetPort"]) for port in gateway.service["ports"])})


def gateway(plan: Plan, one: Gateway) -> list[Obj]:
    labels = plan.labels(one.name) | one.labels
    metadata = {"name": one.name, "namespace": one.namespace, "labels": labels}
    service = dict(metadata)
    if one.service_annotations:
        service["annotations"] = one.service_annotations
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": service, "spec": {**one.service, "selector": one.labels}},
        budget(one.name, one.namespace, labels, one.labels, one.work),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": one.work.replicas,
                "selector": {"matchLabels": one.labels},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
                "template": _template(plan, one, labels),
            },
        },
    ]


def _template(plan: Plan, one: Gateway, labels: dict[str, str]) -> Obj:
    named = {"sidecar.istio.io/inject": "true", "service.istio.io/canonical-name": one.name}
    container: Obj = {
        "name": "istio-proxy",
        "image": "auto",
        "ports": [{"containerPort": port, "protocol": "TCP"} for port in target_ports(one)],
        "securityContext": restricted(),
        "resources": one.work.resources,
    }
    if one.work.env:
        container["env"] = list(one.work.env)
    if one.work.pull_policy:
        container["imagePullPolicy"] = one.work.pull_policy
    spec = pod_spec(plan, one.work, account_of(one), one.labels, token=False)
    return {
        "metadata": {
            "labels": labels | named,
            "annotations": {"inject.istio.io/templates": "gateway", **one.work.pod_annotations},
        },
        "spec": spec | {"containers": [container]},
    }
