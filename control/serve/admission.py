"""The validating webhook of a cluster (room ``serve``): what ``apply`` refuses here, the cluster's API server refuses too.

In: AdmissionReview v1 at ``/validate``. Out: the verdict of ``resources.check``, as Kubernetes says it, with its warnings. Who
deletes is not asked, nor is who takes a finalizer off an object that is going: a bad object must be able to leave. Kinds that
are not known pass. There is no token: the API server brings none, and nothing here can be learned or changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from control.resources import check
from control.resources.kinds import Kind, kind_of
from control.serve.kube import body, status

__all__ = ["webhook"]

API_VERSION = "admission.k8s.io/v1"
WARNINGS = 20  # the API server cuts off beyond 4 KiB
Obj = dict[str, Any]


class _Request(msgspec.Struct, rename="camel"):
    uid: str
    operation: str = "CREATE"
    sub_resource: str = ""
    object: dict[str, Any] | None = None


class _Review(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    request: _Request | None = None


def webhook(why_not_ready: Callable[[], str], judged: Callable[[Kind, bool], None]) -> Starlette:
    """``judged`` counts. ``why_not_ready()`` is empty when control is ready."""

    async def validate(request: Request) -> Response:
        if body.media_type(request) != "application/json":
            return PlainTextResponse("Content-Type: must be application/json\n", 415)
        try:
            review = _read(await body.read_bytes(request))
        except status.ApiError as refused:
            return PlainTextResponse(f"{refused}\n", refused.code)
        except ValueError as bad:
            return PlainTextResponse(f"{bad}\n", 400)
        response = {"uid": review.uid, **_answer(review, judged)}
        return Response(
            msgspec.json.encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}),
            media_type="application/json",
        )

    async def ready(request: Request) -> Response:
        why = why_not_ready()
        return PlainTextResponse(f"{why or 'ok'}\n", 503 if why else 200)

    app = Starlette(routes=[Route("/validate", validate, methods=["POST"]), Route("/readyz", ready)])
    app.router.redirect_slashes = False
    return app


def _read(raw: bytes) -> _Request:
    """Raises ``ValueError``, one line."""
    try:
        review = msgspec.json.decode(raw, type=_Review)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the body is no AdmissionReview: {error}") from None
    if (review.api_version, review.kind) != (API_VERSION, "AdmissionReview"):
        raise ValueError(f"the body must be {API_VERSION} AdmissionReview")
    if review.request is None or not review.request.uid:
        raise ValueError("request.uid: is required")
    if review.request.object is not None:
        try:
            body.check_depth(review.request.object)
        except status.ApiError as deep:
            raise ValueError(f"request.object: {deep}") from None
    return review.request


def _answer(request: _Request, judged: Callable[[Kind, bool], None]) -> Obj:
    obj = request.object
    if obj is None or request.operation not in ("CREATE", "UPDATE") or request.sub_resource:
        return {"allowed": True}
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if request.operation == "UPDATE" and metadata.get("deletionTimestamp"):
        return {"allowed": True}
    try:
        kind = kind_of(obj)
    except KeyError:
        return {"allowed": True}
    verdict = check.validate(obj)
    judged(kind, verdict.ok)
    if not verdict.ok:
        causes = [status.Cause(problem.path, problem.message) for problem in verdict.errors[:100]]
        refused = status.invalid(kind.kind, kind.group, str(metadata.get("name") or ""), causes)
        return {"allowed": False, "status": refused.body}
    warnings = [str(problem) for problem in verdict.warnings[:WARNINGS]]
    return {"allowed": True, **({"warnings": warnings} if warnings else {})}
