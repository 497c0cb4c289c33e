"""Tokens over the API (room ``serve``): make, list, take back. The door lets only admins come here.

In: requests. Out: routes under ``/mesh/v1/tokens``. A token is in the answer that makes it and nowhere else.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from math import isinf
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.ca.token_book import TokenRow
from control.ca.tokens import BOOTSTRAP, DEFAULT_TTL, Tokens
from control.files import FileProblem
from control.identity import Role
from control.serve.kube.status import ApiError, bad_request
from control.serve.stream import read_body

__all__ = ["routes"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # RFC 1123 name; our own pattern, never a user's
_HOLDER = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.@]{0,99}")


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of ``POST /mesh/v1/tokens``: of a sidecar (``namespace``, ``pod``), or of a person (``name``, ``role``). ``ttl`` in
    seconds.
    """

    namespace: str = ""
    pod: str = ""
    service_account: str = "default"
    name: str = ""
    role: Role | None = None
    ttl: float = DEFAULT_TTL


def routes(
    tokens: Tokens, revoked: Callable[[str], None], replaced: Callable[[], Awaitable[None]], wall: Callable[[], float] = time.time
) -> list[Route]:
    """``revoked(id)`` is called with a token that was taken back, ``replaced()`` when the kubeconfig's own has a successor.

    The latter may raise ``FileProblem``.
    """
    one_at_a_time = asyncio.Lock()  # the book is a file: its calls are made in a thread, one after the other

    async def make(request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await read_body(request, 1 << 16), type=TokenRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise bad_request(f"the body is not a token request: {error}") from error
        _check(asked)
        now = wall()
        try:
            async with one_at_a_time:
                if asked.role is not None:
                    made = await asyncio.to_thread(tokens.grant, asked.name, asked.role, now, asked.ttl)
                else:
                    names = (asked.namespace, asked.pod, asked.service_account)
                    made = await asyncio.to_thread(tokens.issue, *names, now, asked.ttl)
        except ValueError as error:
            raise bad_request(f"ttl: {error}") from error
        body = {"token": made.token, "id": made.id, "expires": made.expires}
        return JSONResponse(body, 201, headers={"cache-control": "no-store"})

    async def every(request: Request) -> Response:
        async with one_at_a_time:
            rows = await asyncio.to_thread(tokens.rows, wall())
        return JSONResponse({"tokens": [_shown(row) for row in rows]})

    async def revoke(request: Request) -> Response:
        token = request.path_params["token"]
        try:
            async with one_at_a_time:
                row = await asyncio.to_thread(tokens.revoke, token, wall())
        except FileProblem as problem:
            raise ApiError(500, "InternalError", f"the token is still good: {problem}") from problem
        if row is None:
            raise ApiError(404, "NotFound", f"there is no token {token[:40]!r}: `meshctl token list` shows those that are out")
        try:
            if token == BOOTSTRAP:
                await replaced()
        except FileProblem as problem:
            why = f"the token is taken back, but its successor is not in the kubeconfig: {problem}; start control again"
            raise ApiError(500, "InternalError", why) from problem
        finally:
            revoked(token)
        return JSONResponse(_shown(row))

    return [
        Route("/mesh/v1/tokens", make, methods=["POST"]),
        Route("/mesh/v1/tokens", every, methods=["GET"]),
        Route("/mesh/v1/tokens/{token}", revoke, methods=["DELETE"]),
    ]


def _check(asked: TokenRequest) -> None:
    """Raises a 400 that names the field."""
    if asked.role is not None:
        if asked.namespace or asked.pod:
            raise bad_request("role: is for people; a sidecar's token has namespace and pod instead")
        if not _HOLDER.fullmatch(asked.name):
            raise bad_request(f"name: must say who gets the token, such as `ci` or `ann@example.com`, not {asked.name[:40]!r}")
        return
    if asked.name:
        raise bad_request("role: must be view, edit or admin")
    for field, value in (("namespace", asked.namespace), ("pod", asked.pod), ("serviceAccount", asked.service_account)):
        if not _LABEL.fullmatch(value):
            raise bad_request(f"{field}: must be a lower case name such as `default`, not {value[:40]!r}")


def _shown(row: TokenRow) -> dict[str, Any]:
    shown = row._asdict()
    if isinf(row.expires):
        shown["expires"] = None
    return shown
