"""A response that lasts: its source is always closed, and it ends when the service stops.

Room: control/serve/kube; loud. ``Ticker`` waits for the next item of an async iterator, a period, or the stop, without ever
cancelling the iterator in the middle of its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["END", "QUIET", "Stream", "Ticker"]

T = TypeVar("T")


class _Mark:
    """Nothing came in time (``QUIET``), or nothing more will come (``END``)."""


QUIET = _Mark()
END = _Mark()


class Stream(StreamingResponse):
    """Closes its generator however it ends: a client that leaves must not leave a watcher behind."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            close: Any = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                await close()


class Ticker(Generic[T]):
    """``async with Ticker(iterator, stopping) as ticker: await ticker.next(seconds)``."""

    def __init__(self, source: AsyncIterator[T], stopping: asyncio.Event) -> None:
        self._source = source
        self._stopping = stopping
        self._waiting: asyncio.Future[T] | None = None
        self._stop: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> Ticker[T]:
        self._stop = asyncio.ensure_future(self._stopping.wait())
        return self

    async def __aexit__(self, *_: object) -> None:
        for future in (self._waiting, self._stop):
            if future is not None and not future.done():
                future.cancel()
        rest = [future for future in (self._waiting, self._stop) if future is not None]
        await asyncio.gather(*rest, return_exceptions=True)
        close: Any = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    async def next(self, seconds: float) -> T | _Mark:
        """The next item; QUIET after ``seconds`` without one; END on stop or at the iterator's end. Its errors are raised."""
        assert self._stop is not None, "used outside its context"
        if self._stopping.is_set():
            return END
        if self._waiting is None:
            self._waiting = asyncio.ensure_future(self._pull())
        done, _ = await asyncio.wait({self._waiting, self._stop}, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED)
        if self._waiting in done:
            waited, self._waiting = self._waiting, None
            try:
                return waited.result()
            except _Ended:
                return END
        return END if done else QUIET

    async def _pull(self) -> T:
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            raise _Ended from None


class _Ended(Exception):
    """The end of the iterator, as an exception that a future may carry."""
