"""The page's files (dashboard), as the wheel's build made them, read once.

In: a directory. Out: routes for what is in it, and nothing else; without a page a plain text that says why, and how to build it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

__all__ = ["DIST", "routes"]

DIST = Path(__file__).resolve().parents[2] / "page" / "dist"
INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
_NO_PAGE = """The dashboard's page is not in this installation; the mesh itself runs without it.
%s
To build it, in the directory of the sources:

    make page          (or: python setup.py page)

then start control (or the demo) again. It needs Node 20 and npm, or a package index to fetch them from.
Until then: meshctl top, meshctl trace, meshctl proxy-status, meshctl analyze.
"""
_WHY = "missing.txt"  # what the build hook left when it failed


def routes(directory: Path = DIST) -> list[Route]:
    found = {}
    for path in sorted(directory.rglob("*")) if (directory / INDEX).is_file() else ():
        if path.suffix in _TYPES and path.is_file():
            found[f"/{path.relative_to(directory).as_posix()}"] = (path.read_bytes(), _TYPES[path.suffix])
    if not found:
        return [_no_page(directory / _WHY)]
    found["/"] = found[f"/{INDEX}"]
    return [_file(path, *known) for path, known in found.items()]


def _file(path: str, body: bytes, media_type: str) -> Route:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return Route(path, serve, methods=["GET"])


def _no_page(why: Path) -> Route:
    text = _NO_PAGE % (f"\n    {why.read_text(errors='replace').strip()}\n" if why.is_file() else "")

    async def serve(request: Request) -> Response:
        return PlainTextResponse(text, 503)

    return Route("/", serve, methods=["GET"])
