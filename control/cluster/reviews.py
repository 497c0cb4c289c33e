"""Who calls, by the cluster's own word (room ``cluster``): bearer tokens judged by TokenReview.

In: a token. Out: a ``ProxyIdentity`` for a pod's projected token (audience ``istio-ca``): namespace and account from the user
name, the pod from what the API server says the token is bound to, never from the caller. Or a ``Person`` for a token of one of
the accounts ``mesh-view``, ``mesh-edit``, ``mesh-admin`` of the root namespace (audience ``mesh-api``): who may make such a token
(``create`` of ``serviceaccounts/token`` for that account) has that role, so Kubernetes' own RBAC decides, and nobody's token for
the cluster itself ever reaches us.

A verdict is believed for a minute at most and never beyond the token's end. When the API server cannot be asked nobody new comes
in (``Unjudged``: try again); what is open stays open.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Callable
from typing import Any

import msgspec

from control.identity import ROLES, Caller, Person, ProxyIdentity, Refused, Unjudged
from control.store.kubernetes.client import ApiServer, Unreachable
from control.store.kubernetes.client import Refused as NotAnswered

__all__ = ["API_AUDIENCE", "AUDIENCE", "TokenReviews"]

log = logging.getLogger("mesh.control.cluster")
AUDIENCE = "istio-ca"
API_AUDIENCE = "mesh-api"
PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
BELIEVED = 60.0  # seconds
DISBELIEVED = 10.0
MAX_TOKEN = 16384  # characters
MAX_KEPT = 20_000
_USER = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")
_EXTRA = "authentication.kubernetes.io/"
Verdict = Caller | Refused


class TokenReviews:
    """``pod(namespace, name)``: the uid of the Pod that is known by that name, "" for none."""

    def __init__(self, api: ApiServer, root_namespace: str, pod: Callable[[str, str], str] = lambda namespace, name: "") -> None:
        self._api = api
        self._root = root_namespace
        self._pod = pod
        self._kept: dict[bytes, tuple[Verdict, float]] = {}
        self._asking: dict[bytes, asyncio.Future[Verdict | Unjudged]] = {}

    def __repr__(self) -> str:
        return "TokenReviews()"

    async def judge(self, token: str, now: float) -> Caller | Refused | Unjudged:
        if len(token) > MAX_TOKEN or not token.isascii() or token.count(".") != 2:
            return Refused("the bearer token is not one of a service account")
        key = hashlib.sha256(token.encode()).digest()
        kept = self._kept.get(key)
        if kept is not None and now < kept[1]:
            return kept[0]
        under_way = self._asking.get(key)
        if under_way is not None:
            return await asyncio.shield(under_way)
        answer: asyncio.Future[Verdict | Unjudged] = asyncio.get_running_loop().create_future()
        self._asking[key] = answer
        verdict: Verdict | Unjudged = Unjudged("the check was cut off")
        try:
            verdict = await self._ask(token, now)
        finally:
            del self._asking[key]
            answer.set_result(verdict)
        if not isinstance(verdict, Unjudged):
            until = now + DISBELIEVED if isinstance(verdict, Refused) else min(now + BELIEVED, verdict.expires)
            self._keep(key, verdict, now, until)
        return verdict

    def _keep(self, key: bytes, verdict: Verdict, now: float, until: float) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept = {one: known for one, known in self._kept.items() if known[1] > now}
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
        self._kept[key] = (verdict, until)

    async def _ask(self, token: str, now: float) -> Verdict | Unjudged:
        spec = {"token": token, "audiences": [AUDIENCE, API_AUDIENCE]}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        try:
            answer = await self._api.send("POST", PATH, review)
            status = answer["status"]
            if not isinstance(status, dict):
                raise TypeError
        except (Unreachable, NotAnswered) as problem:
            log.warning("a token could not be reviewed: %s", problem)
            return Unjudged("the cluster's API server cannot be asked about the token now: try again")
        except (msgspec.DecodeError, KeyError, TypeError):
            return Unjudged("the cluster's API server gave no verdict on the token: try again")
        if status.get("authenticated") is not True:
            return Refused("the cluster does not accept the bearer token")
        audiences = status.get("audiences")
        audiences = audiences if isinstance(audiences, list) else []
        expires = _expiry(token)
        if expires <= now:
            return Refused("the bearer token has expired, or does not say when it does")
        user = status.get("user")
        user = user if isinstance(user, dict) else {}
        account = _USER.fullmatch(str(user.get("username", "")))
        if account is None:
            return Refused("the bearer token is not one of a service account")
        extra = user.get("extra")
        extra = extra if isinstance(extra, dict) else {}
        id_ = _one(extra, "credential-id") or hashlib.sha256(token.encode()).hexdigest()[:16]
        if AUDIENCE in audiences:
            return self._sidecar(account[1], account[2], extra, expires, id_)
        if API_AUDIENCE in audiences:
            return self._person(account[1], account[2], expires, id_)
        return Refused(f"the bearer token is for others: it needs the audience {AUDIENCE} (sidecars) or {API_AUDIENCE} (people)")

    def _sidecar(self, namespace: str, account: str, extra: dict[str, Any], expires: float, id_: str) -> Verdict:
        pod, uid = _one(extra, "pod-name"), _one(extra, "pod-uid")
        if not pod or not uid:
            return Refused(
                "the bearer token is not bound to a pod: project it into the pod (a volume of type serviceAccountToken)"
            )
        known = self._pod(namespace, pod)
        if known and known != uid:
            return Refused(f"the bearer token is of an earlier pod {namespace}/{pod}")
        return ProxyIdentity(namespace, pod, account, expires, id_)

    def _person(self, namespace: str, account: str, expires: float, id_: str) -> Verdict:
        role = next((role for role in ROLES if account == f"mesh-{role}"), None)
        if namespace != self._root or role is None:
            return Refused(
                f"the account {namespace}/{account} has no role here: use one of {self._root}/mesh-view, -edit, -admin"
            )
        return Person(f"system:serviceaccount:{namespace}:{account}", role, id_, expires)


def _one(extra: dict[str, Any], name: str) -> str:
    values = extra.get(_EXTRA + name)
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else ""


def _expiry(token: str) -> float:
    """When a token that the API server believes ends; 0.0 when it does not say."""
    body = token.split(".")[1]
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, msgspec.DecodeError, UnicodeDecodeError):
        return 0.0
    expires = claims.get("exp") if isinstance(claims, dict) else None
    return float(expires) if isinstance(expires, (int, float)) and not isinstance(expires, bool) else 0.0
