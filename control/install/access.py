"""Accounts, and what each may do (room ``install``).

In: ``Plan``, and control's needs as ``control.cluster.rbac`` states them. Out: manifests. Only control may do anything at the
API server: the injector and gateways have accounts without rights, and no token of theirs is mounted but the one for control.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from control.cluster.names import INJECTOR
from control.cluster.rbac import PEOPLE, Rule, cluster_rules, gateway_rules, people_rules, root_rules
from control.install.plan import Gateway, Plan

__all__ = ["access", "account_of"]

Obj = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"


def account_of(gateway: Gateway) -> str:
    return f"{gateway.name}-service-account"


def access(plan: Plan) -> list[Obj]:
    root, name = plan.namespace, plan.control_name
    cluster_wide = f"{plan.named('istiod-clusterrole')}-{root}"
    labels = plan.labels("istiod") | {"app": "istiod"}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": root}
    found = [
        _account(name, root, labels, mounted=True, plan=plan),
        _account(plan.injector_name, root, plan.labels(INJECTOR) | {"app": "sidecar-injector"}, plan=plan),
        _role("ClusterRole", cluster_wide, "", labels, _rules(plan, cluster_rules(root))),
        _binding("ClusterRole", cluster_wide, "", labels, subject),
        _role("Role", name, root, labels, _rules(plan, root_rules())),
        _binding("Role", name, root, labels, subject),
    ]
    elsewhere = sorted({gateway.namespace for gateway in plan.gateways} - {root})
    for namespace in elsewhere:
        own = plan.named("istiod-gateway-credentials")
        found += [_role("Role", own, namespace, labels, gateway_rules()), _binding("Role", own, namespace, labels, subject)]
    for gateway in plan.gateways:
        found.append(_account(account_of(gateway), gateway.namespace, plan.labels(gateway.name) | gateway.labels, plan=plan))
    if not plan.revision:  # people come to the default one
        for person in PEOPLE:
            mine = plan.labels(person)
            found += [_account(person, root, mine, plan=None), _role("Role", person, root, mine, people_rules(person))]
    return found


def _rules(plan: Plan, rules: Iterable[Rule]) -> list[Rule]:
    """The objects of a revision have names of their own."""
    if not plan.revision:
        return list(rules)
    own = plan.own_names
    return [rule._replace(names=tuple(own.get(name, name) for name in rule.names)) for rule in rules]


def _account(name: str, namespace: str, labels: dict[str, str], plan: Plan | None, mounted: bool = False) -> Obj:
    made: Obj = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "automountServiceAccountToken": mounted,
    }
    if plan is not None and plan.pull_secrets:
        made["imagePullSecrets"] = [{"name": secret} for secret in plan.pull_secrets]
    return made


def _role(kind: str, name: str, namespace: str, labels: dict[str, str], rules: Iterable[Rule]) -> Obj:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, "rules": [rule.manifest() for rule in rules]}


def _binding(kind: str, name: str, namespace: str, labels: dict[str, str], subject: Obj) -> Obj:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
        "subjects": [subject],
    }
