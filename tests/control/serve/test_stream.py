"""The long response as ASGI sees it: greeting, beats, and every reason for which a stream ends. No socket."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp

from control.identity import ProxyIdentity
from control.serve import stream
from control.serve.hub import Hub
from control.serve.kube.status import handlers
from control.serve.metrics import Metrics
from control.serve.stream import StreamSettings
from control.tasks import spawn
from control.translate import ProxyId, Snapshot
from control.translate.snapshot import make_layer
from control.world import World
from meshproxy.model.base import encode
from meshproxy.model.delivery import Ack, FromControl, Hello, Nack, Push

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"containers": [{"name": "c"}]},
}


def nothing(world: World, proxy: ProxyId) -> Snapshot:
    return Snapshot((make_layer("outbound", {}),))


class Client:
    """Speaks ASGI to the application as the server would."""

    def __init__(
        self, app: ASGIApp, path: str, method: str = "GET", body: bytes = b"", expires: float = 1e12, query: str = ""
    ) -> None:
        caller = ProxyIdentity("default", "a", "default", expires)
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [],
            "state": {"caller": caller},
        }
        self.body = body
        self.reading = True
        self.gone = asyncio.Event()
        self.status = 0
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.rest = b""
        self.ended = False
        self.task = spawn(app(self.scope, self.receive, self.send), "asgi")  # type: ignore[arg-type]

    async def receive(self) -> dict[str, Any]:
        if self.body is not None:
            body, self.body = self.body, None  # type: ignore[assignment]
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if not self.reading:
            await asyncio.Event().wait()  # a transport that is never writable again
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        *lines, self.rest = (self.rest + message["body"]).split(b"\n")
        for line in lines:
            self.messages.put_nowait(msgspec.json.decode(line, type=FromControl))
        self.ended = not message.get("more_body", False)

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            return await self.messages.get()

    async def end(self) -> None:
        async with asyncio.timeout(5):
            await self.task


def application(hub: Hub, **settings: float) -> Starlette:
    return Starlette(routes=stream.routes(hub, StreamSettings(**settings)), exception_handlers=handlers())


async def ready() -> Hub:
    hub = Hub(nothing, Metrics())
    await hub.publish(World.of([POD]), 1, 0.0)
    return hub


def run(story: Any) -> None:
    asyncio.run(story())


def test_greeting_push_ack_and_beats() -> None:
    async def story() -> None:
        hub = await ready()
        app = application(hub, beat=0.02)
        client = Client(app, "/mesh/v1/config")
        assert await client.next() == Hello(control="mesh-control", beat=0)
        push = await client.next()
        assert isinstance(push, Push)
        ack = Client(app, "/mesh/v1/config/ack", "POST", encode(Ack(nonce=push.nonce, version=push.version)))
        await ack.end()
        assert ack.status == 204
        assert hub.report()[0]["status"] == "SYNCED"
        assert [(await client.next()).beat, (await client.next()).beat] == [1, 2]
        client.gone.set()
        await client.end()
        assert hub.count == 0

    run(story)


def test_it_ends_when_control_stops_and_says_goodbye_properly() -> None:
    async def story() -> None:
        hub = await ready()
        client = Client(application(hub), "/mesh/v1/config")
        await client.next()
        hub.close()
        await client.end()
        assert client.ended

    run(story)


def test_it_ends_with_its_token() -> None:
    async def story() -> None:
        client = Client(application(await ready()), "/mesh/v1/config", expires=time.time() + 0.05)
        await client.end()
        assert client.ended

    run(story)


def test_it_ends_when_an_answer_does_not_come() -> None:
    async def story() -> None:
        client = Client(application(await ready(), beat=0.01, ack_patience=0.05), "/mesh/v1/config")
        await client.end()
        assert client.ended

    run(story)


def test_it_ends_when_the_sidecar_does_not_read() -> None:
    async def story() -> None:
        hub = await ready()
        client = Client(application(hub, write_patience=0.02, beat=0.01), "/mesh/v1/config")
        await client.next()
        client.reading = False
        await client.end()
        assert hub.count == 0
        assert not client.ended

    run(story)


def test_what_a_sidecar_says_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        hub = await ready()
        app = application(hub)
        client = Client(app, "/mesh/v1/config")
        assert isinstance(await client.next(), Hello)
        push = await client.next()
        assert isinstance(push, Push)
        evil = Nack(kind="listener", name="x\r\ny", error="no\nINFO mesh.control: all is well \x1b[2J" + "z" * 2_000_000)
        ack = Ack(nonce=push.nonce, version="", nacks=(evil, *[msgspec.structs.replace(evil, error="short")] * 300))
        post = Client(app, "/mesh/v1/config/ack", "POST", encode(ack))
        await post.end()
        assert post.status == 204
        (row,) = hub.report()
        assert len(row["lastNack"]) == 100
        for text in (caplog.records[-1].getMessage(), row["lastNack"][0]["error"], row["lastNack"][0]["name"]):
            assert text.isprintable() and len(text) < 1100
        client.gone.set()
        await client.end()

    with caplog.at_level(logging.WARNING, "mesh.control"):
        run(story)


def test_wrong_calls_get_a_status() -> None:
    async def story() -> None:
        hub = await ready()
        app = application(hub)
        for path, method, body, status in (
            ("/mesh/v1/config", "HEAD", b"", 405),
            ("/mesh/v1/config/ack", "POST", encode(Ack(nonce="n", version="v")), 409),
            ("/mesh/v1/config/ack", "POST", b'{"nonce":1}', 400),
            ("/mesh/v1/config/ack", "POST", b" " * (4 << 20) + b"{}", 413),
            ("/mesh/v1/config/answer", "POST", b'{"id":"unknown"}', 410),
            ("/mesh/v1/config/answer", "POST", b"\xff", 400),
        ):
            client = Quiet(app, path, method, body)
            await client.end()
            assert client.status == status, path
        client = Quiet(app, "/mesh/v1/config", query="pod=default/b")
        await client.end()
        assert client.status == 403

    run(story)


class Quiet(Client):
    """Looks at the status only: refusals are not lines."""

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
