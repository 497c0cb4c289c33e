"""The dashboard's API of a real control over HTTP: sign-in, what sidecars report, edits, roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from control.history.calls import BUCKETS
from meshproxy.model.report import LABELS, Edge, Report
from tests.e2e.mesh_control_process import ControlProcess, create, pod, service

HEADER = {"x-mesh-dashboard": "1"}
RULE = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: %s}\n"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlProcess]:
    process = ControlProcess(tmp_path / "mesh")
    process.start()
    yield process
    process.stop()


async def token(control: ControlProcess, role: str) -> tuple[str, str]:
    async with control.client() as client:
        made = (await client.post("/mesh/v1/tokens", json={"name": "ann", "role": role})).json()
        return made["token"], made["id"]


@asynccontextmanager
async def page(control: ControlProcess, given: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has signed in."""
    async with control.client(given) as api:
        answer = await api.post("/mesh/v1/dashboard-code")
        assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert made["url"] == f"{control.metrics}/#code={made['code']}"
    async with httpx.AsyncClient(base_url=control.metrics, headers=HEADER, trust_env=False) as client:
        answer = await client.post("/api/session", json={"code": made["code"]})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "path=/api" in cookie
        again = await client.post("/api/session", json={"code": made["code"]})
        assert again.status_code == 401
        yield client


async def settled(client: httpx.AsyncClient, path: str, good: Any) -> Any:
    """Ask until the answer is good."""
    async with asyncio.timeout(20):
        while True:
            answer = await client.get(path)
            if answer.status_code == 200 and good(answer.json()):
                return answer.json()
            await asyncio.sleep(0.02)


def labels(**given: str) -> tuple[str, ...]:
    values = {
        "reporter": "destination",
        "source_workload": "book",
        "source_workload_namespace": "default",
        "destination_workload": "rating",
        "destination_workload_namespace": "default",
        "request_protocol": "http",
        "destination_service": "rating.default.svc.cluster.local",
        "destination_service_name": "rating",
        "destination_service_namespace": "default",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
        **given,
    }
    return tuple(values.get(name, "unknown") for name in LABELS)


def report(number: int) -> bytes:
    durations = tuple(10 if index == 3 else 0 for index in range(BUCKETS))
    edges = tuple(Edge(labels=i, requests=10, durations=durations, sum_ms=70.0, received=0, sent=0) for i in (0, 1))
    known = (labels(response_code="200"), labels(response_code="500"))
    return msgspec.json.encode(Report(boot="b", number=number, seconds=5.0, labels=known, edges=edges))


def test_what_sidecars_report_is_on_the_page(control: ControlProcess) -> None:
    async def story() -> None:
        async with control.client() as api:
            await create(api, service("rating"))
            for number, name in enumerate(("book", "rating")):
                made = pod(name, f"127.1.0.{number + 1}", name)
                if name == "rating":
                    made["metadata"]["labels"]["security.istio.io/tlsMode"] = "istio"
                await create(api, made)
        rating = await control.join_token("rating")
        async with page(control) as client, control.client(rating) as sidecar:
            await settled(client, "/api/workloads", lambda body: len(body["workloads"]) == 2)
            unknown = msgspec.json.encode(Report(boot="b", number=9, seconds=5.0, first=4))
            assert (await sidecar.post("/mesh/v1/config/report", content=unknown)).status_code == 409
            assert (await sidecar.post("/mesh/v1/config/report", content=b"{}")).status_code == 400
            assert (await sidecar.post("/mesh/v1/config/report", content=report(0))).status_code == 204
            assert (await client.post("/mesh/v1/config/report", content=report(0))).status_code in (404, 405)
            drawn = await settled(client, "/api/graph?window=60", lambda body: body["edges"])
            edges = {(one["from"], one["to"]): one for one in drawn["edges"]}
            into = edges["workload/default/book", "service/default/rating"]
            assert (into["requests"], into["errors"], into["mtls"], into["protocol"]) == (20, 10, True, "http")
            assert ("service/default/rating", "workload/default/rating") in edges
            told = await settled(
                client, "/api/series?node=service/default/rating&window=60&step=5", lambda body: any(body["rps"])
            )
            assert len(told["times"]) == len(told["rps"]) == len(told["p99"]) == 12 and set(told["codes"]) == {"200", "500"}
            rows = (await client.get("/api/services")).json()["services"]
            assert [(row["id"], row["errorShare"], row["mtls"]) for row in rows] == [
                ("service/default/rating", 0.5, "PERMISSIVE")
            ]
            node = (await client.get("/api/node", params={"id": "workload/default/rating"})).json()
            assert [(one["from"], one["requests"]) for one in node["inbound"]] == [("workload/default/book", 20)]
            assert node["callers"]["rules"] == [] and (node["sync"], node["mtls"]) == ("NOT CONNECTED", "PERMISSIVE")
            bare = (await client.get("/api/node", params={"id": "workload/default/book"})).json()
            assert (bare["sync"], bare["mtls"]) == ("NO SIDECAR", "DISABLE") and "no policy holds" in bare["callers"]["summary"]
            longer = (await client.get("/api/node?id=workload/default/rating&window=600")).json()
            assert longer["requests"] == node["requests"] == 20 and longer["rps"] == pytest.approx(node["rps"] / 10)
            node = (await client.get("/api/node", params={"id": "service/default/rating"})).json()
            assert node["callers"]["summary"].startswith("Callers with and without mutual TLS")
            resources = (await client.get("/api/config")).json()["resources"]
            about = next(one["nodes"] for one in resources if (one["kind"], one["name"]) == ("Service", "rating"))
            assert sorted(about) == ["service/default/rating", "workload/default/rating"]
            assert (await client.get("/api/node?id=workload/default/nobody")).status_code == 404
            text = (await client.get("/metrics")).text
            for line in (
                "pilot_services 1.0",
                "mesh_reports_total 1.0",
                "mesh_reports_refused_total 2.0",
                "mesh_history_calls 2.0",
            ):
                assert line in text

    asyncio.run(story())


def test_questions_that_make_no_sense(control: ControlProcess) -> None:
    async def story() -> None:
        async with page(control) as client:
            for path in (
                *("graph?window=x", "graph?window=nan", "graph?window=-1", "series", "series?node=a&edge=b>c", "series?edge=a"),
                *("series?node=a&direction=up", "series?node=a&window=86400&step=5", "traces?limit=0", "traces?status=maybe"),
            ):
                answer = await client.get(f"/api/{path}")
                assert answer.status_code == 400 and "\n" not in answer.json()["error"], path
            assert (await client.get("/api/nothing")).status_code == 404
            assert (await client.get("/api/traces/abc")).status_code == 404
            assert (await client.get("/api/traces")).json() == {"traces": []}

    asyncio.run(story())


def test_an_edit_is_checked_shown_and_applied(control: ControlProcess) -> None:
    async def story() -> None:
        async with page(control) as client:

            async def send(what: str, yaml: str) -> dict[str, Any]:
                answer = await client.post(f"/api/config/{what}", json={"yaml": yaml})
                assert answer.status_code == 200, answer.text
                found: dict[str, Any] = answer.json()
                return found

            checked = await send("validate", RULE % "rating")
            assert checked["ok"] and "+  host: rating\n" in checked["diff"]
            assert [one["code"] for one in checked["findings"]] == ["IST0174"]
            assert not any(one["kind"] == "DestinationRule" for one in (await client.get("/api/config")).json()["resources"])
            assert (await send("apply", RULE % "rating"))["ok"]
            shown = await settled(
                client, "/api/config", lambda body: any(r["kind"] == "DestinationRule" for r in body["resources"])
            )
            mine = next(one for one in shown["resources"] if one["kind"] == "DestinationRule")
            assert "host: rating" in mine["yaml"] and mine["validation"] == []
            checked = await send("validate", RULE % "other")
            assert "-  host: rating\n+  host: other\n" in checked["diff"] and "resourceVersion" not in checked["diff"]
            remembered = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
            rule = "/apis/networking.istio.io/v1/namespaces/default/destinationrules/a"
            async with control.client() as api:
                merge = {"content-type": "application/merge-patch+json"}
                patch = msgspec.json.encode({"metadata": {"annotations": remembered}})
                assert (await api.patch(rule, content=patch, headers=merge)).status_code == 200
            shown = (await client.get("/api/config")).json()["resources"]
            mine = next(one for one in shown if one["kind"] == "DestinationRule")
            assert "last-applied" not in mine["yaml"] and "annotations" not in mine["yaml"]
            stale = mine["yaml"].replace("rating", "third")
            assert (await send("apply", RULE % "other"))["ok"]
            async with control.client() as api:
                assert (await api.get(rule)).json()["metadata"]["annotations"] == remembered  # kubectl's, kept
            refused = await send("apply", stale)
            assert not refused["ok"] and "has been modified" in refused["problems"][0]
            for bad, why in (
                ("kind: [", "cannot be read as YAML"),
                ("", "there is no object"),
                ("a: 1", "apiVersion"),
                ((RULE % "a").replace("host:", "hots:"), "spec.hots"),
                ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", "Secret"),
                ("apiVersion: v1\nkind: Service\nmetadata: {name: ../x}\n", "metadata.name"),
                ((RULE % "x").replace("spec: {host: x}", "spec: {}"), "spec.host"),
            ):
                refused = await send("validate", bad)
                assert not refused["ok"] and why in refused["problems"][0], (bad, refused)
            both = (RULE % "x").replace("name: a", "name: b") + "---\n" + (RULE % "x").replace("host: x", "hosts: x")
            assert not (await send("apply", both))["ok"]
            names = {one["name"] for one in (await client.get("/api/config")).json()["resources"]}
            assert "b" not in names  # all or nothing
            secrets = {one["kind"] for one in (await client.get("/api/config")).json()["resources"]}
            assert "Secret" not in secrets
            metrics = (await client.get("/metrics")).text
            assert 'galley_validation_failed{group="networking.istio.io",resource="destinationrules"}' in metrics

    asyncio.run(story())


def test_findings_know_what_only_a_running_mesh_knows(control: ControlProcess) -> None:
    """Such as that a key set could not be fetched."""
    rule = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a}\n"
    spec = 'spec: {jwtRules: [{issuer: me, jwksUri: "http://127.0.0.1:1/keys"}]}\n'

    async def story() -> None:
        async with page(control) as client, control.client() as api:
            assert (await client.post("/api/config/apply", json={"yaml": rule + spec})).json()["ok"]
            await settled(api, "/mesh/v1/jwks", lambda body: any(one["error"] for one in body["keySets"]))
            (mine,) = [one for one in (await client.get("/api/config")).json()["resources"] if one["name"] == "a"]
            assert "MESH0017" in [one["code"] for one in mine["findings"]]

    asyncio.run(story())


def test_roles_and_revocation(control: ControlProcess) -> None:
    async def story() -> None:
        view, view_id = await token(control, "view")
        async with page(control, view) as client:
            assert (await client.get("/api/session")).json()["role"] == "view"
            assert (await client.post("/api/config/validate", json={"yaml": RULE % "x"})).json()["ok"]
            answer = await client.post("/api/config/apply", json={"yaml": RULE % "x"})
            assert answer.status_code == 403 and "view may not" in answer.json()["error"]
            async with control.client() as api:
                assert (await api.delete(f"/mesh/v1/tokens/{view_id}")).status_code == 200
            assert (await client.get("/api/session")).status_code == 401
        edit, _ = await token(control, "edit")
        async with page(control, edit) as client:
            assert (await client.post("/api/config/apply", json={"yaml": RULE % "x"})).json()["ok"]
            assert (await client.delete("/api/session")).status_code == 204
            assert (await client.get("/api/session")).status_code == 401
        sidecar = await control.join_token("book")
        async with control.client(sidecar) as api:
            assert (await api.post("/mesh/v1/dashboard-code")).status_code == 403

    asyncio.run(story())


def test_the_door_is_the_pages_only(control: ControlProcess) -> None:
    async def story() -> None:
        async with httpx.AsyncClient(base_url=control.metrics, trust_env=False) as client:
            assert (await client.get("/metrics", headers={"host": "prometheus.example"})).status_code == 200
            assert (await client.get("/", headers={"host": "evil.example"})).status_code == 421
            assert (await client.get("/api/graph")).status_code == 401
            assert (await client.post("/api/session", json={"code": "x"})).status_code == 403
            assert (await client.post("/api/session", json={"code": "x"}, headers=HEADER)).status_code == 401
            assert (await client.post("/api/session", content=b"x" * 10_000, headers=HEADER)).status_code in (400, 413)
            assert (await client.get("/%2e%2e/%2e%2e/control/app.py")).status_code == 404

    asyncio.run(story())


def test_a_prometheus_that_is_not_there(tmp_path: Path) -> None:
    process = ControlProcess(tmp_path / "mesh", "127.0.0.1", "--prometheus", "http://ann:secret@127.0.0.1:1")
    process.start()

    async def story() -> None:
        async with page(process) as client:
            for path in ("/api/graph", "/api/series?node=workload/a/b", "/api/workloads"):
                answer = await client.get(path)
                assert answer.status_code == 502 and "Prometheus does not answer" in answer.json()["error"]
                assert "secret" not in answer.text
            assert (await client.get("/api/config")).status_code == 200

    try:
        asyncio.run(story())
    finally:
        process.stop()
    assert "secret" not in process.logged()
