"""The applications of the article: what they answer, what they log, that they hand trace headers on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from control.demo.apps import book, rating


class Asked:
    """A stand-in for rating, in memory: remembers requests, answers as told."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, text="1")

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer()


@contextlib.asynccontextmanager
async def book_service(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    real = httpx.AsyncClient
    monkeypatch.setattr(
        book.httpx, "AsyncClient", lambda **settings: real(transport=httpx.MockTransport(asked), base_url=settings["base_url"])
    )
    app = book.application("http://rating:8080")
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: object, receive: object, send: object) -> None:
            await app({**scope, "state": dict(state)}, receive, send)  # type: ignore[dict-item,arg-type]

        async with real(transport=httpx.ASGITransport(app=with_state), base_url="http://book") as client:  # type: ignore[arg-type]
            yield client


def story(monkeypatch: pytest.MonkeyPatch, act: Callable[[Asked, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        asked = Asked()
        async with book_service(asked, monkeypatch) as client:
            await act(asked, client)

    asyncio.run(run())


def test_a_book_is_39_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(asked: Asked, client: httpx.AsyncClient) -> None:
        answer = await client.get("/book/1")
        assert (answer.status_code, answer.content) == (200, b'{"bookId":1,"name":"Book 1","rating":1}')
        assert len(answer.content) == 39
        assert str(asked.requests[0].url) == "http://rating:8080/rate/1"

    story(monkeypatch, act)


@pytest.mark.parametrize("status", [404, 429, 503, 504])
def test_an_error_of_rating_is_ours_with_an_empty_body(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    async def act(asked: Asked, client: httpx.AsyncClient) -> None:
        asked.answer = lambda: httpx.Response(status, text="no healthy upstream")
        answer = await client.get("/book/1")
        assert (answer.status_code, answer.content) == (status, b"")

    story(monkeypatch, act)


def test_a_sidecar_that_is_down_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def act(asked: Asked, client: httpx.AsyncClient) -> None:
        asked.answer = refused
        answer = await client.get("/book/1")
        assert (answer.status_code, answer.content) == (503, b"")

    story(monkeypatch, act)


def test_trace_headers_go_on_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {"x-request-id": "r", "x-b3-traceid": "t", "traceparent": "p", "x-b3-sampled": "1"}

    async def act(asked: Asked, client: httpx.AsyncClient) -> None:
        await client.get("/book/1", headers={**sent, "authorization": "secret", "cookie": "c"})
        got = asked.requests[0].headers
        assert {name: got[name] for name in sent} == sent
        assert "authorization" not in got and "cookie" not in got

    story(monkeypatch, act)


def test_rating_counts_misbehaves_and_behaves(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        transport = httpx.ASGITransport(app=rating.application(3))
        async with httpx.AsyncClient(transport=transport, base_url="http://rating") as client:
            assert (await client.get("/rate/1")).text == "3"
            assert (await client.get("/rate/misbehave")).text == "Ratings endpoint returns 503 error."
            failing = await client.get("/rate/1")
            assert (failing.status_code, failing.content) == (503, b"")
            assert (await client.get("/rate/behave")).text == "Back to normal"
            assert (await client.get("/rate/1")).status_code == 200
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/rate/x")).status_code == 404

    asyncio.run(run())
    assert capsys.readouterr().out == "Request 1\nRequest 2\nRequest 3\n"
