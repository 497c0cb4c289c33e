"""Answers to "may I?" and "who am I?": ``kubectl auth can-i`` and ``kubectl auth whoami``.

Room: control/serve/kube. Whoever got this far carries the admin token (the middleware saw to that), so everything is allowed.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from control.serve.kube import body, status
from control.serve.kube.context import answer

__all__ = ["REVIEWS", "review"]

_RULES = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}
_ALLOWED = {"allowed": True, "reason": "the admin token allows everything"}

# (group, plural) -> (kind, status)
REVIEWS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"): ("SelfSubjectAccessReview", _ALLOWED),
    ("authorization.k8s.io", "selfsubjectrulesreviews"): ("SelfSubjectRulesReview", _RULES),
    ("authentication.k8s.io", "selfsubjectreviews"): (
        "SelfSubjectReview",
        {"userInfo": {"username": "mesh-admin", "groups": ["system:masters", "system:authenticated"]}},
    ),
}


async def review(request: Request, group: str, plural: str) -> Response:
    kind, verdict = REVIEWS[group, plural]
    if request.method != "POST":
        raise status.method_not_allowed()
    await body.read_bytes(request)  # the answer is the same for every question, in whatever form it is asked
    answered = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {}, "spec": {}, "status": verdict}
    return answer(answered, 201)
