"""Control and the injector as Deployments, with Services and budgets (room ``install``).

In: ``Plan``. Out: manifests. Pods are as the Pod Security Standard "restricted" wants them: no root, nothing written but in
volumes, no capability. Ports and arguments are those of ``mesh-control`` and ``mesh-injector``; tests hold them together.
"""

from __future__ import annotations

from typing import Any

from control.cluster.names import CERTIFICATE, INJECTOR
from control.install.plan import Plan, Work

__all__ = ["API", "METRICS", "WEBHOOK", "budget", "control", "injector", "pod_spec", "restricted"]

Obj = dict[str, Any]
API, METRICS, WEBHOOK = 15012, 15014, 15017
UID = 1337
STATE = "/var/lib/mesh"


def control(plan: Plan) -> list[Obj]:
    name = plan.control_name
    selector = {"app": "istiod", "istio.io/rev": plan.rev}
    labels = plan.labels("istiod") | {"app": "istiod", "istio": "pilot"}
    arguments = [
        "serve",
        "--store",
        "kubernetes",
        "--state",
        f"{STATE}/state",
        "--bind",
        "::",
        "--root-namespace",
        plan.namespace,
    ]
    arguments += ["--port", str(API), "--metrics-port", str(METRICS), "--webhook-port", str(WEBHOOK)]
    if plan.trace_sampling is not None:
        arguments += ["--trace-sampling", f"{plan.trace_sampling:g}"]
    if plan.revision:
        arguments += ["--revision", plan.revision]
    container: Obj = {
        "name": "discovery",
        "image": plan.image,
        "command": ["mesh-control"],
        "args": arguments,
        "ports": [
            {"containerPort": API, "name": "https-dns", "protocol": "TCP"},
            {"containerPort": WEBHOOK, "name": "https-webhook", "protocol": "TCP"},
            {"containerPort": METRICS, "name": "http-monitoring", "protocol": "TCP"},
        ],
        "env": [_field("POD_NAME", "metadata.name"), *plan.control_work.env],
        "startupProbe": {"httpGet": {"path": "/healthz", "port": METRICS}, "periodSeconds": 2, "failureThreshold": 90},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": METRICS}, "periodSeconds": 3, "timeoutSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": METRICS},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "volumeMounts": [{"name": "state", "mountPath": STATE}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [
        {"name": "state", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]
    ports = (("https-dns", API, API), ("https-webhook", 443, WEBHOOK), ("http-monitoring", METRICS, METRICS))
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS)}
    return [
        _service(plan, name, labels, selector, ports),
        budget(name, plan.namespace, labels, selector, plan.control_work),
        _deployment(plan, name, labels, selector, plan.control_work, container, volumes, scraped, name, token=True),
    ]


def injector(plan: Plan) -> list[Obj]:
    name = plan.injector_name
    selector = {"app": "sidecar-injector", "istio.io/rev": plan.rev}
    labels = plan.labels(INJECTOR) | {"app": "sidecar-injector", "istio": "sidecar-injector"}
    container: Obj = {
        "name": "sidecar-injector",
        "image": plan.image,
        "command": ["mesh-injector"],
        "args": [
            *("--settings", "/etc/istio/inject/values", "--mesh-config", "/etc/istio/config/mesh"),
            *("--tls-cert", "/etc/istio/certs/tls.crt", "--tls-key", "/etc/istio/certs/tls.key"),
            *("--port", str(WEBHOOK), "--metrics-port", str(METRICS)),
            *("--drain", "5"),  # nodes send it reviews until they know that it goes: refused, those would be pods not made
        ],
        "ports": [
            {"containerPort": WEBHOOK, "name": "https-webhook", "protocol": "TCP"},
            {"containerPort": METRICS, "name": "http-monitoring", "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": WEBHOOK, "scheme": "HTTPS"},
            "periodSeconds": 3,
            "timeoutSeconds": 5,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": METRICS},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "volumeMounts": [
            {"name": "settings", "mountPath": "/etc/istio/inject", "readOnly": True},
            {"name": "mesh", "mountPath": "/etc/istio/config", "readOnly": True},
            {"name": "certificate", "mountPath": "/etc/istio/certs", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    if plan.injector_work.env:
        container["env"] = list(plan.injector_work.env)
    # 0444: the Secret's files belong to root, and the injector is not root; nobody else is in the container
    volumes = [
        {"name": "settings", "configMap": {"name": plan.injector_name}},
        {"name": "mesh", "configMap": {"name": plan.mesh_map}},
        {"name": "certificate", "secret": {"secretName": plan.named(CERTIFICATE), "defaultMode": 0o444}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
    ]
    ports = (("https-webhook", 443, WEBHOOK), ("http-monitoring", METRICS, METRICS))
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS)}
    return [
        _service(plan, name, labels, selector, ports),
        budget(name, plan.namespace, labels, selector, plan.injector_work),
        _deployment(plan, name, labels, selector, plan.injector_work, container, volumes, scraped, name, token=False),
    ]


def _field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def restricted(writable: bool = False) -> Obj:
    """A container's securityContext."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": not writable,
        "runAsGroup": UID,
        "runAsNonRoot": True,
        "runAsUser": UID,
    }


def pod_spec(plan: Plan, work: Work, account: str, selector: dict[str, str], token: bool) -> Obj:
    """What pods of all the mesh's Deployments have in common."""
    spec: Obj = {
        "serviceAccountName": account,
        "automountServiceAccountToken": token,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if work.replicas > 1:
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        spec["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": selector}}]
    if plan.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in plan.pull_secrets]
    for name, value in (
        ("priorityClassName", work.priority_class),
        ("nodeSelector", work.node_selector),
        ("tolerations", list(work.tolerations)),
        ("affinity", work.affinity),
    ):
        if value:
            spec[name] = value
    return spec


def budget(name: str, namespace: str, labels: dict[str, str], selector: dict[str, str], work: Work) -> Obj:
    """One pod at a time; never so that a node with the only one cannot be drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {**work.budget, "selector": {"matchLabels": selector}},
    }


def _service(
    plan: Plan, name: str, labels: dict[str, str], selector: dict[str, str], ports: tuple[tuple[str, int, int], ...]
) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": plan.namespace, "labels": labels},
        "spec": {
            "ports": [{"name": port, "port": at, "targetPort": to, "protocol": "TCP"} for port, at, to in ports],
            "selector": selector,
        },
    }


def _deployment(
    plan: Plan,
    name: str,
    labels: dict[str, str],
    selector: dict[str, str],
    work: Work,
    container: Obj,
    volumes: list[Obj],
    annotations: dict[str, str],
    account: str,
    *,
    token: bool,
) -> Obj:
    container |= {
        "resources": work.resources,
        "securityContext": restricted(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if work.pull_policy:
        container["imagePullPolicy"] = work.pull_policy
    quiet = {"sidecar.istio.io/inject": "false"}
    spec = pod_spec(plan, work, account, selector, token) | {"containers": [container], "volumes": volumes}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": plan.namespace, "labels": labels},
        "spec": {
            "replicas": work.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels | quiet, "annotations": {**annotations, **work.pod_annotations}},
                "spec": spec,
            },
        },
    }
