"""History, read from a Prometheus server that scrapes the sidecars, instead of from control's own memory.

Room: control/history. In: the server's URL. Out: the same samples, asked for over its HTTP API. ``Unanswered`` (one line) when it
does not answer or refuses. The URL may hold credentials: it is shown nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from control.history.calls import BOUNDS, LABELS, Call, Sample, Totals, call_of

__all__ = ["Prometheus", "Unanswered"]

TIMEOUT = 10.0
_KEPT = ", ".join(LABELS)
_COUNTERS = {
    "requests": "istio_requests_total",
    "sum_ms": "istio_request_duration_milliseconds_sum",
    "received": "istio_request_bytes_sum",
    "sent": "istio_response_bytes_sum",
}
_BUCKETS = "istio_request_duration_milliseconds_bucket"
_BOUND = {bound: index for index, bound in enumerate(BOUNDS)}


class Unanswered(Exception):
    """One line."""


class Prometheus:
    """``start`` and ``end`` are Unix seconds. Close it with ``aclose``."""

    def __init__(self, url: str, client: httpx.AsyncClient | None = None) -> None:
        self._client = client or httpx.AsyncClient(base_url=url.rstrip("/") + "/", timeout=TIMEOUT, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def window(self, start: float, end: float) -> list[Sample]:
        return (await self._asked(end, end, max(end - start, 1.0), max(end - start, 1.0)))[0]

    async def steps(self, start: float, end: float, step: float, wanted: Callable[[Call], bool]) -> list[list[Sample]]:
        found = await self._asked(start + step, end, step, step)
        return [[sample for sample in piece if wanted(sample[0])] for piece in found]

    async def _asked(self, first: float, last: float, step: float, over: float) -> list[list[Sample]]:
        count = max(1, round((last - first) / step) + 1)
        found: list[dict[Call, Totals]] = [{} for _ in range(count)]
        for field, metric in _COUNTERS.items():
            for labels, index, value in await self._range(metric, _KEPT, first, last, step, over):
                totals = found[index].setdefault(call_of([labels.get(name, "") for name in LABELS]), Totals())
                setattr(totals, field, getattr(totals, field) + value)
        for labels, index, value in await self._range(_BUCKETS, f"{_KEPT}, le", first, last, step, over):
            totals = found[index].setdefault(call_of([labels.get(name, "") for name in LABELS]), Totals())
            bound = float(labels.get("le", "+Inf"))
            totals.buckets[_BOUND.get(bound, len(BOUNDS))] += value
        for piece in found:
            for call, totals in piece.items():
                _uncumulate(totals.buckets)
                totals.errors = totals.requests if call.failed else 0.0
        return [[(call, totals) for call, totals in piece.items() if totals.requests] for piece in found]

    async def _range(
        self, metric: str, by: str, first: float, last: float, step: float, over: float
    ) -> list[tuple[dict[str, str], int, float]]:
        query = f"sum by ({by}) (increase({metric}[{max(1, round(over))}s]))"
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
