"""AdmissionReview in and out: what is echoed, what is refused, what is none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from injector.annotations import BadPod
from injector.decide import LEFT_ALONE
from injector.review import BadReview, answer, variables
from injector.settings import Settings
from tests.injector.pods import SETTINGS, admitted, owned, pod, review


def asked(body: Any, settings: Settings = SETTINGS) -> dict[str, Any]:
    found: dict[str, Any] = answer(json.dumps(body).encode(), settings).body["response"]
    return found


def test_the_uid_comes_back_with_a_patch() -> None:
    found = answer(json.dumps(review(owned("deployment"), uid="x-1")).encode(), SETTINGS)
    assert found.body["apiVersion"] == "admission.k8s.io/v1"
    assert found.body["kind"] == "AdmissionReview"
    response = found.body["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("x-1", True, "JSONPatch")
    assert all(set(one) <= {"op", "path", "value"} for one in json.loads(base64.b64decode(response["patch"])))
    assert found.who == "shop/web-5d4f8c-***** (actual name not yet known)"


def test_the_namespace_is_the_request_s() -> None:
    made = pod()
    made["metadata"]["namespace"] = "lie"
    done, found = admitted(made, namespace="truth")
    assert found.who == "truth/web-0"
    assert asked(review(pod(), namespace=LEFT_ALONE[0])) == {"uid": review(pod())["request"]["uid"], "allowed": True}
    assert done["metadata"]["namespace"] == "lie"


def test_a_dry_run_is_answered_alike() -> None:
    assert asked(review(pod(), dryRun=True)) == asked(review(pod()))


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"subResource": "ephemeralcontainers"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
    ],
)
def test_what_is_no_new_pod_is_let_through(request_: dict[str, Any]) -> None:
    found = asked(review(pod(), **request_))
    assert (found["allowed"], "patch" in found) == (True, False)


def test_a_bad_wish_refuses_the_pod() -> None:
    found = asked(review(pod(annotations={"sidecar.istio.io/proxyCPU": "x", "sidecar.istio.io/interceptionMode": "TPROXY"})))
    assert found["allowed"] is False
    assert "patch" not in found
    assert (found["status"]["code"], found["status"]["reason"]) == (422, "Invalid")
    assert "metadata.annotations[sidecar.istio.io/proxyCPU]: must be a quantity" in found["status"]["message"]
    assert "metadata.annotations[sidecar.istio.io/interceptionMode]: TPROXY is not supported" in found["status"]["message"]


def test_an_odd_wish_is_warned_of() -> None:
    found = asked(review(pod(labels={"sidecar.istio.io/inject": "yes"})))
    assert found["allowed"] is True
    assert found["warnings"] == ['the label sidecar.istio.io/inject: "yes" is neither "true" nor "false" and counts as not set']


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "the body is empty"),
        (b"  ", "the body is empty"),
        (b"{", "cannot be read as JSON"),
        (b"[" * 100_000, "is no AdmissionReview"),
        (b"[]", "is no AdmissionReview"),
        (b"{}", "must be admission.k8s.io/v1 AdmissionReview, not no apiVersion no kind"),
        (b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}', "must be admission.k8s.io/v1 AdmissionReview"),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', "request: is required"),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}}', "is no AdmissionReview: "),
        (b'{"kind": "\xff"}', "cannot be read as JSON: "),
        (json.dumps(review({"metadata": {"name": "p"}})).encode().replace(b'"p"', b'"\xff"'), "cannot be read as JSON: "),
        (json.dumps(review(pod(), uid="")).encode(), "request.uid: is required"),
        (json.dumps(review(pod(), object=None)).encode(), "request.object: is required"),
        (json.dumps(review(pod(), object=[])).encode(), "is no AdmissionReview: "),
        (json.dumps(review({"metadata": []})).encode(), "request.object.metadata: expected"),
        (json.dumps(review({"metadata": {"labels": {"a": 1}}})).encode(), "request.object.metadata.labels[...]: expected"),
        (json.dumps(review({"spec": {"containers": [{}]}})).encode(), "request.object.spec.containers[0]: object missing"),
        (json.dumps(review({"spec": {"containers": {"a": 1}}})).encode(), "request.object.spec.containers: expected"),
        (json.dumps(review({"spec": {"volumes": [1]}})).encode(), "request.object.spec.volumes[0]: expected"),
    ],
)
def test_what_is_no_review(body: bytes, line: str) -> None:
    with pytest.raises(BadReview) as caught:
        answer(body, SETTINGS)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_what_is_too_deep() -> None:
    deep: Any = {}
    for _ in range(250):
        deep = {"a": deep}
    with pytest.raises(BadReview, match="nested deeper than 200 levels"):
        answer(json.dumps(review({**pod(), "x": deep})).encode(), SETTINGS)


def test_a_pod_without_anything_is_refused() -> None:
    assert asked(review({}))["status"]["message"].startswith("spec.containers: must be a list")
    assert issubclass(BadPod, ValueError)


def test_nulls_are_nothing() -> None:
    made = pod(volumes=None, initContainers=None, imagePullSecrets=None, nodeSelector=None, os=None)
    made["metadata"].update(labels=None, annotations=None, creationTimestamp=None, ownerReferences=None)
    made["spec"]["containers"][0].update(env=None, ports=None, volumeMounts=None, lifecycle=None)
    done, found = admitted(made)
    assert found.verdict == "injected"
    assert admitted(done)[1].verdict == "unchanged"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ()),
        ("cluster/east/net/n1", (("ISTIO_META_CLUSTER_ID", "east"), ("ISTIO_META_NETWORK", "n1"))),
        ("/my_env/a--slash--b/", (("MY_ENV", "a/b"),)),
        ("cluster", ()),
    ],
)
def test_variables_of_the_path(path: str, expected: tuple[tuple[str, str], ...]) -> None:
    assert variables(path) == expected
