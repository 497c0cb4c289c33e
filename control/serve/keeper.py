"""Keeps the world up to date (room ``serve``): the one task that reads the store's changes and hands worlds to the hub.

In: a ``Store``, a ``Debounce``, and the key sets that were fetched for policies (``keys``). Out: ``hub.publish`` once per batch
of changes. ``start`` reads everything, so that serving begins with a world; ``run`` follows, and reads everything again when the
store no longer keeps the history it needs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress

from control.serve.debounce import Debounce
from control.serve.hub import Hub
from control.serve.metrics import Metrics
from control.store.api import Event, Gone, Store
from control.tasks import cancel, spawn
from control.world import MeshSettings, World
from control.world.security import KeysAt, keys_at

__all__ = ["Keeper"]

log = logging.getLogger("mesh.control")
PATIENCE = 0.3  # seconds


async def _nothing() -> None:
    return None


class Keeper:
    def __init__(
        self,
        store: Store,
        hub: Hub,
        mesh: MeshSettings,
        debounce: Debounce,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        want: Callable[[Iterable[tuple[KeysAt, str]]], None] = lambda wanted: None,
        tried: Callable[[], Awaitable[None]] = _nothing,
        patience: float = PATIENCE,
    ) -> None:
        """``want`` is told the key sets that policies need, whenever these may have changed. ``tried`` returns when each was
        fetched or could not be: new policies are held back that long, ``patience`` at most, or else they would refuse good
        tokens until their keys have come behind them.
        """
        self._store = store
        self._hub = hub
        self._mesh = mesh
        self._debounce = debounce
        self._metrics = metrics
        self._clock = clock
        self._want = want
        self._tried = tried
        self._patience = patience
        self._keys: Mapping[str, str] = {}
        self._pending: list[Event] = []
        self._arrived = asyncio.Event()

    async def start(self) -> None:
        """Read the whole store and publish the first world."""
        since = self._clock()
        everything, version = await self._store.snapshot()
        world = World.of((obj for _, obj in everything), self._mesh).with_keys(self._keys)
        self._want(keys_at(world.config.security))
        await self._hub.publish(world, version, since)
        self._metrics.store_version.set(version)

    def keys(self, table: Mapping[str, str]) -> None:
        """From now on these are the fetched key sets: a change like one of the store's, but of no store version."""
        self._keys = table
        self._debounce.note(self._clock())
        self._arrived.set()

    async def run(self) -> None:
        """Follow the store for ever."""
        while True:
            try:
                await self._follow(self._hub.version)
            except Gone:
                log.info("the store's history since version %d is gone; reading everything again", self._hub.version)
                await self.start()

    async def _follow(self, since: int) -> None:
        self._pending.clear()
        reader = spawn(self._read(since), "keeper-read")
        try:
            while True:
                await self._until_due(reader)
                await self._flush()
        finally:
            await cancel(reader)

    async def _read(self, since: int) -> Gone:
        try:
            async with aclosing(self._store.watch(since)) as events:  # type: ignore[type-var]
                async for event in events:
                    self._pending.append(event)
                    self._debounce.note(self._clock())
                    self._arrived.set()
        except Gone as gone:
            return gone
        raise RuntimeError("the store's watch ended")

    async def _until_due(self, reader: asyncio.Task[Gone]) -> None:
        """Wait until the batch is to go out. Raises what ended the reader."""
        while True:
            self._arrived.clear()
            due = self._debounce.due
            wait = None if due is None else due - self._clock()
            if wait is not None and wait <= 0:
                return
            if reader.done():
                raise reader.result()
            arrived = spawn(self._arrived.wait(), "keeper-wait") if wait is None else None
            if arrived is not None:
                try:
                    await asyncio.wait({arrived, reader}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await cancel(arrived)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._arrived.wait()

    async def _flush(self) -> None:
        events, self._pending = self._pending, []
        since = self._debounce.first or self._clock()
        self._debounce.fired(self._clock())
        before, version = self._hub.world, self._hub.version
        assert before is not None
        world = before
        if events:
            version = events[-1].version
            self._metrics.store_version.set(version)
            world = world.apply(events)
        if world.config.security is not before.config.security:
            self._want(keys_at(world.config.security))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await self._tried()
        world = world.with_keys(self._keys)
        if events or world is not before:
            await self._hub.publish(world, version, since)
