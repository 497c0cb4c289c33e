"""A real mesh-control over TLS: who is let in, what sidecars get, and that stops, restarts and kill -9 lose nothing."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshproxy.agent.http import Connection, ControlProblem, Target
from meshproxy.model.delivery import Answer, Nack, Query
from tests.e2e.mesh_control_process import (
    INT,
    KILL,
    TERM,
    ControlProcess,
    Sidecar,
    create,
    pod,
    ready,
    running,
    service,
    set_status,
    until,
)

RATING = "outbound|8080||rating.default.svc.cluster.local"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlProcess]:
    process = ControlProcess(tmp_path / "mesh")
    process.start()
    yield process
    process.stop()


async def token_file(control: ControlProcess, path: Path, name: str, **more: Any) -> Path:
    made = path / f"{name}.token"
    made.write_text(await control.join_token(name, **more))
    return made


async def world(client: httpx.AsyncClient) -> None:
    """book and two ratings."""
    await create(client, service("rating"))
    for number, name in ((1, "book"), (2, "rating-v1"), (3, "rating-v2")):
        await create(client, pod(name, f"127.1.0.{number}", name.split("-")[0]))


def test_the_door(control: ControlProcess) -> None:
    async def story() -> None:
        book = await control.join_token("book")
        cases = [
            (None, "/api/v1/namespaces", 401, "Authorization: Bearer"),
            ("Bearer nonsense", "/api/v1/namespaces", 401, "is not one of this mesh"),
            ("Basic Zm9vOmJhcg==", "/api/v1/namespaces", 401, "not a bearer token"),
            (f"Bearer {book}", "/api/v1/namespaces", 403, "may only fetch its own configuration"),
            (f"Bearer {book}", "/mesh/v1/proxies", 403, "may only fetch its own configuration"),
            (f"Bearer {book}", "/mesh/v1/configx", 403, "may only fetch its own configuration"),
            (f"Bearer {book}", "/mesh/v1/config?pod=default/rating-v1", 403, "is for pod default/book"),
            (f"Bearer {control.admin_token}", "/mesh/v1/config", 403, "needs a join token"),
            (f"Bearer {control.admin_token}", "/mesh/v1/nothing", 404, "could not find"),
        ]
        async with httpx.AsyncClient(base_url=control.url, verify=control.tls, trust_env=False) as client:
            for header, path, status, message in cases:
                answer = await client.get(path, headers={"authorization": header} if header else {})
                body = answer.json()
                assert (answer.status_code, body["kind"], body["status"], body["code"]) == (status, "Status", "Failure", status)
                assert message in body["message"]
            # A token in the URL is no token.
            answer = await client.get(f"/api/v1/namespaces?access_token={control.admin_token}")
            assert answer.status_code == 401
            answer = await client.get("/api/v1/namespaces", headers={"authorization": f"Bearer {control.admin_token}"})
            assert {item["metadata"]["name"] for item in answer.json()["items"]} >= {"default", "istio-system"}
        logged = control.logged()
        assert book not in logged
        assert control.admin_token not in logged

    asyncio.run(story())


def test_bad_token_requests_name_the_field(control: ControlProcess) -> None:
    async def story() -> None:
        async with control.client() as client:
            for body, message in (
                ({"namespace": "default"}, "pod"),
                ({"namespace": "default", "pod": "A/b"}, "pod: must be a lower case name"),
                ({"namespace": "default", "pod": "a", "ttl": -1}, "ttl: must be more than 0"),
                ({"namespace": "default", "pod": "a", "ttll": 1}, "ttll"),
            ):
                answer = await client.post("/mesh/v1/tokens", json=body)
                assert answer.status_code == 400
                assert message in answer.json()["message"]

    asyncio.run(story())


def test_files_are_private_and_the_second_instance_gets_one_line(control: ControlProcess, tmp_path: Path) -> None:
    files = {path.name: path for path in control.state.rglob("*") if path.is_file()}
    assert {"kubeconfig", "ca-key.pem", "admin.token", "join.key", "mesh.db", "certificates.db"} <= files.keys()
    assert {name: oct(path.stat().st_mode & 0o777) for name, path in files.items()} == dict.fromkeys(files, "0o600")
    second = subprocess.run(control.command(), capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert "mesh-control already runs on it" in line
    other = ControlProcess(tmp_path / "other")
    taken = subprocess.run(other.command(port=control.port), capture_output=True, text=True, timeout=30, check=False)
    assert taken.returncode == 1
    (line,) = taken.stderr.splitlines()
    assert f"--port {control.port}: cannot listen on 127.0.0.1: Address already in use" in line


def test_a_sidecar_gets_its_state_then_only_what_changes(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        async with control.client() as client:
            sidecar = Sidecar(control, await token_file(control, tmp_path, "book"), "book")
            async with running(sidecar):
                await until(lambda: sidecar.agent.status.connected)
                rows = (await client.get("/mesh/v1/proxies")).json()["proxies"]
                assert [(row["name"], row["status"], row["problem"]) for row in rows] == [
                    ("book", "NOT SENT", "there is no Pod default/book")
                ]
                await world(client)
                await until(lambda: sidecar.addresses(RATING) == ["127.1.0.2", "127.1.0.3"])
                assert sidecar.pushes[0].full
                assert not any(push.full for push in sidecar.pushes[1:])
                await synced(client)

                # One pod's readiness: one resource travels, and fast.
                before = len(sidecar.pushes)
                found = (await client.get("/api/v1/namespaces/default/pods/rating-v2")).json()
                await set_status(client, found, ready(False))
                await until(lambda: sidecar.addresses(RATING) == ["127.1.0.2"])
                assert [[(r.kind, r.name) for r in push.set] for push in sidecar.pushes[before:]] == [[("endpoints", RATING)]]

                # What does not concern it is not sent.
                before = len(sidecar.pushes)
                await create(client, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})
                await synced(client)
                assert len(sidecar.pushes) == before
                (row,) = (await client.get("/mesh/v1/proxies")).json()["proxies"]
                assert {kind["status"] for kind in row["kinds"].values()} == {"SYNCED"}
                assert row["version"] == sidecar.state.version
        async with httpx.AsyncClient() as plain:
            text = (await plain.get(f"{control.metrics}/metrics")).text
            assert 'pilot_xds_pushes{type="eds"}' in text
            assert (await plain.get(f"{control.metrics}/readyz")).text == "ok\n"

    asyncio.run(story())


async def synced(client: httpx.AsyncClient, expect: bool = True) -> dict[str, Any]:
    """Wait until every sidecar has confirmed the newest version of the store."""
    version = (await client.get("/api/v1/namespaces")).json()["metadata"]["resourceVersion"]
    async with asyncio.timeout(10):
        while True:
            answer = await client.get("/mesh/v1/distribution", params={"resourceVersion": version})
            found: dict[str, Any] = answer.json()
            if int(found["worldVersion"]) >= int(version) and (not found["pending"]) is expect:
                return found
            await asyncio.sleep(0.01)


def test_a_refusal_is_seen_does_not_loop_and_heals(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        async with control.client() as client:
            await world(client)
            sidecar = Sidecar(control, await token_file(control, tmp_path, "book"), "book")
            refusal = Nack(kind="cluster", name="x", error="pool: not today - at `$.pool`")
            async with running(sidecar):
                await until(lambda: sidecar.addresses(RATING) == ["127.1.0.2", "127.1.0.3"])
                await synced(client)
                sidecar.refuse = lambda candidate: (refusal,)
                before, version = len(sidecar.pushes), sidecar.state.version
                await create(client, service("shop"))
                await until(lambda: len(sidecar.pushes) > before)
                found = await synced(client, expect=False)
                assert found["errors"] == {"default/book": "cluster x: pool: not today - at `$.pool`"}
                (row,) = (await client.get("/mesh/v1/proxies")).json()["proxies"]
                assert (row["status"], row["lastNack"][0]["error"]) == ("ERROR", refusal.error)
                assert sidecar.state.version == version
                # Nothing that concerns it changed: the refused state is not sent again.
                count = len(sidecar.pushes)
                await create(client, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}})
                await synced(client, expect=False)
                assert len(sidecar.pushes) == count
                sidecar.refuse = lambda candidate: ()
                await create(client, service("other"))
                await until(lambda: "outbound|8080||other.default.svc.cluster.local" in sidecar.names("cluster"))
                assert "outbound|8080||shop.default.svc.cluster.local" in sidecar.names("cluster")
                await synced(client)

    asyncio.run(story())


def test_questions_travel_to_the_sidecar_and_back(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        async with control.client() as client:
            await world(client)
            sidecar = Sidecar(control, await token_file(control, tmp_path, "book"), "book")

            def answer(query: Query) -> Answer:
                if query.verb == "dump":
                    raise KeyError("a bug")
                if query.verb == "stats":
                    return Answer(id=query.id, ok=False, error="no statistics here")
                from msgspec import Raw, json

                return Answer(id=query.id, result=Raw(json.encode({"verb": query.verb, "args": query.args})))

            sidecar.answer = answer
            async with running(sidecar):
                await until(lambda: sidecar.agent.status.connected)
                path = "/mesh/v1/proxies/default/book/query"
                found = await client.get(path, params={"verb": "explain", "url": "http://rating:8080/", "header": ["a: 1", "b:"]})
                args = {"url": "http://rating:8080/", "headers": {"a": ["1"], "b": [""]}}
                assert found.json() == {"verb": "explain", "args": args}
                for verb, status, message in (
                    ("dump", 422, "sidecar default/book: dump: failed in the proxy: KeyError"),
                    ("stats", 422, "sidecar default/book: no statistics here"),
                    ("reboot", 400, "verb: must be one of"),
                ):
                    refused = await client.get(path, params={"verb": verb})
                    assert refused.status_code == status
                    assert message in refused.json()["message"]
                gone = await client.get("/mesh/v1/proxies/default/nobody/query", params={"verb": "dump"})
                assert (gone.status_code, gone.json()["reason"]) == (404, "NotFound")
                # the bug in an answer did not cost the stream
                assert sidecar.agent.status.connects == 1

    asyncio.run(story())


def test_a_restart_disturbs_nobody(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        async with control.client() as client:
            await world(client)
        sidecar = Sidecar(control, await token_file(control, tmp_path, "book"), "book")
        async with running(sidecar):
            await until(lambda: len(sidecar.addresses(RATING)) == 2)
            async with control.client() as client:
                await synced(client)
            for number in (TERM, KILL):
                pushes, version, connects = len(sidecar.pushes), sidecar.state.version, sidecar.agent.status.connects
                port = control.port
                code = control.signal(number)
                assert code == (0 if number == TERM else -KILL)
                await until(lambda: sidecar.agent.status.failures and not sidecar.agent.status.connected)
                assert sidecar.state.version == version
                control.start(port)
                await until(lambda: sidecar.agent.status.connects > connects)  # noqa: B023
                async with control.client() as client:
                    await synced(client)
                assert len(sidecar.pushes) == pushes, "the same state was sent again"
            async with control.client() as client:
                found = (await client.get("/api/v1/namespaces/default/pods/rating-v2")).json()
                await set_status(client, found, ready(False))
            await until(lambda: sidecar.addresses(RATING) == ["127.1.0.2"])

    asyncio.run(story())


@pytest.mark.parametrize("number", [TERM, INT])
def test_stopping_with_streams_and_watches_open_is_clean(control: ControlProcess, tmp_path: Path, number: int) -> None:
    async def story() -> int:
        sidecar = Sidecar(control, await token_file(control, tmp_path, "book"), "book")
        async with control.client() as client, running(sidecar):
            await until(lambda: sidecar.agent.status.connected)
            async with client.stream("GET", "/api/v1/pods", params={"watch": "true"}) as watch:
                assert watch.status_code == 200
                return await asyncio.to_thread(control.signal, number)

    assert asyncio.run(story()) == 0
    logged = control.logged()
    assert "Traceback" not in logged
    assert "graceful shutdown exceeded" not in logged


def test_kill_9_loses_nothing_that_was_acknowledged(control: ControlProcess) -> None:
    async def story() -> None:
        acknowledged: dict[str, str] = {}
        killed = asyncio.Event()

        async def write(worker: int) -> None:
            async with control.client() as client:
                for number in range(10_000):
                    name = f"w{worker}-{number}"
                    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": str(number)}}
                    try:
                        made = await create(client, obj)
                    except httpx.HTTPError:
                        return
                    acknowledged[name] = made["metadata"]["resourceVersion"]
                    if len(acknowledged) == 100:
                        killed.set()

        writers = [asyncio.ensure_future(write(worker)) for worker in range(4)]
        await killed.wait()
        port = control.port
        assert control.signal(KILL) == -KILL
        await asyncio.gather(*writers)
        control.start(port)
        async with control.client() as client:
            listed = (await client.get("/api/v1/namespaces/default/configmaps")).json()
        there = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in listed["items"]}
        assert {name: there.get(name) for name in acknowledged} == acknowledged
        assert len(there) <= len(acknowledged) + 4  # at most one unacknowledged write per writer
        assert int(listed["metadata"]["resourceVersion"]) >= max(map(int, acknowledged.values()))

    asyncio.run(story())


def test_a_newer_stream_of_the_same_pod_takes_over(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        path = await token_file(control, tmp_path, "book")
        first = Sidecar(control, path, "book", backoff_first=60.0, backoff_most=60.0)
        second = Sidecar(control, path, "book")
        async with running(first):
            await until(lambda: first.agent.status.connected)
            async with running(second):
                await until(lambda: second.agent.status.connected and not first.agent.status.connected)
                async with control.client() as client:
                    assert len((await client.get("/mesh/v1/proxies")).json()["proxies"]) == 1
        assert "a newer stream of the same pod took its place" in control.logged()

    asyncio.run(story())


def test_a_stream_ends_with_its_token_and_a_fresh_one_is_read(control: ControlProcess, tmp_path: Path) -> None:
    async def story() -> None:
        path = await token_file(control, tmp_path, "book", ttl=1.5)
        sidecar = Sidecar(control, path, "book")
        async with running(sidecar):
            await until(lambda: sidecar.agent.status.connects == 1)
            await until(lambda: "has expired" in sidecar.agent.status.last_error)
            path.write_text(await control.join_token("book"))
            await until(lambda: sidecar.agent.status.connected)

    asyncio.run(story())


def test_the_agent_trusts_only_the_mesh_root(control: ControlProcess, tmp_path: Path) -> None:
    other = ControlProcess(tmp_path / "other")
    other.start()
    try:

        async def story() -> None:
            target = Target.parse(control.url, other.state / "ca" / "root.pem")
            with pytest.raises(ControlProblem, match="its certificate is not under"):
                await Connection.open(target, 5.0)

        asyncio.run(story())
    finally:
        other.stop()


def test_the_demo_key_set_is_served(tmp_path: Path) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_text('{"keys":[]}')
    control = ControlProcess(tmp_path / "mesh", "127.0.0.1", "--demo-jwks", str(keys))
    control.start()
    try:
        answer = httpx.get(f"{control.metrics}/demo/jwks.json", trust_env=False)
        assert answer.json() == {"keys": []}
    finally:
        control.stop()
