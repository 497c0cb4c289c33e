"""The door of :15012 (room ``serve``): every request proves who it is, on loopback too.

In: any ASGI application and an ``Authenticator``. Out: the same application, with ``scope["state"]["caller"]`` set. No or a bad
token is 401; a sidecar outside its own paths, or a person on a sidecar's, is 403; both are Kubernetes Status objects. The token
is taken from the Authorization header only (never from the URL) and is not passed on.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from control.identity import Admin, Authenticator, Caller, ProxyIdentity, Refused
from control.serve.kube.status import ApiError, response, unauthorized

__all__ = ["CERTIFICATE_PATH", "PROXY_PATHS", "Door", "caller_of", "proxy_of_request"]

CERTIFICATE_PATH = "/mesh/v1/certificate"
PROXY_PATHS = ("/mesh/v1/config", CERTIFICATE_PATH)


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._admit(scope) if scope["type"] == "http" else unauthorized()
        if refusal is not None:
            if refusal.code == 401:
                self._turned_away(scope.get("path", ""))
            await response(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> ApiError | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return unauthorized("Unauthorized: send one header `Authorization: Bearer TOKEN`; the kubeconfig has the token")
        scheme, _, token = given[0].decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return unauthorized("Unauthorized: the Authorization header is not a bearer token")
        judged = self._authenticator.judge(token.strip(), self._clock())
        if isinstance(judged, Refused):
            return unauthorized(f"Unauthorized: {judged.why}")
        path: str = scope["path"]
        for_proxies = any(path == own or path.startswith(own + "/") for own in PROXY_PATHS)
        if isinstance(judged, ProxyIdentity) and not for_proxies:
            return _forbidden(f"sidecar {judged.name} may only fetch its own configuration and certificate, not {path}")
        if isinstance(judged, Admin) and for_proxies:
            return _forbidden("this path is for sidecars: it needs a join token (meshctl or POST /mesh/v1/tokens makes one)")
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        scope.setdefault("state", {})["caller"] = judged
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
