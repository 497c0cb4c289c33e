"""Key sets of token issuers, for people (room ``serve``): ``GET /mesh/v1/jwks``.

In: a report. Out: a route. For each set who asks for it, when it was fetched last, why not since then, and whether tokens can be
checked by it; never the keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["routes"]


def routes(report: Callable[[], list[dict[str, Any]]]) -> list[Route]:
    async def sets(request: Request) -> Response:
        return JSONResponse({"keySets": report()})

    return [Route("/mesh/v1/jwks", sets, methods=["GET"])]
