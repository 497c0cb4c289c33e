"""Answers to "may I?" and "who am I?": ``kubectl auth can-i`` and ``kubectl auth whoami``.

Room: control/serve/kube. The role of the caller's token decides, by the same rules as at the door.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from control.identity import Person
from control.serve.kube import body, status
from control.serve.kube.context import answer
from control.serve.roles import refusal

__all__ = ["REVIEWS", "review"]

# (group, plural) -> kind
REVIEWS: dict[tuple[str, str], str] = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("authorization.k8s.io", "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
    ("authentication.k8s.io", "selfsubjectreviews"): "SelfSubjectReview",
}
_READS = ["get", "list", "watch"]
_WRITES = [*_READS, "create", "update", "patch", "delete", "deletecollection"]


async def review(request: Request, group: str, plural: str) -> Response:
    kind = REVIEWS[group, plural]
    if request.method != "POST":
        raise status.method_not_allowed()
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Person)  # the door lets sidecars to their own paths only
    if kind == "SelfSubjectAccessReview":
        asked = (await body.read(request)).value
        verdict = _access(caller, asked if isinstance(asked, dict) else {})
    else:
        await body.read_bytes(request)  # these ask about nobody but the caller
        verdict = _rules(caller) if kind == "SelfSubjectRulesReview" else _who(caller)
    answered = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {}, "spec": {}, "status": verdict}
    return answer(answered, 201)


def _access(caller: Person, asked: dict[str, Any]) -> dict[str, Any]:
    spec = asked.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    wanted = resource if isinstance(resource, dict) else path if isinstance(path, dict) else {}
    verb = str(wanted.get("verb", "*"))
    where = str(wanted.get("path", "")) if wanted is path else f"/api/v1/{wanted.get('resource', '')}"
    why = refusal(caller.role, "GET" if verb in _READS else "POST", where)
    return {"allowed": not why, "reason": why or f"{caller.name}'s token has the role {caller.role}"}


def _rules(caller: Person) -> dict[str, Any]:
    verbs = {"view": _READS, "edit": _WRITES, "admin": ["*"]}[caller.role]
    rule = {"verbs": verbs, "apiGroups": ["*"], "resources": ["*"]}
    return {
        "resourceRules": [rule],
        "nonResourceRules": [{"verbs": verbs, "nonResourceURLs": ["*"]}],
        "incomplete": caller.role != "admin",  # secrets and tokens are not in it
    }


def _who(caller: Person) -> dict[str, Any]:
    groups = ["system:masters"] if caller.role == "admin" else [f"mesh:{caller.role}"]
    return {"userInfo": {"username": caller.name, "groups": [*groups, "system:authenticated"]}}
