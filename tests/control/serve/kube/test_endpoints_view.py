"""v1 Endpoints follow from EndpointSlices, for kubectl and for watches; only ready addresses are in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from control.resources.kinds import by_kind
from control.serve.kube.endpoints_view import EndpointsView
from control.store.api import Event, NotFound
from control.store.memory import MemoryStore

Obj = dict[str, Any]
ENDPOINTS, SERVICE, SLICE = by_kind("v1", "Endpoints"), by_kind("v1", "Service"), by_kind("discovery.k8s.io/v1", "EndpointSlice")


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test on a loop of its own."""

    def ran() -> None:
        asyncio.run(test())

    return ran


def service(name: str = "web", **spec: Any) -> Obj:
    meta = {"name": name, "namespace": "default", "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": name}, **spec}}


def slice_of(name: str, *addresses: str, unready: str = "", part: str = "1", port: int = 80) -> Obj:
    endpoints = [{"addresses": [one], "conditions": {"ready": True}, "nodeName": "n"} for one in addresses]
    if unready:
        endpoints.append({"addresses": [unready], "conditions": {"ready": False}})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-{part}", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


def shape(obj: Obj) -> list[tuple[list[str], list[int]]]:
    return [([a["ip"] for a in s["addresses"]], [p["port"] for p in s["ports"]]) for s in obj.get("subsets", ())]


@run
async def test_slices_are_gathered_by_their_ports() -> None:
    store = MemoryStore()
    view = EndpointsView(store)
    await store.create(SERVICE, service())
    assert shape(await view.get(ENDPOINTS, "default", "web")) == []
    await store.create(SLICE, slice_of("web", "10.0.0.1", unready="10.0.0.9"))
    await store.create(SLICE, slice_of("web", "10.0.0.2", part="2"))
    await store.create(SLICE, slice_of("web", "10.0.0.3", part="3", port=81))
    await store.create(SLICE, slice_of("other", "10.0.0.4"))
    found = await view.get(ENDPOINTS, "default", "web")
    assert shape(found) == [(["10.0.0.1", "10.0.0.2"], [80]), (["10.0.0.3"], [81])]
    assert found["subsets"][0]["addresses"][0] == {"ip": "10.0.0.1", "nodeName": "n"}
    listed, version = await view.list(ENDPOINTS, "default")
    assert (listed, version) == ([found], (await store.list(SLICE))[1])
    assert (await view.list(ENDPOINTS, "elsewhere"))[0] == []


@run
async def test_what_somebody_wrote_stands_before_the_view() -> None:
    store = MemoryStore()
    view = EndpointsView(store)
    await store.create(SERVICE, service())
    own: Obj = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "default"}, "subsets": []}
    made = await view.create(ENDPOINTS, own)
    assert await view.get(ENDPOINTS, "default", "web") == made
    assert (await view.list(ENDPOINTS))[0] == [made]


@run
async def test_no_service_or_none_with_a_selector_has_no_view() -> None:
    store = MemoryStore()
    view = EndpointsView(store)
    await store.create(SERVICE, service("manual", selector={}))
    for name in ("manual", "none"):
        with pytest.raises(NotFound):
            await view.get(ENDPOINTS, "default", name)
    assert (await view.list(ENDPOINTS))[0] == []


async def take(events: AsyncIterator[Event]) -> tuple[str, list[tuple[list[str], list[int]]], int]:
    async with asyncio.timeout(5):
        event = await anext(events)
    assert event.kind == ENDPOINTS and event.object["metadata"]["resourceVersion"] == str(event.version)
    return event.type, shape(event.object), event.version


@run
async def test_a_watch_follows_services_and_slices() -> None:
    store = MemoryStore()
    at = (await store.list(SERVICE))[1]
    events = EndpointsView(store).watch(at, ENDPOINTS, "default")
    first = asyncio.ensure_future(take(events))
    await asyncio.sleep(0)  # it has begun to read
    await store.create(SERVICE, service())
    assert await first == ("ADDED", [], at + 1)
    one = await store.create(SLICE, slice_of("web", "10.0.0.1"))
    assert await take(events) == ("MODIFIED", [(["10.0.0.1"], [80])], at + 2)
    await store.update(SLICE, {**slice_of("web", "10.0.0.1", unready="10.0.0.2"), "metadata": one["metadata"]})  # nothing new
    await store.delete(SLICE, "default", "web-1")
    assert await take(events) == ("MODIFIED", [], at + 4)
    await store.delete(SERVICE, "default", "web")
    assert await take(events) == ("DELETED", [], at + 5)
    await events.aclose()  # type: ignore[attr-defined]


@run
async def test_a_watch_from_earlier_tells_what_was_missed() -> None:
    store = MemoryStore()
    view = EndpointsView(store)
    await store.create(SERVICE, service("gone"))
    since = (await view.list(ENDPOINTS))[1]
    await store.delete(SERVICE, "default", "gone")
    await store.create(SERVICE, service())
    events = view.watch(since, ENDPOINTS)
    assert (await take(events))[0] == "DELETED"
    assert (await take(events))[0] in ("ADDED", "MODIFIED")
    await events.aclose()  # type: ignore[attr-defined]


@pytest.mark.system("kubectl")
def test_kubectl_shows_them(mesh: Any) -> None:
    mesh.run(mesh.store.create(SERVICE, service()))
    mesh.run(mesh.store.create(SLICE, slice_of("web", "10.0.0.1", "10.0.0.2", unready="10.0.0.9")))
    rows = mesh.kubectl("get", "endpoints").splitlines()
    assert [row.split()[:2] for row in rows] == [["NAME", "ENDPOINTS"], ["web", "10.0.0.1:80,10.0.0.2:80"]]
    assert "10.0.0.1,10.0.0.2" in mesh.kubectl("describe", "endpoints", "web")
    assert "not found" in mesh.kubectl("label", "endpoints", "web", "a=b", code=1)
