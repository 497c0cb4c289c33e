"""Pods for the injector's tests: of every owner, and whatever Hypothesis can think of; and reviews that carry them."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

from injector.patch import apply
from injector.review import Answer, answer
from injector.settings import Settings

__all__ = ["OWNERS", "SETTINGS", "Obj", "admitted", "owned", "pod", "pods", "review"]

Obj = dict[str, Any]
SETTINGS = Settings(tag="test")

# controller, the pod's extra labels, and the workload that it stands for
OWNERS: dict[str, tuple[Obj, dict[str, str], tuple[str, str]]] = {
    "deployment": (
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f8c"},
        {"pod-template-hash": "5d4f8c"},
        ("web", "kubernetes://apis/apps/v1/namespaces/shop/deployments/web"),
    ),
    "replicaset": (
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
        {},
        ("web", "kubernetes://apis/apps/v1/namespaces/shop/replicasets/web"),
    ),
    "statefulset": (
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db"},
        {"apps.kubernetes.io/pod-index": "0"},
        ("db", "kubernetes://apis/apps/v1/namespaces/shop/statefulsets/db"),
    ),
    "daemonset": (
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "logs"},
        {"pod-template-generation": "1"},
        ("logs", "kubernetes://apis/apps/v1/namespaces/shop/daemonsets/logs"),
    ),
    "job": (
        {"apiVersion": "batch/v1", "kind": "Job", "name": "import"},
        {"job-name": "import"},
        ("import", "kubernetes://apis/batch/v1/namespaces/shop/jobs/import"),
    ),
    "cronjob": (
        {"apiVersion": "batch/v1", "kind": "Job", "name": "nightly-28123456"},
        {"job-name": "nightly-28123456"},
        ("nightly", "kubernetes://apis/batch/v1/namespaces/shop/cronjobs/nightly"),
    ),
    "replicationcontroller": (
        {"apiVersion": "v1", "kind": "ReplicationController", "name": "old"},
        {},
        ("old", "kubernetes://apis/v1/namespaces/shop/replicationcontrollers/old"),
    ),
    "deploymentconfig": (
        {"apiVersion": "v1", "kind": "ReplicationController", "name": "shift-3"},
        {"deploymentconfig": "shift"},
        ("shift", "kubernetes://apis/apps.openshift.io/v1/namespaces/shop/deploymentconfigs/shift"),
    ),
    "rollout": (
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "canary-7d9"},
        {"rollouts-pod-template-hash": "7d9"},
        ("canary", "kubernetes://apis/argoproj.io/v1alpha1/namespaces/shop/rollouts/canary"),
    ),
    "custom": (
        {"apiVersion": "acme.io/v2", "kind": "Fleet", "name": "ships"},
        {},
        ("ships", "kubernetes://apis/acme.io/v2/namespaces/shop/fleets/ships"),
    ),
}


def pod(**spec: Any) -> Obj:
    """``labels`` and ``annotations`` go where they belong."""
    labels, annotations = spec.pop("labels", {"app": "web"}), spec.pop("annotations", None)
    container = {"name": "web", "image": "web:1", "ports": [{"containerPort": 8080, "name": "http"}]}
    metadata: Obj = {"name": "web-0", "labels": labels}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def owned(kind: str) -> Obj:
    """As the kind's controller creates it: without a name."""
    controller, labels, _ = OWNERS[kind]
    made = pod(labels={"app": "web", **labels})
    del made["metadata"]["name"]
    made["metadata"]["generateName"] = f"{controller['name']}-"
    made["metadata"]["ownerReferences"] = [
        {**controller, "uid": "7f1c", "controller": True, "blockOwnerDeletion": True},
    ]
    return made


def review(made: Obj, namespace: str = "shop", **request: Any) -> Obj:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": made,
            "oldObject": None,
            "dryRun": False,
            "options": None,
            **request,
        },
    }


def admitted(made: Obj, settings: Settings = SETTINGS, namespace: str = "shop") -> tuple[Obj, Answer]:
    """The pod after the webhook's patch, and the answer."""
    found = answer(json.dumps(review(made, namespace)).encode(), settings)
    text = found.body["response"].get("patch")
    return (apply(json.loads(base64.b64decode(text)), made) if text else made), found


_NAME = st.from_regex(r"[a-z]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)
_TEXT = st.text('ab/~ é"\\', max_size=6)
_PORT = st.integers(1, 15000)


@st.composite
def _probe(draw: st.DrawFn, named: list[str]) -> Obj:
    port = draw(_PORT | st.sampled_from(named)) if named else draw(_PORT)
    handler: Obj = draw(
        st.sampled_from(
            [
                {"httpGet": {"path": "/ready", "port": port, "scheme": "HTTPS"}},
                {"httpGet": {"port": port, "httpHeaders": [{"name": "Host", "value": "web"}]}},
                {"tcpSocket": {"port": port}},
                {"grpc": {"port": port if isinstance(port, int) else 9000, "service": "s"}},
                {"exec": {"command": ["true"]}},
            ]
        )
    )
    return {
        **handler,
        **draw(st.fixed_dictionaries({}, optional={"timeoutSeconds": st.integers(1, 9), "periodSeconds": st.just(7)})),
    }


@st.composite
def _container(draw: st.DrawFn, name: str, proxied: bool) -> Obj:
    made: Obj = {"name": name, "image": "auto" if name == "istio-proxy" else "app:1"}
    numbers = draw(st.lists(_PORT, unique=True, max_size=2))
    if numbers:
        made["ports"] = [{"containerPort": number, "name": f"p{number}"} for number in numbers]
    if draw(st.booleans()):
        made["env"] = [{"name": key, "value": draw(_TEXT)} for key in draw(st.lists(st.sampled_from("ABC"), unique=True))]
    if draw(st.booleans()):
        made["someNewField"] = {"list": [1, True, None, {"deep": draw(_TEXT)}]}
    if proxied:
        for field in draw(st.lists(st.sampled_from(("readinessProbe", "livenessProbe", "startupProbe")), unique=True)):
            made[field] = draw(_probe([f"p{number}" for number in numbers]))
        if draw(st.booleans()):
            made["lifecycle"] = {draw(st.sampled_from(("preStop", "postStart"))): {"httpGet": {"port": 80, "path": "/bye"}}}
    return made


@st.composite
def pods(draw: st.DrawFn) -> Obj:
    """Any pod that Kubernetes would take, more or less, with fields that nobody knows yet."""
    taken = draw(st.lists(_NAME, unique=True, min_size=1, max_size=3))
    if draw(st.booleans()):
        taken.append("istio-proxy")
    spec: Obj = {"containers": [draw(_container(name, name != "istio-proxy")) for name in taken]}
    inits = draw(st.lists(_NAME, unique=True, max_size=2))
    if inits:
        spec["initContainers"] = [draw(_container(f"init-{name}", False)) for name in inits]
    if draw(st.booleans()):
        names = draw(st.lists(_NAME | st.sampled_from(("istio-token", "istio-data")), unique=True, min_size=1, max_size=3))
        spec["volumes"] = [{"name": name, "emptyDir": {}} for name in names]
    if draw(st.booleans()):
        spec["imagePullSecrets"] = [{"name": draw(_NAME)}]
    if draw(st.booleans()):
        spec["securityContext"] = {"fsGroup": 7, "sysctls": []}
    metadata: Obj = {}
    if draw(st.booleans()):
        metadata["labels"] = draw(st.dictionaries(st.sampled_from(("app", "version", "app.kubernetes.io/name", "x")), _NAME))
    kind = draw(st.sampled_from((None, *OWNERS)))
    if kind is None:
        metadata["name"] = "bare"
    else:
        of = owned(kind)["metadata"]
        metadata = {**of, "labels": {**metadata.get("labels", {}), **OWNERS[kind][1]}}
    notes = {
        "prometheus.io/scrape": st.sampled_from(("true", "false")),
        "prometheus.io/port": st.sampled_from(("9090", "15020")),
        "prometheus.io/path": st.just("/metrics"),
        "acme.io/~note": _TEXT,
        "sidecar.istio.io/nativeSidecar": st.sampled_from(("true", "false")),
        "sidecar.istio.io/rewriteAppHTTPProbers": st.sampled_from(("true", "false")),
        "sidecar.istio.io/interceptionMode": st.sampled_from(("REDIRECT", "NONE")),
        "status.sidecar.istio.io/port": st.sampled_from(("0", "15020", "15999")),
        "proxy.istio.io/config": st.just("holdApplicationUntilProxyStarts: true"),
        "sidecar.istio.io/proxyCPU": st.just("10m"),
    }
    if draw(st.booleans()):
        metadata["annotations"] = draw(st.fixed_dictionaries({}, optional=notes))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
