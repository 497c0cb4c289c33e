"""rating-service: rates every book the same, and can be told to fail.

In: ``GET /rate/{book}``, ``/rate/misbehave``, ``/rate/behave``, ``/health``. Out: the rating as text, ``Request N`` on
stdout for each rating asked. RATING in the environment is the rating that this version gives (v1: 1, v2: 3).
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from control.demo.apps.serving import serve

__all__ = ["application"]


def application(rating: int) -> Starlette:
    """One version of the service. Constructing it opens nothing."""
    state = {"requests": 0, "failing": False}

    async def rate(request: Request) -> Response:
        state["requests"] += 1
        print(f"Request {state['requests']}", flush=True)
        if state["failing"]:
            return Response(status_code=503)
        return PlainTextResponse(str(rating))

    async def misbehave(request: Request) -> Response:
        state["failing"] = True
        return PlainTextResponse("Ratings endpoint returns 503 error.")

    async def behave(request: Request) -> Response:
        state["failing"] = False
        return PlainTextResponse("Back to normal")

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/rate/misbehave", misbehave),
            Route("/rate/behave", behave),
            Route("/rate/{book:int}", rate),
            Route("/health", health),
        ]
    )


if __name__ == "__main__":
    serve(application(int(os.environ.get("RATING", "1"))))
