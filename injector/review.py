"""AdmissionReview in, AdmissionReview out. Quiet.

In: the body of a request to ``/inject``, the settings. Out: ``Answer``: the review to send back and what to count. A body that
is no review is ``BadReview`` (HTTP 400); a pod that cannot have what it asks for is a review that refuses it.
"""

from __future__ import annotations

import base64
from typing import Any, Literal, NamedTuple

import msgspec

from injector.annotations import BadPod
from injector.decide import decide
from injector.names import Obj, name_of
from injector.patch import difference
from injector.pod import inject
from injector.settings import Settings

__all__ = ["Answer", "BadReview", "answer", "variables"]

API_VERSION = "admission.k8s.io/v1"
_DEPTH = 200


class BadReview(ValueError):
    """One line."""


class Answer(NamedTuple):
    """``verdict`` and ``line`` for the log and the counters; ``who``: namespace/pod."""

    body: Obj
    verdict: Literal["injected", "unchanged", "skipped", "refused"]
    who: str
    line: str


class _Kind(msgspec.Struct):
    group: str = ""
    kind: str = ""


class _Request(msgspec.Struct, rename="camel"):
    uid: str
    kind: _Kind = msgspec.field(default_factory=_Kind)
    namespace: str = ""
    operation: str = "CREATE"
    sub_resource: str = ""
    object: dict[str, Any] | None = None


class _Review(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    request: _Request | None = None


def answer(body: bytes, settings: Settings, extra: tuple[tuple[str, str], ...] = ()) -> Answer:
    """``extra``: variables that the webhook's path gives. Raises ``BadReview``."""
    request = _request(body)
    if request.kind.kind != "Pod" or request.sub_resource or request.operation != "CREATE":
        what = f"{request.operation} {request.kind.kind or 'of no kind'}"
        return _allowed(request, "skipped", "-", f"{what}: only pods that are created get a sidecar")
    pod = request.object
    if pod is None:
        raise BadReview("request.object: is required")
    metadata = _checked(pod)
    namespace = request.namespace or metadata.get("namespace") or "default"
    who = f"{namespace}/{name_of(metadata)}"
    decision = decide(pod, namespace, settings)
    warnings = [decision.warning] if decision.warning else []
    if not decision.inject:
        return _allowed(request, "skipped", who, decision.reason, warnings)
    try:
        made = inject(pod, namespace, settings, variables=extra)
    except BadPod as bad:
        status = {"code": 422, "reason": "Invalid", "status": "Failure", "message": str(bad)}
        return Answer(_review(request, {"allowed": False, "status": status}), "refused", who, str(bad))
    patch = difference(pod, made)
    if not patch:
        return _allowed(request, "unchanged", who, "injected before, nothing to change", warnings)
    fields: Obj = {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(patch)).decode()}
    return _allowed(request, "injected", who, decision.reason, warnings, fields)


def _request(body: bytes) -> _Request:
    if not body.strip():
        raise BadReview("the body is empty: send an AdmissionReview as JSON")
    try:
        review = msgspec.json.decode(body, type=_Review)
    except msgspec.ValidationError as error:
        raise BadReview(f"is no AdmissionReview: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadReview(f"cannot be read as JSON: {error}") from None
    if review.kind != "AdmissionReview" or review.api_version != API_VERSION:
        told = f"{review.api_version or 'no apiVersion'} {review.kind or 'no kind'}"[:100]
        raise BadReview(f"must be {API_VERSION} AdmissionReview, not {told}")
    if review.request is None:
        raise BadReview("request: is required")
    if not review.request.uid:
        raise BadReview("request.uid: is required")
    if review.request.object is not None and not _shallow(review.request.object):
        raise BadReview(f"request.object: is nested deeper than {_DEPTH} levels")
    return review.request


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if not level:
            return True
    return False


def _checked(pod: Obj) -> Obj:
    """The pod's metadata, once all that the judgement walks through has the shape that Kubernetes gives it."""
    try:
        msgspec.convert(pod, _Pod)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise BadReview(f"request.object{path.rstrip('`')}: {text[:1].lower()}{text[1:]}") from None
    return pod.get("metadata") or {}


class _Meta(msgspec.Struct, rename="camel"):
    name: str | None = None
    namespace: str | None = None
    generate_name: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[dict[str, Any]] | None = None


class _Named(msgspec.Struct):
    name: str


class _Container(msgspec.Struct, rename="camel"):
    name: str
    env: list[_Named] | None = None
    ports: list[dict[str, Any]] | None = None
    volume_mounts: list[dict[str, Any]] | None = None
    security_context: dict[str, Any] | None = None
    lifecycle: dict[str, Any] | None = None
    readiness_probe: dict[str, Any] | None = None
    liveness_probe: dict[str, Any] | None = None
    startup_probe: dict[str, Any] | None = None


class _Os(msgspec.Struct):
    name: str | None = None


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    volumes: list[_Named] | None = None
    image_pull_secrets: list[dict[str, Any]] | None = None
    node_selector: dict[str, str] | None = None
    os: _Os | None = None
    host_network: bool | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta | None = None
    spec: _Spec | None = None


def _allowed(
    request: _Request,
    verdict: Literal["injected", "unchanged", "skipped"],
    who: str,
    line: str,
    warnings: list[str] | None = None,
    fields: Obj | None = None,
) -> Answer:
    response = {"allowed": True, **(fields or {}), **({"warnings": warnings} if warnings else {})}
    return Answer(_review(request, response), verdict, who, line)


def _review(request: _Request, response: Obj) -> Obj:
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": {"uid": request.uid, **response}}


def variables(path: str) -> tuple[tuple[str, str], ...]:
    """What stands behind ``/inject/`` in the webhook's path: ``cluster/NAME/net/NETWORK``, as in Istio."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    known = {"cluster": "ISTIO_META_CLUSTER_ID", "net": "ISTIO_META_NETWORK"}
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return tuple((known.get(key, key.upper()), value.replace("--slash--", "/")) for key, value in pairs if key)
