"""book-service: a book with its rating, asked of ``http://rating:8080``.

In: ``GET /book/{id}``, ``/health``. Out: the book as JSON, or the status that rating answered with an empty body. The call
is that of any program: an httpx client that obeys ``http_proxy``, so the mesh needs no line of code here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from control.demo.apps.serving import serve, trace_headers

__all__ = ["application"]

CALLS = 32  # calls at one time; httpx looks through all of its waiting calls for every one that ends, so more are slower


def application(ratings: str) -> Starlette:
    """The service; ``ratings`` is the base URL of the rating service."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        limits = httpx.Limits(max_connections=CALLS, max_keepalive_connections=CALLS)
        async with httpx.AsyncClient(base_url=ratings, limits=limits, timeout=60.0) as client:
            yield {"client": client, "turn": asyncio.Semaphore(CALLS)}

    async def book(request: Request) -> Response:
        number = request.path_params["id"]
        try:
            async with request.state.turn:
                answer = await request.state.client.get(f"/rate/{number}", headers=trace_headers(request.headers))
        except httpx.HTTPError as failure:
            print(f"rating cannot be asked: {type(failure).__name__}", flush=True)
            return Response(status_code=503)
        if answer.status_code != 200:
            print(f"rating answered {answer.status_code}", flush=True)
            return Response(status_code=answer.status_code)
        return JSONResponse({"bookId": number, "name": f"Book {number}", "rating": int(answer.text)})

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(lifespan=lifespan, routes=[Route("/book/{id:int}", book), Route("/health", health)])


if __name__ == "__main__":
    serve(application(os.environ.get("RATINGS", "http://rating:8080")))
