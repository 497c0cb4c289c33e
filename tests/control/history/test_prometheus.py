"""The same pictures from a Prometheus: what it is asked, how its answers are read, and what it may do wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from control.history.prometheus import Prometheus, Unanswered
from control.history.views import graph

START = 1_700_000_000.0
CALL = {
    "reporter": "destination",
    "source_workload": "book",
    "source_workload_namespace": "shop",
    "destination_workload": "rating",
    "destination_workload_namespace": "shop",
    "response_code": "503",
    "destination_service_name": "rating",
    "destination_service_namespace": "shop",
    "request_protocol": "http",
    "connection_security_policy": "mutual_tls",
}


def against(answer: Callable[[httpx.Request], httpx.Response]) -> Prometheus:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://prometheus:9090/")
    return Prometheus("", client)


def served(asked: list[dict[str, str]], every: float = 1.0) -> Callable[[httpx.Request], httpx.Response]:
    """A server on which 10 calls took between 5 and 10 ms, in every step. It scrapes ``every`` so many seconds."""

    def answer(request: httpx.Request) -> httpx.Response:
        params = dict(request.url.params)
        if "start" not in params:
            row: dict[str, Any] = {"metric": {"__name__": "mesh_uptime_seconds", "pod": 'a"b\\'}}
            if params["query"] == 'mesh_uptime_seconds{pod="a\\"b\\\\"}[5m]':
                row["values"] = [[START + number * every, "1"] for number in range(20)]
            else:
                assert params["query"] == "topk(1, mesh_uptime_seconds)"
            return httpx.Response(200, json={"status": "success", "data": {"result": [row] if every else []}})
        asked.append(params)
        query, times = params["query"], []
        at = float(params["start"])
        while at <= float(params["end"]) + 0.001:
            times.append(at)
            at += float(params["step"])
        rows: list[tuple[dict[str, str], float]] = []
        if "istio_requests_total" in query:
            rows = [(CALL, 10.0)]
        elif "_bucket" in query:
            rows = [({**CALL, "le": le}, n) for le, n in (("0.5", 0.0), ("1", 0.0), ("5", 0.0), ("10", 10.0), ("+Inf", 10.0))]
            rows += [({**CALL, "le": le}, 10.0) for le in ("25", "50", "100", "250", "500", "1000", "2500", "5000", "10000")]
            rows += [({**CALL, "le": le}, 10.0) for le in ("30000", "60000", "300000", "600000", "1.8e+06", "3.6e+06")]
        elif "milliseconds_sum" in query:
            rows = [(CALL, 70.0)]
        result = [{"metric": labels, "values": [[at, str(value)] for at in times]} for labels, value in rows]
        return httpx.Response(200, json={"status": "success", "data": {"resultType": "matrix", "result": result}})

    return answer


def test_a_window() -> None:
    asked: list[dict[str, str]] = []
    samples = asyncio.run(against(served(asked)).window(START, START + 60))
    drawn = graph(samples, (), START + 60, 60.0)
    assert [(e["requests"], e["errors"], e["mtls"], e["p50"]) for e in drawn["edges"]] == [(10.0, 10.0, True, 7.5)] * 2
    assert all(one["query"].endswith("[61s])) * 0.983606557") and one["start"] == one["end"] for one in asked)
    ((_, totals),) = samples
    assert totals.buckets[3] == 10.0 and sum(totals.buckets) == 10.0 and totals.sum_ms == 70.0


def test_steps() -> None:
    asked: list[dict[str, str]] = []
    pieces = asyncio.run(against(served(asked)).steps(START, START + 60, 15.0, lambda call: True))
    assert [[totals.requests for _, totals in piece] for piece in pieces] == [[10.0]] * 4
    assert all(one["query"].endswith("[16s])) * 0.9375") and float(one["start"]) == START + 15 for one in asked)


@pytest.mark.parametrize(("every", "seen"), [(30.0, "[120s])) * 0.125"), (0.0, "[60s])) * 0.25"), (5.0, "[20s])) * 0.75")])
def test_a_step_is_told_from_one_scrape_more_and_from_four_at_least(every: float, seen: str) -> None:
    """A rate over less than two samples would be nothing, and the page empty. Unknown: Prometheus' usual 15 s."""
    asked: list[dict[str, str]] = []
    asyncio.run(against(served(asked, every)).steps(START, START + 60, 15.0, lambda call: True))
    assert asked and all(one["query"].endswith(seen) for one in asked)


def test_how_often_it_scrapes_is_asked_once_a_minute() -> None:
    plain: list[str] = []
    inner = served([])

    def answer(request: httpx.Request) -> httpx.Response:
        if "start" not in request.url.params:
            plain.append(request.url.params["query"])
        return inner(request)

    async def story() -> None:
        source = against(answer)
        for later in (0, 5, 59, 61):
            await source.window(START + later, START + later + 60)

    asyncio.run(story())
    assert len(plain) == 4  # two questions, twice


def _refuses(request: httpx.Request) -> httpx.Response:
    return httpx.Response(400, json={"status": "error", "errorType": "bad_data", "error": "too many\nsamples"})


def _is_no_prometheus(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text="<html>")


def _is_gone(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("http://user:secret@prometheus refused")


def _is_strange(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=[1])


@pytest.mark.parametrize("answer", [_refuses, _is_no_prometheus, _is_gone, _is_strange])
def test_what_may_go_wrong_is_one_line_without_the_url(answer: Any) -> None:
    with pytest.raises(Unanswered) as caught:
        asyncio.run(against(answer).window(START, START + 60))
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
