"""A tap of a sidecar with ``--concurrency 2``: both workers tell, one that starts again too, and none after its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.mesh_control_process import ControlProcess, create, pod
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import own_address, until

RULE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "direct"},
    "spec": {"hosts": ["direct.example"], "http": [{"directResponse": {"status": 418}}]},
}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlProcess]:
    process = ControlProcess(tmp_path / "mesh", own_address())
    process.start()
    yield process
    process.stop()


def ask(sidecar: Sidecar) -> int:
    """On a connection of its own, which the kernel gives to either worker."""
    try:
        with sidecar.client() as client:
            return client.ask(b"GET /x HTTP/1.1\r\nhost: direct.example\r\n\r\n").status
    except OSError:
        return 0


def open_taps(sidecar: Sidecar) -> int:
    return next(one["value"] for one in sidecar.json("/stats?format=json")["stats"] if one["name"] == "server.taps")


def test_both_workers_tell(control: ControlProcess, tmp_path: Path) -> None:
    ip = own_address()

    async def prepare() -> str:
        async with control.client() as client:
            for obj in (pod("book", ip, "book"), RULE):
                await create(client, obj)
        return await control.join_token("book")

    token = tmp_path / "token"
    token.write_text(asyncio.run(prepare()))
    (tmp_path / "book").mkdir()
    options = ["--control", control.url, "--control-ca", str(control.state / "ca" / "root.pem"), "--token-file", str(token)]
    with Sidecar(None, *options, "--concurrency", "2", ip=ip, pod="book", home=tmp_path / "book", own_group=True) as sidecar:
        until(lambda: ask(sidecar) == 418, "the rule in force", 20)

        async def story() -> None:
            asked = {"pods": ["default/book"], "most": 40, "filter": {"statuses": [[418, 418]]}}
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(control.client())
                answer = await stack.enter_async_context(client.stream("POST", "/mesh/v1/taps", json=asked, timeout=30))
                lines = answer.aiter_lines()
                assert msgspec.json.decode(await anext(lines)) == {"opened": ["default/book"]}
                assert await asyncio.to_thread(open_taps, sidecar) == 1
                os.kill(sidecar.children()[0], signal.SIGKILL)

                async def busy() -> None:
                    while True:  # until as many as were asked for were told of
                        await asyncio.to_thread(ask, sidecar)

                asking = asyncio.ensure_future(busy())
                told: list[Any] = [msgspec.json.decode(line) async for line in lines]
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            events = [one["event"] for one in told if "event" in one]
            assert len(events) == 40 and {event["path"] for event in events} == {"/x"}
            assert told[-1]["done"] == "as many as were asked for"

        asyncio.run(story())
        until(lambda: open_taps(sidecar) == 0, "no tap is left in any worker", 20)
