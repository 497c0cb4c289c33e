"""Connections that never finish a request's head are dropped; those that do are served, however long the answer takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from control.serve.patience import Patient

WHOLE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Hasty(Patient):
    head_patience = 0.05


async def _serve(story: Any) -> None:
    async def answer(request: Request) -> PlainTextResponse:
        await asyncio.sleep(0.1 if "late" in request.query_params else 0.0)  # longer than the patience for a head
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", answer)])
    config = uvicorn.Config(app, http=Hasty, ws="none", lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    loop = asyncio.get_running_loop()
    made = await loop.create_server(lambda: Hasty(config, server.server_state, {}), "127.0.0.1", 0)
    try:
        async with asyncio.timeout(10):
            await story(made.sockets[0].getsockname()[1])
    finally:
        made.close()
        await made.wait_closed()


async def _ended(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n", WHOLE + b"GET"])
def test_a_head_that_is_never_finished_ends_the_connection(begun: bytes) -> None:
    async def story(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        answer = await _ended(reader)
        assert answer.count(b"HTTP/1.1 200") == begun.count(WHOLE)
        writer.close()

    asyncio.run(_serve(story))


def test_a_head_begun_after_an_answer_has_its_own_time() -> None:
    async def story(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
        writer.write(b"GET / HT")
        assert await _ended(reader) == b""
        writer.close()

    asyncio.run(_serve(story))


def test_a_body_after_its_answer_ends_soon() -> None:
    async def story(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert b" 404 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x")  # a byte now and then kept the connection for ever
        await _ended(reader)
        writer.close()

    asyncio.run(_serve(story))


def test_a_late_answer_is_not_a_late_head() -> None:
    async def story(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE.replace(b"/ ", b"/?late ", 1))
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
        writer.close()

    asyncio.run(_serve(story))


def test_an_upgrade_is_answered_and_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    async def story(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n")
        assert (await _ended(reader)).startswith(b"HTTP/1.1 200")
        writer.close()

    asyncio.run(_serve(story))
    assert caplog.messages == []
