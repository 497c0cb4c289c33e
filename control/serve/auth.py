"""The door of :15012 (room ``serve``): every request proves who it is, on loopback too.

In: any ASGI application and an ``Authenticator``. Out: the same application, with ``scope["state"]["caller"]`` set. No or a bad
token is 401; a sidecar outside its own paths, a person on a sidecar's, or beyond the role, is 403; both are Kubernetes Status
objects. The token is taken from the Authorization header only (never from the URL) and is not passed on; where that header is
missing because a Kubernetes API server, which keeps it for itself, carries the request, from ``X-Mesh-Authorization``.

Whose token nobody can judge at the moment is a 503, but for a sidecar that has its stream open by that very token:
what is open stays open, and it has to confirm what it is told and to renew its certificate. What a token has begun, a watch or a
stream, ends when it expires or is taken back.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from math import isinf
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control.identity import Authenticator, Caller, Person, ProxyIdentity, Refused, Unjudged
from control.serve.kube.status import ApiError, response, unauthorized, unavailable
from control.serve.roles import refusal

__all__ = ["CERTIFICATE_PATH", "PROXY_PATHS", "Door", "caller_of", "proxy_of_request"]

CERTIFICATE_PATH = "/mesh/v1/certificate"
STREAM_PATH = "/mesh/v1/config"
PROXY_PATHS = (STREAM_PATH, CERTIFICATE_PATH, "/v1/traces")
_DIGEST = "token-digest"
CARRIED = b"x-mesh-authorization"
_KNOWN = (Person, ProxyIdentity, Refused, Unjudged)
TRACES_PATH = "/mesh/v1/traces"  # sidecars write it, people read it


class Door:
    """``clock`` is wall time; ``turned_away`` is called with the path of every request without a valid token."""

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        clock: Callable[[], float],
        turned_away: Callable[[str], None] = lambda path: None,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._clock = clock
        self._turned_away = turned_away
        self._under_way: dict[str, set[asyncio.Task[Any]]] = {}  # by token
        self._ended: set[asyncio.Task[Any]] = set()
        self._streaming: dict[bytes, tuple[ProxyIdentity, int]] = {}  # digest of a token -> whose, and its streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = await self._admit(scope) if scope["type"] == "http" else unauthorized()
        if refused is not None:
            if refused.code == 401:
                self._turned_away(scope.get("path", ""))
            await response(refused)(scope, receive, send)
            return
        await self._attend(caller_of(scope), scope, receive, send)

    def revoked(self, token: str) -> None:
        """End what the token of this id has under way, but for the request by which it is taken back: that one has an answer."""
        for task in self._under_way.get(token, set()) - {asyncio.current_task()}:
            self._end(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._ended.add(task)
        task.cancel()

    async def _attend(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as long as its token is good."""
        task = asyncio.current_task()
        assert task is not None
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        tasks = self._under_way.setdefault(caller.token, set())
        tasks.add(task)
        digest = scope["state"].get(_DIGEST) if scope["path"] == STREAM_PATH else None
        if digest is not None and isinstance(caller, ProxyIdentity):
            self._streaming[digest] = (caller, self._streaming.get(digest, (caller, 0))[1] + 1)
        timer = None
        # A sidecar's stream looks at the time itself, and its other calls are short and many; a person's watch may be longer than
        # the token.
        if isinstance(caller, Person) and not isinf(caller.expires):
            timer = asyncio.get_running_loop().call_later(caller.expires - self._clock(), self._end, task)
        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            if begun:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await response(unauthorized("Unauthorized: the bearer token is no longer good"))(scope, receive, send)
        finally:
            if timer is not None:
                timer.cancel()
            self._ended.discard(task)
            tasks.discard(task)
            self._streamed(digest)
            if not tasks and self._under_way.get(caller.token) is tasks:
                del self._under_way[caller.token]

    def _streamed(self, digest: bytes | None) -> None:
        if digest is None or digest not in self._streaming:
            return
        caller, streams = self._streaming.pop(digest)
        if streams > 1:
            self._streaming[digest] = (caller, streams - 1)

    def _known(self, digest: bytes) -> ProxyIdentity | None:
        """Whose stream is open under this token, which has not expired."""
        known = self._streaming.get(digest)
        return known[0] if known is not None and known[0].expires > self._clock() else None

    async def _admit(self, scope: Scope) -> ApiError | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        given = given or [value for name, value in scope["headers"] if name == CARRIED]
        if len(given) != 1:
            return unauthorized("Unauthorized: send one header `Authorization: Bearer TOKEN`; the kubeconfig has the token")
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return unauthorized("Unauthorized: the Authorization header is not a bearer token")
        asked = self._authenticator.judge(token.strip(), self._clock())
        judged = asked if isinstance(asked, _KNOWN) else await asked
        digest = hashlib.sha256(token.strip().encode("latin-1")).digest()
        if isinstance(judged, Unjudged):
            known = self._known(digest)
            if known is None:
                return unavailable(judged.why)
            judged = known
        if isinstance(judged, Refused):
            return unauthorized(f"Unauthorized: {judged.why}")
        path: str = scope["path"]
        for_proxies = any(path == own or path.startswith(own + "/") for own in PROXY_PATHS)
        for_proxies = for_proxies or (path == TRACES_PATH and scope["method"] == "POST")
        if isinstance(judged, ProxyIdentity) and not for_proxies:
            return _forbidden(f"sidecar {judged.name} may only fetch its own configuration and report, not {path}")
        if isinstance(judged, Person):
            if for_proxies:
                return _forbidden("this path is for sidecars: it needs a join token (meshctl or POST /mesh/v1/tokens makes one)")
            if why := refusal(judged.role, scope["method"], path):
                return _forbidden(f"{why}: {judged.name}'s token has the role {judged.role} (meshctl token create)")
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (b"authorization", CARRIED)]
        scope.setdefault("state", {}).update({"caller": judged, _DIGEST: digest})
        return None


def _forbidden(message: str) -> ApiError:
    return ApiError(403, "Forbidden", f"forbidden: {message}")


def caller_of(scope: Scope) -> Caller:
    """Who the door let in."""
    caller: Caller = scope["state"]["caller"]
    return caller


def proxy_of_request(request: Request) -> ProxyIdentity:
    """The sidecar that calls. A ``pod=NAMESPACE/NAME`` in the query must be its own: raises a 403 otherwise."""
    caller = caller_of(request.scope)
    if not isinstance(caller, ProxyIdentity):
        raise _forbidden("this path is for sidecars")
    asked = request.query_params.get("pod", caller.name)
    if asked != caller.name:
        raise _forbidden(f"the token is for pod {caller.name}, not for {asked}: give each sidecar its own token")
    return caller
