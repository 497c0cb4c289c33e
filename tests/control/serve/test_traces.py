"""The receiver and the queries over HTTP: who may, what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette

from control.identity import Person, ProxyIdentity, Refused
from control.serve import kube, traces
from control.serve.auth import Door
from control.traces.decode import MAX_BODY, PROTOBUF
from control.traces.store import TraceStore
from tests.control.traces.test_decode import T, request

BOOK = {"authorization": "Bearer book", "content-type": PROTOBUF}
VIEW = {"authorization": "Bearer view"}


class Tokens:
    def judge(self, token: str, now: float) -> Any:
        if token == "book":
            return ProxyIdentity(token="1", expires=2e9, namespace="default", pod="book-1", service_account="book")
        if token == "shelf":
            return ProxyIdentity(token="3", expires=2e9, namespace="default", pod="shelf-1", service_account="shelf")
        return Person(token="2", expires=2e9, name="eve", role="view") if token == "view" else Refused("no")


class Client:
    """One request at a time, without a socket."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="https://control") as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Client, TraceStore]]:
    store = TraceStore(tmp_path / "traces.db", clock=lambda: 1e9 + 10)
    store.open()
    app = Starlette(routes=traces.routes(store), exception_handlers=kube.handlers())
    yield Client(Door(app, Tokens(), lambda: 1e9)), store
    store.close()


@pytest.mark.parametrize("path", ["/v1/traces", "/mesh/v1/traces"])
def test_spans_go_in_and_come_out(api: tuple[Client, TraceStore], path: str) -> None:
    client, store = api
    answer = client.post(path, content=request().SerializeToString(), headers=BOOK)
    assert answer.status_code == 200 and answer.headers["content-type"] == PROTOBUF
    assert not ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans
    store.flush()
    (found,) = client.get("/mesh/v1/traces?service=book-service&minDuration=0.5", headers=VIEW).json()["traces"]
    assert found == {
        "traceId": T.hex(),
        "start": 1e9,
        "duration": 0.5,
        "root": {"service": "book-service.default", "operation": "rating:8080/*"},
        "services": ["book-service.default"],
        "spans": 1,
        "errors": 0,
        "method": "",
        "url": "",
        "code": 0,
    }
    (span,) = client.get(f"/mesh/v1/traces/{T.hex()}", headers=VIEW).json()["spans"]
    assert span["parentId"] == "" and span["tags"] == {"mesh.reporter": "default/book-1"}
    assert client.get("/mesh/v1/traces?minDuration=0.6", headers=VIEW).json() == {"traces": []}


def test_sidecars_write_and_people_read(api: tuple[Client, TraceStore]) -> None:
    client, _ = api
    body = request().SerializeToString()
    for path in ("/v1/traces", "/mesh/v1/traces"):
        assert client.post(path, content=body, headers={**BOOK, **VIEW}).status_code == 403
        assert client.post(path, content=body).status_code == 401
    assert client.get("/mesh/v1/traces", headers=BOOK).status_code == 403
    assert client.get(f"/mesh/v1/traces/{T.hex()}", headers=BOOK).status_code == 403


def test_what_is_refused_is_said_as_otlp_wants(api: tuple[Client, TraceStore]) -> None:
    client, store = api
    for content, headers, expected in (
        (b"{}", {"content-type": "application/json"}, 415),
        (b"\xff", {}, 400),
        (b"x" * (MAX_BODY + 1), {}, 413),
    ):
        answer = client.post("/v1/traces", content=content, headers={**BOOK, **headers})
        assert answer.status_code == expected and answer.headers["content-type"] == PROTOBUF
        assert Status.FromString(answer.content).message
    answer = client.post("/v1/traces", content=request(trace_id=b"").SerializeToString(), headers=BOOK)
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1
    store._most = 0
    answer = client.post("/v1/traces", content=request().SerializeToString(), headers=BOOK)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "query", ["tag=a", "tag==b", "status=bad", "status=9xx", "limit=0", "limit=x", "minDuration=nan", "from=x"]
)
def test_a_query_that_cannot_be_is_refused(api: tuple[Client, TraceStore], query: str) -> None:
    answer = api[0].get(f"/mesh/v1/traces?{query}", headers=VIEW)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(query.partition("=")[0])


def test_a_trace_that_is_not_there(api: tuple[Client, TraceStore]) -> None:
    assert api[0].get("/mesh/v1/traces/0123456789", headers=VIEW).status_code == 404


async def stuck(never: asyncio.Event) -> AsyncIterator[bytes]:
    yield b"\x0a"
    await never.wait()


def test_a_sidecar_that_does_not_send_its_bodies_holds_up_nobody_else(tmp_path: Path) -> None:
    store = TraceStore(tmp_path / "traces.db", clock=lambda: 1e9 + 10)
    store.open()
    app = Door(Starlette(routes=traces.routes(store), exception_handlers=kube.handlers()), Tokens(), lambda: 1e9)

    async def story() -> int:
        never = asyncio.Event()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://control") as client:
            bad = [asyncio.ensure_future(client.post("/v1/traces", content=stuck(never), headers=BOOK)) for _ in range(20)]
            for _ in range(100):
                await asyncio.sleep(0)
            shelf = {**BOOK, "authorization": "Bearer shelf"}
            async with asyncio.timeout(5):
                answer = await client.post("/v1/traces", content=request().SerializeToString(), headers=shelf)
            for one in bad:
                one.cancel()
            await asyncio.gather(*bad, return_exceptions=True)
            return answer.status_code

    assert asyncio.run(story()) == 200
    store.close()


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    store = TraceStore(tmp_path / "traces.db")
    app = Door(Starlette(routes=traces.routes(store, patience=0.01), exception_handlers=kube.handlers()), Tokens(), lambda: 1e9)

    async def story() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://control") as client:
            return await client.post("/v1/traces", content=stuck(asyncio.Event()), headers=BOOK)

    answer = asyncio.run(story())
    assert answer.status_code == 408 and Status.FromString(answer.content).code == 4


def test_what_became_of_spans_is_counted(tmp_path: Path) -> None:
    store, registry = TraceStore(tmp_path / "traces.db"), CollectorRegistry()
    traces.routes(store, registry)
    store.refused = 2
    assert b'mesh_trace_spans_total{outcome="refused"} 2.0' in generate_latest(registry)
