"""The controller on a store in memory: slices follow services and pods, at once, and nobody else's slices are touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from control.resources.kinds import by_kind
from control.sources.defaults import ensure_defaults
from control.sources.endpoints import EndpointController
from control.store.api import Event
from control.store.memory import MemoryStore
from control.tasks import cancel, spawn

SERVICE, POD, SLICE = by_kind("", "Service"), by_kind("", "Pod"), by_kind("discovery.k8s.io", "EndpointSlice")
Obj = dict[str, Any]


def service(name: str = "rating", **spec: Any) -> Obj:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 9080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def pod(name: str, ip: str, ready: bool = True, app: str = "rating") -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"containers": [{"name": "app"}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def run(story: Callable[[MemoryStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.open()
        await story(store)
        await store.close()

    asyncio.run(main())


@asynccontextmanager
async def controller(store: MemoryStore) -> AsyncIterator[None]:
    task = spawn(EndpointController(store).run(), "controller")
    try:
        yield
    finally:
        await cancel(task)


async def addresses(store: MemoryStore, name: str = "rating") -> dict[str, bool]:
    """Address -> ready, from all slices of a service."""
    found, _ = await store.list(SLICE, "default")
    return {
        endpoint["addresses"][0]: endpoint["conditions"]["ready"]
        for obj in found
        if obj["metadata"]["labels"]["kubernetes.io/service-name"] == name
        for endpoint in obj["endpoints"]
    }


async def becomes(store: MemoryStore, expected: dict[str, bool], name: str = "rating") -> None:
    """Wait, change by change, until the service's endpoints are as expected."""
    _, version = await store.list(SLICE)
    if await addresses(store, name) == expected:
        return
    async with asyncio.timeout(5):
        async for _ in store.watch(version, SLICE):
            if await addresses(store, name) == expected:
                return


def test_a_story() -> None:
    async def story(store: MemoryStore) -> None:
        await store.create(POD, pod("rating-v1", "127.1.0.2"))
        async with controller(store):
            await store.create(SERVICE, service())
            await becomes(store, {"127.1.0.2": True})
            second = await store.create(POD, pod("rating-v2", "127.1.0.3", ready=False))
            await becomes(store, {"127.1.0.2": True, "127.1.0.3": False})
            second["status"]["conditions"][0]["status"] = "True"
            second = await store.update(POD, second)
            await becomes(store, {"127.1.0.2": True, "127.1.0.3": True})
            second["metadata"]["labels"] = {"app": "other"}
            await store.update(POD, second)
            await becomes(store, {"127.1.0.2": True})
            await store.delete(POD, "default", "rating-v1")
            await becomes(store, {})
            await store.delete(SERVICE, "default", "rating")

    run(story)


def test_nothing_is_written_twice() -> None:
    async def story(store: MemoryStore) -> None:
        await store.create(SERVICE, service())
        await store.create(POD, pod("rating-v1", "127.1.0.2"))
        first = EndpointController(store)
        await first.load()
        await first.settle()
        _, version = await store.list(SLICE)
        again = EndpointController(store)
        assert await again.load() == version
        await again.settle()
        assert (await store.list(SLICE))[1] == version

    run(story)


def test_slices_of_a_service_that_went_are_collected_even_later() -> None:
    async def story(store: MemoryStore) -> None:
        await store.create(SERVICE, service())
        await store.create(POD, pod("rating-v1", "127.1.0.2"))
        first = EndpointController(store)
        await first.load()
        await first.settle()
        await store.delete(SERVICE, "default", "rating")
        again = EndpointController(store)
        await again.load()
        await again.settle()
        assert (await store.list(SLICE))[0] == []

    run(story)


def test_slices_of_others_are_left_alone() -> None:
    async def story(store: MemoryStore) -> None:
        labels = {"kubernetes.io/service-name": "rating"}
        mine = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "by-hand", "namespace": "default", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        }
        await store.create(SLICE, mine)
        await store.create(SERVICE, service(selector=None))
        controller = EndpointController(store)
        await controller.load()
        await controller.settle()
        await store.delete(SERVICE, "default", "rating")
        again = EndpointController(store)
        await again.load()
        await again.settle()
        assert [obj["metadata"]["name"] for obj in (await store.list(SLICE))[0]] == ["by-hand"]

    run(story)


def test_a_slice_that_was_spoilt_or_deleted_by_hand_is_put_right() -> None:
    async def story(store: MemoryStore) -> None:
        await store.create(SERVICE, service())
        await store.create(POD, pod("rating-v1", "127.1.0.2"))
        async with controller(store):
            await becomes(store, {"127.1.0.2": True})
            (made,), _ = await store.list(SLICE)
            made["endpoints"] = []
            await store.update(SLICE, made)
            await becomes(store, {"127.1.0.2": True})
            await store.delete(SLICE, "default", made["metadata"]["name"])
            await becomes(store, {"127.1.0.2": True})

    run(story)


def test_the_echo_of_our_own_write_is_not_work() -> None:
    async def story(store: MemoryStore) -> None:
        await store.create(SERVICE, service())
        await store.create(POD, pod("rating-v1", "127.1.0.2"))
        subject = EndpointController(store)
        await subject.load()
        await subject.settle()
        (made,), version = await store.list(SLICE)
        subject.see(Event("ADDED", SLICE, made, version))
        await subject.settle()
        assert (await store.list(SLICE))[1] == version

    run(story)


def test_defaults_are_made_once() -> None:
    async def story(store: MemoryStore) -> None:
        await ensure_defaults(store, "istio-system")
        _, version = await store.list(POD)
        await ensure_defaults(store, "istio-system")
        assert (await store.list(POD))[1] == version
        accounts, _ = await store.list(by_kind("", "ServiceAccount"))
        assert [(a["metadata"]["namespace"], a["metadata"]["name"]) for a in accounts] == [
            ("default", "default"),
            ("istio-system", "default"),
            ("kube-system", "default"),
        ]

    run(story)
