"""Injection of manifests: all kinds that make pods, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest

from injector.annotations import BadPod
from injector.manifest import KINDS, into
from injector.settings import Selector, Settings
from tests.injector.pods import SETTINGS, pod

SELECTOR = {"matchLabels": {"app": "web"}}


def template(**given: Any) -> dict[str, Any]:
    made = pod(**given)
    return {
        "metadata": {"labels": made["metadata"]["labels"]} | {k: v for k, v in made["metadata"].items() if k == "annotations"},
        "spec": made["spec"],
    }


def manifest(kind: str, api: str = "apps/v1", **given: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"selector": SELECTOR, "template": template(**given)}
    if kind == "StatefulSet":
        spec["serviceName"] = "web"
    if kind == "ReplicationController":
        spec["selector"] = {"app": "web"}
    if kind in ("Job", "CronJob"):
        spec = {"template": template(restartPolicy="Never", **given)}
    if kind == "CronJob":
        spec = {"schedule": "@daily", "jobTemplate": {"metadata": {"labels": {"x": "y"}}, "spec": spec}}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "site", "namespace": "shop"}, "spec": spec}


CASES = [
    ("apps/v1", "Deployment", "apps/v1/namespaces/shop/deployments/site"),
    ("apps/v1", "StatefulSet", "apps/v1/namespaces/shop/statefulsets/site"),
    ("apps/v1", "DaemonSet", "apps/v1/namespaces/shop/daemonsets/site"),
    ("apps/v1", "ReplicaSet", "apps/v1/namespaces/shop/replicasets/site"),
    ("v1", "ReplicationController", "v1/namespaces/shop/replicationcontrollers/site"),
    ("batch/v1", "Job", "batch/v1/namespaces/shop/jobs/site"),
    ("batch/v1", "CronJob", "batch/v1/namespaces/shop/cronjobs/site"),
]


@pytest.mark.parametrize(("api", "kind", "owner"), CASES)
def test_kinds(api: str, kind: str, owner: str) -> None:
    given = manifest(kind, api)
    before = copy.deepcopy(given)
    found = into(given, "default", SETTINGS)
    assert given == before
    assert found.changed
    inner = found.object["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else found.object["spec"]
    containers = inner["template"]["spec"]["containers"]
    assert [one["name"] for one in containers] == ["web", "istio-proxy"]
    env = {one["name"]: one.get("value") for one in containers[1]["env"]}
    assert env["ISTIO_META_OWNER"] == f"kubernetes://apis/{owner}"
    assert env["ISTIO_META_WORKLOAD_NAME"] == "site"
    assert inner["template"]["metadata"]["labels"]["service.istio.io/canonical-name"] == "web"
    assert found.object["metadata"] == given["metadata"]
    kubernetes_validate.validate(found.object, "1.33", strict=True)
    again = into(found.object, "default", SETTINGS)
    assert not again.changed


def test_a_pod_and_a_list() -> None:
    items = [pod(), {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}, manifest("Deployment"), "odd", None]
    found = into({"apiVersion": "v1", "kind": "List", "items": items}, "default", SETTINGS)
    assert found.changed
    assert [one != two for one, two in zip(found.object["items"], items, strict=True)] == [True, False, True, False, False]
    assert not into({"apiVersion": "v1", "kind": "List", "items": [items[1]]}, "default", SETTINGS).changed


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        [],
        {},
        {"kind": 1, "apiVersion": "v1"},
        {"kind": "Deployment", "apiVersion": "acme.io/v1", "spec": {"template": {}}},
        {"kind": "ConfigMap", "apiVersion": "v1"},
        {"kind": "List", "apiVersion": "v1"},
    ],
)
def test_the_rest_is_left_alone(value: Any) -> None:
    found = into(value, "default", SETTINGS)
    assert (found.object, found.changed, found.notes) == (value, False, [])
    assert ("", "Pod") in KINDS


def test_what_gets_none_is_told() -> None:
    found = into(manifest("Deployment", hostNetwork=True), "default", SETTINGS)
    assert not found.changed
    assert found.notes == [
        "===> Skipping injection because spec.hostNetwork is true: interception would change the host's own traffic: "
        'Deployment "shop/site"'
    ]
    assert not into(manifest("Deployment", labels={"sidecar.istio.io/inject": "false"}), "default", SETTINGS).changed


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (manifest("Deployment", annotations={"sidecar.istio.io/proxyCPU": "x"}), "spec.template.metadata.annotations[sidecar.istio.io/proxyCPU]: must be a quantity"),  # noqa: E501
        (manifest("CronJob", "batch/v1", annotations={"sidecar.istio.io/inject": True}), 'spec.jobTemplate.spec.template.metadata.annotations[sidecar.istio.io/inject]: must be a text: put it in quotes, "true"'),  # noqa: E501
        ({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {}}, "spec.template: must be an object: it is what the pods are made of"),  # noqa: E501
        ({"apiVersion": "apps/v1", "kind": "Deployment"}, "spec: must be an object"),
        ({"apiVersion": "v1", "kind": "Pod"}, "spec: must be an object with containers"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []}}, "spec.containers: must be a list with a container"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": "x"}}, "spec.containers: must be a list of objects"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{}]}}, "spec.containers[0].name: is required"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a", "env": {}}]}}, "spec.containers[0].env: must be a list"),  # noqa: E501
        ({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod", "spec": 1}]}, "items[0].spec: must be"),  # noqa: E501
    ],
)  # fmt: skip
def test_mistakes_name_their_path(value: Any, line: str) -> None:
    with pytest.raises(BadPod) as caught:
        into(value, "default", SETTINGS)
    assert caught.value.errors[0].startswith(line)


def test_by_hand_the_policy_does_not_count() -> None:
    assert into(manifest("Deployment"), "default", Settings(policy="disabled")).changed
    kept_out = Settings(never_inject_selector=(Selector(match_labels={"app": "web"}),))
    assert not into(manifest("Deployment"), "default", kept_out).changed
