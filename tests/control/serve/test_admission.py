"""The validating webhook: the verdicts of ``apply``, in a review."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.app import Control, Settings
from control.client.kubeconfig import load
from control.resources.kinds import Kind
from control.serve.admission import webhook
from control.serve.kube.body import LIMIT

GOOD: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "book", "namespace": "shop", "uid": "u", "generation": 1, "managedFields": [{"manager": "kubectl"}]},
    "spec": {"hosts": ["book"], "http": [{"route": [{"destination": {"host": "book"}}]}]},
}
BAD = {**GOOD, "spec": {"hosts": [], "htp": []}}


def review(obj: Any, **request: Any) -> dict[str, Any]:
    given = {"uid": "42", "operation": "CREATE", "object": obj, "oldObject": None, "dryRun": True, **request}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": given}


class Webhook:
    def __init__(self) -> None:
        self.judged: list[tuple[str, bool]] = []
        self.why = ""
        self.app = webhook(lambda: self.why, self._judged)

    def _judged(self, kind: Kind, good: bool) -> None:
        self.judged.append((kind.kind, good))

    def ask(self, body: Any = None, method: str = "POST", path: str = "/validate", **more: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://x") as client:
                return await client.request(method, path, **({"json": body} if body is not None else {}), **more)

        return asyncio.run(run())

    def verdict(self, obj: Any, **request: Any) -> dict[str, Any]:
        answer = self.ask(review(obj, **request))
        assert answer.status_code == 200
        body = answer.json()
        assert (body["apiVersion"], body["kind"], body["response"]["uid"]) == ("admission.k8s.io/v1", "AdmissionReview", "42")
        found: dict[str, Any] = body["response"]
        return found


def test_good_and_bad() -> None:
    hook = Webhook()
    assert hook.verdict(GOOD) == {"uid": "42", "allowed": True}
    found = hook.verdict(BAD)
    assert found["allowed"] is False
    assert (found["status"]["code"], found["status"]["reason"]) == (422, "Invalid")
    said = 'VirtualService.networking.istio.io "book" is invalid: spec.htp: unknown field; did you mean "http"?'
    assert found["status"]["message"] == said
    assert [cause["field"] for cause in found["status"]["details"]["causes"]] == ["spec.htp"]
    assert hook.judged == [("VirtualService", True), ("VirtualService", False)]


def test_warnings_are_handed_on() -> None:
    envoy = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "x"}, "spec": {}}
    found = Webhook().verdict(envoy)
    assert found["allowed"] is True
    assert found["warnings"]


@pytest.mark.parametrize(
    ("obj", "request_"),
    [
        (None, {"operation": "DELETE", "oldObject": BAD}),
        (BAD, {"operation": "CONNECT"}),
        (BAD, {"operation": "UPDATE", "subResource": "status"}),
        ({**BAD, "metadata": {"name": "book", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, {"operation": "UPDATE"}),
        ({"apiVersion": "acme.io/v1", "kind": "Ship", "metadata": {"name": "x"}}, {}),
        ({}, {}),
    ],
)
def test_what_is_not_judged(obj: Any, request_: dict[str, Any]) -> None:
    hook = Webhook()
    assert hook.verdict(obj, **request_) == {"uid": "42", "allowed": True}
    assert hook.judged == []


def test_an_update_is_judged() -> None:
    assert Webhook().verdict(BAD, operation="UPDATE")["allowed"] is False


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "the body is no AdmissionReview: "),
        (b"{", "the body is no AdmissionReview: "),
        (b"{}", "the body must be admission.k8s.io/v1 AdmissionReview"),
        (b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}', "the body must be admission.k8s.io/v1"),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', "request.uid: is required"),
        (json.dumps(review({}, uid="")).encode(), "request.uid: is required"),
        (json.dumps(review([])).encode(), "the body is no AdmissionReview: "),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1", "object": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}}", "request.object: "),  # noqa: E501
    ],
)  # fmt: skip
def test_what_is_no_review(body: bytes, line: str) -> None:
    answer = Webhook().ask(content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.text.startswith(line)
    assert answer.text.count("\n") == 1


def test_forms() -> None:
    hook = Webhook()
    assert hook.ask(content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert hook.ask(content=b" " * (LIMIT + 1), headers={"content-type": "application/json"}).status_code == 413
    assert hook.ask(method="GET").status_code == 405
    assert (hook.ask(method="GET", path="/readyz").status_code, hook.ask(method="GET", path="/readyz").text) == (200, "ok\n")
    hook.why = "no world yet"
    assert (hook.ask(method="GET", path="/readyz").status_code, hook.ask(method="GET", path="/readyz").text) == (
        503,
        "no world yet\n",
    )


def test_control_serves_it_under_its_own_certificate(tmp_path: Path) -> None:
    async def run() -> None:
        control = Control(Settings(state=tmp_path, port=0, metrics_port=0, webhook_port=0))
        try:
            await control.start()
            context = ssl.create_default_context(cadata=load([tmp_path / "kubeconfig"]).ca)
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                answer = await client.post(f"{control.webhook}/validate", json=review(BAD))
            assert answer.json()["response"]["allowed"] is False
        finally:
            await control.stop()

    asyncio.run(run())
