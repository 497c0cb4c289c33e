"""The cluster as the store, when its API server misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control.files import FileProblem
from control.resources.kinds import by_kind
from control.store.kubernetes.client import ApiServer
from control.store.kubernetes.reflector import Place, Reflector, Timing
from control.store.kubernetes.store import KubernetesStore
from control.store.memory import MemoryStore
from tests.control.kubeserver import Fault, KubeServer

SERVICE = by_kind("", "Service")
POD = by_kind("", "Pod")
SECRET = by_kind("", "Secret")
VS = by_kind("networking.istio.io", "VirtualService")
QUICK = Timing(first=0.01, longest=0.05, missing=0.02, pause=0.01)
Obj = dict[str, Any]


class Told:
    """A sink that remembers; ``until`` waits for what it was told."""

    def __init__(self) -> None:
        self.known: dict[str, Obj] = {}
        self.log: list[tuple[str, Any]] = []
        self._news = asyncio.Event()

    def _say(self, word: str, what: Any) -> None:
        self.log.append((word, what))
        news, self._news = self._news, asyncio.Event()
        news.set()

    def put(self, obj: Obj) -> None:
        self.known[obj["metadata"]["name"]] = obj
        self._say("put", obj["metadata"]["name"])

    def drop(self, obj: Obj) -> None:
        self.known.pop(obj["metadata"]["name"], None)
        self._say("drop", obj["metadata"]["name"])

    def replace(self, objs: Iterable[Obj]) -> int:
        self.known = {obj["metadata"]["name"]: obj for obj in objs}
        self._say("replace", sorted(self.known))
        return 0

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await self._news.wait()


def service(name: str, port: int = 80) -> Obj:
    meta = {"name": name, "namespace": "default", "managedFields": [{"manager": "kubectl"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": port}]}}


@asynccontextmanager
async def api(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[KubeServer, ApiServer]]:
    async with KubeServer(MemoryStore(**options)) as server:
        client = ApiServer(server.kubeconfig(tmp_path / "kubeconfig"))
        await client.connect()
        try:
            yield server, client
        finally:
            await client.close()


@asynccontextmanager
async def reflecting(
    client: ApiServer, place: Place, sink: Told, timing: Timing = QUICK, **more: Any
) -> AsyncIterator[Reflector]:
    reflector = Reflector(client, place, sink, timing, dice=lambda: 0.0, **more)
    task = asyncio.ensure_future(reflector.run())
    try:
        yield reflector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def opened(client: ApiServer, timing: Timing = QUICK) -> AsyncIterator[KubernetesStore]:
    store = KubernetesStore(client, timing=timing)
    try:
        await asyncio.wait_for(store.open(), 20)
        yield store
    finally:
        await store.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


def test_where_no_cluster_is_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (tmp_path / "odd").write_text("a: [")
    for kubeconfig, why in ((None, "give --kubeconfig FILE"), (tmp_path / "none", "no such file"), (tmp_path / "odd", "odd: ")):
        with pytest.raises(FileProblem, match=why) as told:
            asyncio.run(ApiServer(kubeconfig).connect())
        assert "\n" not in str(told.value)


def test_a_list_comes_in_pages_and_nothing_but_what_is_read_is_kept(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            for number in range(5):
                await server.store.create(SERVICE, service(f"s{number}"))
            told = Told()
            async with reflecting(client, Place(kind=SERVICE, limit=2), told):
                await told.until(lambda: told.log)
                assert told.log == [("replace", ["s0", "s1", "s2", "s3", "s4"])]
                assert sum("limit=2" in line for line in server.requests) == 3
                kept = told.known["s0"]
                assert (kept["apiVersion"], kept["kind"]) == ("v1", "Service")
                assert "managedFields" not in kept["metadata"]

    run(story)


@pytest.mark.parametrize(("expiries", "whole"), [(1, False), (2, True)])
def test_a_list_that_gets_too_old_between_its_pages_is_begun_again(tmp_path: Path, expiries: int, whole: bool) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            for number in range(5):
                await server.store.create(SERVICE, service(f"s{number}"))
            server.page_expiry = expiries
            told = Told()
            async with reflecting(client, Place(kind=SERVICE, limit=2), told):
                await told.until(lambda: told.log)
                assert told.log == [("replace", ["s0", "s1", "s2", "s3", "s4"])]
                assert any("limit" not in line and "watch" not in line for line in server.requests) is whole

    run(story)


def test_a_watch_that_is_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            told = Told()
            async with reflecting(client, Place(kind=SERVICE), told):
                await server.until(lambda: server.watching("services"))
                await server.store.create(SERVICE, service("a"))
                await told.until(lambda: "a" in told.known)
                server.cut("services")
                await server.store.create(SERVICE, service("b"))
                await told.until(lambda: "b" in told.known)
                await server.store.delete(SERVICE, "default", "a")
                await told.until(lambda: "a" not in told.known)
                assert told.log == [("replace", []), ("put", "a"), ("put", "b"), ("drop", "a")]
                assert [line for line in server.requests if "watch=1" in line][1].count("resourceVersion=2") == 1

    run(story)


def test_a_bookmark_is_where_the_next_watch_begins(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path, max_history=3) as (server, client):
            told = Told()
            async with reflecting(client, Place(kind=SERVICE), told) as reflector:
                await server.until(lambda: server.watching("services"))
                for number in range(9):  # of another kind: the history forgets where our list was
                    await server.store.create(VS, {"metadata": {"name": f"v{number}"}, "spec": {}})
                    for _ in range(3):  # the server's own watch keeps up
                        await asyncio.sleep(0)
                version = str(server.store.version)
                await server.tell("services", {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}})
                while reflector.version != version:
                    await asyncio.sleep(0)
                server.cut("services")
                await server.until_asked(f"resourceVersion={version}")
                await server.store.create(SERVICE, service("a"))
                await told.until(lambda: "a" in told.known)
                assert told.log == [("replace", []), ("put", "a")], "nothing was read again"

    run(story)


@pytest.mark.parametrize("how", ["event", "answer"])
def test_where_history_is_gone_everything_is_read_again_and_only_the_difference_is_told(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            for name in ("stays", "changes", "goes"):
                await server.store.create(SERVICE, service(name))
            async with opened(client) as store:
                since = store.version
                await server.until(lambda: server.watching("services"))
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                if how == "answer":
                    server.faults.append(Fault("/services?watch", 410, reason="Expired"))
                for one in server.watching("services"):
                    one.silent = True
                await server.store.update(SERVICE, service("changes", 81))
                await server.store.delete(SERVICE, "default", "goes")
                await server.store.create(SERVICE, service("comes"))
                if how == "event":
                    await server.tell("services", {"type": "ERROR", "object": gone})
                else:
                    server.cut("services")
                events = store.watch(since)
                told = [await asyncio.wait_for(anext(events), 20) for _ in range(3)]
                assert sorted((one.type, one.object["metadata"]["name"]) for one in told) == [
                    ("ADDED", "comes"),
                    ("DELETED", "goes"),
                    ("MODIFIED", "changes"),
                ]
                assert store.version == since + 3
                await events.aclose()

    run(story)


def test_a_watch_that_is_half_open_is_found_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            told = Told()
            timing = Timing(first=0.01, pause=0.01, watch=1, grace=0.1)  # the least that timeoutSeconds can say
            async with reflecting(client, Place(kind=SERVICE), told, timing):
                await server.until(lambda: server.watching("services"))
                for one in server.watching("services"):
                    one.silent = True
                await server.store.create(SERVICE, service("a"))
                await told.until(lambda: "a" in told.known)
                assert told.log == [("replace", []), ("put", "a")]

    run(story)


def test_a_list_without_an_answer_does_not_hold_up_other_kinds(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            hold = asyncio.Event()
            server.faults.append(Fault("/pods?", 0, hold=hold))
            await server.store.create(SERVICE, service("a"))
            store = KubernetesStore(client, timing=QUICK)
            opening = asyncio.ensure_future(store.open())
            try:
                others = [one for one in await _reflectors(store) if one.place.kind is not POD]
                await asyncio.wait_for(asyncio.gather(*(one.synced.wait() for one in others)), 20)
                assert (await store.get(SERVICE, "default", "a"))["spec"] == service("a")["spec"]
                assert not opening.done(), "a configuration without pods would be a wrong one"
                hold.set()
                await asyncio.wait_for(opening, 20)
            finally:
                hold.set()
                opening.cancel()
                await store.close()

    run(story)


async def _reflectors(store: KubernetesStore) -> list[Reflector]:
    while not store.reflectors:
        await asyncio.sleep(0)
    return store.reflectors


def test_a_kind_that_is_not_installed_is_told_of_once_and_found_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            server.missing.add("virtualservices")
            async with opened(client) as store:
                await server.until_asked("/v1/virtualservices", 4)
                server.missing.clear()
                await server.store.create(VS, {"metadata": {"name": "v"}, "spec": {}})
                event = await asyncio.wait_for(anext(store.watch(store.version - 1 if store.version > 1 else 1)), 20)
                assert event.object["metadata"]["name"] == "v"
        assert sum("not installed" in line for line in caplog.messages) == 1

    run(story)


def test_a_kind_that_is_served_in_an_older_form_only_is_read_in_that(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            server.missing.add("virtualservices.v1")
            await server.store.create(VS, {"metadata": {"name": "v"}, "spec": {}})
            async with opened(client) as store:
                assert (await store.get(VS, "default", "v"))["metadata"]["name"] == "v"
                assert any("/v1beta1/virtualservices" in line for line in server.requests)

    run(story)


def test_objects_are_not_forgotten_because_their_kind_is_missing_for_a_moment(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            await server.store.create(VS, {"metadata": {"name": "v"}, "spec": {}})
            told = Told()
            async with reflecting(client, Place(kind=VS), told):
                await server.until(lambda: server.watching("virtualservices"))
                server.faults.append(Fault("virtualservices", 404, times=6))  # two looks at three versions
                server.cut("virtualservices")
                await server.until(lambda: not server.faults[0].times and server.watching("virtualservices"))
                assert [word for word, _ in told.log] == ["replace", "replace"]
                assert "v" in told.known
                server.missing.add("virtualservices")
                server.cut("virtualservices")
                await told.until(lambda: not told.known)

    run(story)


def test_what_may_not_be_read_is_waited_for_unless_it_can_be_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No policies, for want of leave to read them, would be a mesh that lets everybody in."""

    async def story() -> None:
        async with api(tmp_path) as (server, client):
            server.faults += [Fault("authorizationpolicies", 403, times=9), Fault("/nodes", 403, times=1000)]
            async with opened(client) as store:
                assert not server.faults[0].times
                assert "nodes" in "".join(store.problems())
        assert sum("authorizationpolicies" in line and "may not read" in line for line in caplog.messages) == 1

    run(story)


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_says_when_to_come_back_is_obeyed(tmp_path: Path, code: int) -> None:
    async def story() -> None:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0)

        async with api(tmp_path) as (server, client):
            server.faults.append(Fault("/services", code, times=1, headers={"Retry-After": "7"}))
            server.faults.append(Fault("/services", 500, times=3))
            told = Told()
            async with reflecting(client, Place(kind=SERVICE), told, sleep=sleep):
                await told.until(lambda: told.log)
            assert pauses[0] == 7.0
            assert pauses[1:4] == [0.01, 0.02, 0.025], "twice as long each time, half of it at least"

    run(story)


def test_what_is_no_object_costs_only_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            told = Told()
            async with reflecting(client, Place(kind=SERVICE), told):
                await server.until(lambda: server.watching("services"))
                for odd in ({}, {"metadata": None}, {"metadata": {"name": 3, "namespace": "a"}}, {"metadata": {"name": "x"}}, 7):
                    await server.tell("services", {"type": "ADDED", "object": odd})
                await server.store.create(SERVICE, service("a"))
                await told.until(lambda: "a" in told.known)
                assert told.log == [("replace", []), ("put", "a")]
                assert len(server.watching("services")) == 1

    run(story)


def test_an_api_server_that_is_away_takes_nothing_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            for name in ("a", "b"):
                await server.store.create(SERVICE, service(name))
            async with opened(client) as store:
                since = store.version
                await server.stop()
                while "services" not in store.problems():
                    await asyncio.sleep(0.001)
                assert [obj["metadata"]["name"] for obj in (await store.list(SERVICE))[0]] == ["a", "b"]
                await server.store.delete(SERVICE, "default", "b")
                await server.start()
                event = await asyncio.wait_for(anext(store.watch(since)), 20)
                assert (event.type, event.object["metadata"]["name"], store.version) == ("DELETED", "b", since + 1)

    run(story)


def pod(name: str, namespace: str = "default", node: str = "", **meta: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": namespace, **meta},
        "spec": {
            "nodeName": node,
            "serviceAccountName": "sa",
            "containers": [{"name": "c", "image": "i", "env": [{"name": "X", "value": "secret"}], "ports": []}],
            "volumes": [{"name": "v"}],
        },
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "x"}]},
    }


def test_secrets_are_followed_where_gateways_are_and_only_what_gateways_use_is_kept(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            for namespace in ("istio-system", "edge", "app"):
                data = {"tls.crt": "YQ==", "tls.key": "Yg==", "password": "Yw=="}
                meta = {"name": "cred", "namespace": namespace}
                await server.store.create(SECRET, {"metadata": meta, "type": "kubernetes.io/tls", "data": data})
            meta = {"name": "ca", "namespace": "istio-system"}
            await server.store.create(SECRET, {"metadata": meta, "type": "istio.io/ca-root", "data": {"ca-key.pem": "YQ=="}})
            async with opened(client) as store:
                await server.store.create(POD, pod("gw", "edge", labels={"istio": "ingressgateway"}))
                await server.store.create(POD, pod("app", "app"))
                await server.until(lambda: len(server.watching("secrets")) == 2)
                found, _ = await store.list(SECRET)
                assert [obj["metadata"]["namespace"] for obj in found] == ["edge", "istio-system"]
                assert found[0]["data"] == {"tls.crt": "YQ==", "tls.key": "Yg=="}
                assert not any("/api/v1/secrets" in line or "/namespaces/app/secrets" in line for line in server.requests)

    run(story)


def test_nothing_is_waited_for_that_is_not_followed(tmp_path: Path) -> None:
    """``meshctl wait --for=distribution -f FILE``, where the file has Deployments and Secrets too."""

    async def story() -> None:
        async with api(tmp_path) as (server, client), opened(client) as store:
            asked = len(server.requests)
            for kind in (by_kind("apps", "Deployment"), SECRET):
                assert await store.version_of(kind, "default", "x", 7) == store.version
            assert not any("deployments" in line or "secrets/x" in line for line in server.requests[asked:])

    run(story)


def test_pods_are_where_their_nodes_are(tmp_path: Path) -> None:
    async def story() -> None:
        async with api(tmp_path) as (server, client):
            node = server.kind("", "nodes", "Node")
            zone = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
            await server.store.create(node, {"metadata": {"name": "n", "labels": zone}})
            await server.store.create(POD, pod("a", node="n"))
            async with opened(client) as store:
                while not (kept := await store.get(POD, "default", "a"))["metadata"].get("annotations"):
                    await asyncio.sleep(0.001)
                assert kept["metadata"]["annotations"] == zone
                assert "volumes" not in kept["spec"] and "env" not in kept["spec"]["containers"][0]
                assert kept["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
                since = store.version
                labelled = await server.store.get(node, None, "n")
                labelled["metadata"]["labels"] = {"topology.kubernetes.io/region": "elsewhere"}
                await server.store.update(node, labelled)
                event = await asyncio.wait_for(anext(store.watch(since, POD)), 20)
                assert event.object["metadata"]["annotations"] == {"topology.kubernetes.io/region": "elsewhere"}
                since = store.version
                beat = await server.store.get(POD, "default", "a")
                beat["status"]["conditions"][0]["lastTransitionTime"] = "y"
                await server.store.update(POD, beat)
                await server.store.create(SERVICE, service("a"))
                await store.version_of(POD, "default", "a")
                event = await asyncio.wait_for(anext(store.watch(since)), 20)
                assert event.kind is SERVICE, "a beat of the kubelet's is no change"

    run(story)
