"""What both demo applications share: where to listen, how to serve, which headers a trace needs.

In: HOST and PORT of the environment (127.0.0.1 and 9080 when absent). Out: a running uvicorn server. Assumes nothing of a mesh.
"""

from __future__ import annotations

import os

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers

__all__ = ["serve", "trace_headers"]

TRACE = (
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
)


def trace_headers(headers: Headers) -> dict[str, str]:
    """The headers that an application hands on so that its calls join the caller's trace."""
    return {name: headers[name] for name in TRACE if name in headers}


def serve(app: Starlette) -> None:
    """Serve until SIGTERM. Idle connections are left to the caller to close: a server that closes first races with reuse."""
    uvicorn.run(
        app,
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "9080")),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=7200,
        timeout_graceful_shutdown=2,
        backlog=2048,
    )
