"""Tokens over the API: made, listed, taken back; what the disk refuses is said, and never leaves a token good in silence."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from control.ca.tokens import BOOTSTRAP, Tokens
from control.files import FileProblem
from control.serve import kube
from control.serve import tokens as subject

NOW = 1_000_000.0


class Api:
    def __init__(self, directory: Path, *, full: bool = False) -> None:
        self.tokens = Tokens.open(directory)
        self.ended: list[str] = []
        self.written: list[str] = []

        async def replaced() -> None:
            if full:
                raise FileProblem("kubeconfig: cannot be written: No space left on device")
            self.written.append(self.tokens.admin_token)

        routes = subject.routes(self.tokens, self.ended.append, replaced, lambda: NOW)
        self._app = Starlette(routes=routes, exception_handlers=kube.handlers())

    def request(self, method: str, path: str = "", body: Any = None) -> httpx.Response:
        async def call() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="https://control") as client:
                return await client.request(method, f"/mesh/v1/tokens{path}", json=body)

        return asyncio.run(call())

    def post(self, **body: Any) -> httpx.Response:
        return self.request("POST", body=body)

    def delete(self, token: str) -> httpx.Response:
        return self.request("DELETE", f"/{token}")


def test_made_listed_taken_back(tmp_path: Path) -> None:
    api = Api(tmp_path)
    made = api.post(name="ann", role="edit", ttl=60)
    assert (made.status_code, made.json()["expires"], made.headers["cache-control"]) == (201, NOW + 60, "no-store")
    rows = api.request("GET").json()["tokens"]
    assert [(row["id"], row["holder"], row["expires"]) for row in rows] == [
        (BOOTSTRAP, "mesh-admin", None),
        (made.json()["id"], "ann", NOW + 60),
    ]
    assert made.json()["token"] not in str(rows)
    assert api.delete(made.json()["id"]).json()["revoked"] == NOW
    assert (api.ended, api.written) == ([made.json()["id"]], [])
    assert api.delete("nobody").status_code == 404
    api.tokens.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "ann", "role": "root"}, "the body is not a token request: Invalid enum value 'root' - at `$.role`"),
        ({"name": "ann"}, "role: must be view, edit or admin"),
        ({"name": "a b", "role": "view"}, "name: must say who gets the token, such as `ci` or `ann@example.com`, not 'a b'"),
        ({"name": "ann", "role": "view", "pod": "a"}, "role: is for people; a sidecar's token has namespace and pod instead"),
        ({"namespace": "Default", "pod": "a"}, "namespace: must be a lower case name such as `default`, not 'Default'"),
        ({"name": "ann", "role": "view", "ttl": 0}, "ttl: must be more than 0 and at most 31622400 seconds"),
    ],
)
def test_what_is_asked_for_wrongly_is_told_with_its_field(tmp_path: Path, body: dict[str, Any], message: str) -> None:
    api = Api(tmp_path)
    refused = api.post(**body)
    assert (refused.status_code, refused.json()["message"]) == (400, message)
    assert len(api.tokens.rows(NOW)) == 1
    api.tokens.close()


def test_the_kubeconfigs_own_gets_a_successor(tmp_path: Path) -> None:
    api = Api(tmp_path)
    old = api.tokens.admin_token
    assert api.delete(BOOTSTRAP).status_code == 200
    assert (api.ended, api.written) == ([BOOTSTRAP], [api.tokens.admin_token])
    assert api.tokens.admin_token != old
    api.tokens.close()


def test_a_kubeconfig_that_cannot_be_written_is_told_and_the_old_token_is_no_good_all_the_same(tmp_path: Path) -> None:
    api = Api(tmp_path, full=True)
    old = api.tokens.admin_token
    refused = api.delete(BOOTSTRAP)
    assert refused.status_code == 500
    assert "kubeconfig: cannot be written: No space left on device" in refused.json()["message"]
    assert api.ended == [BOOTSTRAP]
    assert api.tokens.admin_token != old
    api.tokens.close()
