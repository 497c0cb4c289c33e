"""The page's files: as they were built, and without them a text that says why and what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from control.serve.dashboard import files


def asked(directory: Path, path: str) -> tuple[int, str, str]:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=Starlette(routes=list(files.routes(directory))))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.get(path)

    answer = asyncio.run(ask())
    return answer.status_code, answer.headers.get("content-type", ""), answer.text


def test_what_was_built_is_served_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "app.js").write_text("1")
    (tmp_path / ".made-of").write_text("secret")
    assert asked(tmp_path, "/") == (200, "text/html; charset=utf-8", "<!doctype html>")
    assert asked(tmp_path, "/app.js")[:2] == (200, "text/javascript; charset=utf-8")
    for path in ("/.made-of", "/../files.py", "/missing.txt"):
        assert asked(tmp_path, path)[0] == 404


@pytest.mark.parametrize("why", ["the dashboard's page is missing (npm ci: ECONNREFUSED); to try again: make page\n", ""])
def test_a_page_that_was_not_built_says_why_and_how_to_build_it(tmp_path: Path, why: str) -> None:
    if why:
        (tmp_path / "missing.txt").write_text(why)
    status, kind, text = asked(tmp_path, "/")
    assert (status, kind) == (503, "text/plain; charset=utf-8")
    assert why in text and "make page" in text and "meshctl top" in text
