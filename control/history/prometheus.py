"""History, read from a Prometheus server that scrapes the sidecars, instead of from control's own memory.

Room: control/history. In: the server's URL. Out: the same samples, asked for over its HTTP API. ``Unanswered`` (one line) when it
does not answer or refuses. The URL may hold credentials: it is shown nowhere.

As Grafana does it, a step is told from one scrape more than it is long (else what was counted between the last scrape of one step
and the first of the next would be in none), and from four at least (of less than two there is no rate), scaled to the step. How
often Prometheus scrapes is read off its own samples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx

from control.history.calls import Call, Sample, Totals, call_of
from meshproxy.model.report import BOUNDS, LABELS

__all__ = ["Prometheus", "Unanswered"]

TIMEOUT = 10.0
USUAL_INTERVAL = 15.0  # seconds; until enough was scraped to know better
SCRAPES = 4  # that one rate is told from
BELIEVED = 60.0  # seconds that an interval which was found out is not asked for again
_KEPT = ", ".join(LABELS)
_COUNTERS = {
    "requests": "istio_requests_total",
    "sum_ms": "istio_request_duration_milliseconds_sum",
    "received": "istio_request_bytes_sum",
    "sent": "istio_response_bytes_sum",
}
_ALWAYS = "mesh_uptime_seconds"  # every sidecar has it from the start
_BUCKETS = "istio_request_duration_milliseconds_bucket"
_BOUND = {bound: index for index, bound in enumerate(BOUNDS)}


class Unanswered(Exception):
    """One line."""


class Prometheus:
    """``start`` and ``end`` are Unix seconds. Close it with ``aclose``."""

    def __init__(self, url: str, client: httpx.AsyncClient | None = None) -> None:
        self._client = client or httpx.AsyncClient(base_url=url.rstrip("/") + "/", timeout=TIMEOUT, trust_env=False)
        self._interval, self._known_at = USUAL_INTERVAL, float("-inf")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def window(self, start: float, end: float) -> list[Sample]:
        return (await self._asked(end, end, max(end - start, 1.0), max(end - start, 1.0)))[0]

    async def steps(self, start: float, end: float, step: float, wanted: Callable[[Call], bool]) -> list[list[Sample]]:
        found = await self._asked(start + step, end, step, step)
        return [[sample for sample in piece if wanted(sample[0])] for piece in found]

    async def _asked(self, first: float, last: float, step: float, over: float) -> list[list[Sample]]:
        every = await self._scraped_every(last)
        seen = max(1, math.ceil(max(over + every, SCRAPES * every)))
        count = max(1, round((last - first) / step) + 1)
        found: list[dict[Call, Totals]] = [{} for _ in range(count)]
        for field, metric in _COUNTERS.items():
            for labels, index, value in await self._range(metric, _KEPT, first, last, step, over, seen):
                totals = found[index].setdefault(call_of([labels.get(name, "") for name in LABELS]), Totals())
                setattr(totals, field, getattr(totals, field) + value)
        for labels, index, value in await self._range(_BUCKETS, f"{_KEPT}, le", first, last, step, over, seen):
            totals = found[index].setdefault(call_of([labels.get(name, "") for name in LABELS]), Totals())
            bound = float(labels.get("le", "+Inf"))
            totals.buckets[_BOUND.get(bound, len(BOUNDS))] += value
        for piece in found:
            for call, totals in piece.items():
                _uncumulate(totals.buckets)
                totals.errors = totals.requests if call.failed else 0.0
        return [[(call, totals) for call, totals in piece.items() if totals.requests] for piece in found]

    async def _scraped_every(self, now: float) -> float:
        """Seconds between two samples of one sidecar."""
        if abs(now - self._known_at) < BELIEVED:
            return self._interval
        some = await self._get("api/v1/query", {"query": f"topk(1, {_ALWAYS})", "time": f"{now:.3f}"})
        if some:
            labels = ", ".join(f"{name}={json.dumps(value)}" for name, value in some[0]["metric"].items() if name != "__name__")
            found = await self._get("api/v1/query", {"query": f"{_ALWAYS}{{{labels}}}[5m]", "time": f"{now:.3f}"})
            times = [float(at) for at, _ in found[0].get("values", ())] if found else []
            gaps = sorted(later - earlier for earlier, later in pairwise(times))
            if gaps:
                self._interval, self._known_at = max(0.1, gaps[len(gaps) // 2]), now
        return self._interval

    async def _range(
        self, metric: str, by: str, first: float, last: float, step: float, over: float, seen: int
    ) -> list[tuple[dict[str, str], int, float]]:
        """What was counted in ``over`` seconds before each point, told from ``seen`` seconds."""
        query = f"sum by ({by}) (increase({metric}[{seen}s])) * {over / seen:.9g}"
        params = {"query": query, "start": f"{first:.3f}", "end": f"{last:.3f}", "step": f"{step:g}"}
        answer = await self._get("api/v1/query_range", params)
        found = []
        for row in answer:
            labels = {str(key): str(value) for key, value in row.get("metric", {}).items()}
            for at, text in row.get("values", ()):
                value, index = float(text), round((float(at) - first) / step)
                if value > 0 and 0 <= index <= round((last - first) / step):  # NaN is not more than 0
                    found.append((labels, index, value))
        return found

    async def _get(self, path: str, params: dict[str, str]) -> list[dict[str, Any]]:
        try:
            answer = await self._client.get(path, params=params)
            body = answer.json()
        except httpx.HTTPError as error:
            raise Unanswered(f"Prometheus does not answer: {type(error).__name__}") from None
        except ValueError:
            raise Unanswered("Prometheus answers with what is not JSON: is --prometheus its own address?") from None
        if not isinstance(body, dict) or body.get("status") != "success":
            told = str(body.get("error", "no reason given")) if isinstance(body, dict) else "no reason given"
            raise Unanswered(f"Prometheus refuses the query: {' '.join(told[:200].split())}")
        data = body.get("data")
        result = data.get("result") if isinstance(data, dict) else None
        return result if isinstance(result, list) else []


def _uncumulate(buckets: list[float]) -> None:
    """Prometheus' buckets hold all below them too; extrapolation may leave a bucket a little under the one before."""
    below = 0.0
    for index, value in enumerate(buckets):
        buckets[index], below = max(0.0, value - below), max(below, value)
