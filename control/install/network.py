"""NetworkPolicies: which ports of the mesh's own pods can be reached, and by whom (room ``install``).

In: ``Plan``. Out: manifests. Sidecars are in every namespace, and the API server calls from addresses that no selector knows,
so what is narrowed is the ports; the injector may call nobody. They are for these pods only: others in the namespace are as
they were.
"""

from __future__ import annotations

from typing import Any

from control.install.gateways import AGENT, PROMETHEUS, target_ports
from control.install.plan import Plan
from control.install.workloads import API, METRICS, WEBHOOK

__all__ = ["policies"]

Obj = dict[str, Any]


def policies(plan: Plan) -> list[Obj]:
    root = plan.namespace
    control = {"app": "istiod", "istio.io/rev": plan.rev}
    injector = {"app": "sidecar-injector", "istio.io/rev": plan.rev}
    found = [
        _policy(plan, plan.control_name, root, control, (API, WEBHOOK, METRICS)),
        _policy(plan, plan.injector_name, root, injector, (WEBHOOK, METRICS), calls_nobody=True),
    ]
    for gateway in plan.gateways:
        ports = (*target_ports(gateway), AGENT, PROMETHEUS)
        found.append(_policy(plan, gateway.name, gateway.namespace, gateway.labels, ports))
    return found


def _policy(
    plan: Plan, name: str, namespace: str, selector: dict[str, str], ports: tuple[int, ...], calls_nobody: bool = False
) -> Obj:
    spec: Obj = {
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": port, "protocol": "TCP"} for port in sorted(ports)]}],
    }
    if calls_nobody:
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": []}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": plan.labels(name) | selector},
        "spec": spec,
    }
