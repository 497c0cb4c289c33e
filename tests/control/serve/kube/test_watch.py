"""Watches over a real connection: resume, selectors, bookmarks, 410, and that a stopping service ends them."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from control.resources.kinds import by_plural
from control.serve.kube.params import Params
from control.serve.kube.selectors import Selector
from control.serve.kube.stream import END, QUIET, Ticker
from control.serve.kube.table import Dress
from control.serve.kube.watch import Watch, _View
from control.store.api import Event
from control.store.memory import MemoryStore

CM = "/api/v1/namespaces/default/configmaps"
MERGE = {"content-type": "application/merge-patch+json"}
KIND = by_plural("", "configmaps")


def config(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", "labels": labels}}


@contextmanager
def watching(mesh: Any, **query: Any) -> Iterator[Iterator[tuple[str, Any]]]:
    params = {"watch": "1", "timeoutSeconds": "30", **{key: str(value) for key, value in query.items()}}
    with mesh.http.stream("GET", CM, params=params, timeout=10) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"

        def events() -> Iterator[tuple[str, Any]]:
            for line in answer.iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

        yield events()


def named(event: tuple[str, Any]) -> tuple[str, str]:
    return event[0], event[1]["metadata"]["name"]


def version(mesh: Any) -> str:
    return str(mesh.http.get(CM).json()["metadata"]["resourceVersion"])


def test_what_happens_after_a_version_is_told_in_order(stored_mesh: Any) -> None:
    http = stored_mesh.http
    http.post(CM, json=config("before"))
    with watching(stored_mesh, resourceVersion=version(stored_mesh)) as events:
        http.post(CM, json=config("a"))
        http.patch(f"{CM}/a", json={"data": {"x": "y"}}, headers=MERGE)
        http.delete(f"{CM}/a")
        told = [next(events) for _ in range(3)]
    assert [named(event) for event in told] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(event[1]["metadata"]["resourceVersion"]) for event in told]
    assert versions == sorted(set(versions))
    assert told[1][1]["kind"] == "ConfigMap" and told[1][1]["data"] == {"x": "y"}
    # resumed from the middle, the rest comes again
    with watching(stored_mesh, resourceVersion=versions[0]) as events:
        assert [named(next(events)) for _ in range(2)] == [("MODIFIED", "a"), ("DELETED", "a")]


def test_without_a_version_it_begins_with_what_there_is(mesh: Any) -> None:
    mesh.http.post(CM, json=config("a"))
    with watching(mesh) as events:
        assert named(next(events)) == ("ADDED", "a")
    with watching(mesh, sendInitialEvents="true", allowWatchBookmarks="true", resourceVersionMatch="NotOlderThan") as events:
        assert named(next(events)) == ("ADDED", "a")
        word, mark = next(events)
        assert word == "BOOKMARK" and mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["metadata"]["resourceVersion"] == version(mesh) and mark["kind"] == "ConfigMap"


def test_a_label_selector_sees_objects_come_and_go(mesh: Any) -> None:
    http = mesh.http
    http.post(CM, json=config("a", tier="web"))
    with watching(mesh, resourceVersion=version(mesh), labelSelector="tier=web") as events:
        http.post(CM, json=config("other", tier="db"))
        http.patch(f"{CM}/a", json={"metadata": {"labels": {"x": "y"}}}, headers=MERGE)
        http.patch(f"{CM}/a", json={"metadata": {"labels": {"tier": "db"}}}, headers=MERGE)
        http.patch(f"{CM}/a", json={"metadata": {"labels": {"x": "z"}}}, headers=MERGE)
        http.patch(f"{CM}/a", json={"metadata": {"labels": {"tier": "web"}}}, headers=MERGE)
        http.delete(f"{CM}/other")
        http.delete(f"{CM}/a")
        told = [named(next(events)) for _ in range(4)]
    assert told == [("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("DELETED", "a")]


def test_a_field_selector_watches_one_object(mesh: Any) -> None:
    with watching(mesh, resourceVersion=version(mesh), fieldSelector="metadata.name=b") as events:
        mesh.http.post(CM, json=config("a"))
        mesh.http.post(CM, json=config("b"))
        assert named(next(events)) == ("ADDED", "b")


def test_an_old_version_is_gone(short_memory: Any) -> None:
    old = version(short_memory)
    for name in "abcd":
        short_memory.http.post(CM, json=config(name))
    with watching(short_memory, resourceVersion=old) as events:
        word, gone = next(events)
        assert (word, gone["kind"], gone["code"], gone["reason"]) == ("ERROR", "Status", 410, "Expired")
        assert list(events) == []
    with watching(short_memory, resourceVersion=10**9) as events:  # of a store that is no more
        assert next(events)[1]["code"] == 410


def test_tables_are_watched_too(mesh: Any) -> None:
    accept = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    params = {"watch": "1", "resourceVersion": version(mesh)}
    with mesh.http.stream("GET", CM, params=params, headers=accept) as answer:
        mesh.http.post(CM, json=config("a"))
        event = json.loads(next(answer.iter_lines()))
    assert (event["type"], event["object"]["kind"]) == ("ADDED", "Table")
    assert event["object"]["rows"][0]["cells"][0] == "a"


def test_a_watch_ends_at_its_timeout_with_a_bookmark(mesh: Any) -> None:
    with watching(mesh, resourceVersion=version(mesh), allowWatchBookmarks="true", timeoutSeconds=1) as events:
        told = list(events)
    assert [word for word, _ in told] == ["BOOKMARK"]
    assert told[0][1]["metadata"]["resourceVersion"] == version(mesh)


def test_a_stopping_service_ends_its_watches(mesh: Any) -> None:
    with watching(mesh, resourceVersion=version(mesh)) as events:
        mesh.end_streams()
        assert list(events) == []


def test_a_client_that_leaves_leaves_nothing_behind(mesh: Any) -> None:
    mesh.http.get("/healthz")

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    async def settled(wanted: int) -> None:
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > wanted + 1:
                await asyncio.sleep(0.01)

    before = mesh.run(tasks())
    with watching(mesh, resourceVersion=version(mesh)):
        assert mesh.run(tasks()) > before
    mesh.run(settled(before))


def asked(**given: Any) -> Params:
    plain: dict[str, Any] = {
        "watch": True, "dry_run": False, "validation": "Warn", "label_selector": "", "field_selector": "", "limit": 0,
        "token": "", "version": "", "match": "", "timeout": 0, "bookmarks": True, "initial": False, "include": "None",
    }  # fmt: skip
    return Params(**{**plain, **given})


def test_quiet_watches_get_bookmarks_of_versions_that_are_safe() -> None:
    """A bookmark names a version from one period ago: whatever happened up to it has been told."""

    async def story() -> None:
        store = MemoryStore()
        everything = Selector(lambda obj: True, empty=True, fixed=True)
        before = (await store.list(KIND))[1]
        watch = Watch(
            store, KIND, "v1", "default", lambda obj: True, (everything,), asked(version=str(before)), Dress(),
            lambda: 0.0, asyncio.Event(), bookmark_every=0.01,
        )  # fmt: skip
        lines = watch.lines()
        secret = by_plural("", "secrets")
        made = await store.create(
            secret, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
        )
        first = json.loads(await anext(lines))
        assert first["type"] == "BOOKMARK"
        assert first["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        await lines.aclose()  # type: ignore[attr-defined]

    asyncio.run(story())


def test_a_fault_in_a_stream_is_an_error_event() -> None:
    class Broken(MemoryStore):
        async def list(self, kind: Any, namespace: Any = None) -> Any:
            raise RuntimeError("secret")

    async def story() -> None:
        watch = Watch(Broken(), KIND, "v1", None, lambda obj: True, (), asked(), Dress(), lambda: 0.0, asyncio.Event())
        lines = [json.loads(line) async for line in watch.lines()]
        assert [(line["type"], line["object"]["code"]) for line in lines] == [("ERROR", 500)]
        assert "secret" not in json.dumps(lines)

    asyncio.run(story())


def test_a_watch_keeps_no_copy_of_what_it_listed() -> None:
    class Held(list[Any]):
        """A list that can be referred to weakly."""

    class Listing(MemoryStore):
        async def list(self, kind: Any, namespace: str | None = None) -> Any:
            objs, at = await super().list(kind, namespace)
            held = Held(objs)
            lists.append(weakref.ref(held))
            return held, at

    lists: list[weakref.ref[Held]] = []

    async def story() -> None:
        store = Listing()
        for name in "abc":
            await store.create(KIND, config(name))
        watch = Watch(store, KIND, "v1", "default", lambda obj: True, (), asked(), Dress(), lambda: 0.0, asyncio.Event())
        lines = watch.lines()
        told = [json.loads(await anext(lines))["object"]["metadata"]["name"] for _ in range(3)]
        assert told == ["a", "b", "c"]
        more = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        await store.create(KIND, config("d"))
        assert json.loads(await more)["object"]["metadata"]["name"] == "d"
        assert lists[0]() is None
        await lines.aclose()  # type: ignore[attr-defined]

    asyncio.run(story())


def event(word: Any, name: str, at: int) -> Event:
    return Event(word, KIND, config(name), at)


def test_what_was_before_the_watch_is_unknown_and_told_on_the_safe_side() -> None:
    view = _View({("default", "a")}, 10, fixed=False)
    assert view.word(event("MODIFIED", "b", 9), False) == "DELETED"  # it may have matched at the asked version
    assert view.word(event("MODIFIED", "b", 10), False) is None
    assert view.word(event("MODIFIED", "a", 11), True) == "MODIFIED"
    assert view.word(event("MODIFIED", "c", 12), True) == "ADDED"
    assert view.word(event("DELETED", "c", 13), True) == "DELETED"
    assert view.word(event("DELETED", "c", 14), True) is None
    assert view.word(event("ADDED", "c", 15), True) == "ADDED"


def test_a_ticker_waits_without_disturbing_its_source() -> None:
    async def story() -> None:
        gate, stop, closed = asyncio.Event(), asyncio.Event(), []

        async def source() -> AsyncIterator[int]:
            try:
                await gate.wait()
                yield 1
                raise ValueError("told")
            finally:
                closed.append(True)

        async with Ticker(source(), stop) as ticker:
            assert await ticker.next(0) is QUIET
            assert await ticker.next(0) is QUIET
            gate.set()
            assert await ticker.next(5) == 1
            with pytest.raises(ValueError, match="told"):
                await ticker.next(5)
            assert await ticker.next(5) is END
        assert closed == [True]
        gate.clear()
        async with Ticker(source(), stop) as ticker:
            assert await ticker.next(0) is QUIET
            stop.set()
            assert await ticker.next(60) is END
        assert closed == [True, True]

    asyncio.run(story())
