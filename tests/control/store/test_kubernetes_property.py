"""Whatever happens to the API server: in the end the mirror holds what the cluster does, and its changes lead there."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control.resources.kinds import by_kind
from control.store.kubernetes.client import ApiServer
from control.store.kubernetes.reflector import Timing
from control.store.kubernetes.store import KubernetesStore
from control.store.memory import MemoryStore
from tests.control.kubeserver import Fault, KubeServer

SERVICE, VS = by_kind("", "Service"), by_kind("networking.istio.io", "VirtualService")
QUICK = Timing(first=0.005, longest=0.02, missing=0.02, pause=0.005)
NAMES = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([SERVICE, VS]), NAMES, st.integers(1, 3)),
    st.tuples(st.just("delete"), st.sampled_from([SERVICE, VS]), NAMES),
    st.tuples(st.just("cut"), st.sampled_from(["services", "virtualservices"])),
    st.tuples(st.just("silence"), st.sampled_from(["services", "virtualservices"])),
    st.tuples(st.just("gone"), st.sampled_from(["services", "virtualservices"])),
    st.tuples(st.just("fault"), st.sampled_from([410, 429, 500, 503]), st.integers(1, 3)),
    st.tuples(st.just("expire"), st.integers(1, 2)),
    st.tuples(st.just("away")),
    st.tuples(st.just("pause")),
)


def obj(kind: Any, name: str, value: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"value": value}}


async def write(store: MemoryStore, kind: Any, name: str, value: int) -> None:
    there = {one["metadata"]["name"] for one in (await store.list(kind))[0]}
    await (store.update if name in there else store.create)(kind, obj(kind, name, value))


async def delete(store: MemoryStore, kind: Any, name: str) -> None:
    if name in {one["metadata"]["name"] for one in (await store.list(kind))[0]}:
        await store.delete(kind, "default", name)


async def step(server: KubeServer, what: str, *args: Any) -> None:
    if what == "write":
        await write(server.store, *args)
    elif what == "delete":
        await delete(server.store, *args)
    elif what == "cut":
        server.cut(*args)
    elif what == "silence":
        for one in server.watching(*args):
            one.silent = True
    elif what == "gone":
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        await server.tell(args[0], {"type": "ERROR", "object": status})
    elif what == "fault":
        server.faults.append(Fault("services", args[0], times=args[1], headers={"Retry-After": "0"}))
    elif what == "expire":
        server.page_expiry = args[0]
    elif what == "away":
        await server.stop()
        await server.start()
    else:
        await asyncio.sleep(0)


async def story(path: Path, steps: list[tuple[Any, ...]]) -> None:
    async with KubeServer(MemoryStore(max_history=6)) as server:
        api = ApiServer(server.kubeconfig(path / "kubeconfig"))
        await api.connect()
        store = KubernetesStore(api, timing=QUICK)
        try:
            await write(server.store, SERVICE, "a", 1)
            await asyncio.wait_for(store.open(), 20)
            replayed = {key(one): one for _, one in (await store.snapshot())[0]}
            since = store.version
            for one in steps:
                await step(server, *one)
            server.faults.clear()
            for plural in ("services", "virtualservices"):  # those that are half open would be found out in time
                server.cut(plural)
            for kind in (SERVICE, VS):
                await write(server.store, kind, "last", 1)
            async with aclosing(store.watch(since)) as events:
                last, at = set(), since
                while last != {SERVICE, VS} or at < store.version:
                    event = await asyncio.wait_for(anext(events), 20)
                    at = event.version
                    known = key(event.object) in replayed
                    assert known is (event.type != "ADDED"), "no change is told twice, none is left out"
                    if event.type == "DELETED":
                        del replayed[key(event.object)]
                    else:
                        replayed[key(event.object)] = event.object
                    if event.object["metadata"]["name"] == "last":
                        last.add(event.kind)
            for kind in (SERVICE, VS):
                wanted, _ = await server.store.list(kind)
                found, _ = await store.list(kind)
                assert [(one["metadata"]["name"], one["spec"]) for one in found] == [
                    (one["metadata"]["name"], one["spec"]) for one in wanted
                ]
                assert found == sorted((one for one in replayed.values() if one["kind"] == kind.kind), key=key)
        finally:
            await store.close()
            await api.close()


def key(one: dict[str, Any]) -> tuple[str, str, str]:
    return (one["kind"], one["metadata"]["namespace"], one["metadata"]["name"])


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=25))
def test_in_the_end_the_mirror_is_the_cluster(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(asyncio.wait_for(story(Path(directory), steps), 60))
