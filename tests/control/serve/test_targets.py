"""What Prometheus is told to scrape: every pod with a sidecar, and none without."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.applications import Starlette

from control.serve.targets import routes, targets
from control.world import World


def _pod(name: str, ip: str, containers: tuple[str, ...], phase: str = "Running", init: tuple[str, ...] = ()) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": one, "image": one} for one in containers]}
    if init:
        spec["initContainers"] = [{"name": one, "image": one} for one in init]
    labels = {"app": name, "service.istio.io/canonical-name": f"{name}-app"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": labels},
        "spec": spec,
        "status": {"podIP": ip, "phase": phase},
    }


WORLD = World.of(
    [
        _pod("web", "127.1.0.2", ("web", "istio-proxy")),
        _pod("job", "127.1.0.3", ("job", "istio-proxy"), phase="Succeeded"),
        _pod("plain", "127.1.0.4", ("plain",)),
        _pod("new", "", ("new", "istio-proxy")),
        _pod("native", "fd00::5", ("native",), init=("istio-proxy",)),
    ]
)


def test_pods_with_a_sidecar_and_an_address() -> None:
    assert targets(WORLD) == [
        {"targets": ["[fd00::5]:15020"], "labels": {"namespace": "shop", "pod": "native", "app": "native-app"}},
        {"targets": ["127.1.0.2:15020"], "labels": {"namespace": "shop", "pod": "web", "app": "web-app"}},
    ]


def test_over_http() -> None:
    known: list[World] = []
    app = Starlette(routes=routes(lambda: known[0] if known else None))

    async def story() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
            assert (await client.get("/targets")).status_code == 503  # Prometheus keeps what it knew
            known.append(WORLD)
            answer = await client.get("/targets")
            assert answer.headers["content-type"] == "application/json" and len(answer.json()) == 2

    asyncio.run(story())
