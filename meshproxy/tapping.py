"""Taps of one sidecar, from control's question to the last batch. Loud; cold.

In: ``tap`` and ``untap`` from control, what the traffic tells (``Tappable``: one process or several workers). Out: batches to
control, a few a second while requests come, one every two seconds else. That is the lease: a tap ends when control says that
nobody watches (410), does not answer, or has lost our stream; when its time is over; and when it has told of as many as wanted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from meshproxy.agent.tasks import spawn
from meshproxy.model.base import encode
from meshproxy.model.tap import TapBatch, TapOrder

__all__ = ["Tappable", "Tapping"]

log = logging.getLogger("meshproxy")
_EVERY = 0.2  # seconds between looks at what was told
_ALIVE = 2.0  # seconds after which control hears of a tap without requests too
_PIECE = 250  # requests in one batch


class Tappable(Protocol):
    def tap(self, order: TapOrder) -> None: ...  # raises ValueError, one line
    def untap(self, id_: str) -> None: ...
    async def tapped(self) -> list[TapBatch]: ...


class _Held:
    """``stream``: which of our streams to control it came by. ``left``: -1 for any number."""

    __slots__ = ("left", "said", "stream")

    def __init__(self, stream: int, most: int, now: float) -> None:
        self.stream = stream
        self.left = most or -1
        self.said = now


class Tapping:
    """``send`` posts a batch: the status of control's answer, 0 for none. ``stream`` numbers our streams to control, 0: none."""

    def __init__(self, traffic: Tappable, send: Callable[[bytes], Awaitable[int]], stream: Callable[[], int]) -> None:
        self._traffic = traffic
        self._send = send
        self._stream = stream
        self._held: dict[str, _Held] = {}
        self._task: asyncio.Task[None] | None = None

    def open(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Begin what ``TapOrder`` asks for. Raises ``ValueError`` (one line)."""
        order = msgspec.convert(args, TapOrder)
        self._traffic.tap(order)
        self._held[order.id] = _Held(self._stream(), order.most, asyncio.get_running_loop().time())
        if self._task is None:
            self._task = spawn(self._run(), "taps")
        return {"id": order.id}

    def close(self, args: Mapping[str, Any]) -> dict[str, Any]:
        self._end(str(args.get("id", "")))
        return {}

    def _end(self, id_: str) -> None:
        if self._held.pop(id_, None) is not None:
            self._traffic.untap(id_)

    async def aclose(self) -> None:
        """Stop; what waits is dropped."""
        for id_ in list(self._held):
            self._end(id_)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while self._held:
                await asyncio.sleep(_EVERY)
                batches = {batch.id: batch for batch in await self._traffic.tapped()}
                for id_, held in list(self._held.items()):
                    if self._stream() != held.stream:
                        self._end(id_)
                        continue
                    batch = batches.get(id_) or TapBatch(id=id_)
                    news = batch.events or batch.over or batch.slow or batch.ended
                    if (news or clock() - held.said >= _ALIVE) and not await self._said(batch, held):
                        self._end(id_)
                    elif news or clock() - held.said >= _ALIVE:
                        held.said = clock()
        finally:  # whatever ended us: nobody else would end what is still open
            for id_ in list(self._held):
                self._end(id_)
            self._task = None

    async def _said(self, batch: TapBatch, held: _Held) -> bool:
        """Post it; False: the tap is over."""
        events, ended = batch.events, batch.ended
        if 0 < held.left <= len(events):  # several workers may have found more together
            events, ended = events[: held.left], "as many as were asked for"
        held.left -= len(events) if held.left > 0 else 0
        for at in range(0, max(len(events), 1), _PIECE):
            last = at + _PIECE >= len(events)
            over, slow = (batch.over, batch.slow) if last else (0, 0)
            part = TapBatch(id=batch.id, events=events[at : at + _PIECE], over=over, slow=slow, ended=ended if last else "")
            if await self._send(encode(part)) // 100 != 2:
                return False
        return not ended
