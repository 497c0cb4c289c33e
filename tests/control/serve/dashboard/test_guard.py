"""The page's door: other sites, other names, other methods; and the headers of every answer."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from control.identity import Person
from control.serve.dashboard.guard import COOKIE, HEADER, Guard
from control.serve.dashboard.sessions import Sessions
from control.serve.dashboard.signin import session_routes

NOW = 1_700_000_000.0
HOST = "127.0.0.1:15014"


async def _answer(request: Request) -> Response:
    return PlainTextResponse("in")


def app(sessions: Sessions) -> Guard:
    routes = [
        *session_routes(sessions, lambda: NOW),
        Route("/api/thing", _answer, methods=["GET", "POST"]),
        Route("/", _answer, methods=["GET", "POST"]),
    ]
    return Guard(Starlette(routes=routes), sessions, ("mesh.example",), lambda: NOW)


def ask(method: str, path: str, signed_in: bool = True, **headers: str) -> httpx.Response:
    sessions = Sessions()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given.setdefault("host", HOST)
    if signed_in:
        cookie, _ = sessions.sign_in(sessions.code(Person("ann", "view", "t", inf), NOW)[0], NOW) or ("", None)
        given["cookie"] = f"{COOKIE}={cookie}"

    async def story() -> httpx.Response:
        transport = httpx.ASGITransport(app=app(sessions))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            return await client.request(method, path, headers=given)

    return asyncio.run(story())


@pytest.mark.parametrize("host", [HOST, "localhost:1", "LOCALHOST", "[::1]:15014", "127.5.5.5", "mesh.example:15014"])
def test_our_own_names(host: str) -> None:
    assert ask("GET", "/api/thing", host=host).text == "in"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil", "", "[::1", "mesh.example.evil"]
)
@pytest.mark.parametrize("path", ["/", "/api/thing", "/api/session"])
def test_a_name_that_is_not_ours_is_refused(host: str, path: str) -> None:
    """DNS rebinding: the browser believes that it talks to the other name."""
    assert ask("GET", path, host=host).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:15014"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_another_site_is_refused(headers: dict[str, str]) -> None:
    assert ask("GET", "/api/thing", **headers).status_code == 403
    assert ask("POST", "/api/thing", **headers, **{HEADER.replace("-", "_"): "1"}).status_code == 403


def test_a_link_from_elsewhere_opens_the_page_and_nothing_more() -> None:
    came = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask("GET", "/", signed_in=False, **came).status_code == 200
    assert ask("GET", "/api/thing", **came).status_code == 403


def test_a_change_needs_our_header() -> None:
    assert ask("POST", "/api/thing").status_code == 403
    assert ask("POST", "/api/thing", x_mesh_dashboard="1", origin=f"http://{HOST}").text == "in"
    assert ask("POST", "/api/session", signed_in=False).status_code == 403
    assert ask("DELETE", "/api/session").status_code == 403
    assert ask("POST", "/").status_code == 405


def test_nothing_without_a_session() -> None:
    assert ask("GET", "/api/thing", signed_in=False).status_code == 401
    assert ask("GET", "/api/thing", signed_in=False, cookie=f"{COOKIE}=guessed").status_code == 401
    assert ask("GET", "/api", signed_in=False).status_code == 401
    assert ask("GET", "/api/session", signed_in=False).status_code == 401
    assert ask("GET", "/", signed_in=False).status_code == 200


@pytest.mark.parametrize(
    ("path", "more"), [("/", {}), ("/api/thing", {}), ("/nothing", {}), ("/api/thing", {"host": "evil.example"})]
)
def test_every_answer_has_the_strict_headers(path: str, more: dict[str, Any]) -> None:
    headers = ask("GET", path, **more).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers.get_list("cache-control") == (["no-store"] if path.startswith("/api") else [])
