"""What failed lately, of all sidecars, and the tables of what is going on: how they are asked for, and who did not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from control.history.calls import BUCKETS
from control.history.history import History
from control.serve import failures, kube, top
from control.serve.hub import NotAnswered
from control.serve.roles import refusal
from meshproxy.model.delivery import Answer
from meshproxy.model.report import LABELS, Edge, Report

NOW = 1_700_000_002.0


class Hub:
    count = 3

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def report(self) -> list[dict[str, Any]]:
        names = [("default", "a"), ("default", "away"), ("other", "b")]
        return [{"namespace": namespace, "name": name, "status": "SYNCED"} for namespace, name in names]

    async def ask(self, namespace: str, pod: str, verb: str, args: dict[str, Any], timeout: float) -> Answer:
        assert verb == "failures"
        self.asked.append((namespace, pod, args))
        if pod == "away":
            raise NotAnswered("sidecar default/away did not answer within 5 s", connected=True)
        if args.get("status") == "bad":
            return Answer(id="1", ok=False, error="status: must be a status such as 503")
        rows = [{"at": 10.0 if pod == "a" else 10.005, "ms": 10.0 if pod == "a" else 1.0, "status": 503}]
        return Answer(id="1", result=msgspec.Raw(msgspec.json.encode(rows)))


@pytest.fixture
def hub() -> Hub:
    return Hub()


class Client:
    def __init__(self, hub: Hub, history: History | None = None) -> None:
        known = history if history is not None else History(lambda namespace, pod: (namespace, pod))
        found = [*failures.routes(hub), *top.routes(known, hub, lambda: NOW)]  # type: ignore[arg-type]
        self._app = Starlette(routes=found, exception_handlers=kube.handlers())

    def get(self, path: str) -> httpx.Response:
        async def got() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://control") as client:
                return await client.get(path)

        return asyncio.run(got())


def test_the_newest_of_all_sidecars_comes_first(hub: Hub) -> None:
    told = Client(hub).get("/mesh/v1/failures?status=503&limit=1").json()
    assert [(one["namespace"], one["pod"], one["at"]) for one in told["failures"]] == [
        ("default", "a", 10.0),
        ("other", "b", 10.005),
    ]
    assert told["asked"] == 3
    assert [(one["pod"], one["problem"]) for one in told["unanswered"]] == [
        ("away", "sidecar default/away did not answer within 5 s")
    ]
    assert hub.asked[0] == ("default", "a", {"limit": "1", "status": "503"})


def test_only_some_sidecars_are_asked(hub: Hub) -> None:
    assert Client(hub).get("/mesh/v1/failures?namespace=other&pod=b").json()["asked"] == 1
    assert [asked[:2] for asked in hub.asked] == [("other", "b")]


def test_what_cannot_be_asked_is_one_line(hub: Hub) -> None:
    answer = Client(hub).get("/mesh/v1/failures?namespace=other&status=bad")
    assert (answer.status_code, answer.json()["message"]) == (400, "status: must be a status such as 503")
    answer = Client(hub).get("/mesh/v1/failures?who=me")
    assert answer.status_code == 400 and answer.json()["message"].startswith("who: unknown; there are id, status")


def report(route: tuple[str, str, str], requests: int, number: int = 0, cpu: float = 1.0) -> Report:
    values = {"reporter": "source", "source_workload": "book", "source_workload_namespace": "default", "response_code": "200"}
    values |= {"destination_service_name": "rating", "destination_service_namespace": "default", "response_flags": "-"}
    labels = tuple(values.get(name, "unknown") for name in LABELS)
    durations = tuple(requests if bucket == 3 else 0 for bucket in range(BUCKETS))
    edge = Edge(0, requests, durations, 7.0 * requests, 1, 1, 2)
    gauges = (("rss_bytes", 6e7), ("cpu_seconds", cpu))
    first = (*labels, *route)
    told = {"labels": (first,)} if not number else {"first": 1}
    return Report(boot="x", number=number, seconds=5.0, edges=(edge,), gauges=gauges, **told)


@pytest.fixture
def history() -> History:
    found = History(lambda namespace, pod: ("default", "book"))
    route = ("", "VirtualService default/rating http[0]", "outbound|8080|v1|rating.default.svc.cluster.local")
    found.take("default", "book-1", report(route, 6), NOW - 8)
    found.take("default", "book-1", report(route, 10, number=1, cpu=1.5), NOW - 3)
    return found


def test_routes(hub: Hub, history: History) -> None:
    told = Client(hub, history).get("/mesh/v1/top/routes?window=10").json()
    (row,) = told["rows"]
    assert (row["from"], row["to"], row["port"], row["subset"]) == ("book.default", "rating.default", "8080", "v1")
    assert row["retries"] == 2  # of the newer report; the other one is older than the window
    assert (row["source"], row["rps"], row["success"]) == ("VirtualService default/rating http[0]", 1.0, 1.0)
    assert (told["window"], told["sidecars"], told["reporting"]) == (10.0, 3, 1)
    assert Client(hub, history).get("/mesh/v1/top/routes").json()["rows"][0]["requests"] == 16
    for query, count in (
        ("from=book", 1),
        ("from=book.default", 1),
        ("from=other", 0),
        ("to=rating", 1),
        ("to=x", 0),
        ("namespace=x", 0),
    ):
        assert len(Client(hub, history).get(f"/mesh/v1/top/routes?{query}").json()["rows"]) == count, query


def test_sidecars_and_what_they_take(hub: Hub, history: History) -> None:
    (row,) = Client(hub, history).get("/mesh/v1/top/pods").json()["rows"]
    assert (row["name"], row["cpuShare"], row["memoryBytes"], row["rps"], row["status"]) == ("book-1", 0.1, 6e7, 2.0, "AWAY")
    assert Client(hub, history).get("/mesh/v1/top/pods?namespace=x").json()["rows"] == []


def test_unknown_tables_and_windows(hub: Hub) -> None:
    assert Client(hub).get("/mesh/v1/top/nodes").status_code == 404
    for window in ("1", "7200", "x"):
        answer = Client(hub).get(f"/mesh/v1/top/routes?window={window}")
        assert answer.status_code == 400 and answer.json()["message"].startswith("window: must be from 5 to 3600 seconds")


def test_view_may_read_both() -> None:
    assert refusal("view", "GET", "/mesh/v1/failures") == refusal("view", "GET", "/mesh/v1/top/routes") == ""
    assert refusal("view", "POST", "/mesh/v1/failures")
