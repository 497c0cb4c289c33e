"""Reports to control: what was counted, every few seconds, for as long as we run, and once more at the end. Loud; cold.

In: what was counted since the last time (``Traffic.deltas``), the agent. Out: ``model.report.Report``s, posted. What does not
arrive is lost and counted; nothing waits for it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

from meshproxy.agent.client import Agent
from meshproxy.model.base import encode
from meshproxy.telemetry.family import Family, Row
from meshproxy.telemetry.report import Deltas, Reports

__all__ = ["Reporting"]

EVERY = 5.0  # seconds
AT_LEAST = 30.0  # seconds after which even an idle proxy says so
LAST = 2.0  # seconds that the last one may take


class Reporting:
    """``sent``, ``dropped``: reports, ever."""

    def __init__(self, deltas: Callable[[], Awaitable[Deltas]]) -> None:
        self._deltas = deltas
        self._reports = Reports(uuid.uuid4().hex)
        self._at = 0.0
        self._told = -inf
        self._connects = 0
        self._state: list[tuple[str, str, int]] = []
        self.sent = self.dropped = 0

    async def run(self, agent: Agent) -> None:
        """Tell control until cancelled."""
        self._at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(EVERY)
            await self._tell(agent)

    async def last(self, agent: Agent) -> None:
        """What came since, when no more will come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await self._tell(agent)

    async def _tell(self, agent: Agent) -> None:
        now = asyncio.get_running_loop().time()
        deltas, seconds = await self._deltas(), now - self._at
        self._at = now
        if not deltas.edges and deltas.state == self._state and now - self._told < AT_LEAST:
            return  # nothing new
        if agent.status.connects != self._connects:
            self._connects = agent.status.connects
            self._reports.forget()
        if await agent.report(encode(self._reports.make(deltas, seconds))):
            self.sent += 1
            self._state, self._told = deltas.state, now
        else:
            self.dropped += 1
            self._reports.forget()

    def families(self) -> list[Family]:
        def one(name: str, text: str, stat: str, value: int) -> Family:
            return Family(name, "counter", text, (), [Row((), value)], stat=stat)

        return [
            one("mesh_reports_sent_total", "Reports that control took.", "control.reports_sent", self.sent),
            one("mesh_reports_dropped_total", "Reports that did not arrive.", "control.reports_dropped", self.dropped),
        ]
