"""A store that lives as long as the process: for offline work (``-f FILES``) and for tests.

Room: control/store.
"""

from __future__ import annotations

from control.store.base import BaseStore, Write
from control.store.table import Draft, Record

__all__ = ["MemoryStore"]


class MemoryStore(BaseStore):
    """The same behaviour as ``SqliteStore`` without the disk."""

    async def open(self) -> None:
        """Nothing to do; there so that both stores are used alike."""

    async def close(self) -> None:
        """Ends the watches."""
        self._close()

    async def _write(self, write: Write) -> Record:
        self._check_open()
        draft = Draft(self._table, self._clock())
        record = write(draft)
        self._apply(draft.changes)
        return record
