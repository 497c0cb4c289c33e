"""What each role may do, as a table; and that what a token began ends with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

from control.identity import Person, Refused, Role
from control.serve.auth import Door
from control.serve.kube.reviews import review
from control.serve.roles import refusal

VS = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", VS, "view edit admin"),
        ("POST", VS, "edit admin"),
        ("PATCH", f"{VS}/rating", "edit admin"),
        ("DELETE", f"{VS}/rating", "edit admin"),
        ("GET", "/api/v1/secrets", "edit admin"),
        ("GET", "/api/v1/namespaces/default/secrets", "edit admin"),
        ("GET", "/api/v1/namespaces/default/secrets/web", "edit admin"),
        ("GET", "/api/v1/namespaces/secrets", "view edit admin"),
        ("GET", "/api/v1/namespaces/secrets/pods", "view edit admin"),
        ("GET", "/mesh/v1/proxies", "view edit admin"),
        ("POST", "/mesh/v1/proxies/default/web/query", "view edit admin"),
        ("DELETE", "/mesh/v1/proxies/default/web/query", "edit admin"),
        ("POST", "/mesh/v1/proxies/default/web", "edit admin"),
        ("GET", "/mesh/v1/ca", "view edit admin"),
        ("POST", "/mesh/v1/ca/rotation", "admin"),
        ("DELETE", "/mesh/v1/ca/revocations/x", "admin"),
        ("POST", "/mesh/v1/taps", "edit admin"),
        ("GET", "/mesh/v1/tokens", "admin"),
        ("POST", "/mesh/v1/tokens", "admin"),
        ("DELETE", "/mesh/v1/tokens/bootstrap", "admin"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "view edit admin"),
    ],
)
@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_role(role: Role, method: str, path: str, allowed: str) -> None:
    assert (refusal(role, method, path) == "") is (role in allowed.split())


class Judge:
    """Everybody is Ann, with a token of this id."""

    def __init__(self, expires: float) -> None:
        self.expires = expires

    def judge(self, token: str, now: float) -> Person | Refused:
        return Person("ann", "view", token, self.expires)


def _scope(token: str) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": VS, "headers": [(b"authorization", f"Bearer {token}".encode())]}


class Watch:
    """An application that begins an answer and never ends it."""

    def __init__(self, begins: bool = True) -> None:
        self.begins = begins
        self.entered = asyncio.Event()
        self.left = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            if self.begins:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            self.entered.set()
            await asyncio.Event().wait()
        finally:
            self.left = True


def test_who_takes_their_own_token_back_has_an_answer() -> None:
    async def run() -> None:
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            door.revoked("one")
            await asyncio.sleep(0)  # a client that reads slowly
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def send(message: Any) -> None:
            sent.append(message)

        door = Door(app, Judge(1e9), lambda: 0.0)
        await door(_scope("one"), None, send)  # type: ignore[arg-type]
        assert [message.get("status") for message in sent] == [200, None]

    asyncio.run(run())


@pytest.mark.parametrize("begins", [True, False])
def test_a_watch_ends_when_its_token_is_taken_back(begins: bool) -> None:
    async def run() -> None:
        watch, sent = Watch(begins), []
        door = Door(watch, Judge(1e9), lambda: 0.0)

        async def send(message: Any) -> None:
            sent.append(message)

        one = asyncio.ensure_future(door(_scope("one"), None, send))  # type: ignore[arg-type]
        await watch.entered.wait()
        door.revoked("another")
        await asyncio.sleep(0)
        assert not one.done()
        door.revoked("one")
        await one
        assert watch.left
        assert sent[0]["status"] == (200 if begins else 401)
        assert sent[-1]["type"] == "http.response.body"
        assert not sent[-1].get("more_body")

    asyncio.run(run())


def test_a_watch_ends_when_its_token_expires() -> None:
    async def run() -> None:
        watch, sent = Watch(), []

        async def send(message: Any) -> None:
            sent.append(message)

        await Door(watch, Judge(0.01), lambda: 0.0)(_scope("one"), None, send)  # type: ignore[arg-type]
        assert watch.left
        assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}

    asyncio.run(run())


def test_somebody_elses_cancellation_passes_through() -> None:
    async def run() -> None:
        watch = Watch()

        async def send(message: Any) -> None:
            pass

        task = asyncio.ensure_future(Door(watch, Judge(1e9), lambda: 0.0)(_scope("one"), None, send))  # type: ignore[arg-type]
        await watch.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


@pytest.mark.parametrize(
    ("role", "asked", "allowed"),
    [
        ("view", {"verb": "get", "resource": "pods"}, True),
        ("view", {"verb": "get", "resource": "secrets"}, False),
        ("view", {"verb": "create", "resource": "virtualservices"}, False),
        ("edit", {"verb": "create", "resource": "virtualservices"}, True),
        ("admin", {"verb": "*", "resource": "*"}, True),
    ],
)
def test_what_kubectl_auth_can_i_is_told(role: Role, asked: dict[str, str], allowed: bool) -> None:
    body = json.dumps({"spec": {"resourceAttributes": asked}}).encode()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    state = {"caller": Person("ann", role, "one", 1e9)}
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "state": state}
    told = asyncio.run(review(Request(scope, receive), "authorization.k8s.io", "selfsubjectaccessreviews"))  # type: ignore[arg-type]
    assert json.loads(bytes(told.body))["status"]["allowed"] is allowed
