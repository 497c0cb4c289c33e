"""What every store promises, asked of all of them: in memory, in a file, and in a cluster whose API server is our fake of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control.resources.kinds import by_kind
from control.store.api import AlreadyExists, Conflict, Gone, NotFound, StoreError
from control.store.base import BaseStore
from control.store.kubernetes.client import ApiServer
from control.store.kubernetes.store import KubernetesStore
from control.store.memory import MemoryStore
from control.store.sqlite import SqliteStore
from tests.control.kubeserver import KubeServer

SERVICE = by_kind("", "Service")
NAMESPACE = by_kind("", "Namespace")
VS = by_kind("networking.istio.io", "VirtualService")

Make = Callable[..., BaseStore]


class _InCluster(KubernetesStore):
    """Over an API server of its own, which has the clock, the ids, and a history of the same length."""

    def __init__(self, kubeconfig: Path, max_history: int = 50_000, **server: Any) -> None:
        self._server = KubeServer(MemoryStore(**server))
        self._file = kubeconfig
        super().__init__(ApiServer(kubeconfig), max_history=max_history)

    async def open(self) -> None:
        await self._server.__aenter__()
        self._server.kubeconfig(self._file)
        await self._api.connect()
        await super().open()

    async def close(self) -> None:
        await super().close()
        await self._api.close()
        await self._server.__aexit__()


@pytest.fixture(params=["memory", "sqlite", "kubernetes"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return MemoryStore
    if request.param == "kubernetes":
        return lambda **options: _InCluster(tmp_path / "kubeconfig", **options)
    return lambda **options: SqliteStore(tmp_path / "mesh.db", **options)


def run(store: BaseStore, story: Callable[[Any], Awaitable[None]]) -> None:
    async def whole() -> None:
        assert isinstance(store, (MemoryStore, SqliteStore, KubernetesStore))
        await store.open()
        try:
            await asyncio.wait_for(story(store), 20)
        finally:
            await store.close()

    asyncio.run(whole())


def service(name: str = "rating", namespace: str = "default", port: int = 80) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": port}]},
    }


async def take(events: AsyncIterator[Any], count: int) -> list[Any]:
    return [await anext(events) for _ in range(count)]


def test_create_fills_what_the_server_owns(make: Make) -> None:
    async def story(s: Any) -> None:
        given = service()
        made = await s.create(SERVICE, given)
        assert made["metadata"] == {
            "name": "rating",
            "namespace": "default",
            "uid": "u1",
            "resourceVersion": "2",
            "generation": 1,
            "creationTimestamp": "2020-09-13T12:26:40Z",
        }
        assert made["spec"] == given["spec"]
        assert "uid" not in given["metadata"], "the caller's object is left alone"
        assert await s.get(SERVICE, "default", "rating") == made
        with pytest.raises(AlreadyExists, match='services "rating" in namespace default already exists'):
            await s.create(SERVICE, service())

    run(make(clock=lambda: 1_600_000_000.0, new_uid=lambda: "u1"), story)


def test_objects_are_copies(make: Make) -> None:
    async def story(s: Any) -> None:
        made = await s.create(SERVICE, service())
        made["spec"]["ports"].clear()
        (await s.get(SERVICE, "default", "rating"))["spec"].clear()
        (await s.list(SERVICE))[0][0]["spec"].clear()
        (await anext(s.watch(1)))[2]["spec"].clear()
        assert (await s.get(SERVICE, "default", "rating"))["spec"] == {"ports": [{"port": 80}]}

    run(make(), story)


def test_update_checks_the_version_and_counts_generations(make: Make) -> None:
    async def story(s: Any) -> None:
        first = await s.create(SERVICE, service())
        second = await s.update(SERVICE, {**first, "spec": {"ports": [{"port": 81}]}})
        assert (second["metadata"]["resourceVersion"], second["metadata"]["generation"]) == ("3", 2)
        with pytest.raises(Conflict, match="modified"):
            await s.update(SERVICE, first)
        with pytest.raises(Conflict, match="modified"):
            await s.update(SERVICE, service(port=9), expected=2)
        third = await s.update(SERVICE, {**second, "status": {"loadBalancer": {}}})
        assert third["metadata"]["generation"] == 2, "a status is not a new generation"
        labelled = service(port=81) | {"status": {"loadBalancer": {}}}
        labelled["metadata"]["labels"] = {"a": "b"}
        fourth = await s.update(SERVICE, labelled)
        assert fourth["metadata"]["generation"] == 2
        assert fourth["metadata"]["uid"] == first["metadata"]["uid"]
        with pytest.raises(NotFound):
            await s.update(SERVICE, service("other"))

    run(make(), story)


def test_an_update_that_changes_nothing_is_no_event(make: Make) -> None:
    async def story(s: Any) -> None:
        made = await s.create(SERVICE, service())
        assert await s.update(SERVICE, service()) == made
        assert await s.update(SERVICE, made, expected=2) == made
        assert s.version == 2

    run(make(), story)


def test_an_object_of_the_same_name_but_another_uid_is_a_conflict(make: Make) -> None:
    async def story(s: Any) -> None:
        old = await s.create(SERVICE, service())
        await s.delete(SERVICE, "default", "rating")
        await s.create(SERVICE, service())
        del old["metadata"]["resourceVersion"]
        with pytest.raises(Conflict, match="created anew"):
            await s.update(SERVICE, old)

    run(make(), story)


def test_a_resource_version_that_is_no_number_is_a_conflict(make: Make) -> None:
    async def story(s: Any) -> None:
        made = await s.create(SERVICE, service())
        made["metadata"]["resourceVersion"] = "abc"
        with pytest.raises(Conflict, match="abc"):
            await s.update(SERVICE, made)

    run(make(), story)


def test_delete(make: Make) -> None:
    async def story(s: Any) -> None:
        made = await s.create(SERVICE, service())
        with pytest.raises(Conflict):
            await s.delete(SERVICE, "default", "rating", expected=1)
        assert await s.delete(SERVICE, "default", "rating", expected=2) == made
        for call in (s.get, s.delete):
            with pytest.raises(NotFound, match='services "rating" in namespace default not found'):
                await call(SERVICE, "default", "rating")
        again = await s.create(SERVICE, service())
        assert again["metadata"]["resourceVersion"] == "4"
        assert again["metadata"]["uid"] != made["metadata"]["uid"]

    run(make(), story)


def test_list_is_sorted_and_filtered(make: Make) -> None:
    async def story(s: Any) -> None:
        for namespace, name in (("b", "x"), ("a", "z"), ("a", "y"), ("c", "a")):
            await s.create(SERVICE, service(name, namespace))
        await s.create(VS, {"apiVersion": VS.api_version, "kind": "VirtualService", "metadata": {"name": "v"}, "spec": {}})

        def names(objs: list[Any]) -> list[tuple[str, str]]:
            return [(o["metadata"]["namespace"], o["metadata"]["name"]) for o in objs]

        found, version = await s.list(SERVICE)
        assert names(found) == [("a", "y"), ("a", "z"), ("b", "x"), ("c", "a")]
        assert version == 6
        await s.delete(SERVICE, "a", "y")
        assert names((await s.list(SERVICE, "a"))[0]) == [("a", "z")]
        assert (await s.list(SERVICE, "none"))[0] == []
        everything, version = await s.snapshot()
        assert version == 7
        assert [(k, o["metadata"]["name"]) for k, o in everything] == [(SERVICE, "z"), (SERVICE, "x"), (SERVICE, "a"), (VS, "v")]

    run(make(), story)


def test_a_long_snapshot_is_of_one_moment(make: Make) -> None:
    async def story(s: Any) -> None:
        await asyncio.gather(*(s.create(SERVICE, service(f"s{i}", port=1)) for i in range(450)))
        reading = asyncio.ensure_future(s.snapshot())
        await asyncio.sleep(0)  # it has begun
        await asyncio.gather(*(s.update(SERVICE, service(f"s{i}", port=2)) for i in range(450)))
        found, version = await reading
        assert version == 451
        assert {o["spec"]["ports"][0]["port"] for _, o in found} == {1}

    run(make(), story)


def test_cluster_kinds_have_no_namespace_and_the_others_fall_to_default(make: Make) -> None:
    async def story(s: Any) -> None:
        await s.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "x"}})
        assert "namespace" not in (await s.get(NAMESPACE, None, "a"))["metadata"]
        made = await s.create(SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}})
        assert made["metadata"]["namespace"] == "default"
        with pytest.raises(StoreError, match=r"metadata\.name is required"):
            await s.create(SERVICE, {"apiVersion": "v1", "kind": "Service"})

    run(make(), story)


def test_what_is_not_json_is_refused_and_leaves_nothing(make: Make) -> None:
    async def story(s: Any) -> None:
        with pytest.raises(StoreError, match="cannot be stored"):
            await s.create(SERVICE, service() | {"spec": {"x": object()}})
        assert (await s.list(SERVICE)) == ([], 1)
        assert (await s.create(SERVICE, service()))["metadata"]["resourceVersion"] == "2"

    run(make(), story)


def test_watch_tells_every_change_after_a_version_once(make: Make) -> None:
    async def story(s: Any) -> None:
        await s.create(SERVICE, service())
        _, since = await s.list(SERVICE)
        await s.update(SERVICE, service(port=81))
        events = s.watch(since)
        assert [e[0] for e in await take(events, 1)] == ["MODIFIED"]
        waiting = asyncio.ensure_future(take(events, 3))
        await s.create(VS, {"apiVersion": VS.api_version, "kind": "VirtualService", "metadata": {"name": "v"}, "spec": {}})
        gone = await s.delete(SERVICE, "default", "rating")
        await s.create(SERVICE, service(namespace="other"))
        told = await waiting
        assert [(e.type, e.kind, e.version) for e in told] == [("ADDED", VS, 4), ("DELETED", SERVICE, 5), ("ADDED", SERVICE, 6)]
        assert told[1].object["spec"] == gone["spec"]
        assert told[1].object["metadata"]["resourceVersion"] == "5"
        await events.aclose()

    run(make(), story)


def test_watch_filters_by_kind_and_namespace(make: Make) -> None:
    async def story(s: Any) -> None:
        for namespace in ("a", "b", "a"):
            await s.create(SERVICE, service(f"s{s.version}", namespace))
            await s.create(VS, {"apiVersion": VS.api_version, "kind": VS.kind, "metadata": {"name": f"v{s.version}"}, "spec": {}})
        events = s.watch(1, SERVICE, "a")
        assert [e.version for e in await take(events, 2)] == [2, 6]
        await events.aclose()

    run(make(), story)


def test_history_is_bounded_and_who_falls_behind_is_told(make: Make) -> None:
    async def story(s: Any) -> None:
        slow = s.watch(1)
        await s.create(SERVICE, service(port=1))
        assert (await anext(slow)).version == 2
        for port in range(2, 20):
            await s.update(SERVICE, service(port=port))
        with pytest.raises(Gone, match="list again"):
            await anext(slow)
        with pytest.raises(Gone, match="list again"):
            await anext(s.watch(1))
        with pytest.raises(Gone, match="future"):
            await anext(s.watch(s.version + 1))
        assert [e.version for e in await take(s.watch(s.version - 5), 5)] == list(range(s.version - 4, s.version + 1))

    run(make(max_history=5), story)


def test_a_watch_ends_when_the_store_is_closed(make: Make) -> None:
    async def whole() -> None:
        store: Any = make()
        await store.open()
        waiting = asyncio.ensure_future(anext(store.watch(1), "end"))
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.wait_for(waiting, 5) == "end"
        with pytest.raises(StoreError, match="closed"):
            await store.create(SERVICE, service())

    asyncio.run(whole())


def test_of_concurrent_writers_one_wins(make: Make) -> None:
    async def story(s: Any) -> None:
        first = await s.create(SERVICE, service())
        tries = [s.update(SERVICE, {**first, "spec": {"ports": [{"port": p}]}}) for p in range(1, 21)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(o, dict) for o in outcomes) == 1
        assert sum(isinstance(o, Conflict) for o in outcomes) == 19
        made = await asyncio.gather(*(s.create(SERVICE, service("one")) for _ in range(9)), return_exceptions=True)
        assert sum(isinstance(o, AlreadyExists) for o in made) == 8

    run(make(), story)


def test_who_is_refused_can_read_why(make: Make) -> None:
    """A refusal that came before its cause can be read would make callers try again in vain."""

    async def story(s: Any) -> None:
        first = await s.create(SERVICE, service())

        async def write(port: int) -> None:
            try:
                await s.update(SERVICE, {**first, "spec": {"ports": [{"port": port}]}})
            except Conflict:
                assert (await s.get(SERVICE, "default", "rating"))["metadata"]["resourceVersion"] == "3"

        async def create() -> None:
            try:
                await s.create(SERVICE, service("new"))
            except AlreadyExists:
                await s.get(SERVICE, "default", "new")

        async def delete() -> None:
            try:
                await s.delete(SERVICE, "default", "new")
            except NotFound:
                with pytest.raises(NotFound):
                    await s.get(SERVICE, "default", "new")

        await asyncio.gather(*(write(p) for p in range(1, 6)))
        await asyncio.gather(*(create() for _ in range(5)))
        await asyncio.gather(*(delete() for _ in range(5)))

    run(make(), story)


def test_concurrent_counters_lose_no_step(make: Make) -> None:
    """Read, change, write with retry: the sum tells whether any update was lost."""

    async def story(s: Any) -> None:
        await s.create(SERVICE, service(port=0))

        async def count(steps: int) -> None:
            while steps:
                found = await s.get(SERVICE, "default", "rating")
                found["spec"]["ports"][0]["port"] += 1
                try:
                    await s.update(SERVICE, found)
                except Conflict:
                    continue
                steps -= 1

        await asyncio.gather(*(count(10) for _ in range(5)))
        assert (await s.get(SERVICE, "default", "rating"))["spec"]["ports"][0]["port"] == 50

    run(make(), story)
