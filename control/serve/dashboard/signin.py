"""Signing in to the page (dashboard): a code for a token on :15012, a session for the code on :15014.

In: a person's request for a code; the code, by POST from the page, which read it from the URL's fragment (so that no server, log
or history sees it). Out: a cookie that no script can read and no other site can send.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isinf
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.identity import Person
from control.serve.auth import caller_of
from control.serve.dashboard.guard import COOKIE, problem, session_of
from control.serve.dashboard.sessions import Session, Sessions
from control.serve.kube.status import ApiError
from control.serve.stream import read_body

__all__ = ["CODE_PATH", "code_routes", "session_routes"]

CODE_PATH = "/mesh/v1/dashboard-code"


class _SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str


def code_routes(sessions: Sessions, address: Callable[[], str], clock: Callable[[], float] = time.time) -> list[Route]:
    """For :15012. ``address()``: the page's own, such as http://127.0.0.1:15014."""

    async def make(request: Request) -> Response:
        person = caller_of(request.scope)
        if not isinstance(person, Person):
            raise ApiError(403, "Forbidden", "forbidden: the dashboard is for people")
        code, expires = sessions.code(person, clock())
        body = {"code": code, "url": f"{address()}/#code={code}", "expires": expires}
        return JSONResponse(body, 201, headers={"cache-control": "no-store"})

    return [Route(CODE_PATH, make, methods=["POST"])]


def session_routes(sessions: Sessions, clock: Callable[[], float] = time.time) -> list[Route]:
    """For :15014."""

    async def sign_in(request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await read_body(request, 1 << 12), type=_SignIn)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return problem(400, 'the body must be {"code": "..."}')
        found = sessions.sign_in(asked.code, clock())
        if found is None:
            return problem(401, "the code is used, too old or wrong: run meshctl dashboard again")
        cookie, session = found
        response = Response(status_code=204)
        age = max(0, int(session.expires - clock()))
        response.set_cookie(COOKIE, cookie, max_age=age, path="/api", httponly=True, samesite="strict")
        return response

    async def who(request: Request) -> Response:
        return JSONResponse(_shown(session_of(request)))

    async def sign_out(request: Request) -> Response:
        sessions.sign_out(request.cookies.get(COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/api", httponly=True, samesite="strict")
        return response

    return [
        Route("/api/session", sign_in, methods=["POST"]),
        Route("/api/session", who, methods=["GET"]),
        Route("/api/session", sign_out, methods=["DELETE"]),
    ]


def _shown(session: Session) -> dict[str, Any]:
    return {"name": session.name, "role": session.role, "expires": None if isinf(session.expires) else session.expires}
