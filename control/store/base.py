"""What the stores share: reading, watching, and the order prepare - make durable - apply - tell.

Room: control/store, loud (asyncio). A subclass says how a batch of changes becomes durable.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from control.resources.kinds import Kind
from control.store.api import Event, NotFound, Obj, StoreError
from control.store.history import History
from control.store.table import Change, Draft, Key, Record, Table, thaw

__all__ = ["BaseStore"]

T = TypeVar("T")
Write = Callable[[Draft], Record]

CHUNK = 200  # objects decoded before others get a turn; a few milliseconds


class BaseStore:
    """Implements ``api.Store`` but for ``_write``. ``clock`` gives Unix seconds, ``new_uid`` unique text."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        max_history: int = 50_000,
    ) -> None:
        self._clock = clock
        self._new_uid = new_uid
        self._max_history = max_history
        self._closed = False
        self._news = asyncio.Event()
        self._reset(Table())

    def _reset(self, table: Table) -> None:
        self._table = table
        self._history = History(table.version, self._max_history)

    @property
    def version(self) -> int:
        """The version of the last write."""
        return self._table.version

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj:
        key = Key(kind, (namespace or "") if kind.namespaced else "", name)
        found = self._table.find(key)
        if found is None:
            raise NotFound(f"{key} not found")
        return thaw(found.body)

    async def list(self, kind: Kind, namespace: str | None = None) -> tuple[list[Obj], int]:
        version, rows = self._table.version, self._table.rows(kind, namespace)
        return await _thaw_all(rows), version

    async def snapshot(self) -> tuple[_Everything, int]:
        version = self._table.version
        rows = [(kind, record) for kind in self._table.kinds() for record in self._table.rows(kind, None)]
        objs = await _thaw_all([record for _, record in rows])
        return [(kind, obj) for (kind, _), obj in zip(rows, objs, strict=True)], version

    async def version_of(self, kind: Kind, namespace: str | None, name: str, given: int | None = None) -> int:
        if given is not None:
            return given
        return int((await self.get(kind, namespace, name))["metadata"]["resourceVersion"])

    async def create(self, kind: Kind, obj: Obj) -> Obj:
        uid = self._new_uid()
        return thaw((await self._write(lambda draft: draft.create(kind, obj, uid))).body)

    async def update(self, kind: Kind, obj: Obj, expected: int | None = None) -> Obj:
        return thaw((await self._write(lambda draft: draft.update(kind, obj, expected))).body)

    async def delete(self, kind: Kind, namespace: str | None, name: str, expected: int | None = None) -> Obj:
        return thaw((await self._write(lambda draft: draft.delete(kind, namespace, name, expected))).body)

    async def watch(self, since: int, kind: Kind | None = None, namespace: str | None = None) -> AsyncIterator[Event]:
        """Ends when the store is closed."""
        at = since
        while not self._closed:
            news = self._news  # before reading: a change between reading and waiting sets this very event
            changes = self._history.after(at)
            for change in changes:
                at = change.version
                if (kind is None or change.key.kind is kind) and (not namespace or change.key.namespace == namespace):
                    yield Event(change.type, change.key.kind, thaw(change.body), change.version)
            if not changes:
                await news.wait()

    async def _write(self, write: Write) -> Record:
        raise NotImplementedError

    def _apply(self, changes: _Changes) -> None:
        """After they are durable."""
        for change in changes:
            self._table.apply(change)
            self._history.add(change)
        if changes:
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _close(self) -> None:
        self._closed = True
        self._wake()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")


async def _thaw_all(records: _Records) -> _Objs:
    """Records never change, so others may run (and write) meanwhile: ten thousand objects would hold the loop for long."""
    objs: list[Obj] = []
    for begin in range(0, len(records), CHUNK):
        if begin:
            await asyncio.sleep(0)
        objs += [thaw(record.body) for record in records[begin : begin + CHUNK]]
    return objs


_Everything = list[tuple[Kind, Obj]]
_Records = list[Record]
_Objs = list[Obj]
_Changes = list[Change]
