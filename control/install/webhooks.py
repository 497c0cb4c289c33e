"""What the cluster's API server asks of the mesh (room ``install``).

In: ``Plan``. Out: the MutatingWebhookConfiguration of the injector, with Istio's names and selectors, and the
ValidatingWebhookConfiguration of control. ``caBundle`` is control's to write, and so is it to make the second refuse
(``failurePolicy``) once it can be asked.
"""

from __future__ import annotations

from typing import Any

from control.cluster.names import validator
from control.install.plan import Plan
from control.resources.kinds import KINDS

__all__ = ["mutating", "validating"]

Obj = dict[str, Any]
GROUP = "admissionregistration.k8s.io/v1"
INJECT, INJECTION, REV = "sidecar.istio.io/inject", "istio-injection", "istio.io/rev"
LEFT_ALONE = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"]


def _is(key: str, *values: str) -> Obj:
    return {"key": key, "operator": "In", "values": list(values)}


def _is_not(key: str, *values: str) -> Obj:
    return {"key": key, "operator": "NotIn", "values": list(values)}


def _absent(key: str) -> Obj:
    return {"key": key, "operator": "DoesNotExist"}


def mutating(plan: Plan) -> Obj:
    """A namespace's label, or a pod's; the same with the revision's name; for the default one also without a name."""
    willing = _is_not(INJECT, "false")
    hooks = [
        ("rev.namespace.", [_is(REV, plan.rev), _absent(INJECTION)], [willing]),
        ("rev.object.", [_absent(REV), _absent(INJECTION)], [willing, _is(REV, plan.rev)]),
    ]
    if not plan.revision:
        hooks += [
            ("namespace.", [_is(INJECTION, "enabled")], [willing]),
            ("object.", [_absent(INJECTION), _absent(REV)], [_is(INJECT, "true"), _absent(REV)]),
        ]
        if plan.everywhere:
            others = [_absent(INJECTION), _absent(REV), _is_not("kubernetes.io/metadata.name", *LEFT_ALONE, plan.namespace)]
            hooks.append(("auto.", others, [_absent(INJECT), _absent(REV)]))
    return {
        "apiVersion": GROUP,
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": plan.injector_name, "labels": plan.labels("istio-sidecar-injector") | {"app": "sidecar-injector"}},
        "webhooks": [
            {
                "name": f"{name}sidecar-injector.istio.io",
                "clientConfig": {"service": _service(plan, plan.injector_name, "/inject")},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
                "namespaceSelector": {"matchExpressions": namespaces},
                "objectSelector": {"matchExpressions": objects},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "reinvocationPolicy": "Never",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 10,
            }
            for name, namespaces, objects in hooks
        ],
    }


def validating(plan: Plan) -> Obj:
    """The default one judges all of the mesh's resources, another those that name it."""
    hook: Obj = {
        "name": "rev.validation.istio.io" if plan.revision else "validation.istio.io",
        "clientConfig": {"service": _service(plan, plan.control_name, "/validate")},
        "rules": [
            {
                "operations": ["CREATE", "UPDATE"],
                "apiGroups": sorted({kind.group for kind in KINDS if kind.is_mesh}),
                "apiVersions": ["*"],
                "resources": ["*"],
            }
        ],
        "failurePolicy": plan.validating_policy,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10,
    }
    if plan.revision:
        hook["objectSelector"] = {"matchExpressions": [_is(REV, plan.revision)]}
    return {
        "apiVersion": GROUP,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {
            "name": plan.own_names.get(validator(plan.namespace), validator(plan.namespace)),
            "labels": plan.labels("istiod") | {"app": "istiod"},
        },
        "webhooks": [hook],
    }


def _service(plan: Plan, name: str, path: str) -> Obj:
    return {"name": name, "namespace": plan.namespace, "path": path, "port": 443}
