"""The page's door (dashboard): nobody gets in through another site, and nothing of another site gets in.

In: ASGI requests for the page and its API. Out: the same, with ``scope["state"]["session"]`` for whoever has signed in. The Host
must be one of ours (a name that somebody points here is refused: DNS rebinding), an Origin the page's own, and what changes
something must carry ``x-mesh-dashboard: 1``, which no form or foreign script can send. Every answer has the strict headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control.serve.dashboard.sessions import Session, Sessions

__all__ = ["COOKIE", "HEADER", "Guard", "problem", "session_of"]

COOKIE = "mesh_dashboard"
HEADER = "x-mesh-dashboard"
API = "/api/"
_OPEN = {("POST", "/api/session")}  # before there is a session
_READS = ("GET", "HEAD")
_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_STRICT = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class Guard:
    """``names``: more host names that are ours; loopback ones always are. ``clock``: wall time."""

    def __init__(self, app: ASGIApp, sessions: Sessions, names: Iterable[str], clock: Callable[[], float]) -> None:
        self._app = app
        self._sessions = sessions
        self._names = frozenset(name.lower() for name in names)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        api = path == "/api" or path.startswith(API)

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [pair for pair in message["headers"] if pair[0] not in _NAMES]
                extra = [*_STRICT, (b"cache-control", b"no-store")] if api else list(_STRICT)
                message = {**message, "headers": [*given, *extra]}
            await send(message)

        refused = self._admit(Request(scope), api)
        await (self._app if refused is None else refused)(scope, receive, strict)

    def _admit(self, request: Request, api: bool) -> Response | None:
        hosts = [value for name, value in request.scope["headers"] if name == b"host"]
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        if not self._ours(host):
            return problem(421, "this address is not the dashboard's own: open it as http://127.0.0.1:PORT (meshctl dashboard)")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host}":
            return problem(403, "the request comes from another site")
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
            api or request.headers.get("sec-fetch-mode") != "navigate"
        ):
            return problem(403, "the request comes from another site")
        if not api:
            return None if request.method in _READS else problem(405, "the page is only read")
        if request.method not in _READS and request.headers.get(HEADER) != "1":
            return problem(403, f"a request that changes something needs the header {HEADER}: 1")
        session = self._session(request)
        request.scope.setdefault("state", {})["session"] = session
        if session is None and (request.method, request.url.path) not in _OPEN:
            return problem(401, "sign in first: meshctl dashboard")
        return None

    def _ours(self, host: str) -> bool:
        name = _name(host)
        if name in ("localhost", *self._names):
            return True
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False

    def _session(self, request: Request) -> Session | None:
        try:
            cookie = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return None
        return self._sessions.find(cookie.value, self._clock()) if cookie is not None else None


_NAMES = frozenset(name for name, _ in _STRICT)


def _name(host: str) -> str:
    """Without the port, and an IPv6 address without its brackets."""
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        return name if closed and (not rest or rest.startswith(":")) else ""
    return host.partition(":")[0]


def session_of(request: Request) -> Session:
    """Who has signed in; the guard lets nobody else come here."""
    session: Session = request.scope["state"]["session"]
    return session


def problem(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
