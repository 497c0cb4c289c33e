"""Keeps the key sets of token issuers (room ``sources``): the tasks and the file around ``KeySets``. Loud.

In: what RequestAuthentications need (``want``). Out: ``changed`` with the whole table, each time that it differs; a report. Every
place has its own task, so a slow issuer delays nobody. Last good sets outlive a restart, so that tokens do not fail because an
issuer is down just then. Construct, ``load``, then ``run``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from control.files import FileProblem, write_private
from control.sources.fetching import FetchProblem
from control.sources.keysets import Kept, KeySets
from control.tasks import cancel, spawn
from control.world.security import KeysAt

__all__ = ["Jwks"]

log = logging.getLogger("mesh.control")
AT_ONCE = 32  # fetches
LONGEST_WAIT = 60.0  # seconds: a clock that is put forward is noticed

Fetch = Callable[[KeysAt], Awaitable[str]]


class Jwks:
    """``fetch`` raises ``FetchProblem``. ``counted`` is called after each fetch: did it succeed? ``wall``: seconds since 1970."""

    def __init__(
        self,
        file: Path,
        fetch: Fetch,
        changed: Callable[[Mapping[str, str]], None] = lambda table: None,
        counted: Callable[[bool], None] = lambda success: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.changed = changed
        self._file = file
        self._fetch = fetch
        self._counted = counted
        self._wall = wall
        self._sets = KeySets()
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._saving = asyncio.Lock()

    def load(self) -> Mapping[str, str]:
        """The table of an earlier run. A file that cannot be read is as none: everything is fetched anew."""
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=list[Kept])
        except FileNotFoundError:
            kept = []
        except (OSError, ValueError) as error:
            log.warning("%s: cannot be used (%s); key sets are fetched anew", self._file, type(error).__name__)
            kept = []
        self._sets.restore(kept, self._wall())
        return self._sets.table()

    def want(self, wanted: Iterable[tuple[KeysAt, str]]) -> None:
        """From now on exactly these key sets are needed. What is new is fetched at once."""
        self._sets.want(wanted, self._wall())
        self._note_tried()
        self._wake.set()

    async def tried(self) -> None:
        """Until every set that is wanted is there, or could not be fetched."""
        await self._tried.wait()

    def report(self) -> list[dict[str, Any]]:
        return self._sets.report()

    async def run(self) -> None:
        """Fetch what is due, for ever."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._wake.clear()
                for at in self._sets.take_due(self._wall()):
                    task = spawn(self._one(at), "jwks-fetch")
                    running.add(task)
                    task.add_done_callback(running.discard)
                due = self._sets.next_due()
                wait = LONGEST_WAIT if due is None else min(LONGEST_WAIT, max(0.0, due - self._wall()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
        finally:
            await cancel(*running)

    async def _one(self, at: KeysAt) -> None:
        try:
            async with self._slots:
                text = await self._fetch(at)
        except FetchProblem as problem:
            self._sets.failed(at, str(problem), self._wall())
            self._counted(False)
            log.warning("key set %s: %s", at.place, problem)
        except Exception as error:  # a bug: the set must be tried again all the same
            self._sets.failed(at, f"internal error: {type(error).__name__}", self._wall())
            self._counted(False)
            raise
        else:
            differs = self._sets.fetched(at, text, self._wall())
            self._counted(True)
            if differs:
                self.changed(self._sets.table())
            self._note_tried()
            await self._save()
        finally:
            self._note_tried()
            self._wake.set()

    def _note_tried(self) -> None:
        if self._sets.untried():
            self._tried.clear()
        else:
            self._tried.set()

    async def _save(self) -> None:
        async with self._saving:
            data = msgspec.json.encode(self._sets.kept())
            try:
                await asyncio.to_thread(write_private, self._file, data)
            except FileProblem as problem:
                log.warning("%s; after a restart tokens fail until their keys are fetched", problem)
