"""The tables of ``meshctl top``, from samples of both ends of a call."""

from __future__ import annotations

from typing import Any

import pytest

from control.history.calls import Call, Sample, Totals
from control.history.history import SidecarState
from control.history.top import by_route, by_service, by_workload, sidecars

BOOK, V1, V2, OUTSIDE = ("default", "book"), ("default", "rating-v1"), ("default", "rating-v2"), ("", "")
RATING = ("default", "rating")
V1_ROUTE = ("", "VirtualService default/rating http[0]", "outbound|8080|v1|rating.default.svc.cluster.local")
V2_ROUTE = ("", "VirtualService default/rating http[0]", "outbound|8080|v2|rating.default.svc.cluster.local")


def sample(
    reporter: str,
    source: tuple[str, str],
    target: tuple[str, str],
    count: int = 6,
    code: str = "200",
    service: tuple[str, str] = RATING,
    **fields: Any,
) -> Sample:
    host = f"{service[1]}.{service[0]}.svc.cluster.local"
    given = {"flags": "", "mtls": None, "route": ("", "", ""), **fields}
    call = Call(
        reporter=reporter, source=source, source_app=source[1], source_version="", target=target, target_app="",
        target_version="", host=host, service=service, protocol="http", code=code, grpc="", **given,
    )  # fmt: skip
    totals = Totals()
    totals.requests = count
    totals.buckets[3] = count
    totals.errors = count if call.failed else 0
    totals.retried = count if "URX" in call.flags else 0
    return call, totals


def all_calls(call: Call) -> bool:
    return True


def test_a_row_for_each_route_of_a_caller_told_by_the_caller() -> None:
    rows = by_route(
        [
            sample("source", BOOK, V1, 6, route=V1_ROUTE),
            sample("source", BOOK, V2, 2, route=V2_ROUTE),
            sample("source", BOOK, V2, 2, code="503", flags="URX", route=V2_ROUTE),
            sample("destination", BOOK, V1, 6, mtls=True),
            sample("destination", BOOK, V2, 4, mtls=False),
            sample("destination", OUTSIDE, V1, 3, mtls=False),
            sample("destination", BOOK, ("default", "rating-v3"), 5, code="503", mtls=True),  # each followed by another try
        ],
        10.0,
        all_calls,
    )
    told = [(row["from"], row["to"], row["port"], row["subset"], row["rps"], row["success"], row["mtls"]) for row in rows]
    assert told == [
        ("book.default", "rating.default", "8080", "v1", 0.6, 1.0, True),
        ("book.default", "rating.default", "8080", "v2", 0.4, 0.5, False),
        ("unknown", "rating.default", "", "", 0.3, 1.0, False),
    ]
    assert [row["told"] for row in rows] == [True, True, False]
    assert [row["retries"] for row in rows] == [0, 2, 0]
    assert rows[1]["flags"] == {"URX": 2} and rows[1]["workloads"] == ["rating-v2.default"]
    assert rows[0]["source"] == "VirtualService default/rating http[0]" and 5 <= rows[0]["p50"] <= 10


def test_only_the_calls_that_are_asked_for() -> None:
    samples = [sample("source", BOOK, V1, route=V1_ROUTE), sample("source", V1, V2, route=V2_ROUTE)]
    rows = by_route(samples, 60.0, lambda call: call.source == BOOK)
    assert [row["from"] for row in rows] == ["book.default"]
    assert by_route([sample("source", BOOK, V1, 0)], 60.0, all_calls) == []


def test_services_and_workloads_count_each_call_once() -> None:
    samples = [
        sample("source", BOOK, V1, route=V1_ROUTE),
        sample("destination", BOOK, V1, mtls=True),
        sample("source", BOOK, OUTSIDE, 6, code="503", flags="UH", route=V1_ROUTE),
    ]
    (row,) = by_service(samples, 6.0, all_calls)
    assert (row["name"], row["rps"], row["success"], row["callers"], row["mtls"]) == ("rating.default", 2.0, 0.5, 1, True)
    rows = {row["name"]: row for row in by_workload(samples, 6.0, all_calls)}
    assert set(rows) == {"book.default", "rating-v1.default"}
    assert (rows["rating-v1.default"]["rps"], rows["rating-v1.default"]["success"]) == (1.0, 1.0)
    assert (rows["book.default"]["rps"], rows["book.default"]["outRps"]) == (0.0, 2.0)


def test_sidecars() -> None:
    gauges = {"rss_bytes": 5e7, "connections": 3.0, "certificate_expires": 1600.0}
    (row,) = sidecars([SidecarState("default", "book-1", "book", 999.0, gauges, 0.05, 12.0)], 1000.0)
    assert row["cpuShare"] == 0.05 and row["memoryBytes"] == 5e7 and row["certificateSeconds"] == pytest.approx(600)
    assert row["loopLagSeconds"] is None and row["age"] == 1.0
