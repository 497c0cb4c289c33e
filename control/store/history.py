"""The latest changes of a store, for watchers: bounded, so a slow watcher costs nothing but its own place.

Room: control/store; no I/O. Versions are consecutive, so a version is an index.
"""

from __future__ import annotations

from control.store.api import Gone
from control.store.table import Change

__all__ = ["History"]


class History:
    """Keeps at most ``max_changes`` changes and ``max_bytes`` of objects. ``floor`` is the version before the first kept one."""

    def __init__(self, floor: int, max_changes: int = 50_000, max_bytes: int = 64 << 20) -> None:
        self.floor = floor
        self._changes: list[Change] = []
        self._start = 0  # index of the first kept change; those before it are dead until the list is cut
        self._bytes = 0
        self._max_changes = max_changes
        self._max_bytes = max_bytes

    @property
    def last(self) -> int:
        return self.floor + len(self._changes) - self._start

    def add(self, change: Change) -> None:
        assert change.version == self.last + 1, "versions must be consecutive"
        self._changes.append(change)
        self._bytes += len(change.body)
        while len(self._changes) - self._start > self._max_changes or self._bytes > self._max_bytes:
            if len(self._changes) - self._start == 1:
                break  # one object larger than the limit is still told
            self._drop()
        if self._start > 1000 and self._start * 2 > len(self._changes):  # cut rarely: a cut moves the whole list
            del self._changes[: self._start]
            self._start = 0

    def _drop(self) -> None:
        self._bytes -= len(self._changes[self._start].body)
        self._changes[self._start] = self._changes[self._start]._replace(body=b"")
        self._start += 1
        self.floor += 1

    def after(self, version: int, most: int = 500) -> list[Change]:
        """Up to ``most`` changes after ``version``. Raises Gone when some are no longer kept, or ``version`` is not ours."""
        if version < self.floor:
            raise Gone(f"changes after version {version} are no longer kept (the oldest known is {self.floor}); list again")
        if version > self.last:
            raise Gone(f"version {version} is in the future (now: {self.last}); list again")
        begin = self._start + version - self.floor
        return self._changes[begin : begin + most]
