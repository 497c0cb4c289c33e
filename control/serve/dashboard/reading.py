"""What the page shows of calls (dashboard): the graph, series, golden signals. From control's own history, or a Prometheus.

In: queries of the page. Out: the JSON of ``control.history.views``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.history.calls import Call, Sample
from control.history.history import History
from control.history.prometheus import Prometheus, Unanswered
from control.history.views import graph, matcher, series
from control.serve.dashboard.guard import problem

__all__ = ["Calls", "Remembered", "Source", "guarded", "routes", "window_of"]

Wanted = Callable[[Call], bool]
MAX_WINDOW = 24 * 3600.0
MAX_POINTS = 1500
LAG = 5.0  # seconds: the newest step is not whole before all sidecars have told of it


class Source(Protocol):
    """Where samples come from; times in Unix seconds."""

    async def window(self, start: float, end: float) -> list[Sample]: ...
    async def steps(self, start: float, end: float, step: float, wanted: Wanted) -> list[list[Sample]]: ...


class Remembered:
    """Control's own history as a ``Source``. Adding up is done in a thread: sidecars must not wait for a picture."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def window(self, start: float, end: float) -> list[Sample]:
        return await asyncio.to_thread(self._history.view().window, start, end)

    async def steps(self, start: float, end: float, step: float, wanted: Wanted) -> list[list[Sample]]:
        return await asyncio.to_thread(self._history.view().steps, start, end, step, wanted)


class Calls:
    """``clock``: wall time."""

    def __init__(self, history: History, prometheus: Prometheus | None, clock: Callable[[], float] = time.time) -> None:
        self.history = history
        self.source: Source = Remembered(history) if prometheus is None else prometheus
        self.clock = clock

    async def lately(self, window: float) -> tuple[list[Sample], float]:
        """The samples of the last ``window`` seconds, and when that was."""
        end = self.clock() - LAG
        end -= end % self.history.step
        return await self.source.window(end - window, end), end


def _number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the query. Raises ``ValueError`` (one line)."""
    text = request.query_params.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise ValueError(f"{name}: must be a number from {least:g} to {most:g}, not {text[:40]!r}")
    return value


def window_of(request: Request, calls: Calls) -> float:
    """The seconds that a question is about. Raises ``ValueError`` (one line)."""
    return _number(request, "window", 60.0, calls.history.step, MAX_WINDOW)


def routes(calls: Calls) -> list[Route]:
    async def whole(request: Request) -> Response:
        window = window_of(request, calls)
        samples, at = await calls.lately(window)
        states = calls.history.state(calls.clock())
        namespace = request.query_params.get("namespace", "")
        return JSONResponse(await asyncio.to_thread(graph, samples, states, at, window, namespace))

    async def over_time(request: Request) -> Response:
        window = _number(request, "window", 3600.0, calls.history.step, MAX_WINDOW)
        step = _number(request, "step", 15.0, calls.history.step, window)
        step -= step % calls.history.step
        if window / step > MAX_POINTS:
            raise ValueError(f"step: gives more than {MAX_POINTS} points; make it larger, or window smaller")
        node, edge = request.query_params.get("node", ""), request.query_params.get("edge", "")
        direction = request.query_params.get("direction", "inbound")
        if bool(node) == bool(edge) or direction not in ("inbound", "outbound"):
            raise ValueError("give node=ID with direction=inbound or outbound, or edge=FROM>TO")
        begin, arrow, end = edge.partition(">")
        if edge and not arrow:
            raise ValueError("edge: must be FROM>TO")
        last = calls.clock() - LAG
        last -= last % step
        first = last - round(window / step) * step
        wanted = matcher(node, (begin, end) if edge else None, direction)
        pieces = await calls.source.steps(first, last, step, wanted)
        return JSONResponse(await asyncio.to_thread(series, pieces, wanted, first, step))

    return [Route("/api/graph", guarded(whole)), Route("/api/series", guarded(over_time))]


def guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """What a user asked wrongly is a 400; a Prometheus that does not answer a 502."""

    async def asked(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ValueError as error:
            return problem(400, str(error))
        except Unanswered as error:
            return problem(502, str(error))

    return asked
