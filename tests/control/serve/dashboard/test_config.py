"""What the page is told of resources, where a sidecar is silent."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette

from control.serve.dashboard import config
from control.serve.hub import Hub
from control.store.api import Store
from control.world import World


class _Hub:
    world = World.of(())

    def problems(self) -> list[Any]:
        return []

    def report(self) -> list[Any]:
        return []


class _Store:
    async def snapshot(self) -> tuple[list[Any], int]:
        return [], 1


def test_a_silent_sidecar_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        asked, answered = 0, asyncio.Event()

        async def called(hub: Any) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            await answered.wait()
            return {"pods": []}

        monkeypatch.setattr(config, "called", called)
        monkeypatch.setattr(config, "PATIENCE", 0.0)
        now = [1000.0]
        made = config.routes(cast(Hub, _Hub()), cast(Store, _Store()), Starlette(), list, lambda: now[0])
        transport = httpx.ASGITransport(app=Starlette(routes=made))
        async with asyncio.timeout(20), httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            for _ in range(3):
                assert (await client.get("/api/config")).json()["resources"] == []
            assert asked == 1  # one question for all who look
            answered.set()
            monkeypatch.setattr(config, "PATIENCE", 10.0)
            await client.get("/api/config")
            now[0] += config.FRESH - 1
            await client.get("/api/config")
            assert asked == 1
            now[0] += 2
            await client.get("/api/config")
            assert asked == 2

    asyncio.run(story())
